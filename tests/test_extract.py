import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from src import extract
from src.backbones import build_backbone
from src.config import load_config
from src.mast3r.network import Mast3rConfig
from src.mast3r.weight_file import write_geometry
from src.reproducible.files import read_json, write_json
from src.scenes.features import IMAGES_AT_A_TIME, Features
from src.scenes.scene import Frame, Scene, SceneError, SceneRecord, write_index, write_scene
from tests.helpers.networks import GEOMETRY, drawn_geometry, write_drawn_geometry
from tests.helpers.repository import ROOT

SIZE = (48, 32)
FRAMES = {"a": 3, "b": IMAGES_AT_A_TIME + 2}  # the second scene needs two batches


@pytest.fixture()
def dataset(tmp_path, monkeypatch) -> Path:
    """Two scenes of noise and a geometry network of random weights, as the stages before leave them."""
    rng = np.random.default_rng(0)
    records = []
    for name, count in FRAMES.items():
        frames = [
            Frame(
                f"{i:03d}",
                rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8),
                None,
                0.001,
                None,
                None,
                np.array([[40.0, 0, SIZE[0] / 2], [0, 40, SIZE[1] / 2], [0, 0, 1]]),
                np.eye(4),
                i,
            )
            for i in range(count)
        ]
        digest = write_scene(
            tmp_path / f"data/scenes/scenes/{name}.safetensors",
            frames,
            {"id": name, "category": "objects", "units": "metre"},
            lossless=True,
        )
        records.append(SceneRecord(name, f"scenes/{name}.safetensors", digest, count, "train", "metre", 0.0, "objects"))
    write_index(tmp_path / "data/scenes", records)
    write_drawn_geometry(tmp_path / "data/weights/geometry/model.safetensors")
    about = {"licence": "Apache-2.0", "source": "test", "sha256": "ab" * 32}
    write_json(
        tmp_path / "data/weights/geometry/record.json",
        about | {"name": "tiny", "label": "tiny MASt3R", "weights": "bundled"},
    )
    write_json(
        tmp_path / "data/weights/backbone/record.json",
        about | {"name": "rgb", "label": "RGB pixels", "weights": "none", "sha256": None},
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*overrides: str):
    return load_config(["datasets.procedural.resolution=[48,32]", "threads=1", "model.backbone=rgb", *overrides], ROOT)


def images(folder: Path, scene: str) -> torch.Tensor:
    """All photographs of a scene (N, 3, H, W) in [0, 1], from the stored frames."""
    opened = Scene.open(folder / f"data/scenes/scenes/{scene}.safetensors")
    return torch.stack([torch.tensor(opened.frame(i).image).permute(2, 0, 1) / 255 for i in range(len(opened))])


