import numpy as np
import pytest
import timm
import torch
from skimage import data

from src import backbones, weights
from src.backbones.efficientnet_lite0 import PACKAGED, timm_names
from src.backbones.timm_models import Timm
from src.fetching.packages import INSTALL, installed
from src.mast3r.weight_file import CheckpointError
from src.reproducible.files import read_json
from tests.helpers.weights import config

CHOSEN = ("model.backbone=timm:tf_efficientnet_lite0", "model.weights=pretrained")
# ImageNet's classes of scikit-image's photographs: tiger cat or Egyptian cat, espresso, missile, moped
CLASSES = {"chelsea": {282, 285}, "coffee": {967}, "rocket": {657}, "stereo_motorcycle": {665}}


@pytest.fixture(scope="module")
def shipped() -> dict[str, torch.Tensor]:
    """The tensors of the package's file."""
    path = installed(PACKAGED)
    if path is None:
        pytest.skip(f"{PACKAGED.package} is not installed: {INSTALL}")
    return torch.load(path, "cpu", weights_only=True)


def photograph(name: str) -> torch.Tensor:
    """(1, 3, 224, 224) in [0, 1]: the middle square, resized."""
    image = getattr(data, name)()
    image = image[0] if isinstance(image, tuple) else image
    side = min(image.shape[:2])
    y, x = ((size - side) // 2 for size in image.shape[:2])
    square = torch.from_numpy(np.ascontiguousarray(image[y : y + side, x : x + side, :3])).permute(2, 0, 1)[None] / 255
    return torch.nn.functional.interpolate(square, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)


@torch.no_grad()
def test_every_tensor_has_its_place_and_the_classes_of_real_photographs_come_out(shipped):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    wanted, found = network.state_dict(), timm_names(shipped)
    assert len(found) == len(shipped) == 296 and found.keys() == wanted.keys()
    assert all(found[name].shape == wanted[name].shape for name in wanted)
    untrained = network((photograph("coffee") - 0.5) / 0.5).softmax(-1)
    assert untrained[0, list(CLASSES["coffee"])].max() < 0.05
    network.load_state_dict(found)
    for name, classes in CLASSES.items():
        share = network((photograph(name) - 0.5) / 0.5).softmax(-1)[0]
        assert share.argmax().item() in classes and share.max() > 0.1, (name, share.argmax().item(), share.max().item())


@torch.no_grad()
def test_it_is_a_backbone_without_a_connection(shipped, weights_folder):
    chosen = config(*CHOSEN)
    weights.main(chosen)
    record = read_json("data/weights/backbone/record.json")
    assert (record["label"], record["road"]) == ("EfficientNet-Lite0 (ImageNet)", "package")
    assert (record["licence"], record["sha256"]) == ("Apache-2.0", PACKAGED.sha256)
    backbone = backbones.load_backbone(chosen.model, "data/weights/backbone")
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert (backbone.patch_size, backbone.channels, backbone.blocks) == (16, 112, (4,))
    images = photograph("coffee")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True).eval()
    names = {name: tensor for name, tensor in timm_names(shipped).items() if name in network.state_dict()}
    network.load_state_dict(names)
    maps = network((images - 0.5) / 0.5)
    torch.testing.assert_close(backbone(images), maps[3], rtol=0, atol=1e-4)
    several = backbones.load_backbone(config(*CHOSEN, "model.backbone_layers=[3,4]").model, "data/weights/backbone")
    assert several(images).shape == (1, 40 + 112, 14, 14) and several.title == "EfficientNet-Lite0, block 3+4"


def test_its_control_is_untrained_and_a_tag_names_timms_own_weights():
    backbone = Timm("tf_efficientnet_lite0")
    assert backbone.label("random") == "EfficientNet-Lite0 (random weights, untrained)"
    assert backbone.label("pretrained") == "EfficientNet-Lite0 (ImageNet)"
    assert backbone.source.packaged == PACKAGED and Timm("tf_efficientnet_lite0.in1k").source.packaged is None


def test_a_tensor_of_another_network_is_named(shipped):
    backbone = Timm("tf_efficientnet_lite0")
    with pytest.raises(CheckpointError, match="are left over .*_blocks.16._bn9.weight"):
        backbone.load(shipped | {"_blocks.16._bn9.weight": torch.zeros(1)}, "changed.pth")
    backbone.load(timm_names(shipped), "timm.pth")  # and timm's own layout, with its classifier
