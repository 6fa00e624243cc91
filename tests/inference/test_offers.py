import re
import shutil
from dataclasses import asdict

import pytest
import torch
import yaml

from src.inference.offers import offered_models
from src.inference.trained_model import SHIPPED, trained_model
from src.scenes.scene import Scene
from tests.helpers.repository import ROOT, empty_repository, say
from tests.helpers.trained import SIZE, inside, settings, train

STAGE = {"train": {"cmd": "true", "outs": ["data/model", "data/weights/geometry", "data/weights/backbone"]}}
DESCRIPTION = "DINOv2 ViT-S/14 (random weights, untrained); on tiny MASt3R; unposed track; 7 training steps"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with a trained model in its work tree and as the experiment `whole`; beside it `old`, whose parameters
    this code does not know, and `lost`, whose files the cache lacks."""
    folder = tmp_path_factory.mktemp("repository")
    config = train(folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(asdict(config)))
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGE}))
    (folder / ".gitignore").write_text("/data\n")
    empty_repository(folder)
    say(folder, "dvc", "commit", "-q", "-f")

    def experiment(name: str) -> None:
        say(folder, "git", "add", "-A")
        say(folder, "git", "commit", "-qm", name)
        say(folder, "git", "update-ref", f"refs/exps/ab/{'c' * 38}/{name}", "HEAD")

    lock = (folder / "dvc.lock").read_text()
    (folder / "dvc.lock").write_text(re.sub(r"md5: \w{32}", f"md5: {'0' * 32}", lock))
    experiment("lost")
    (folder / "dvc.lock").write_text(lock)
    kept = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(f"{kept}\nforgotten: 1\n")
    experiment("old")
    (folder / "params.yaml").write_text(kept)
    experiment("whole")
    say(folder, "git", "update-ref", "refs/exps/stash", "HEAD")  # DVC has such ones too
    scene = Scene.open(folder / "data/scenes/scenes/pair.safetensors")
    shutil.copytree(ROOT / SHIPPED, folder / SHIPPED)
    return folder, config, torch.stack([scene.view(name, SIZE).image for name in scene.names])


def test_models_are_offered_by_name_and_a_lost_one_is_a_sentence(repository):
    folder, config, images = repository
    with inside(folder):
        offers, refusals = offered_models(config)
        found = {offer.name: offer for offer in offers}
        assert list(found) == ["work tree", "shipped", "experiment whole"]
        assert found["work tree"].words == found["experiment whole"].words == DESCRIPTION
        assert found["shipped"].words == "no backbone; on tiny MASt3R; posed track; 2400 training steps"
        assert found["work tree"].resolution == SIZE and found["shipped"].resolution == (128, 128)
        wanted = trained_model(config).predict(images)[0].gaussians[0]
        other = found["experiment whole"].load().predict(images)[0].gaussians[0]
    assert torch.equal(other.means, wanted.means) and torch.equal(other.sh, wanted.sh)
    lost, old = refusals
    assert lost.startswith("experiment lost: The DVC cache here lacks data/") and "run the experiment again" in lost
    assert old.startswith("experiment old: It is of another version of this code; run the experiment again.")
    assert all(refusal.count("\n") == 0 for refusal in refusals)


def test_an_experiment_is_offered_without_any_model_in_the_work_tree(repository, tmp_path):
    folder, config, _ = repository
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/data/model")
    with inside(tmp_path / "copy"):
        offers, _ = offered_models(config)
        assert [offer.name for offer in offers] == ["shipped", "experiment whole"]
        assert "dvc repro train" in offers[0].notice
        assert [offer.name for offer in offered_models(config, shipped=True)[0]] == ["shipped"]


def test_a_control_that_reads_more_than_images_is_refused(tmp_path):
    config = train(tmp_path, "model.backbone=truth")
    shutil.copytree(ROOT / SHIPPED, tmp_path / SHIPPED)
    with inside(tmp_path):
        (offer,), (refusal,) = offered_models(config)
    assert offer.name == "shipped" and refusal.startswith("work tree: Its backbone, true depth and normals")


def test_without_any_model_the_remedy_is_named(tmp_path):
    with inside(tmp_path), pytest.raises(ValueError, match="There is no trained model here, .* run dvc repro train"):
        offered_models(settings())
