"""The stage report on made-up results."""

import shutil
from pathlib import Path

import pytest

from src import evaluate, report
from src.config import load_config
from tests.helpers.fabricated import write_results
from tests.helpers.repository import ROOT

PINNED = [
    "opt.steps=300",
    "model.fusion_mode=concat",
    "model.fusion_site=head",
    "eval.lpips=none",
    "geometries.tiny.max_scale=0.04",
    "datasets.procedural.episodes.alpha=0.3",
]


def run(folder: Path, *overrides: str, **results) -> None:
    """The stages evaluate and report on fabricated results."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    write_results(folder, **results)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        config = load_config([*PINNED, *overrides], root=ROOT)
        evaluate.main(config)
        report.main(config)
