"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193; registers: Darcet et al. 2023, arXiv 2309.16588).

timm builds the network; what differs from Meta's own models at other sizes than 518 px, the resampling of the position
embedding, is done here as there, so that features are equal at every size.
"""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from src.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from src.backbones.blocks import chosen_blocks, with_blocks
from src.mast3r.attention import Grid
from src.mast3r.initialise import initialise
from src.mast3r.weight_file import CheckpointError
from src.pretrained.choices import DINOV2_WIDTHS
from src.pretrained.source import Source

DINOV2_LICENCE = "Apache-2.0 (Meta)"
ADDRESS = "https://dl.fbaipublicfiles.com/dinov2"
SIDE = 37  # cells per side of the published position embedding: 518 px
RENAMED = (  # others' names, and timm's
    (r"\.mlp\.(w12|weights_in)\.", ".mlp.fc1."),  # Meta's and Hugging Face's SwiGLU
    (r"\.mlp\.(w3|weights_out)\.", ".mlp.fc2."),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # Meta's training keeps blocks in chunks, under their own numbers
    (r"^embeddings\.position_embeddings$", "pos_embed"),  # from here Hugging Face's
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)
OFFSET = 0.1  # cells added to the wanted grid before the scale factor is computed, models without registers

# by DINOV2_WIDTHS: ViT name, timm's name, size of the weight file in MB
DINOV2_MODELS = {
    "dinov2_vits14": ("ViT-S/14", "vit_small_patch14_dinov2", 88),
    "dinov2_vitb14": ("ViT-B/14", "vit_base_patch14_dinov2", 346),
    "dinov2_vitl14": ("ViT-L/14", "vit_large_patch14_dinov2", 1218),
    "dinov2_vitg14": ("ViT-g/14", "vit_giant_patch14_dinov2", 4546),
}
DINOV2_MODELS |= {
    f"{name}_reg": (f"{title} with registers", timm_name.replace("patch14", "patch14_reg4"), megabytes)
    for name, (title, timm_name, megabytes) in DINOV2_MODELS.items()
}


def source_of(model: str) -> Source:
    folder = model.removesuffix("_reg")
    file = f"{model}4" if model.endswith("_reg") else model
    return Source(f"{ADDRESS}/{folder}/{file}_pretrain.pth", DINOV2_LICENCE, DINOV2_MODELS[model][2])


def check_width(model: str, dinov2_dim: int | None) -> int:
    """Width of `model`; raises ValueError when model.dinov2_dim says another."""
    width = DINOV2_WIDTHS[model]
    if dinov2_dim not in (None, width):
        raise ValueError(
            f"model.dinov2_dim is {dinov2_dim}, but {model} is {width} wide; set it to {width} or leave it empty."
        )
    return width


@torch.no_grad()
def draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Untrained weights as Meta's models start from: linear layers and positions normal with std 0.02, LayerScale 1."""
    from timm.layers import LayerScale

    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=0.02, generator=generator)
            module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            initialise(module, generator)
        elif isinstance(module, LayerScale):
            module.gamma.fill_(1)
    network.pos_embed.normal_(std=0.02, generator=generator)
    for token in (network.cls_token, network.reg_token):
        if token is not None:
            token.normal_(std=1e-6, generator=generator)


