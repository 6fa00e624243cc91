from dataclasses import replace

import pytest
import torch

from src.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from src.backbones.croco import CrocoBackbone
from src.mast3r.network import Croco as Pretraining
from src.mast3r.network import Mast3r, Mast3rConfig
from src.mast3r.weight_file import CheckpointError
from tests.conftest import assert_reference, load_fixture
from tests.helpers.tiny import TINY, tiny_weights

SMALL = Mast3rConfig(enc_embed_dim=32, enc_depth=3, enc_num_heads=2, dec_embed_dim=16, dec_depth=4, dec_num_heads=2)
KEYWORDS = {
    "enc_embed_dim": 32,
    "enc_depth": 3,
    "enc_num_heads": 2,
    "dec_embed_dim": 16,
    "dec_depth": 4,
    "dec_num_heads": 2,
    "pos_embed": "RoPE100",
}


def published(path, network: torch.nn.Module = None, **keywords) -> dict[str, torch.Tensor]:
    """A file of CroCo v2's official layout with seeded weights; its state dict."""
    network = network or Pretraining(SMALL)
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    torch.save({"model": network.state_dict(), "croco_kwargs": KEYWORDS | keywords}, path)
    return network.state_dict()


def test_features_equal_the_reference_networks_encoder():
    """One encoder in three networks: the reference's tokens, whose images are given in [-1, 1] already."""
    tensors, _ = load_fixture("mast3r/tiny_landscape.safetensors")
    backbone = CrocoBackbone(config=Mast3rConfig(**TINY))
    backbone.network.load_state_dict(
        {name: value for name, value in tiny_weights().items() if name in backbone.network.state_dict()}
    )
    found = backbone.features(tensors["input.img1"].float())
    assert found.shape == (2, 32, 4, 6)
    assert_reference(found.flatten(2).mT, tensors["inter.dec1.0"].float())
    both = CrocoBackbone([1, 2], config=Mast3rConfig(**TINY))
    both.load(backbone.network.state_dict(), "x")
    maps = both.features(tensors["input.img1"].float())
    assert torch.equal(maps[:, 32:], found) and both.title == "CroCo v2 ViT-L/16, block 1+2"
    first = torch.nn.functional.layer_norm(
        tensors["inter.enc_block0.out1"].float(),
        (32,),
        backbone.network.enc_norm.weight,
        backbone.network.enc_norm.bias,
        1e-6,
    )
    assert_reference(maps[:, :32].flatten(2).mT, first)


def test_photographs_get_crocos_own_statistics_and_any_size(tmp_path):
    state = published(tmp_path / "c.pth")
    backbone = CrocoBackbone(config=SMALL)
    backbone.load(backbone.read(tmp_path / "c.pth"), "c.pth")
    images = torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    network = Pretraining(SMALL)
    network.load_state_dict(state)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = network.encode((images - mean) / std).mT.unflatten(-1, (3, 2))
    torch.testing.assert_close(backbone(images), expected, rtol=0, atol=1e-6)
    assert backbone(images[..., :21]).shape == (2, 32, 3, 2) and backbone(images, (2, 5)).shape == (2, 32, 2, 5)


def test_the_decoder_stays_behind_and_the_rest_must_fit(tmp_path):
    published(tmp_path / "c.pth")
    backbone = CrocoBackbone(config=SMALL)
    assert backbone.read(tmp_path / "c.pth").keys() == backbone.network.state_dict().keys()
    published(tmp_path / "c.pth", enc_num_heads=4)
    with pytest.raises(CheckpointError, match="enc_num_heads 4, but CroCo v2 ViT-L/16 has 2"):
        backbone.read(tmp_path / "c.pth")
    published(tmp_path / "c.pth", Pretraining(replace(SMALL, enc_depth=2)), enc_depth=2)
    with pytest.raises(CheckpointError, match="enc_depth 2, but .* has 3"):
        backbone.read(tmp_path / "c.pth")
    published(tmp_path / "c.pth", Mast3r(replace(SMALL, head="dpt")), head_type="dpt")
    with pytest.raises(CheckpointError, match="is DUSt3R or MASt3R"):
        backbone.read(tmp_path / "c.pth")
    torch.save({"model": {"enc_norm.bias": torch.zeros(32)}, "croco_kwargs": KEYWORDS}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="keys missing"):
        backbone.read(tmp_path / "c.pth")


def test_untrained_weights_come_from_the_seed_and_are_as_many_as_published():
    first, again, other = (
        CrocoBackbone(seed=seed, config=SMALL).network.enc_blocks[2].mlp.fc1.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    bound = (6 / (32 + 128)) ** 0.5
    assert first.abs().max() <= bound and first.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    shapes = CrocoBackbone(seed=None)
    per_block = 4 * 1024 + 3 * 1024 * 1025 + 1024 * 1025 + 4096 * 1025 + 1024 * 4097
    assert shapes.num_parameters == 24 * per_block + 1024 * (3 * 16 * 16 + 1) + 2 * 1024 and shapes.channels == 1024
