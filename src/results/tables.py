"""Tables of scores: one row per scored picture or cloud, as CSV with six decimals; an empty cell is an absent score."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.episodes.bins import OVERLAP_BINS
from src.pretrained.choices import LPIPS_TRUNKS
from src.reproducible.files import write_whole
from src.results.statistics import means_by_scene

NAMES = (
    "episode",
    "scene",
    "category",
    "bin",
    "target",
    "method",
    "alignment",
    "probe",
    "inputs",
)  # columns that hold words
METHODS = ("render", "copy_nearest", "points", "points_splat")
BASELINES = METHODS[1:]  # need no training
ALIGNMENTS = ("raw", "aligned")
BINS = tuple(OVERLAP_BINS)

METRIC_TITLES = {
    "psnr_masked": "PSNR, masked (dB)",
    "psnr": "PSNR, whole (dB)",
    "ssim_masked": "SSIM, masked",
    "ssim": "SSIM, whole",
    "lpips_masked": "LPIPS, masked",
    "lpips": "LPIPS, whole",
    **{f"lpips_{trunk}_masked": f"LPIPS by {trunk}, masked" for trunk in LPIPS_TRUNKS},  # beside the headline's
    "depth_abs_rel": "relative depth error",
}

HEADLINE = ("psnr_masked", "ssim_masked", "lpips_masked")  # aligned; verdicts are given for these, and no others

Row = dict[str, str | float | None]


def write_rows(path: str | Path, rows: list[Row], columns: Sequence[str] = ()) -> None:
    """Write rows atomically; every row has the columns, without a word those of the first row.

    raises ValueError when a number is not finite
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: cell(name, value) for name, value in row.items()})
    write_whole(path, text.getvalue().encode())


def cell(name: str, value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if not math.isfinite(value):
        raise ValueError(f"{name} came out as {value}; a score that cannot be computed must be absent.")
    return str(value) if isinstance(value, int) else f"{value:.6f}"


def read_rows(text: str) -> list[Row]:
    """Rows of a table that write_rows wrote."""
    return [
        {name: value if name in NAMES else float(value) if value else None for name, value in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


def metrics_of(rows: list[Row]) -> list[str]:
    """Names of the columns that hold numbers."""
    return [name for name in (rows[0] if rows else ()) if name not in NAMES]


def select_rows(rows: list[Row], **wanted: str) -> list[Row]:
    """Rows whose columns have the wanted words, e.g. select(rows, method="render", alignment="aligned")."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def present_scores(rows: list[Row], metric: str) -> list[float]:
    return [float(value) for row in rows if (value := row.get(metric)) is not None]


def column(rows: list[Row], metric: str) -> tuple[list[float], list[str]]:
    """The present scores of one metric, and their scenes."""
    return present_scores(rows, metric), [str(row["scene"]) for row in rows if row.get(metric) is not None]


def mean_and_spread(values: np.ndarray | list[float]) -> dict[str, float | int]:
    """mean, std (of a sample, n - 1; absent for one value) and n."""
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        raise ValueError("The mean of no values was asked for; leave the metric out instead.")
    return {"mean": float(values.mean()), "n": len(values)} | (
        {"std": float(values.std(ddof=1))} if len(values) > 1 else {}
    )


def summarise(rows: list[Row]) -> dict[str, dict[str, float | int]]:
    """mean, std and n of every metric that some row has."""
    return {metric: mean_and_spread(values) for metric in metrics_of(rows) if (values := present_scores(rows, metric))}


def summarise_scenes(rows: list[Row]) -> dict[str, dict[str, float | int]]:
    """mean and std over the means of scenes, which weigh the same, n of the rows, and the number of scenes, of every
    metric that some row has."""
    found = {}
    for metric in metrics_of(rows):
        values, scenes = column(rows, metric)
        if values:
            found[metric] = mean_and_spread(means_by_scene(values, scenes)) | {
                "n": len(values),
                "scenes": len(set(scenes)),
            }
    return found


def scene_weighted(rows: list[Row], metric: str) -> float | None:
    """Mean over scenes of the means of scenes; None without scores."""
    values, scenes = column(rows, metric)
    return float(means_by_scene(values, scenes).mean()) if values else None


def images(rows: list[Row]) -> int:
    """How many different images are targets; an image is rendered once for every episode that holds it out."""
    return len({(row["scene"], row["target"]) for row in rows})


def groups(rows: list[Row], name: str) -> list[str]:
    """Distinct words of a column: overlap bins from close to wide, everything else in alphabetical order."""
    found = sorted({str(row[name]) for row in rows})
    return sorted(found, key=bin_place) if name == "bin" else found


def bin_place(word: str) -> int:
    """Where an overlap bin stands, also one with the kind of its overlap behind its name; others stand last."""
    places = [number for number, bin in enumerate(BINS) if word == bin or word.startswith(f"{bin}_")]
    return places[0] if places else len(BINS)
