import math
import re

import pytest
import timm
import torch
from torch.nn.functional import interpolate

from src.backbones.dinov2 import DINOV2_MODELS, DinoV2
from src.mast3r.weight_file import CheckpointError
from src.pretrained.choices import DINOV2_WIDTHS
from tests.helpers.dinov2 import KINDS, SMALL, TOLERANCE, as_map, meta_state, normalised, photographs, reference_tokens


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


@pytest.mark.parametrize(
    ("model", "heads"),
    [("dinov2_vitb14", 12), ("dinov2_vitl14_reg", 16), ("dinov2_vitg14", 24), ("dinov2_vitg14_reg", 24)],
)
def test_one_block_of_true_width_equals_metas(model, heads):
    width, giant = DINOV2_WIDTHS[model], "vitg" in model
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
            (theirs,) = backbone.network.forward_intermediates(
                normalised(images), [1], norm=True, intermediates_only=True
            )
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


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("dinov2_vits14", 22_056_576),
        ("dinov2_vitb14", 86_580_480),
        ("dinov2_vitl14", 304_368_640),
        ("dinov2_vitg14", 1_136_480_768),
        ("dinov2_vits14_reg", 22_058_112),
    ],
)
def test_architectures_are_the_published_ones(model, published):
    _, timm_name, megabytes = DINOV2_MODELS[model]
    width = DINOV2_WIDTHS[model]
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


def chunked(state):
    """As Meta's training loop leaves it: blocks in chunks of one, and a head beside."""
    names = {name: re.sub(r"^blocks\.(\d+)", r"blocks.\1.\1", name) for name in state}
    return {f"backbone.{names[name]}": tensor for name, tensor in state.items()} | {"dino_head.last": torch.ones(2)}


def hugging_face(state):
    """Under the names of transformers' Dinov2Model."""
    found = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3)):
                found[name.replace("attn.qkv", f"attention.attention.{part}")] = piece
            continue
        for old, new in (
            ("attn.proj", "attention.output.dense"),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
            ("mlp.w12", "mlp.weights_in"),
            ("mlp.w3", "mlp.weights_out"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ):
            name = name.replace(old, new)
        names = {"pos_embed": "embeddings.position_embeddings", "norm.weight": "layernorm.weight"}
        names |= {"norm.bias": "layernorm.bias"}
        name = names.get(name, f"embeddings.{name}" if name.endswith("_token") or name == "register_tokens" else name)
        found[name] = tensor
    return {re.sub(r"^blocks\.", "encoder.layer.", name): tensor for name, tensor in found.items()}


LOOPS = {
    "chunked teacher": (lambda state: {"teacher": chunked(state)}, "its entry teacher is read, backbone. before"),
    "hugging face": (hugging_face, ""),
    "hugging face classifier": (
        lambda state: (
            {f"dinov2.{name}": tensor for name, tensor in hugging_face(state).items()}
            | {"classifier.bias": torch.ones(3)}
        ),
        "1 tensors beside",
    ),
    "compiled": (
        lambda state: {f"_orig_mod.net.{name}": tensor for name, tensor in state.items()},
        "_orig_mod.net. before",
    ),
    "averaged": (
        lambda state: {"ema": {f"vit.{name}": tensor for name, tensor in state.items()}, "step": 3},
        "entry ema",
    ),
    "head beside": (lambda state: {"model_state_dict": state | {"head.weight": torch.ones(3, 64)}}, "1 tensors beside"),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("model", ["dinov2_vits14", "dinov2_vits14_reg", "dinov2_vitg14"])
def test_files_of_training_loops_are_read_exactly(tmp_path, capsys, model, loop):
    sizes, layout = KINDS[model]
    wrap, words = LOOPS[loop]
    state = meta_state(64, 2, **layout)
    torch.save(wrap(state), tmp_path / "loop.pth")
    backbone, plain = DinoV2(model, **sizes), DinoV2(model, **sizes)
    backbone.load(backbone.read(tmp_path / "loop.pth"), "loop")
    plain.load(state, "plain")
    found = backbone.network.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in plain.network.state_dict().items())
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("model", ["dinov2_vits14", "dinov2_vits14_reg"])
@pytest.mark.parametrize("size", [(224, 224), (308, 224)])
def test_position_embeddings_of_another_count_are_resampled_as_metas(capsys, model, size):
    sizes, layout = KINDS[model]
    state = meta_state(64, 2, side=16, **layout)
    backbone = DinoV2(model, **sizes)
    backbone.load(state, "short.pth")
    assert "short.pth: its 16 x 16 position embeddings are resampled" in capsys.readouterr().out
    images = photographs(*size, batch=1)
    (tokens,) = reference_tokens(state, normalised(images), 4, [2])
    torch.testing.assert_close(backbone(images), as_map(tokens, size[0] // 14), **TOLERANCE)
    again = DinoV2(model, **sizes)
    again.load(backbone.network.state_dict(), "data/weights")
    assert torch.equal(again(images), backbone(images))


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="model.dinov2_model is 'dinov2_vits16'; choose one of dinov2_vits14"):
        DinoV2("dinov2_vits16")
