"""DINOv2 in its publisher's form, and its forward pass written again."""

import math

import torch
from torch.nn.functional import conv2d, gelu, interpolate, layer_norm, linear, silu

TOLERANCE = {"rtol": 0, "atol": 1e-5}  # of features with unit variance; float32


def meta_state(
    width: int, depth: int, registers: int = 0, swiglu_hidden: int = 0, side: int = 37
) -> dict[str, torch.Tensor]:
    """Random weights under the names and shapes of Meta's published files, large enough for every term to matter."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale):
        return scale * torch.randn(shape, generator=generator)

    state = {
        "cls_token": draw(1, 1, width, scale=0.5),
        "pos_embed": draw(1, 1 + side * side, width, scale=0.5),
        "mask_token": torch.zeros(1, width),
        "patch_embed.proj.weight": draw(width, 3, 14, 14, scale=0.05),
        "patch_embed.proj.bias": draw(width, scale=0.1),
        "norm.weight": 1 + draw(width, scale=0.2),
        "norm.bias": draw(width, scale=0.2),
    }
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
    side = math.isqrt(state["pos_embed"].shape[1])
    table = state["pos_embed"][0, 1:].T.reshape(1, width, side, side)
    if (rows, columns) != (side, side):
        if registers:
            table = interpolate(table, size=(rows, columns), mode="bicubic", antialias=True)
        else:
            table = interpolate(table, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic")
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

KINDS = {
    f"dinov2_vit{size}14{'_reg' if registers else ''}": (
        SWIGLU if size == "g" else SMALL,
        {"registers": registers, "swiglu_hidden": 128 if size == "g" else 0},
    )
    for size in "sblg"
    for registers in (0, 4)
}
