"""data/eval: what the stage evaluate measured, written and read here."""

from pathlib import Path
from typing import Any

from src.reproducible.files import fresh_folder, read_json, write_json
from src.results.tables import Row, read_rows, write_rows

SUMMARY_FILE, SCORES_FILE, CLOUDS_FILE = "summary.json", "records.csv", "cloud.csv"


def write_evaluation(folder: str | Path, summary: dict[str, object], rows: list[Row], clouds: list[Row]) -> None:
    """A fresh folder of summary.json (means, spread, what is absent and why), records.csv (a row per episode, target,
    method and alignment) and, where there are points to compare, cloud.csv (a row per episode and alignment)."""
    with fresh_folder(folder) as fresh:
        write_rows(fresh / SCORES_FILE, rows)
        if clouds:
            write_rows(fresh / CLOUDS_FILE, clouds)
        write_json(fresh / SUMMARY_FILE, summary)


def read_evaluation(folder: str | Path) -> tuple[dict[str, Any], list[Row], list[Row]]:
    """The summary, the rows of records.csv, and those of cloud.csv, none where it is absent."""
    folder = Path(folder)
    scores, clouds = folder / SCORES_FILE, folder / CLOUDS_FILE
    cloud_rows = read_rows(clouds.read_text("utf8")) if clouds.exists() else []
    return read_json(folder / SUMMARY_FILE), read_rows(scores.read_text("utf8")), cloud_rows
