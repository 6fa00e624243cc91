"""The two-view geometry network: CroCo v2's encoder and decoder, DUSt3R's point head, MASt3R's descriptors.

Weinzaepfel et al. 2023 (arXiv 2211.10408), Wang et al. 2024 (arXiv 2312.14132), Leroy et al. 2024 (arXiv 2406.09756).
Two images go in; per pixel of both, a point in view 1's camera frame and a confidence come out. State-dict keys are
those of the official files.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle
from torch.utils.checkpoint import checkpoint

from src.mast3r.attention import NORM_EPS, DecoderBlock, EncoderBlock, Grid, Mlp, rope_angles, token_positions
from src.mast3r.dpt import ALIASES, DPT
from src.mast3r.initialise import draw_uniform, initialise

HEADS = ("catmlp+dpt", "dpt", "linear")


@dataclass(frozen=True)
class Mast3rConfig:
    """Sizes of the network. Head widths (embed_dim / num_heads) must be multiples of 4 (RoPE2D).

    head                   `catmlp+dpt` MASt3R: points and descriptors; `dpt`, `linear` DUSt3R: points
    desc_dim, two_confs    descriptor channels, and whether descriptors have a confidence of their own
    local_features_factor  hidden width of the descriptor MLP over its input width
    """

    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    patch_size: int = 16
    mlp_ratio: float = 4.0
    rope_base: float = 100.0
    head: str = "catmlp+dpt"
    desc_dim: int = 24
    two_confs: bool = True
    dpt_feature_dim: int = 256
    dpt_last_dim: int = 128
    dpt_layer_dims: tuple[int, ...] = (96, 192, 384, 768)
    local_features_factor: float = 4.0

    def __post_init__(self):
        if self.head not in HEADS:
            raise ValueError(f"The geometry network's head is {self.head!r}; choose one of {', '.join(HEADS)}.")
        if self.dec_depth < 4:
            raise ValueError(
                f"dec_depth is {self.dec_depth}; the DPT head reads four different token maps, so use at "
                "least 4 decoder blocks."
            )
        for part in ("enc", "dec"):
            width, heads = getattr(self, f"{part}_embed_dim"), getattr(self, f"{part}_num_heads")
            if heads < 1 or width % (4 * heads):
                raise ValueError(
                    f"{part}_embed_dim is {width} and {part}_num_heads {heads}; each head's share of the "
                    "width must be a multiple of 4 (RoPE2D)."
                )

    @property
    def hooks(self) -> tuple[int, int, int, int]:
        """Numbers of the token maps that the DPT heads read: encoder tokens, then after half, 3/4 and all blocks."""
        return 0, self.dec_depth * 2 // 4, self.dec_depth * 3 // 4, self.dec_depth


MAST3R = Mast3rConfig()
DUST3R_DPT = Mast3rConfig(head="dpt")
DUST3R_LINEAR = Mast3rConfig(head="linear")


@dataclass(frozen=True)
class PointMap:
    """Output of one view's head, pixel by pixel, in float32.

    pts3d      (B, H, W, 3)  points in view 1's camera frame, OpenCV axes; metres for metric networks
    conf       (B, H, W)     confidence > 1
    desc       (B, H, W, D)  unit descriptors, None for heads without
    desc_conf  (B, H, W)     their confidence, None for heads without
    """

    pts3d: Tensor
    conf: Tensor
    desc: Tensor | None = None
    desc_conf: Tensor | None = None

    @classmethod
    def activate(cls, raw: Tensor, desc_dim: int = 0, two_confs: bool = False) -> "PointMap":
        """From raw channels (B, 4 + ..., H, W): x y z, confidence[, descriptor[, its confidence]].

        Points are v / |v| * (exp |v| - 1), confidence 1 + exp, descriptor confidence exp.
        """
        raw = raw.movedim(1, -1)
        v, c = raw[..., :3], raw[..., 3]
        length = v.norm(dim=-1, keepdim=True)
        pts3d, conf = v / length.clamp(min=1e-8) * length.expm1(), 1 + c.exp()
        if not desc_dim:
            return cls(pts3d, conf)
        desc = raw[..., 4 : 4 + desc_dim]
        desc_conf = raw[..., 4 + desc_dim].exp() if two_confs else conf
        return cls(pts3d, conf, desc / desc.norm(dim=-1, keepdim=True), desc_conf)

    def map(self, function) -> "PointMap":
        values = (self.pts3d, self.conf, self.desc, self.desc_conf)
        return PointMap(*(None if value is None else function(value) for value in values))


class PatchEmbed(nn.Module):
    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).mT


class PixelHead(nn.Module):
    """One view's values per pixel: points and confidence, and for MASt3R descriptors with theirs."""

    def __init__(self, config: Mast3rConfig):
        super().__init__()
        self.config = config
        patch_area = config.patch_size**2
        if config.head == "linear":
            self.proj = nn.Linear(config.dec_embed_dim, 4 * patch_area)
            return
        widths = (config.enc_embed_dim, *[config.dec_embed_dim] * 3)
        self.dpt = DPT(widths, config.dpt_layer_dims, config.dpt_feature_dim, config.dpt_last_dim, 4)
        if config.head == "catmlp+dpt":
            width = config.enc_embed_dim + config.dec_embed_dim
            self.head_local_features = Mlp(
                width, round(width * config.local_features_factor), (config.desc_dim + config.two_confs) * patch_area
            )

    def forward(self, tokens: list[Tensor], grid: Grid) -> PointMap:
        """tokens: the whole list of a view, see `Mast3r.decode`."""
        if self.config.head == "linear":
            return PointMap.activate(self.to_pixels(self.proj(tokens[-1]), grid).float())
        raw = self.dpt([tokens[hook] for hook in self.config.hooks], grid).float()
        if self.config.head == "dpt":
            return PointMap.activate(raw)
        local = self.head_local_features(torch.cat([tokens[0], tokens[-1]], -1))
        return PointMap.activate(
            torch.cat([raw, self.to_pixels(local, grid).float()], 1), self.config.desc_dim, self.config.two_confs
        )

    def to_pixels(self, values: Tensor, grid: Grid) -> Tensor:
        """(B, h w, C p p) -> (B, C, p h, p w)."""
        return pixel_shuffle(values.mT.unflatten(-1, grid), self.config.patch_size)


