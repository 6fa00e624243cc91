"""A folder in which a model was trained: real stages on a wall, except that the training is a seeded disturbance."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch

from src import extract, weights
from src.config import Config, load_config
from src.episodes.episodes import Episode
from src.reproducible.files import read_json
from src.reproducible.seeds import fix_computation, torch_generator
from src.scenes.features import Features
from src.scenes.scene import SceneRecord, write_index, write_scene
from src.splatt3r import build
from src.splatt3r.samples import Samples
from tests.helpers.fabricated import frames
from tests.helpers.miniatures import computing_as_before
from tests.helpers.repository import ROOT

SIZE = (64, 48)
SCENES = {"pair": 2, "many": 4}  # frames; a pair is extracted in one batch, as predict computes it


@contextmanager
def inside(folder: Path):
    """In that folder, computing as the stages do."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with computing_as_before():
            fix_computation(1)
            yield
    finally:
        os.chdir(before)


def settings(*overrides: str) -> Config:
    small = [f"datasets.procedural.resolution=[{SIZE[0]},{SIZE[1]}]", "threads=1", "eval.lpips=none"]
    small += ["model.cameras=unposed", "loss.lpips_loss_weight=0", "geometries.tiny.initial_head=points"]
    return load_config([*small, *overrides], ROOT)


def train(folder: Path, *overrides: str) -> Config:
    """Write params.yaml and everything under data/ that a trained experiment has, up to data/model."""
    config, records = settings(*overrides), []
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "data/bundled").mkdir(parents=True)
    shutil.copy(ROOT / "data/bundled/geometry.safetensors", folder / "data/bundled")
    for number, (name, count) in enumerate(SCENES.items()):
        about = {"id": name, "category": "objects", "units": "metre"}
        digest = write_scene(
            folder / f"data/scenes/scenes/{name}.safetensors", frames(number, count, SIZE), about, lossless=True
        )
        records.append(SceneRecord(name, f"scenes/{name}.safetensors", digest, count, "test", "metre", 1.0, "objects"))
    write_index(folder / "data/scenes", records)
    with inside(folder):
        weights.main(config)
        for kind in ("geometry", "backbone"):
            extract.main(config, kind)
        about = {kind: read_json(f"data/features/{kind}/record.json") for kind in ("geometry", "backbone")}
        network = build.build_model(config, "data/weights/geometry", about["backbone"]["channels"])
        build.start_heads(network, config, "data/weights/geometry")
        generator = torch_generator(0, "training")
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
        build.save_trained(
            network,
            "data/model",
            about | {"feature_channels": about["backbone"]["channels"], "train_points": False, "steps": 7},
        )
    return config


def samples(folder: Path, contexts: tuple[str, str], targets: tuple[str, ...], scene: str) -> tuple[Samples, Episode]:
    """One episode as the stages `train` and `render` read it."""
    episode = Episode("e", scene, contexts, targets, "wide", 0.6, "depth", "", False, "objects")
    features = (
        Features(folder / f"data/features/{kind}", tensor)
        for kind, tensor in (("geometry", "tokens"), ("backbone", "features"))
    )
    return Samples(folder / "data/scenes", *features, SIZE, lambda _: episode, 1), episode
