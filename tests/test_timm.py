import pytest
import timm
import torch

from src.backbones.timm import Timm, clip


def photographs(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_a_vision_transformer_at_another_size():
    backbone = Timm("vit_tiny_patch16_224", seed=4)
    assert (backbone.channels, backbone.patch_size, backbone.name) == (192, 16, "timm:vit_tiny_patch16_224")
    images = photographs(112, 150)
    features = backbone(images)
    assert features.shape == (2, 192, 7, 10)
    enlarged = torch.nn.functional.interpolate(images, (112, 160), mode="bicubic", antialias=True)
    with torch.no_grad():
        tokens = backbone.network.forward_features((enlarged - 0.5) / 0.5)  # its weights' own statistics; CLS in front
    torch.testing.assert_close(features, tokens[:, 1:].mT.unflatten(-1, (7, 10)), rtol=0, atol=1e-4)


def test_a_convolutional_network_and_its_stages():
    images = photographs(64, 96)
    backbone = Timm("resnet18", seed=1)
    assert backbone.patch_size == 32 and backbone(images).shape == (2, 512, 2, 3)
    third = Timm("resnet18", [4], seed=1)
    assert third.patch_size == 16 and third(images).shape == (2, 256, 4, 6) and third.title == "resnet18, block 4"
    with pytest.raises(ValueError, match="different sizes"):
        Timm("resnet18", [3, 4])


def test_weights_published_with_a_classifier_load_strictly():
    with torch.random.fork_rng():
        published = timm.create_model("vit_tiny_patch16_224", pretrained=False).state_dict()
    assert "head.weight" in published
    backbone = Timm("vit_tiny_patch16_224")
    backbone.load(published, "hub")
    assert torch.equal(backbone.network.state_dict()["blocks.3.attn.qkv.weight"], published["blocks.3.attn.qkv.weight"])


def test_source_and_licence_come_with_the_name():
    backbone = Timm("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert backbone.source.url == ("https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/main/"
                                   "model.safetensors")
    assert backbone.source.name == "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
    assert backbone.licence == "apache-2.0"


def test_clip_has_its_own_statistics_and_activation():
    backbone = clip(None, 0)
    assert (backbone.name, backbone.channels, backbone.patch_size) == ("clip", 768, 16)
    assert backbone.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert backbone.source.url.endswith("/timm/vit_base_patch16_clip_224.openai/resolve/main/model.safetensors")
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(backbone.network.blocks[0].mlp.act(x), x * torch.sigmoid(1.702 * x))
    assert backbone(photographs(32, 48)).shape == (2, 768, 2, 3)


@pytest.mark.parametrize("model", ["vit_tini_patch16_224", "vit_tiny_patch16_224.nosuchtag"])
def test_unknown_names_are_refused_with_near_ones(model):
    with pytest.raises(ValueError, match=f"timm:{model}.*vit_tiny_patch16_224"):
        Timm(model)
