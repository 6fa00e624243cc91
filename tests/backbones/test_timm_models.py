import pytest
import timm
import torch

from src.backbones.timm_models import Timm, clip


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
    assert (backbone.patch_size, backbone.blocks, backbone.title) == (16, (4,), "resnet18")
    assert backbone(images).shape == (2, 256, 4, 6)  # as fine as the geometry network's patches
    named = Timm("resnet18", [4], seed=1)
    assert torch.equal(named(images), backbone(images)) and named.title == "resnet18, block 4"
    last = Timm("resnet18", [5], seed=1)
    assert last.patch_size == 32 and last(images).shape == (2, 512, 2, 3)
    assert Timm("vit_base_patch32_224", **TINY).blocks == (4,)  # as fine as it gets


def test_stages_of_several_sizes_meet_on_the_coarsest_cells():
    both = Timm("resnet18", [0.6, 1.0], seed=1)
    images = photographs(50, 90)
    found = both(images)
    assert both.blocks == (3, 5) and both.patch_size == 32 and found.shape == (2, 128 + 512, 2, 3)
    fine = Timm("resnet18", [3], seed=1)(images, (8, 12))  # 8 pixels a cell: the same resized photograph
    for row, column in ((0, 0), (1, 2)):
        mean = fine[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean((2, 3))
        torch.testing.assert_close(found[:, :128, row, column], mean, rtol=0, atol=1e-5)
    assert torch.equal(found[:, 128:], Timm("resnet18", [5], seed=1)(images))
    assert both(images, (3, 4)).shape == (2, 640, 3, 4)


TINY = {"depth": 4, "embed_dim": 48, "num_heads": 2}


@pytest.mark.parametrize(
    ("model", "sizes", "patch", "channels", "mean"),
    [
        ("vit_base_patch16_224.mae", TINY, 16, 48, 0.485),
        ("vit_base_patch16_siglip_224.webli", TINY, 16, 48, 0.5),
        ("vit_base_patch16_siglip_256.v2_webli", TINY, 16, 48, 0.5),
        ("vit_small_patch16_dinov3.lvd1689m", TINY, 16, 48, 0.485),
        ("eva02_tiny_patch14_224.mim_in22k", TINY | {"num_heads": 4}, 14, 48, 0.48145466),
        ("samvit_base_patch16.sa1b", TINY | {"global_attn_indexes": (1, 3)}, 16, 256, 0.485),
        ("convnext_tiny.dinov3_lvd1689m", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, 16, 24, 0.485),
        (
            "swin_tiny_patch4_window7_224.ms_in22k",
            {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 4)},
            16,
            32,
            0.485,
        ),
    ],
)
def test_families_read_photographs_of_any_shape(model, sizes, patch, channels, mean):
    backbone = Timm(model, None, 2, **sizes)
    images = photographs(70, 117)
    rows, columns = -(-70 // patch), -(-117 // patch)
    assert (backbone.patch_size, backbone.channels) == (patch, channels) and backbone.mean[0] == mean
    found = backbone(images)
    assert found.shape == (2, channels, rows, columns) and found.isfinite().all() and found.std() > 0.01
    assert backbone(images, (4, 7)).shape == (2, channels, 4, 7)
    several = Timm(model, [0.5, 0.75 if "depths" in sizes else 1.0], 2, **sizes)
    assert several.channels > channels and torch.equal(several(images)[:, -channels:], found)
    assert backbone.source.name == f"{model}.safetensors"
    # what a place shows decides most of its features: no token is out of order
    changed = images.clone()
    changed[:, :, -patch // 2 :, : patch // 2] = 1 - changed[:, :, -patch // 2 :, : patch // 2]
    moved = (backbone(changed) - found).abs().mean((0, 1))
    assert moved.argmax() == (rows - 1) * columns


def test_a_network_for_images_of_one_size_sees_them_so():
    backbone = Timm("beit_base_patch16_224", None, 0, **TINY)
    images = photographs(40, 90)
    assert backbone.grid(images) == (14, 14) and backbone(images).shape == (2, 48, 14, 14)
    assert backbone(images, (14, 14)).shape == (2, 48, 14, 14)
    with pytest.raises(ValueError, match="one size only, 14 x 14 cells, .* be 3 x 5; set model.feature_grid=native"):
        backbone(images, (3, 5))


def test_networks_without_feature_maps_are_refused():
    with pytest.raises(ValueError, match="timm:hiera_tiny_224 cannot hand out feature maps"):
        Timm("hiera_tiny_224")


def test_weights_published_with_a_classifier_load_strictly():
    with torch.random.fork_rng():
        published = timm.create_model("vit_tiny_patch16_224", pretrained=False).state_dict()
    assert "head.weight" in published
    backbone = Timm("vit_tiny_patch16_224")
    backbone.load(published, "hub")
    assert torch.equal(backbone.network.state_dict()["blocks.3.attn.qkv.weight"], published["blocks.3.attn.qkv.weight"])


def test_source_and_licence_come_with_the_name():
    backbone = Timm("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert backbone.source.url == (
        "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
    )
    assert backbone.source.name == "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
    assert backbone.licence == "apache-2.0"


def test_clip_has_its_own_statistics_and_activation():
    backbone = clip("", None, 0)
    assert (backbone.name, backbone.channels, backbone.patch_size) == ("clip", 768, 16)
    assert backbone.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert backbone.source.url.endswith("/timm/vit_base_patch16_clip_224.openai/resolve/main/model.safetensors")
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(backbone.network.blocks[0].mlp.act(x), x * torch.sigmoid(1.702 * x))
    assert backbone(photographs(32, 48)).shape == (2, 768, 2, 3)


def test_other_clip_towers_are_named_and_get_the_activation_they_were_trained_with():
    tower = clip("vit_xsmall_patch16_clip_224.tinyclip_yfcc15m", [0.5, 1.0], 0)
    assert (tower.name, tower.channels, tower.blocks) == (
        "clip:vit_xsmall_patch16_clip_224.tinyclip_yfcc15m",
        512,
        (5, 10),
    )
    assert tower.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073)) and tower.licence == "mit"
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(tower.network.blocks[0].mlp.act(x), torch.nn.functional.gelu(x))
    quick = clip("vit_base_patch32_clip_224.openai", None, 0)
    torch.testing.assert_close(quick.network.blocks[0].mlp.act(x), x * torch.sigmoid(1.702 * x))
    assert quick.source.url.endswith("/timm/vit_base_patch32_clip_224.openai/resolve/main/model.safetensors")
    with pytest.raises(
        ValueError, match="clip:vit_base_patch16_224, which is no CLIP tower .*near are vit_base_patch16_clip"
    ):
        clip("vit_base_patch16_224", None, 0)


@pytest.mark.parametrize("model", ["vit_tini_patch16_224", "vit_tiny_patch16_224.nosuchtag"])
def test_unknown_names_are_refused_with_near_ones(model):
    with pytest.raises(ValueError, match=f"timm:{model}.*vit_tiny_patch16_224"):
        Timm(model)
