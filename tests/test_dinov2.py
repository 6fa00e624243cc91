import math

import pytest
import timm
import torch
from torch.nn.functional import conv2d, gelu, interpolate, layer_norm, linear, silu

from src.backbones.dinov2 import MODELS, DinoV2
from src.checkpoints import CheckpointError

TOLERANCE = {"rtol": 0, "atol": 1e-5}  # of features with unit variance; float32


def meta_state(width: int, depth: int, registers: int = 0, swiglu_hidden: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names and shapes of Meta's published files, large enough for every term to matter."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale):
        return scale * torch.randn(shape, generator=generator)

    state = {"cls_token": draw(1, 1, width, scale=0.5), "pos_embed": draw(1, 1 + 37 * 37, width, scale=0.5),
             "mask_token": torch.zeros(1, width),
             "patch_embed.proj.weight": draw(width, 3, 14, 14, scale=0.05),
             "patch_embed.proj.bias": draw(width, scale=0.1),
             "norm.weight": 1 + draw(width, scale=0.2), "norm.bias": draw(width, scale=0.2)}
    if registers:
        state["register_tokens"] = draw(1, registers, width, scale=0.5)
    for i in range(depth):
        block = {"norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        if swiglu_hidden:
            block |= {"mlp.w12": (2 * swiglu_hidden, width), "mlp.w3": (width, swiglu_hidden)}
        else:
            block |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in block.items():
            weight = 1 + draw(*shape, scale=0.2) if "norm" in name else draw(*shape, scale=1.5 / math.sqrt(shape[-1]))
            state[f"blocks.{i}.{name}.weight"] = weight
            state[f"blocks.{i}.{name}.bias"] = draw(shape[0], scale=0.2)
        for name in ("ls1", "ls2"):
            state[f"blocks.{i}.{name}.gamma"] = 0.5 + draw(width, scale=0.2)
    return state


def reference_tokens(state: dict, images: torch.Tensor, heads: int, blocks: list[int]) -> list[torch.Tensor]:
    """x_norm_patchtokens (B, gh gw, C) after each of `blocks`, in plain functions on Meta's names.

    images: already normalised, sides multiples of 14
    """
    width, registers = state["cls_token"].shape[-1], "register_tokens" in state

    def affine(x, name):
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name):
        return layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    patches = conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    batch, _, rows, columns = patches.shape
    table = state["pos_embed"][0, 1:].T.reshape(1, width, 37, 37)
    if (rows, columns) != (37, 37):
        if registers:
            table = interpolate(table, size=(rows, columns), mode="bicubic", antialias=True)
        else:
            table = interpolate(table, scale_factor=((rows + 0.1) / 37, (columns + 0.1) / 37), mode="bicubic")
    x = (patches + table).reshape(batch, width, -1).transpose(1, 2)
    front = [(state["cls_token"] + state["pos_embed"][:, :1]).repeat(batch, 1, 1)]
    if registers:
        front.append(state["register_tokens"].repeat(batch, 1, 1))
    skipped = sum(token.shape[1] for token in front)
    x = torch.cat([*front, x], 1)
    outputs = []
    for i in range(max(blocks)):
        name = f"blocks.{i}"
        parts = affine(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").split(width, -1)
        q, k, v = (part.reshape(batch, -1, heads, width // heads).transpose(1, 2) for part in parts)
        attention = (q @ k.transpose(2, 3) / math.sqrt(width // heads)).softmax(-1) @ v
        x = x + state[f"{name}.ls1.gamma"] * affine(attention.transpose(1, 2).reshape(x.shape), f"{name}.attn.proj")
        y = norm(x, f"{name}.norm2")
        if f"{name}.mlp.w12.weight" in state:
            gate, value = affine(y, f"{name}.mlp.w12").chunk(2, -1)
            y = affine(silu(gate) * value, f"{name}.mlp.w3")
        else:
            y = affine(gelu(affine(y, f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
        x = x + state[f"{name}.ls2.gamma"] * y
        if i + 1 in blocks:
            outputs.append(norm(x, "norm")[:, skipped:])
    return outputs


def photographs(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean[:, None, None]) / std[:, None, None]


def as_map(tokens: torch.Tensor, rows: int) -> torch.Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], rows, -1)


SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 4}
# ViT-g: timm's own mlp_ratio 2.66667 * 2 at width 64 gives 341, so a ratio that is even is handed in
SWIGLU = SMALL | {"mlp_ratio": 4.0}
KINDS = {f"dinov2_vit{size}14{'_reg' if registers else ''}":
         (SWIGLU if size == "g" else SMALL, {"registers": registers, "swiglu_hidden": 128 if size == "g" else 0})
         for size in "sblg" for registers in (0, 4)}


@pytest.mark.parametrize("size", [(224, 224), (518, 518), (308, 224)])
@pytest.mark.parametrize("model", KINDS)
def test_features_equal_metas_at_every_size(model, size):
    sizes, layout = KINDS[model]
    state = meta_state(64, 2, **layout)
    backbone = DinoV2(model, **sizes)
    backbone.load(state, "test")
    images = photographs(*size, batch=1)
    (tokens,) = reference_tokens(state, normalised(images), 4, [2])
    torch.testing.assert_close(backbone(images), as_map(tokens, size[0] // 14), **TOLERANCE)


@pytest.mark.parametrize("size", [(224, 224), (518, 518), (308, 224)])
@pytest.mark.parametrize("model", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_the_true_vits14_equals_metas(model, size):
    state = meta_state(384, 12, 4 if model.endswith("_reg") else 0)
    backbone = DinoV2(model)
    backbone.load(state, "test")
    images = photographs(*size, batch=1)
    (tokens,) = reference_tokens(state, normalised(images), 6, [12])
    torch.testing.assert_close(backbone(images), as_map(tokens, size[0] // 14), **TOLERANCE)


@pytest.mark.parametrize(("model", "heads"), [("dinov2_vitb14", 12), ("dinov2_vitl14_reg", 16), ("dinov2_vitg14", 24),
                                              ("dinov2_vitg14_reg", 24)])
def test_one_block_of_true_width_equals_metas(model, heads):
    width, giant = MODELS[model][2], "vitg" in model
    state = meta_state(width, 1, 4 if model.endswith("_reg") else 0, 4096 if giant else 0)
    backbone = DinoV2(model, depth=1)
    backbone.load(state, "test")
    images = photographs(224, 224, batch=1)
    (tokens,) = reference_tokens(state, normalised(images), heads, [1])
    torch.testing.assert_close(backbone(images), as_map(tokens, 16), **TOLERANCE)


@pytest.mark.parametrize("model", KINDS)
def test_timms_own_resampling_is_another_one_without_registers(model):
    sizes, layout = KINDS[model]
    backbone = DinoV2(model, **sizes)
    backbone.load(meta_state(64, 2, **layout), "test")
    for size, differs in ((224, not model.endswith("_reg")), (518, False)):
        images = photographs(size, size, batch=1)
        with torch.no_grad():
            (theirs,) = backbone.network.forward_intermediates(normalised(images), [1], norm=True,
                                                               intermediates_only=True)
        error = ((backbone(images) - theirs).norm() / theirs.norm()).item()
        assert error > 0.05 if differs else error < 1e-5, error


def test_sides_that_no_patch_divides_are_resized_up():
    state = meta_state(64, 2)
    backbone = DinoV2(**SMALL)
    backbone.load(state, "test")
    images = photographs(100, 128)
    enlarged = interpolate(normalised(images), (112, 140), mode="bicubic", antialias=True)
    (tokens,) = reference_tokens(state, enlarged, 4, [2])
    torch.testing.assert_close(backbone(images), as_map(tokens, 8), rtol=0, atol=1e-4)  # resized before normalising


def test_several_blocks_each_after_the_final_norm():
    state = meta_state(64, 4)
    sizes = SMALL | {"depth": 4}
    images = photographs(140, 140, batch=1)
    expected = torch.cat([as_map(tokens, 10) for tokens in reference_tokens(state, normalised(images), 4, [2, 4])], 1)
    for layers in ([2, 4], [0.5, 1.0]):
        backbone = DinoV2(layers=layers, **sizes)
        backbone.load(state, "test")
        assert backbone.channels == 128 and backbone.title == "DINOv2 ViT-S/14, block 2+4"
        torch.testing.assert_close(backbone(images), expected, **TOLERANCE)


def published_size(width: int, depth: int, registers: int, hidden: int) -> int:
    """Parameters of Meta's model: embedding, blocks, final norm, and the mask token."""
    mlp = width * 2 * hidden + 2 * hidden + hidden * width + width if hidden else 8 * width * width + 5 * width
    block = 4 * width + 4 * width * width + 4 * width + 2 * width + mlp
    return width * 589 + (1 + 1370 + 1 + registers) * width + depth * block + 2 * width


@pytest.mark.parametrize(("model", "published"), [("dinov2_vits14", 22_056_576), ("dinov2_vitb14", 86_580_480),
                                                  ("dinov2_vitl14", 304_368_640), ("dinov2_vitg14", 1_136_480_768),
                                                  ("dinov2_vits14_reg", 22_058_112)])
def test_architectures_are_the_published_ones(model, published):
    _, timm_name, width, megabytes = MODELS[model]
    with torch.device("meta"):
        network = timm.create_model(timm_name, img_size=518)
    folded = width if model.endswith("_reg") else 0  # CLS and its position are one tensor
    assert sum(p.numel() for p in network.parameters()) + width + folded == published
    assert network.embed_dim == width and abs(published * 4 / 1e6 - megabytes) < 1
    depth = {384: 12, 768: 12, 1024: 24, 1536: 40}[width]
    assert published_size(width, depth, 4 if folded else 0, 4096 if width == 1536 else 0) == published


def test_untrained_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = DinoV2(seed=1, **SMALL).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)  # the global generator was left where it was
    torch.manual_seed(6)
    second, third = DinoV2(seed=1, **SMALL).state_dict(), DinoV2(seed=2, **SMALL).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["network.pos_embed"], third["network.pos_embed"])


def test_untrained_weights_are_spread_as_metas():
    """Standard deviation, or value where it is constant, of every kind of tensor; none is left undrawn."""
    state = DinoV2("dinov2_vitg14_reg", embed_dim=192, depth=2, num_heads=4, mlp_ratio=4.0).network.state_dict()
    for name, tensor in state.items():
        if "norm" in name or "gamma" in name:
            assert tensor.eq(0 if name.endswith("bias") else 1).all(), name
        elif name.startswith("blocks") and name.endswith("bias"):
            assert tensor.eq(0).all(), name
        else:
            bound = 1 / math.sqrt(3 * 14 * 14)  # of the uniform patch embedding
            std = 1e-6 if "token" in name else bound / math.sqrt(3) if "patch_embed" in name else 0.02
            assert tensor.std().item() == pytest.approx(std, rel=0.2), name


def test_it_stays_frozen_and_in_evaluation_mode():
    backbone = DinoV2(**SMALL).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone(photographs(28, 28)).requires_grad
    assert backbone.num_parameters == sum(p.numel() for p in backbone.network.parameters()) and not backbone.gated


def test_images_of_another_range_are_refused():
    backbone = DinoV2(**SMALL)
    with pytest.raises(ValueError, match=r"\[0, 1\]; got values from -"):
        backbone(photographs(28, 28) * 2 - 1)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        backbone(photographs(28, 28)[0])


def test_weights_that_do_not_fit_are_refused_and_change_nothing():
    backbone = DinoV2(**SMALL)
    before = backbone.state_dict()["network.pos_embed"].clone()
    state = meta_state(64, 2)
    shorter = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.1.mlp")}
    with pytest.raises(CheckpointError, match="4 tensors are missing .*blocks.1.mlp.fc1.bias"):
        backbone.load(shorter, "a.pth")
    with pytest.raises(CheckpointError, match="14 tensors are left over"):
        backbone.load(meta_state(64, 3), "a.pth")
    with pytest.raises(CheckpointError, match=r"a.pth .*ViT-S/14: .*proj.bias is \(384,\) instead of \(64,\)"):
        backbone.load(meta_state(384, 2), "a.pth")
    with pytest.raises(CheckpointError, match="reg_token"):
        backbone.load(meta_state(64, 2, registers=4), "a.pth")
    assert torch.equal(backbone.state_dict()["network.pos_embed"], before)


def test_timms_layout_loads_unchanged():
    for model, (sizes, layout) in KINDS.items():
        first, second = DinoV2(model, **sizes), DinoV2(model, seed=3, **sizes)
        first.load(meta_state(64, 2, **layout), "meta")
        second.load(first.network.state_dict(), "timm")
        images = photographs(56, 56)
        assert torch.equal(first(images), second(images))


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="model.dinov2_model is 'dinov2_vits16'; choose one of dinov2_vits14"):
        DinoV2("dinov2_vits16")
