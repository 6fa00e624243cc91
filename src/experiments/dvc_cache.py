"""Large outputs of other revisions and experiments, where this machine's DVC cache has them; nothing is fetched."""

import json
from pathlib import Path

import yaml
from dvc.repo import Repo

from src.experiments.result import ExperimentResult, git_output, protocol_differences


def cache_of(root: str | Path) -> Path | None:
    """Folder of DVC's cache; None outside a DVC repository."""
    if not (Path(root) / ".dvc").is_dir():
        return None
    with Repo(str(root)) as repo:
        return Path(repo.cache.local.path)


def cached_files(root: str | Path, result: ExperimentResult, folder: str) -> dict[str, Path]:
    """Files of one output folder of a result's revision by their path in it, those that the cache holds."""
    text = git_output(root, "show", f"{result.revision}:dvc.lock") if result.revision else None
    cache = cache_of(root) if text else None
    outs = [out for stage in yaml.safe_load(text)["stages"].values() for out in stage.get("outs", [])] if cache else []
    digest = next((out["md5"] for out in outs if out["path"] == folder), None)
    listing = digest and cached_path(cache, digest)
    if not listing or not listing.exists():
        return {}
    paths = {entry["relpath"]: cached_path(cache, entry["md5"]) for entry in json.loads(listing.read_text("utf8"))}
    return {name: path for name, path in paths.items() if path.exists()}


def second_experiment(
    root: str | Path, results: list[ExperimentResult], folder: str
) -> tuple[ExperimentResult, dict[str, Path]] | None:
    """The result to show beside the first, with its cached files of a folder: a MASt3R-only one if there is such, else
    the first that may be compared; None where the cache holds files of none."""
    comparable = [each for each in results[1:] if not protocol_differences(results[0], each)]
    for each in sorted(comparable, key=lambda each: not each.is_baseline):
        if files := cached_files(root, each, folder):
            return each, files
    return None


def cached_path(cache: Path, digest: str) -> Path:
    return cache / digest[:2] / digest[2:]
