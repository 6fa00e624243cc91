import runpy
import sys

import pytest
import torch
from safetensors.torch import save_file

from src import check
from src.config import load_config
from tests.helpers.repository import ROOT


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.backbone=dinov9"], "model.backbone is 'dinov9'; did you mean dinov2"),
        (["model.backbone=timm:"], "timm:<name>"),
        (["model.backbone=timm:resnet19"], "near are resnet1"),
        (["model.backbone_layers=[6,13]"], r"model.backbone_layers is \[6, 13\]; .* from 1 to 12"),
        (["model.backbone=croco", "model.backbone_layers=[0.5,25]"], "from 1 to 24"),
    ],
)
def test_a_backbone_that_cannot_be_built_stops_everything_at_the_start(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        check.main(load_config(overrides, ROOT))
    assert "\n" not in str(caught.value)


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