class DinoV2(Backbone):
    """Patch tokens after the final norm (Meta's `x_norm_patchtokens`), as a map; CLS and register tokens are dropped.

    model   a key of MODELS
    layers  blocks to read, see `chosen_blocks`; their maps are concatenated, each after the final norm
    seed    of the untrained weights, see `draw_weights`; None = none are drawn, there are names and shapes only
    sizes   other sizes than the model's own, for tests: timm's depth, embed_dim, num_heads
    """

    patch_size = 14
    mean, std, licence = IMAGENET_MEAN, IMAGENET_STD, DINOV2_LICENCE

    def __init__(
        self, model: str = "dinov2_vits14", layers: Sequence[int | float] | None = None, seed: int | None = 0, **sizes
    ):
        super().__init__()
        if model not in DINOV2_MODELS:
            raise ValueError(f"model.dinov2_model is {model!r}; choose one of {', '.join(DINOV2_MODELS)}.")
        import timm  # here, as it takes seconds and most stages need no network of its

        with torch.device("meta"):
            self.network = timm.create_model(
                DINOV2_MODELS[model][1],
                pretrained=False,
                img_size=SIDE * self.patch_size,
                dynamic_img_size=True,
                init_values=1.0,
                **sizes,
            )
        if seed is not None:
            draw_weights(self.network.to_empty(device="cpu"), torch.Generator().manual_seed(seed))
        self.name, self.registers = model, model.endswith("_reg")
        self.blocks = chosen_blocks(layers, len(self.network.blocks))
        self.channels = self.network.embed_dim * len(self.blocks)
        self.title = with_blocks(f"DINOv2 {DINOV2_MODELS[model][0]}", layers, self.blocks)
        self.source = source_of(model)
        self.freeze()

    @property
    def side(self) -> int:
        """Cells per side of the position embedding; files of shorter trainings have fewer than the published."""
        return math.isqrt(self.network.pos_embed.shape[1])

    def positions(self, grid: Grid) -> Tensor:
        """Position embedding of the patches at `grid` cells, (1, gh gw, C), resampled as Meta's models do."""
        side = self.side
        native = self.network.pos_embed[:, -side * side :]
        if grid == (side, side):
            return native
        table = native.unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
        if self.registers:
            table = interpolate(table, grid, mode="bicubic", antialias=True)
        else:
            factors = tuple((cells + OFFSET) / side for cells in grid)  # used as they are, not recomputed from sizes
            table = interpolate(table, scale_factor=factors, mode="bicubic")
        return table.flatten(2).mT.to(native.dtype)

    def prefix(self) -> Tensor:
        """Tokens in front of the patches: CLS with its position, then registers, which have none."""
        network = self.network
        if self.registers:  # timm keeps the sum of CLS and its position in one tensor
            return torch.cat([network.cls_token, network.reg_token], 1)
        return network.cls_token + network.pos_embed[:, :1]

    def features(self, images: Tensor) -> Tensor:
        patches = self.network.patch_embed.proj(images)
        grid = tuple(patches.shape[-2:])
        prefix = self.prefix().expand(len(images), -1, -1)
        x = torch.cat([prefix, patches.flatten(2).mT + self.positions(grid)], 1)
        maps = []
        for number, block in enumerate(self.network.blocks[: self.blocks[-1]], 1):
            x = block(x)
            if number in self.blocks:
                maps.append(self.network.norm(x)[:, prefix.shape[1] :])
        return torch.cat(maps, -1).mT.unflatten(-1, grid)

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From Meta's layout, or that of Hugging Face, to timm's; timm's own passes unchanged.

        Meta has a mask token (used in training only), registers in `register_tokens` with the CLS token's position
        still in `pos_embed`, in ViT-g the two halves of SwiGLU packed in `mlp.w12`, and in training blocks in chunks.
        """
        state = {own_name(name): tensor for name, tensor in with_joined_attention(state).items()}
        state.pop("mask_token", None)
        if "register_tokens" in state:
            state["reg_token"] = state.pop("register_tokens")
            width = self.network.embed_dim
            cls, table = (state.get(name) for name in ("cls_token", "pos_embed"))
            if (  # others are left for the strict load to name
                cls is not None and table is not None and cls.shape == (1, 1, width) and is_table(table, width, 1)
            ):
                state["cls_token"] = cls + table[:, :1]
                state["pos_embed"] = table[:, 1:]
        return state

    def load(self, state: dict[str, Tensor], origin: str) -> None:
        """As every backbone, but a position embedding of another number of cells is taken as it is: it is resampled from
        there to the grid that is wanted, as Meta does.

        raises    CheckpointError
        """
        published, table = self.network.pos_embed, self.converted(state).get("pos_embed")
        other = table is not None and table.shape != published.shape
        if other and is_table(table, self.network.embed_dim, 0 if self.registers else 1):
            self.network.pos_embed = nn.Parameter(torch.empty_like(table), requires_grad=False)
        try:
            super().load(state, origin)
        except CheckpointError:
            self.network.pos_embed = published
            raise
        if self.side != SIDE:
            print(f"{origin}: its {self.side} x {self.side} position embeddings are resampled to each grid", flush=True)


def is_table(tensor: Tensor, width: int, before: int) -> bool:
    """Whether a tensor is (1, before + n n, width), a position embedding of a square with `before` tokens in front."""
    count = tensor.shape[1] - before if tensor.ndim == 3 else 0
    return count > 0 and tensor.shape == (1, before + math.isqrt(count) ** 2, width)


def own_name(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def with_joined_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The separate queries, keys and values of Hugging Face as the one layer that everybody else has."""
    joined = {}
    for name, tensor in state.items():
        if ".attention.attention.query." in name:
            parts = [state.get(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
            if all(part is not None for part in parts):
                joined[name.replace(".attention.attention.query.", ".attn.qkv.")] = torch.cat(parts)
        elif not re.search(r"\.attention\.attention\.(key|value)\.", name):
            joined[name] = tensor
    return joined
