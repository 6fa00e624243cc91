"""A folder with a published run on made-up results, and the settings to score the renders of others beside it."""

import json
from pathlib import Path

import pytest
import torch

from src import evaluate, score
from src.config import Config, load_config
from src.episodes.episodes import Episode
from src.experiments.publish import experiment_record
from src.experiments.result import REPORTS, write_result
from src.renders.episode_file import Rendered
from src.results.evaluation import read_evaluation
from src.results.tables import select_rows
from src.scenes.scene import Scene
from tests.helpers.fabricated import SIZE, change, write_results
from tests.helpers.reported import PINNED
from tests.helpers.repository import ROOT


def episodes(folder: Path) -> list[Episode]:
    """The made-up test episodes; their scenes have no overlap files, which `read_episodes` would check them by."""
    lines = map(json.loads, (folder / "data/scenes/episodes_test.jsonl").read_text().splitlines())
    return [
        Episode(
            line["episode"],
            line["scene"],
            tuple(line["contexts"]),
            tuple(line["targets"]),
            line["bin"],
            0.5,
            "depth",
            "",
            False,
            line["category"],
        )
        for line in lines
    ]


def as_published() -> Config:
    """As the made-up run was published."""
    return load_config(PINNED, root=ROOT)


def settings() -> Config:
    """The same at the resolution of the made-up scenes, which no network could work at."""
    config = as_published()
    config.dataset.resolution = list(SIZE)
    return config


def publish_run(folder: Path) -> None:
    """Evaluate, and publish as the stage report does, with renders that are sRGB and the masks of true visibility."""
    write_results(folder)
    for path in sorted((folder / "data/renders").glob("*.safetensors")):
        rendered = Rendered.read(path)
        scene = Scene.open(folder / f"data/scenes/scenes/{rendered.about['scene']}.safetensors")
        contexts, targets = (
            [scene.view(each, SIZE) for each in rendered.about[key]] for key in ("contexts", "targets")
        )
        seen = score.visible_pixels(contexts, targets, True, "strict")
        assert 0.3 < seen.double().mean() < 1
        shown = {name: rendered.tensors[name].clamp(min=0) for name in ("render", "render_aligned")}
        change(path, mask=seen.to(torch.uint8), **shown)
    config = as_published()
    evaluate.main(config)
    summary, rows, _ = read_evaluation("data/eval")
    record = experiment_record(config, summary) | {"curves": []}
    write_result(REPORTS, record, {}, {}, select_rows(rows, method="render"), [])


def score_here(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let src.score work in the folder, on its episodes."""
    patch.chdir(folder)
    patch.delenv("DVC_ROOT", raising=False)
    patch.setattr(score, "load_config", settings)
    patch.setattr(score, "read_episodes", lambda *_: episodes(folder))
    score.open_scene.cache_clear()
