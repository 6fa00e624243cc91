"""Every family of the registry, and one from outside the package, through the whole pipeline on non-square photographs.

Smallest architectures, untrained, two optimiser steps: it shows that each runs to a score, not how good it is.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from src import check, evaluate, extract, probe, render, train, weights
from src.backbones import FAMILIES
from src.backbones.base import Backbone
from src.backbones.croco import CrocoBackbone
from src.backbones.timm_models import Timm
from src.config import load_config
from src.fetching.backbone import backbone_weights
from src.mast3r.network import Mast3rConfig
from src.pretrained.state_dicts import Described, write_backbone
from src.reproducible.files import read_json
from tests.helpers.miniatures import ROOT, computing_as_before, stages

# W, H are no multiples of 14, H is none of 32
SETTINGS = [
    "eval.lpips=none",
    "threads=1",
    "datasets.procedural.resolution=[64,48]",
    "datasets.procedural.episodes.num_targets=1",
    "data.batch_size=1",
    "datasets.procedural.episodes.per_bin=1",
    "opt.steps=2",
    "opt.val_every=2",
    "opt.log_every=1",
    "eval.num_plys=0",
    "probe.pairs=2",
    "loss.lpips_loss_weight=0",
    "model.cameras=unposed",
]
CONTROLS = "shuffled", "constant", "rgb", "oracle", "truth"
SCENES = ["train=2", "val=1", "test=1"]
SMALL_CROCO = Mast3rConfig(enc_embed_dim=64, enc_depth=2, enc_num_heads=2)
# model.backbone, further settings; channels, and rows and columns of the map
TABLE = {
    "none": ("none", [], 0, None),
    "dinov2": ("dinov2", [], 384, (4, 5)),
    "dinov2, two blocks, aligned": (
        "dinov2",
        ["model.backbone_layers=[0.5,1.0]", "model.feature_grid=aligned"],
        768,
        (3, 4),
    ),
    "croco": ("croco", ["model.backbone_layers=[1,2]"], 128, (3, 4)),
    "clip": ("clip:vit_xsmall_patch16_clip_224.tinyclip_yfcc15m", [], 256, (3, 4)),
    "transformer": ("timm:test_vit", ["model.feature_grid=aligned"], 64, (3, 4)),
    "eva": ("timm:eva02_tiny_patch14_224", ["model.backbone_layers=[0.5,1.0]"], 384, (4, 5)),
    "convolutional": ("timm:test_convnext", [], 48, (3, 4)),
    "AlexNet": ("alexnet", [], 256, (3, 4)),
    "VGG-16": ("vgg16", ["model.backbone_layers=[4,5]"], 1024, (3, 4)),
    "convolutional, three scales, aligned": (
        "timm:test_convnext",
        ["model.backbone_layers=[2,3,4]", "model.feature_grid=aligned"],
        144,
        (3, 4),
    ),
    "fine-tuned": ("file:student.safetensors", ["model.backbone_layers=[0.5,1.0]"], 128, (3, 4)),
    "random": ("random", ["model.weights=pretrained"], 384, (4, 5)),
    "shuffled": ("shuffled", [], 384, (4, 5)),
    "constant": ("constant", [], 384, (4, 5)),
    "rgb": ("rgb", [], 590, (4, 5)),
    "oracle": ("oracle", [], 0, None),
    "truth": ("truth:0.1", [], 28, (3, 4)),
    "posed": ("rgb", ["model.cameras=posed"], 590, (4, 5)),
    "posed, at the head": ("rgb", ["model.cameras=posed", "model.fusion_site=head"], 590, (4, 5)),
    "posed oracle": ("oracle", ["model.cameras=posed"], 0, None),
    "from outside": ("means", [], 3, (6, 8)),
}


class Means(Backbone):
    """A backbone that the package knows nothing of: mean colour of each patch."""

    name, title, channels, patch_size, mean, std = "means", "Mean colours", 3, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def features(self, images):
        return torch.nn.functional.avg_pool2d(images, self.patch_size)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Scenes, geometry weights and geometry tokens, once for all backbones."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("pipeline")
        (folder / "data").mkdir()
        (folder / "data/bundled").symlink_to(ROOT / "data/bundled")
        stages(
            patch,
            folder,
            "procedural",
            "datasets.procedural.source.views=6",
            "datasets.procedural.source.samples=1",
            "datasets.procedural.source.families=[objects]",
            *(f"datasets.procedural.source.scenes.{each}" for each in SCENES),
        )
        with computing_as_before():
            config = load_config([*SETTINGS, "model.backbone=none"], ROOT)
            weights.main(config)
            extract.main(config, "geometry")
    return folder


@pytest.mark.parametrize("case", TABLE)
def test_a_backbone_runs_from_its_weights_to_a_score(case, prepared, monkeypatch):
    name, settings, channels, cells = TABLE[case]
    monkeypatch.chdir(prepared)
    monkeypatch.setitem(FAMILIES, "means", lambda model, seed: Means())
    monkeypatch.setitem(FAMILIES, "croco", lambda model, seed: CrocoBackbone(model.backbone_layers, seed, SMALL_CROCO))
    write_backbone("student.safetensors", Timm("test_vit", seed=5).network.state_dict(), Described("test_vit"))
    config = load_config([*SETTINGS, f"model.backbone={name}", *settings], ROOT)
    with computing_as_before():
        check.main(config)
        backbone_weights(config, weights.WEIGHTS / "backbone")
        extract.main(config, "backbone")
        features = extract.FEATURES / "backbone"
        assert read_json(features / "record.json")["channels"] == channels
        shapes = {tuple(stored_shape(path)) for path in features.glob("*.safetensors")}
        assert shapes == (set() if cells is None else {(6, channels, *cells)})
        probe.main(config)
        train.main(config)
        render.main(config)
        evaluate.main(config)
    summary = json.loads((prepared / "data/eval/summary.json").read_text())
    score = summary["methods"]["render"]["aligned"]["psnr_masked"]
    assert score["n"] > 0 and 3 < score["mean"] < 40
    trained = read_json(prepared / "data/model/record.json")["backbone"]
    assert trained["label"] and ("note" in trained) == (name.partition(":")[0] in CONTROLS)
    if name == "oracle":
        raw, aligned = (summary["methods"]["render"][kind]["psnr"]["mean"] for kind in ("raw", "aligned"))
        assert trained["label"] == "oracle geometry (true points)" and raw == aligned
        assert summary["cloud"]["render"]["aligned"]["chamfer"]["mean"] < 0.1  # the head's offsets alone
    shutil.rmtree(prepared / "data/model")


def stored_shape(path: Path) -> list[int]:
    with safe_open(path, framework="pt") as file:
        return file.get_slice("features").get_shape()


def test_the_table_leaves_no_family_out():
    shown = {name.partition(":")[0] for name, *_ in TABLE.values()}
    assert shown - {"means"} == {name.rstrip(":") for name in FAMILIES}
