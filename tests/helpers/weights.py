"""An empty repository for the stage weights, and files to place in it."""

from pathlib import Path

import pytest
import torch
import torchvision

from src.config import load_config
from src.mast3r.network import Mast3rConfig
from tests.helpers.networks import write_drawn_geometry
from tests.helpers.repository import ROOT


@pytest.fixture
def weights_folder(tmp_path, monkeypatch) -> Path:
    """An empty repository with a bundled geometry network, and a folder `root` for files placed by hand."""
    write_drawn_geometry(tmp_path / "data/bundled/geometry.safetensors")
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def config(*overrides: str):
    return load_config(
        ["threads=1", "model.backbone=rgb", "eval.lpips=none", "loss.lpips_loss_weight=0", *overrides], ROOT
    )


HEADS_64 = Mast3rConfig(
    enc_embed_dim=64,
    enc_depth=1,
    enc_num_heads=1,
    dec_embed_dim=64,
    dec_depth=4,
    dec_num_heads=1,
    dpt_feature_dim=8,
    dpt_last_dim=4,
    dpt_layer_dims=(4, 4, 8, 8),
    local_features_factor=0.25,
)

# torchvision's network, and the layers after which LPIPS looks (Zhang et al. 2018, and the package for SqueezeNet)
TAPS = {
    "alex": ("alexnet", (1, 4, 7, 9, 11)),
    "vgg": ("vgg16", (3, 8, 15, 22, 29)),
    "squeeze": ("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12)),
}


def torchvision_file(path: Path, trunk: str) -> torch.nn.Sequential:
    """The trunk with seeded weights, written with torchvision's names and a classifier."""
    with torch.device("meta"):
        features = getattr(torchvision.models, TAPS[trunk][0])(num_classes=1).features
    features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in features.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    torch.save(features.state_dict(prefix="features.") | {"classifier.6.weight": torch.zeros(1, 4096)}, path)
    return features.eval()
