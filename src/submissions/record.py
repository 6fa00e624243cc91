"""What reports/ says of a method that this project does not run: the files of an experiment, with what was declared."""

import hashlib
import re
from pathlib import Path

from src.experiments.publish import rounded
from src.experiments.result import METRIC, REPORTS, SCORED, ExperimentResult, read_folder, write_result
from src.reproducible.files import fresh_folder, read_json
from src.reproducible.hashes import params_hash
from src.reproducible.versions import versions
from src.results.tables import METRIC_TITLES, Row, images, select_rows, summarise_scenes
from src.submissions.layout import Method


def own_seed(method: Method) -> int:
    """A number in the place of the seed, which is unknown, that no experiment here has: so no part of what seeds change
    is taken to be common."""
    return int(hashlib.sha256(method.method.encode()).hexdigest()[:12], 16)


def outside_record(method: Method, scoring: dict[str, str], counts: dict[str, int]) -> dict:
    """experiment.json of a scored method; scoring: of the protocol, what it shares with experiments of this project."""
    words = {"label": method.method, "weights": "declared", "licence": method.licence, "source": "its authors"}
    weights = {"name": "outside", "sha256": None} | words
    names = params_hash("outside", method.method)
    return {
        "label": method.method,
        "detail": f"scored from its pictures; weights' licence as declared: {method.licence}; hardware as declared: "
        f"{method.hardware}",
        "declared": vars(method),
        "backbone": weights,
        "geometry": weights,
        "protocol": scoring | {"seed": own_seed(method)},
        "counts": counts,
        "versions": versions(),
        "curves": [],
        "recipe": names,
        "arm": names,
        "params": names,
        "benchmark_params": None,
    }


def folder_of(method: Method) -> Path:
    """reports/scored/<name>.

    raises ValueError when the name has no letter or digit, or another method has that folder
    """
    name = re.sub(r"[^a-z0-9]+", "-", method.method.lower()).strip("-")
    if not name:
        raise ValueError(f"The method's name {method.method!r} has no letter or digit to name a folder; give it one.")
    folder = REPORTS / SCORED / name
    if (about := folder / "experiment.json").exists():
        taken = read_json(about)["label"]
        if taken != method.method:
            raise ValueError(f"{folder} holds the scores of {taken!r}; name the method otherwise, or take them away.")
    return folder


def publish_scores(method: Method, scoring: dict[str, str], rows: list[Row]) -> ExperimentResult:
    """Write reports/scored/<name>, in the place of what the same method had there, and read it back."""
    folder, aligned = folder_of(method), select_rows(rows, alignment="aligned")
    means = summarise_scenes(aligned)
    metrics = {name: rounded(means[name]["mean"]) for name in METRIC_TITLES if name in means}
    counts = {
        "episodes": len({row["episode"] for row in aligned}),
        "scenes": len({row["scene"] for row in aligned}),
        "targets": len(aligned),
        "images": images(aligned),
    }
    spread = {f"{METRIC}_std": rounded(means[METRIC]["std"])} if "std" in means.get(METRIC, {}) else {}
    with fresh_folder(folder) as fresh:
        write_result(fresh, outside_record(method, scoring, counts), metrics, spread | counts, rows, [])
    result = read_folder(folder, folder.name)
    assert result is not None
    return result
