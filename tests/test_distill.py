import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from src import backbones, distill
from src.backbones import build_backbone
from src.backbones.controls import Rgb, Shuffled
from src.backbones.dinov2 import DinoV2
from src.config import load_config
from src.distill import Crops, Known, Optimiser, Pair, Params, check_roles, main, read_params, warm_cosine
from src.experiments.result import ExperimentResult
from src.fetching.backbone import backbone_weights
from src.page.verdict import cautions
from src.pretrained.state_dicts import read_tensors
from src.procedural.scenes import generate
from src.reproducible.files import read_json
from tests.helpers.frames import write_photographs
from tests.helpers.repository import ROOT, UNHASHED, reached, room

SMALL = {"depth": 2, "num_heads": 2}
STEPS = 40


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Photographs of procedural rooms: two scenes to train on, one to validate on, one that nobody may read."""
    folder = tmp_path_factory.mktemp("scenes")
    images = {seed: [frame.image for frame in generate("rooms", seed, 6, (64, 48), 1, 1)] for seed in range(3)}
    write_photographs(
        folder,
        {"a": ("train", images[0]), "b": ("train", images[1]), "c": ("val", images[2]), "d": ("test", images[0][:1])},
    )
    (folder / "scenes/d.safetensors").unlink()
    return folder


@pytest.fixture
def repository(scenes, tmp_path, monkeypatch) -> Path:
    shutil.copytree(scenes, tmp_path / "data/scenes")
    (tmp_path / "data/distilled").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def params(steps: int = STEPS, every: int = 100, **students: Pair) -> Params:
    return Params(0, 2, students, Crops([2, 4], 0.3), Optimiser(steps, 8, 0.003, 0.01, 0.1, 1.0, every))


def networks() -> tuple[DinoV2, DinoV2]:
    """A small untrained student, and a wider teacher that saw as little."""
    return (
        DinoV2("dinov2_vits14", seed=1, embed_dim=32, **SMALL),
        DinoV2("dinov2_vitb14", seed=2, embed_dim=48, **SMALL),
    )


def test_training_brings_held_out_features_nearer(repository):
    student, teacher = networks()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    found = distill.distill(student, teacher, params(), repository / "last.pt")
    assert found["training_photographs"] == 12 and found["held_out_photographs"] == 6
    after, start, mean = (found["held_out"][who] for who in ("student", "student_before", "mean"))
    assert after["squared_error"] < 0.9 * start["squared_error"] and after["cosine"] > start["cosine"]
    assert after["squared_error"] < mean["squared_error"] and mean["cosine"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in student.parameters())


def test_the_rate_rises_and_falls():
    settings = Optimiser(100, 1, 1.0, 0.0, 0.1, 1.0, 10)
    found = [warm_cosine(step, settings) for step in range(100)]
    assert found[0] == pytest.approx(0.1) and found[49] == pytest.approx(0.5, abs=0.02) and 0 < found[-1] < 0.001
    assert all(a < b for a, b in zip(found[:9], found[1:10])) and all(a > b for a, b in zip(found[9:], found[10:]))
    assert warm_cosine(0, Optimiser(1, 1, 1.0, 0.0, 0.0, 1.0, 10)) == 1


def test_a_killed_run_ends_with_the_same_weights(repository, monkeypatch):
    whole, teacher = networks()
    distill.distill(whole, teacher, params(6, 2), repository / "whole.pt")
    draw, calls = distill.draw_crops, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(distill, "draw_crops", killed)
    with pytest.raises(KeyboardInterrupt):
        distill.distill(*networks(), params(6, 2), repository / "cut.pt")
    resumed, teacher = networks()
    distill.distill(resumed, teacher, params(6, 2), repository / "cut.pt")
    assert len(calls) == 4 + 4  # steps 3 and 4 a second time
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in resumed.state_dict().items())


def write_params(students: dict, **optimiser) -> None:
    content = yaml.safe_load((ROOT / "data/distilled/params.yaml").read_text())
    content["students"], content["crops"]["cells"], content["threads"] = students, [2, 4], 1
    content["optimiser"] |= {"steps": 2, "batch_size": 2} | optimiser
    Path("data/distilled/params.yaml").write_text(yaml.safe_dump(content))


TINY = {
    "teacher": "timm:test_vit2",
    "teacher_weights": "random",
    "student": "timm:test_vit",
    "student_weights": "random",
}


def test_the_file_gives_the_students_features_and_says_what_it_was_taught(repository):
    write_params({"tiny": TINY})
    main(load_config(), "tiny")
    path = repository / "data/distilled/tiny/model.safetensors"
    first = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    record = read_json(path.with_name("record.json"))
    assert metadata == {"architecture": "timm:test_vit", "note": record["caution"]}
    assert record["label"] == "test_vit, distilled from test_vit2 (random weights, untrained)"
    assert "untrained teacher" in record["caution"] and record["steps"] == 2
    assert record["teacher"]["weights"] == "random" and record["teacher"]["channels"] == 64
    assert set(record["held_out"]) == {"student", "student_before", "mean"}
    assert not list((repository / "scratch").glob("distill*"))

    untrained = build_backbone(load_config(["model.backbone=timm:test_vit"]).model, 0)
    loaded = build_backbone(load_config(["model.backbone=timm:test_vit"]).model, 1)
    loaded.load(read_tensors(path), str(path))
    trained = {}
    kept = distill.write_backbone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            distill,
            "write_backbone",
            lambda where, state, described: (trained.update(state), kept(where, state, described)),
        )
        main(load_config(), "tiny")
    assert path.read_bytes() == first
    student = build_backbone(load_config(["model.backbone=timm:test_vit"]).model, 2)
    student.network.load_state_dict(trained)
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(images), student(images)) and not torch.allclose(loaded(images), untrained(images))


def test_a_report_says_of_a_student_that_its_teacher_was_untrained(repository):
    write_params({"tiny": TINY, "next": TINY | {"teacher": "file:data/distilled/tiny/model.safetensors"}})
    for name in ("tiny", "next"):
        main(load_config(), name)
        config = load_config([f"model.backbone=file:data/distilled/{name}/model.safetensors"])
        backbone_weights(config, repository / "weights")
        record = read_json(repository / "weights/record.json")
        (said,) = cautions(
            ExperimentResult("run", {"backbone": record}, rows=[], curves={}, benchmark=None), compared=True
        )
        assert "distilled from an untrained teacher" in said
        assert backbones.load_backbone(config.model, repository / "weights").note == said


def known(backbone, weights: str = "random") -> Known:
    return Known(backbone, {"weights": weights})


def test_what_cannot_be_taught_is_refused():
    student, teacher = networks()
    check_roles(known(teacher), known(student))
    check_roles(known(teacher), known(DinoV2("dinov2_vitb14", seed=3, embed_dim=48, **SMALL)))
    with pytest.raises(ValueError, match="Teacher and student are both DINOv2 ViT-B/14.*same weights"):
        check_roles(known(teacher), known(networks()[1]))
    with pytest.raises(ValueError, match="The teacher is rgb, which has no weights"):
        check_roles(known(Rgb(), "none"), known(student))
    with pytest.raises(ValueError, match="The student is shuffled, which is no network of its own"):
        check_roles(known(teacher), known(Shuffled(student)))


def test_mistakes_are_sentences(repository, monkeypatch, capsys):
    def complaint(*words) -> str:
        monkeypatch.setattr(sys, "argv", ["distill", *words])
        with pytest.raises(SystemExit) as stop:
            runpy.run_module("src.distill", run_name="__main__")
        return f"{stop.value.code} {capsys.readouterr().err}"

    write_params({})
    assert "required: NAME" in complaint()
    assert "vits14 is no entry of students" in complaint("vits14") and "has none" in complaint("vits14")
    write_params({"same": TINY | {"student": "timm:test_vit2"}, "far": TINY | {"teacher": "dinov3"}})
    assert "there is nothing to learn" in complaint("same")
    assert "did you mean dinov2" in complaint("far")
    write_params({"tiny": TINY | {"pupil": "x"}})
    assert "data/distilled/params.yaml is wrong" in complaint("tiny")
    write_params({"tiny": TINY}, lr=-1.0)
    assert "optimiser.lr is -1.0" in complaint("tiny")
    write_params({"tiny": TINY | {"teacher": "dinov2_vits14", "teacher_weights": "pretrained"}})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "dinov2_vits14_pretrain.pth" in complaint("tiny")
    assert os.listdir("data/distilled") == ["params.yaml"]


def test_the_committed_parameters_are_valid_and_ask_for_nothing():
    assert read_params(ROOT / "data/distilled/params.yaml").students == {}


def test_its_stages_depend_on_exactly_the_rooms_they_reach_and_the_root_on_none_of_theirs():
    stage = yaml.safe_load((ROOT / "data/distilled/dvc.yaml").read_text())["stages"]["distill"]["do"]
    declared = {dep for dep in stage["deps"] if dep.startswith("src/")}
    assert declared == {room(file) for file in reached("src/distill.py", UNHASHED | {"src/__init__.py"})}
    assert "data/distilled" not in (ROOT / "dvc.yaml").read_text()
