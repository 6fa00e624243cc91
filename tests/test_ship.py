import shutil

import pytest
import torch
import yaml
from PIL import Image

from src import predict, ship
from src.inference.examples import EXAMPLE_FAMILIES, example_pair
from src.inference.trained_model import trained_model
from src.renders.gaussian_file import read_gaussians
from src.renders.ply import read_ply
from src.transfer import check_trained
from tests.helpers.repository import ROOT
from tests.helpers.trained import SIZE, inside, settings, train


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A trained folder whose model was shipped by the command, and its configuration."""
    folder = tmp_path_factory.mktemp("trained")
    config = train(folder, "model.cameras=posed", "model.backbone=none")
    with pytest.MonkeyPatch.context() as patch, inside(folder):
        patch.setattr(ship, "load_config", lambda: config)
        patch.setattr(ship, "check_trained", lambda: None)
        ship.main([])
    return folder, config


def test_the_shipped_scenes_are_what_the_model_makes_of_the_examples(shipped):
    folder, config = shipped
    names = {path.name for path in (folder / "data/bundled/splatt3r").iterdir()}
    scenes = {f"{family}.compressed.ply" for family in EXAMPLE_FAMILIES}
    assert names == scenes | {"record.json", "parameters.json", "trained.safetensors"}
    with inside(folder):
        images, cameras = example_pair("rooms", SIZE)
        wanted = trained_model(config).predict(images, cameras)[0].gaussians[0]
        found = read_gaussians("data/bundled/splatt3r/rooms.compressed.ply")
    seen = wanted.opacities > 1 / 255
    assert len(found) == seen.sum()
    spread = wanted.means[seen].std(0)
    assert ((found.means.mean(0) - wanted.means[seen].mean(0)).abs() < 0.01 * spread).all()


def test_two_photographs_are_predicted_from_a_clone_without_a_pipeline(shipped, tmp_path, monkeypatch, capsys):
    folder, config = shipped
    shutil.copytree(folder / "data/bundled", tmp_path / "data/bundled")
    images, _ = example_pair("objects", SIZE)
    for name, image in zip("ab", images):
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "c.json").write_text(
        '{"K": %s, "c2w": %s}' % tuple(each.tolist() for each in example_pair("objects", SIZE)[1])
    )
    words = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--cameras", str(tmp_path / "c.json"), "-o"]
    monkeypatch.setattr(predict, "load_config", lambda: config)
    with inside(folder):
        predict.main([*words, str(tmp_path / "own.ply")])
        assert "comes with this repository" not in capsys.readouterr().out
        predict.main([*words, str(tmp_path / "asked.ply"), "--shipped"])
        assert "comes with this repository" in capsys.readouterr().out
    monkeypatch.setattr(predict, "load_config", lambda: settings("datasets.procedural.resolution=[32,32]"))
    with inside(tmp_path):
        predict.main([*words, "scene.ply"])
    assert "as there is no data/model here" in capsys.readouterr().out
    assert len(read_ply(tmp_path / "scene.ply")) == 2 * SIZE[0] * SIZE[1]
    wanted = (tmp_path / "own.ply").read_bytes()
    assert all((tmp_path / name).read_bytes() == wanted for name in ("asked.ply", "scene.ply"))


def test_a_refused_model_leaves_the_shipped_one_as_it_was(shipped, monkeypatch):
    folder, config = shipped
    before = {path: path.read_bytes() for path in (folder / "data/bundled/splatt3r").iterdir()}
    monkeypatch.setattr(ship, "load_config", lambda: settings("model.backbone=rgb"))
    with inside(folder), pytest.raises(SystemExit, match="run dvc repro"):
        ship.main([])
    monkeypatch.setattr(ship, "check_trained", lambda: None)
    with inside(folder), pytest.raises(SystemExit, match="dvc repro weights"):
        ship.main([])
    assert {path: path.read_bytes() for path in (folder / "data/bundled/splatt3r").iterdir()} == before


def test_only_what_dvc_knows_as_trained_counts(tmp_path):
    with inside(tmp_path), pytest.raises(ValueError, match="run dvc repro train"):
        check_trained()


def test_only_the_training_depends_on_the_shipped_model_and_on_its_head_alone():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = {
        stage: [name for name in about["deps"] + about["outs"] if "bundled" in str(name)]
        for stage, about in stages.items()
    }
    head = [f"data/bundled/splatt3r/{name}" for name in ("parameters.json", "trained.safetensors")]
    found = {stage: names for stage, names in named.items() if names}
    assert found == {"weights": ["data/bundled/geometry.safetensors"], "train": head}
