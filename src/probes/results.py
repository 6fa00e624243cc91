"""data/probe: what the probes found, written and read here."""

from pathlib import Path
from typing import Any

from src.reproducible.files import fresh_folder, read_json, write_json
from src.results.tables import Row, read_rows, write_rows

PROBE_SUMMARY, PROBE_SCORES = "summary.json", "scores.csv"


def write_probe(folder: str | Path, summary: dict[str, object], rows: list[Row]) -> None:
    """A fresh folder. summary: tables with intervals, what is absent and why; rows: scene, probe, inputs, value."""
    with fresh_folder(folder) as fresh:
        if rows:
            write_rows(fresh / PROBE_SCORES, rows)
        write_json(fresh / PROBE_SUMMARY, summary)


def read_probe(folder: str | Path) -> tuple[dict[str, Any], list[Row]]:
    """The summary, and the rows of scores.csv."""
    path = Path(folder) / PROBE_SCORES
    return read_json(Path(folder) / PROBE_SUMMARY), read_rows(path.read_text("utf8")) if path.exists() else []
