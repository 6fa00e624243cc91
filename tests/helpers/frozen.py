"""A folder in which the frozen geometry network has seen a few procedural scenes; nothing is trained in it."""

import shutil
from pathlib import Path

import pytest

from src import download, extract, prepare, weights
from src.config import Config, load_config
from tests.helpers.miniatures import computing_as_before
from tests.helpers.repository import ROOT

MINIATURE = [
    "eval.lpips=none",
    "datasets.procedural.resolution=[64,64]",
    "datasets.procedural.source.scenes.train=1",
    "datasets.procedural.source.scenes.val=1",
    "datasets.procedural.source.scenes.test=1",
    "datasets.procedural.source.views=6",
    "datasets.procedural.source.samples=1",
    "datasets.procedural.episodes.per_bin=1",
    "probe.pairs=4",
    "threads=1",
]


def settings(*overrides: str) -> Config:
    return load_config([*MINIATURE, *overrides], ROOT)


def before_the_backbone(folder: Path, *overrides: str) -> Path:
    """All stages before `extract_backbone` have run in `folder`."""
    shutil.copytree(ROOT / "data/bundled", folder / "data/bundled")
    with pytest.MonkeyPatch.context() as patch, computing_as_before():
        patch.chdir(folder)
        download.main(settings(*overrides))
        prepare.main(settings(*overrides))
        weights.main(settings("model.backbone=none", *overrides))
        extract.main(settings(*overrides), "geometry")
    return folder


def extract_backbone(folder: Path, *overrides: str) -> None:
    """The backbone of the overrides has looked at the scenes too."""
    with pytest.MonkeyPatch.context() as patch, computing_as_before():
        patch.chdir(folder)
        weights.main(settings(*overrides))
        extract.main(settings(*overrides), "backbone")