def stored(path: Path) -> tuple[dict, dict]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def test_geometry_tokens_are_the_networks_own(dataset):
    extract.main(config(), "geometry")
    network = drawn_geometry()
    for scene, count in FRAMES.items():
        tensors, metadata = stored(dataset / f"data/features/geometry/{scene}.safetensors")
        assert list(tensors) == ["tokens"] and len(metadata) == 1
        assert tensors["tokens"].shape == (count, 6, 16) and tensors["tokens"].dtype == torch.float16
        with torch.no_grad():
            one_by_one = torch.cat([network.encode(2 * image[None] - 1) for image in images(dataset, scene)])
        torch.testing.assert_close(tensors["tokens"].float(), one_by_one, rtol=2**-10, atol=1e-4)
    record = read_json(dataset / "data/features/geometry/record.json")
    assert record == {
        "name": "tiny",
        "label": "tiny MASt3R",
        "weights": "bundled",
        "licence": "Apache-2.0",
        "source": "test",
        "sha256": "ab" * 32,
        "channels": 16,
        "patch_size": 16,
        "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def test_backbone_maps_are_stored_frame_by_frame(dataset):
    extract.main(config(), "backbone")
    features = Features(dataset / "data/features/backbone", "features")
    assert features.channels == 590 and features.record["label"] == "RGB pixels and coordinates"
    scene = Scene.open(dataset / "data/scenes/scenes/b.safetensors")
    maps = features.read(scene, ("017", "002"))
    assert maps.shape == (2, 590, 3, 4)
    expected = build_backbone(config().model, 0)(images(dataset, "b")[[17, 2]])
    torch.testing.assert_close(maps, expected, rtol=2**-10, atol=1e-4)


def test_the_aligned_grid_is_the_geometry_networks(dataset):
    extract.main(config("model.feature_grid=aligned"), "backbone")
    tensors, _ = stored(dataset / "data/features/backbone/a.safetensors")
    assert tensors["features"].shape == (3, 590, 2, 3)


def test_random_dinov2_is_drawn_from_the_recorded_seed(dataset):
    write_json(dataset / "data/weights/backbone/record.json", {"name": "dinov2_vits14", "weights": "random", "seed": 5})
    chosen = config("model.backbone=dinov2")
    extract.main(chosen, "backbone")
    tensors, _ = stored(dataset / "data/features/backbone/a.safetensors")
    expected = build_backbone(chosen.model, 5)(images(dataset, "a"))
    assert (expected - build_backbone(chosen.model, 6)(images(dataset, "a"))).abs().max() > 0.5
    torch.testing.assert_close(tensors["features"].float(), expected, rtol=2**-10, atol=2e-3)
    record = read_json(dataset / "data/features/backbone/record.json")
    assert record["num_parameters"] > 20e6 and record["label"] == "DINOv2 ViT-S/14 (random weights, untrained)"


def test_the_label_names_the_blocks_that_were_read(dataset):
    write_json(dataset / "data/weights/backbone/record.json", {"name": "dinov2_vits14", "weights": "random", "seed": 5})
    extract.main(config("model.backbone=dinov2", "model.backbone_layers=[2,3]"), "backbone")
    record = read_json(dataset / "data/features/backbone/record.json")
    assert record["label"] == "DINOv2 ViT-S/14, block 2+3 (random weights, untrained)" and record["channels"] == 768
    write_json(dataset / "data/weights/backbone/record.json", {"name": "dinov2_vitb14", "weights": "random", "seed": 5})
    with pytest.raises(ValueError, match="holds weights of dinov2_vitb14"):
        extract.main(config("model.backbone=dinov2"), "backbone")


def test_without_a_backbone_there_is_a_record_and_nothing_else(dataset):
    (dataset / "data/features/backbone").mkdir(parents=True)
    (dataset / "data/features/backbone/stale.safetensors").touch()
    write_json(dataset / "data/weights/backbone/record.json", {"name": "none", "weights": "none"})
    extract.main(config("model.backbone=none"), "backbone")
    assert [path.name for path in (dataset / "data/features/backbone").iterdir()] == ["record.json"]
    assert Features(dataset / "data/features/backbone", "features").channels == 0


def test_two_runs_write_the_same_bytes(dataset):
    def run() -> dict:
        extract.main(config(), "geometry")
        extract.main(config(), "backbone")
        return {path: path.read_bytes() for path in sorted((dataset / "data/features").rglob("*.*"))}

    first = run()
    assert len(first) == 6 and run() == first


def test_a_changed_scene_is_refused(dataset):
    path = dataset / "data/scenes/scenes/a.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SceneError, match="SHA-256"):
        extract.main(config(), "geometry")


def test_features_too_large_for_half_precision_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="not finite"):
        extract.write_features(
            dataset / "data/scenes",
            tmp_path / "out",
            "features",
            lambda images, depth, K: images * 1e6,
            SIZE,
            torch.device("cpu"),
        )


def test_weights_of_another_network_are_refused_before_old_features_go(dataset):
    extract.main(config(), "geometry")
    path = dataset / "data/weights/geometry/model.safetensors"
    tensors, metadata = stored(path)
    sizes = json.loads(metadata["geometry"])
    write_geometry(path, Mast3rConfig(**sizes | {"enc_depth": 2}), tensors)
    with pytest.raises(ValueError, match="enc_blocks.1"):
        extract.main(config(), "geometry")
    assert (dataset / "data/features/geometry/b.safetensors").exists()


def test_a_splatt3r_files_gaussian_heads_do_not_matter(dataset):
    extract.main(config(), "geometry")
    path = dataset / "data/weights/geometry/model.safetensors"
    features = dataset / "data/features/geometry/a.safetensors"
    tensors, _ = stored(path)
    write_geometry(path, GEOMETRY, tensors | {"downstream_head1.gaussian_dpt.dpt.head.0.weight": torch.zeros(2, 2)})
    before = features.read_bytes()
    extract.main(config(), "geometry")
    assert features.read_bytes() == before


def test_the_command_wants_to_know_which_features(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["extract", "model.backbone=none"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "src/extract.py"), run_name="__main__")
    assert stop.value.code == 2 and "choose from 'geometry', 'backbone'" in capsys.readouterr().err
