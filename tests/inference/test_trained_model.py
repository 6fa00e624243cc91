import dataclasses
import json
import shutil

import pytest
import torch

from src.inference import trained_model as models
from src.inference.trained_model import SHIPPED, trained_model
from src.scenes.scene import Scene
from tests.helpers.trained import SIZE, inside, settings, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained folder of the posed track without a backbone, its configuration, its pair and its cameras."""
    folder = tmp_path_factory.mktemp("trained")
    config = train(folder, "model.cameras=posed", "model.backbone=none")
    scene = Scene.open(folder / "data/scenes/scenes/pair.safetensors")
    images = torch.stack([scene.view(name, SIZE).image for name in scene.names])
    with inside(folder):
        SHIPPED.mkdir()
        models.ship_model(config, SHIPPED)
    return folder, config, images, (torch.from_numpy(scene.K[:2]), torch.from_numpy(scene.c2w[:2]))


@pytest.fixture
def clone(trained, tmp_path):
    """What Git has of the trained folder."""
    shutil.copytree(trained[0] / "data/bundled", tmp_path / "data/bundled")
    return tmp_path


def test_the_shipped_model_predicts_what_the_model_did_that_it_was_made_of(trained, clone):
    folder, config, images, cameras = trained
    with inside(folder):
        own = trained_model(config)
        assert own.notice == ""
        wanted, told = own.predict(images, cameras)
    # of parameters that have moved on since
    other = settings("model.cameras=unposed", "model.sh_degree=1", "datasets.procedural.resolution=[32,32]")
    with inside(clone):
        shipped = trained_model(other)
        assert "data/model" in shipped.notice and "dvc repro train" in shipped.notice
        assert shipped.resolution == SIZE and shipped.posed
        found, said = shipped.predict(images, cameras)
    assert said == told and "7 training steps, cameras given" in said
    for name in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(found.gaussians, name), getattr(wanted.gaussians, name))


def test_the_work_tree_s_model_goes_first_unless_the_shipped_one_is_asked_for(trained):
    folder, config, *_ = trained
    with inside(folder):
        assert trained_model(config).notice == ""
        assert trained_model(config, shipped=True).notice
        shutil.move("data/model/trained.safetensors", "kept")
        try:
            with pytest.raises(FileNotFoundError, match="dvc repro train .* say --shipped"):
                trained_model(config)
        finally:
            shutil.move("kept", "data/model/trained.safetensors")


def test_without_any_model_the_remedy_is_named(tmp_path, trained):
    with inside(tmp_path), pytest.raises(FileNotFoundError, match="run dvc repro train, or git checkout"):
        trained_model(settings())
    with inside(tmp_path), pytest.raises(FileNotFoundError, match="parameters.json missing; run git checkout"):
        trained_model(settings(), shipped=True)
    with inside(tmp_path), pytest.raises(FileNotFoundError, match="run dvc repro train"):
        models.work_tree_model(settings())
    folder, config, *_ = trained
    with inside(folder), pytest.raises(ValueError, match="dvc repro weights"):
        trained_model(settings("model.backbone=dinov2"))
    (tmp_path / "data").mkdir()
    for name in ("weights", "model"):
        shutil.copytree(folder / "data" / name, tmp_path / "data" / name)
    record = tmp_path / "data/model/record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"feature_channels": 384}))
    with inside(tmp_path), pytest.raises(ValueError, match="trained on features of 384 channels"):
        trained_model(config)


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("splatt3r/trained.safetensors", "git checkout -- data/bundled/splatt3r"),
        ("splatt3r/record.json", "git checkout -- data/bundled/splatt3r"),
        ("splatt3r/parameters.json", "git checkout -- data/bundled/splatt3r"),
        ("geometry.safetensors", "git checkout -- data/bundled/geometry.safetensors"),
    ],
)
def test_a_damaged_or_missing_file_is_a_sentence_with_its_remedy(clone, name, remedy):
    path = clone / "data/bundled" / name
    path.write_bytes(path.read_bytes()[:-9])
    with inside(clone), pytest.raises(ValueError, match=f"{name} is .*; run {remedy}"):
        trained_model(settings(), shipped=True)
    path.unlink()
    with inside(clone), pytest.raises(FileNotFoundError, match=f"{name} missing; run {remedy}"):
        trained_model(settings(), shipped=True)


def test_parameters_of_another_version_are_a_sentence(clone):
    path = clone / "data/bundled/splatt3r/parameters.json"
    said = json.loads(path.read_text())
    for wrong in ({"no_such_key": 1}, {"cameras": "guessed"}, {"sh_degree": "many"}):
        path.write_text(json.dumps(said | {"model": said["model"] | wrong}))
        with inside(clone), pytest.raises(ValueError, match="of another version of this code .*; run git checkout"):
            trained_model(settings(), shipped=True)
    said["model"].pop("use_offsets")
    path.write_text(json.dumps(said))
    with inside(clone), pytest.raises(ValueError, match="use_offsets.*; run git checkout"):
        trained_model(settings(), shipped=True)


def test_a_model_that_needs_more_than_the_repository_holds_is_not_shipped(trained, tmp_path):
    folder, config, *_ = trained
    (tmp_path / "data").mkdir()
    for name in ("weights", "model"):
        shutil.copytree(folder / "data" / name, tmp_path / "data" / name)
    path = tmp_path / "data/model/record.json"
    record = json.loads(path.read_text())
    (tmp_path / "out").mkdir()
    path.write_text(json.dumps(record | {"backbone": record["backbone"] | {"name": "rgb", "label": "RGB pixels"}}))
    with inside(tmp_path), pytest.raises(ValueError, match="RGB pixels.*run dvc exp run -S model.backbone=none"):
        models.ship_model(config, tmp_path / "out")
    path.write_text(json.dumps(record | {"geometry": record["geometry"] | {"source": "https://elsewhere"}}))
    with inside(tmp_path), pytest.raises(ValueError, match="ship a model with model.geometry=tiny"):
        models.ship_model(config, tmp_path / "out")
    elsewhere = dataclasses.replace(config.geometries["tiny"], file="my.safetensors")
    with inside(tmp_path), pytest.raises(ValueError, match="ship a model with model.geometry=tiny"):
        models.ship_model(dataclasses.replace(config, geometries={"tiny": elsewhere}), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