class TwoViewTrunk(nn.Module):
    """What CroCo, DUSt3R and MASt3R share: the encoder, its map to the decoder's width, and one decoder stack."""

    def __init__(self, config: Mast3rConfig):
        super().__init__()
        self.config, self.gradient_checkpointing = config, False
        enc, dec = config.enc_embed_dim, config.dec_embed_dim
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dec))
        self.patch_embed = PatchEmbed(config.patch_size, enc)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(enc, config.enc_num_heads, config.mlp_ratio) for _ in range(config.enc_depth)
        )
        self.enc_norm = nn.LayerNorm(enc, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(enc, dec)
        self.dec_blocks = self.decoder_blocks()
        self.dec_norm = nn.LayerNorm(dec, eps=NORM_EPS)

    def decoder_blocks(self) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            DecoderBlock(config.dec_embed_dim, config.dec_num_heads, config.mlp_ratio) for _ in range(config.dec_depth)
        )

    def grid(self, images: Tensor) -> Grid:
        """Tokens (h, w) of images (B, 3, H, W); ValueError when a side is not a multiple of the patch size."""
        height, width = images.shape[-2:]
        patch = self.config.patch_size
        if height % patch or width % patch:
            raise ValueError(
                f"Images are {width}x{height}; both sides must be multiples of {patch}, the patch size "
                "(set the dataset's resolution accordingly)."
            )
        return height // patch, width // patch

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """RoPE angles of tokens at positions (..., N, 2) for encoder and decoder heads."""
        config = self.config
        widths = config.enc_embed_dim // config.enc_num_heads, config.dec_embed_dim // config.dec_num_heads
        return tuple(rope_angles(positions, width, config.rope_base) for width in widths)

    def run(self, block: nn.Module, *inputs: Tensor | list[Tensor] | Grid) -> Tensor:
        """One block or head, its activations recomputed in the backward pass when gradient_checkpointing is on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def encode_tokens(self, tokens: Tensor, positions: Tensor) -> Tensor:
        angles, _ = self.angles(positions)
        for block in self.enc_blocks:
            tokens = self.run(block, tokens, angles)
        return self.enc_norm(tokens)

    def encode(self, images: Tensor) -> Tensor:
        """Encoder tokens (B, N, E), after the last norm, of images (B, 3, H, W) in [-1, 1]; N = H W / p^2, row by
        row."""
        grid = self.grid(images)
        return self.encode_tokens(self.patch_embed(images), token_positions(grid, images.device))


class Mast3r(TwoViewTrunk):
    """DUSt3R or MASt3R, as `config.head` says.

    heads_in_autocast  let the heads follow an autocast region of the caller (half-precision training); by default they
                       compute in float32, as the official networks do
    """

    def __init__(self, config: Mast3rConfig):
        super().__init__(config)
        self.heads_in_autocast = False
        self.dec_blocks2 = self.decoder_blocks()
        self.downstream_head1 = PixelHead(config)
        self.downstream_head2 = PixelHead(config)

    def decode(self, tokens1: Tensor, tokens2: Tensor, grid1: Grid, grid2: Grid) -> tuple[list[Tensor], list[Tensor]]:
        """Token lists of both views for the heads, dec_depth + 1 entries each.

        Entry 0 is the encoder tokens (B, N, E), entry k the output of decoder block k (B, N, D), the last one after the
        final norm. Both views' blocks read the other view's tokens of the layer before.
        """
        _, angles1 = self.angles(token_positions(grid1, tokens1.device))
        _, angles2 = self.angles(token_positions(grid2, tokens2.device))
        lists = [tokens1], [tokens2]
        x1, x2 = self.decoder_embed(tokens1), self.decoder_embed(tokens2)
        for block1, block2 in zip(self.dec_blocks, self.dec_blocks2):
            x1, x2 = self.run(block1, x1, x2, angles1, angles2), self.run(block2, x2, x1, angles2, angles1)
            lists[0].append(x1)
            lists[1].append(x2)
        for tokens in lists:
            tokens[-1] = self.dec_norm(tokens[-1])
        return lists

    def head(self, view: int, tokens: list[Tensor], grid: Grid) -> PointMap:
        """Point map of view 1 or 2 from its token list, in view 1's camera frame."""
        head = self.downstream_head1 if view == 1 else self.downstream_head2
        if self.heads_in_autocast:
            return head(tokens, grid).map(Tensor.float)
        with torch.autocast(tokens[0].device.type, enabled=False):
            return head([x.float() for x in tokens], grid)

    def forward(self, images1: Tensor, images2: Tensor) -> tuple[PointMap, PointMap]:
        """Point maps of both views of image pairs (B, 3, H, W) in [-1, 1]; the views may differ in size."""
        grid1, grid2 = self.grid(images1), self.grid(images2)
        if images1.shape == images2.shape:
            tokens1, tokens2 = self.encode(torch.cat([images1, images2])).chunk(2)
        else:
            tokens1, tokens2 = self.encode(images1), self.encode(images2)
        list1, list2 = self.decode(tokens1, tokens2, grid1, grid2)
        return self.head(1, list1, grid1), self.head(2, list2, grid2)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Start for training from scratch: Xavier-uniform linear layers and patches with zero biases, PyTorch's default
        for the heads' convolutions, unit norms."""
        for module in self.modules():
            if isinstance(module, nn.Linear) or module is self.patch_embed.proj:
                draw_uniform(module.weight, (6 / sum(module.weight.flatten(1).shape)) ** 0.5, generator)
                module.bias.zero_()
            elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                initialise(module, generator)
        nn.init.normal_(self.mask_token, std=0.02, generator=generator)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        """As usual, but a tensor with two official names may be given under either or both."""
        return super().load_state_dict(with_aliases(state_dict), strict, assign)


