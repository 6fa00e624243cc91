import runpy
import sys

import pytest

from src.backbones import FAMILIES
from src.backbones.__main__ import HEADINGS, aligned_columns, backbone_rows
from src.backbones.dinov2 import DINOV2_MODELS
from src.config import load_config
from tests.helpers.repository import ROOT


def test_all_that_need_no_argument_are_listed_with_what_is_known_of_them():
    found = {line[0]: dict(zip(HEADINGS, line, strict=True)) for line in backbone_rows(load_config(root=ROOT).model)}
    assert set(found) == {name for name in FAMILIES if not name.endswith(":") and name != "dinov2"} | {
        f"dinov2 ({model})" for model in DINOV2_MODELS
    }
    large = found["dinov2 (dinov2_vitl14)"]
    assert (large["patch"], large["width"], large["licence"]) == ("14", "1024", "Apache-2.0 (Meta)")
    assert large["source"].endswith("dinov2_vitl14_pretrain.pth") and int(large["parameters"].replace(",", "")) > 3e8
    assert "non-commercial" in found["croco"]["licence"] and found["croco"]["mean"] == "0.485 0.456 0.406"
    assert found["clip"]["std"] == "0.269 0.261 0.276" and found["none"]["source"] == "none"
    assert found["random"]["title"].endswith("(random weights, untrained)")


def test_one_of_timm_is_shown_by_its_name(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["catalogue", "timm:test_vit", "timm:resnet18"])
    runpy.run_path(str(ROOT / "src/backbones/__main__.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("model.backbone") and "11,176,512" in lines[2]
    monkeypatch.setattr(sys, "argv", ["catalogue", "timm:resnet19"])
    with pytest.raises(SystemExit, match="error: model.backbone names timm:resnet19"):
        runpy.run_path(str(ROOT / "src/backbones/__main__.py"), run_name="__main__")


def test_columns_are_aligned():
    assert aligned_columns([("a", "bbb", "c"), ("dd", "e", "f")]) == "a   bbb  c\ndd  e    f"
