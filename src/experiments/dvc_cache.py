"""Large outputs of other revisions and experiments, where this machine's DVC cache has them; nothing is fetched."""

from pathlib import Path

from src.experiments.result import ExperimentResult, protocol_differences

OFFLINE = {"core": {"remote": ""}}  # without a default remote DVC looks into the cache alone


def cached_files(root: str | Path, revision: str | None, *folders: str) -> dict[str, Path]:
    """Files of output folders of a revision, those that the cache holds, by their path in the repository; none where the
    revision is None, the work tree."""
    if revision is None:
        return {}
    from dvc.api import DVCFileSystem  # here, as it takes seconds
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    files, found = DVCFileSystem(str(root), rev=revision, config=OFFLINE), {}
    for folder in folders:
        try:
            found |= files.find(folder, detail=True)
        except (DvcException, DataIndexDirError):  # no DVC repository, no such revision; a listing that the cache lacks
            continue
    cache = files.repo.cache.local if found else None
    paths = {name: Path(cache.oid_to_path(about["md5"])) for name, about in found.items() if "md5" in about}
    return {name.removeprefix("/"): path for name, path in paths.items() if path.exists()}


def second_experiment(
    root: str | Path, results: list[ExperimentResult], folder: str
) -> tuple[ExperimentResult, dict[str, Path]] | None:
    """The result to show beside the first, with its cached files of a folder: a MASt3R-only one if there is such, else
    the first that may be compared; None where the cache holds files of none."""
    comparable = [each for each in results[1:] if not protocol_differences(results[0], each)]
    for each in sorted(comparable, key=lambda each: not each.is_mast3r_only):
        if files := cached_files(root, each.revision, folder):
            return each, {Path(name).relative_to(folder).as_posix(): path for name, path in files.items()}
    return None
