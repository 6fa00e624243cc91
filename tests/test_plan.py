"""What a run is said to take, against what it takes."""

import shutil
from types import SimpleNamespace

import pytest

from src import plan as command
from src.config import load_config
from src.mast3r.network import MAST3R
from src.plan import operations_of, plan
from tests.helpers.frozen import before_the_backbone, extract_backbone, settings
from tests.helpers.repository import ROOT

OVERRIDES = ("model.backbone=dinov2",)


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_images_and_features_are_foretold_before_and_counted_after(tmp_path, monkeypatch):
    config = settings(*OVERRIDES)
    shutil.copytree(ROOT / "data/bundled", tmp_path / "data/bundled")
    monkeypatch.chdir(tmp_path)
    before = plan(config)
    shutil.rmtree(tmp_path / "data")
    before_the_backbone(tmp_path, *OVERRIDES)
    extract_backbone(tmp_path, *OVERRIDES)
    after = plan(config)
    assert before.images == after.images == {"train": 12, "val": 12, "test": 12}
    assert not before.counted and after.counted and before.disk["data/scenes"] == after.disk["data/scenes"]
    for kind in ("geometry", "backbone"):
        folder = tmp_path / "data/features" / kind
        assert after.disk[f"data/features/{kind}"] == pytest.approx(size(folder), rel=0.05)
    assert 0.5 < size(tmp_path / "data/scenes/scenes") / after.disk["data/scenes"] < 2  # a rule of thumb
    assert 0 < after.episodes <= before.episodes
    more = plan(settings(*OVERRIDES, "datasets.procedural.source.scenes.train=3"))  # than data/scenes has
    assert more.images["train"] == 36 and not more.counted


def test_operations_are_those_of_the_formula(monkeypatch):
    """A ViT block: four projections and a twice fourfold wide MLP, 24 n d^2, and attention, 4 n^2 d; ViT-L of 16-pixel
    patches has 24 blocks of 1024."""
    monkeypatch.chdir(ROOT)
    config = load_config(["model.geometry=mast3r", "model.backbone=none", "datasets.procedural.resolution=[224,224]"])
    none = SimpleNamespace(channels=0, patch_size=16, grid=lambda images: (14, 14))
    import torch

    with torch.device("meta"):
        found = operations_of(config, MAST3R, none)
        config.model.cameras = "unposed"
        once = operations_of(config, MAST3R, none)
    n, d = 14 * 14, 1024
    assert found["geometry, an image"] == 24 * (24 * n * d**2 + 4 * n**2 * d) + 2 * n * d * 3 * 16**2
    assert found["backbone, an image"] == 0
    assert found["geometry, a pair"] == 2 * once["geometry, a pair"] > 0


def test_a_dataset_that_nobody_has_counted_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="holds no scenes of chunks.*run dvc repro prepare"):
        plan(load_config(["data.dataset=chunks", "datasets.chunks.source.root=/there"], ROOT))


def test_a_disk_that_is_too_small_ends_with_one_sentence(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "data/bundled", tmp_path / "data/bundled")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "copies", lambda: 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    words = ["datasets.procedural.source.scenes.train=20000"]
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    assert stop.value.code.startswith("error: The disk has 1.0 GB free, and the run will write ")
    assert "images      480,336" in capsys.readouterr().out
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    command.main(words)
    assert "as DVC's cache keeps a copy of each" in capsys.readouterr().out
