from types import SimpleNamespace

import pytest
import torch

from src.backbones import FAMILIES, build
from src.backbones.dinov2 import DinoV2
from src.config import load
from src.provenance import seed_of

IMAGES = torch.rand(1, 3, 28, 42, generator=torch.Generator().manual_seed(0))


def section(backbone: str, **changes) -> SimpleNamespace:
    """The keys of params.yaml's section `model` that backbones read."""
    return SimpleNamespace(**{"backbone": backbone, "dinov2_model": "dinov2_vits14", "dinov2_dim": None,
                              "backbone_layers": None} | changes)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224" if name == "timm:" else name for name in FAMILIES])
def test_every_family_keeps_the_interface(name):
    backbone = build(section(name), seed=0)
    features = backbone(IMAGES)
    gh, gw = backbone.grid(IMAGES)
    assert backbone.name == {"dinov2": "dinov2_vits14"}.get(name, name)
    assert features.shape == (1, backbone.channels, gh, gw) and not features.requires_grad
    assert gh == -(-28 // backbone.patch_size) and gw == -(-42 // backbone.patch_size)
    assert backbone.title and backbone.licence and len(backbone.mean) == len(backbone.std) == 3
    assert (backbone.source is None) == (backbone.num_parameters == 0) and not backbone.gated
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_the_section_of_params_yaml_is_what_build_takes():
    chosen = ["model.backbone=dinov2", "model.dinov2_model=dinov2_vits14_reg", "model.backbone_layers=[6,12]"]
    backbone = build(load(chosen).model, seed=0)
    assert (backbone.channels, backbone.title) == (768, "DINOv2 ViT-S/14 with registers, block 6+12")


def test_untrained_weights_come_from_the_seed():
    first, again, other = (build(section("dinov2"), seed).network.pos_embed for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first, DinoV2(seed=seed_of(1, "backbone")).network.pos_embed)


@pytest.mark.parametrize(("name", "words"), [
    ("dinov9", "did you mean dinov2"), ("shufled", "did you mean shuffled"), ("timm", "timm:<name>"),
    ("timm:", "timm:<name>"), ("xyzzy", "Known are"),
    ("dinov2:vits14", "Known are none, dinov2, clip, timm:<name>, shuffled, constant, rgb")])
def test_unknown_names_list_the_known_ones(name, words):
    with pytest.raises(ValueError, match=f"model.backbone is '{name}'; .*{words}"):
        build(section(name), seed=0)


@pytest.mark.parametrize("name", ["dinov2", "shuffled", "constant"])
def test_a_wrong_width_is_refused(name):
    with pytest.raises(ValueError, match="model.dinov2_dim is 768, but dinov2_vits14 is 384 wide"):
        build(section(name, dinov2_dim=768), seed=0)


def test_a_constant_is_as_wide_as_what_it_stands_beside():
    assert build(section("constant", dinov2_model="dinov2_vitb14", backbone_layers=[6, 12]), seed=0).channels == 2 * 768
