import runpy
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from src import check
from src.config import load_config
from src.parameters.rules import ConfigError
from tests.helpers.repository import ROOT


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.backbone=dinov9"], "model.backbone is 'dinov9'; did you mean dinov2"),
        (["model.backbone=timm:"], "timm:<name>"),
        (["model.backbone=timm:resnet19"], "near are resnet1"),
        (["model.backbone_layers=[6,13]"], r"model.backbone_layers is \[6, 13\]; .* from 1 to 12"),
        (["model.backbone=croco", "model.backbone_layers=[0.5,25]"], "from 1 to 24"),
        (["model.dinov2_model=dinov2_vitg14_reg", "model.backbone_layers=[41]"], "from 1 to 40"),
    ],
)
def test_a_backbone_that_cannot_be_built_stops_everything_at_the_start(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        check.main(load_config(overrides, ROOT))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["loss.lpips_loss_weight=0.1", "loss.lpips_network=vgg"], "loss.lpips_network is vgg, and so is the headline"),
        (["eval.lpips=alex"], "another trunk .* loss.lpips_loss_weight=0, or set eval.lpips_as_trained=true"),
        (["model.backbone=vgg16"], "backbone is vgg16, and eval.lpips names the same network, vgg.* eval.lpips=alex"),
        (["model.backbone=timm:vgg16.tv_in1k"], "timm:vgg16.tv_in1k, and eval.lpips names the same network, vgg"),
        (["model.backbone=alexnet", "eval.lpips=vgg", "loss.lpips_loss_weight=1"], "set loss.lpips_loss_weight=0"),
    ],
)
def test_no_network_judges_what_it_was_trained_on_or_fused_with(overrides, words):
    with pytest.raises(ConfigError, match=words) as caught:
        check.main(load_config(overrides, ROOT))
    assert "\n" not in str(caught.value)


def test_choices_are_made_on_scenes_that_a_dataset_sets_apart_for_them():
    check.main(load_config(["eval.split=dev"], ROOT))
    with pytest.raises(ConfigError, match="eval.split is dev, but data.dataset=co3d sets no .* eval.split to test"):
        check.main(load_config(["eval.split=dev", "data.dataset=co3d"], ROOT))
    with pytest.raises(ConfigError, match="eval.split is 'val'; choose one of test, dev"):
        load_config(["eval.split=val"], ROOT)


def test_a_trunk_may_judge_beside_the_headline_or_where_it_is_asked_to():
    check.check_trunks(load_config(["loss.lpips_loss_weight=0.1"], ROOT))  # alex, which scores beside vgg
    asked = ["loss.lpips_loss_weight=0.1", "loss.lpips_network=vgg", "eval.lpips_as_trained=true"]
    check.check_trunks(load_config(asked, ROOT))
    check.check_trunks(load_config(["loss.lpips_network=vgg", "loss.lpips_loss_weight=0"], ROOT))
    check.check_trunks(load_config(["model.backbone=vgg16", "eval.lpips=alex", "loss.lpips_loss_weight=0"], ROOT))


def test_a_file_must_be_there_and_say_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no weight file .*mine.safetensors"):
        check.main(load_config([f"model.backbone=file:{tmp_path}/mine.safetensors"], ROOT))
    save_file({"weight": torch.ones(1)}, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match="does not say which network"):
        check.main(load_config([f"model.backbone=file:{tmp_path}/mine.safetensors"], ROOT))


def test_the_committed_parameters_pass_in_silence_and_a_mistake_is_one_line(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["check"])
    runpy.run_path(str(ROOT / "src/check.py"), run_name="__main__")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "argv", ["check", "model.backbone=dinov9"])
    with pytest.raises(SystemExit, match="error: model.backbone is 'dinov9'"):
        runpy.run_path(str(ROOT / "src/check.py"), run_name="__main__")


def test_it_answers_without_torch():
    words = [sys.executable, "-X", "importtime", "-m", "src.check", "model.backbone=croco"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "hydra" in done.stderr
    assert not [name for name in ("torch", "timm", "torchvision") if f" {name}\n" in done.stderr]


def test_a_fusion_key_changed_without_effect_is_said(tmp_path, monkeypatch, capsys):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    overrides = ["model.backbone=none", "model.fusion_mode=add", "model.fusion_parameters=9000"]
    check.main(load_config(overrides))
    assert capsys.readouterr().err == ""  # no commit says what was changed
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], check=True)
    check.main(load_config(overrides))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith(
        "note: model.fusion_mode=add has no effect, because model.backbone=none"
    )
    check.main(load_config(["model.backbone=oracle", "model.fusion_hooks=[0]"]))
    assert "model.fusion_hooks=[0] has no effect" in capsys.readouterr().err
    check.main(load_config(["model.backbone=none"]))
    check.main(load_config(["model.fusion_mode=add"]))
    assert capsys.readouterr().err == ""
