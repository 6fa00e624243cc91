"""Procedural scenes for pretraining."""

import pytest
from omegaconf import OmegaConf

from src.pretraining.pairs import PosedImages, Stream

STREAM = OmegaConf.create(
    {
        "families": ["objects", "rooms"],
        "views": 4,
        "resolution": [32, 16],
        "samples": 1,
        "bounces": 2,
        "min_overlap": 0.1,
    }
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[PosedImages]:
    stream = Stream(STREAM, 5, 1, tmp_path_factory.mktemp("scenes"))
    stream.grow(4)
    stream.close()
    return stream.scenes