def with_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the second name of each DPT pyramid layer added where one of the two is missing."""
    filled = dict(state)
    for name, tensor in state.items():
        for short, long in ALIASES.items():
            for old, new in ((short, long), (long, short)):
                if name.endswith(f"dpt.{old}"):
                    filled.setdefault(name.removesuffix(old) + new, tensor)
    return filled


class Croco(TwoViewTrunk):
    """CroCo v2's pre-training task: complete the masked patches of one image with the help of a second one."""

    def __init__(self, config: Mast3rConfig):
        super().__init__(config)
        self.prediction_head = nn.Linear(config.dec_embed_dim, 3 * config.patch_size**2)

    def forward(self, images1: Tensor, images2: Tensor, mask1: Tensor) -> Tensor:
        """Predicted patches (B, N, p p 3), (row, column, channel) order, of images1 (B, 3, H, W) normalised with the
        ImageNet statistics; mask1 (B, N) bool, the same number of masked tokens in each sample."""
        positions = token_positions(self.grid(images1), images1.device).expand(len(images1), -1, -1)
        tokens = self.patch_embed(images1)
        visible = self.encode_tokens(
            tokens[~mask1].unflatten(0, (len(tokens), -1)), positions[~mask1].unflatten(0, (len(tokens), -1))
        )
        x = self.mask_token.expand(*mask1.shape, -1).clone()
        x[~mask1] = self.decoder_embed(visible).flatten(0, 1)
        memory = self.decoder_embed(self.encode(images2))
        _, angles1 = self.angles(positions)
        _, angles2 = self.angles(token_positions(self.grid(images2), images2.device))
        for block in self.dec_blocks:
            x = self.run(block, x, memory, angles1, angles2)
        return self.prediction_head(self.dec_norm(x))
