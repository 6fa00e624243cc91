"""How a frozen backbone's features join the tokens of the two-view network."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.mast3r.attention import NORM_EPS, CrossAttention, rope_angles, token_positions
from src.mast3r.initialise import initialise
from src.splatt3r.choices import FUSION_SITES

PARAMETER_TOLERANCE = 0.01  # of model.fusion_parameters


@dataclass(frozen=True)
class FusionConfig:
    """What is fused where.

    channels       width of the backbone's feature map
    site           `head`: decoder tokens, for the Gaussian head alone; `encoder`: encoder tokens, for everything after;
                   `depth`: the readout of depth, where cameras are given
    hooks          site head: numbers of the token maps that are fused, among those the heads read beyond the first
                   (for 12 decoder blocks 6, 9, 12); None = the last
    mode           one of FUSION_MODES
    identity_init  the adapter starts as the identity, so step 0 is the network without features
    parameters     of all adapters together, see `inner_width`; None = as many as the mode needs
    """

    channels: int
    site: str = "head"
    hooks: tuple[int, ...] | None = None
    mode: str = "concat"
    identity_init: bool = True
    parameters: int | None = None

    def __post_init__(self):
        if self.channels < 1:
            raise ValueError(
                f"Fusion needs backbone features with at least 1 channel; got {self.channels}. Without a "
                "backbone, pass no fusion at all (model.backbone: none)."
            )
        if self.site not in FUSION_SITES:
            raise ValueError(f"model.fusion_site is {self.site!r}; choose one of {', '.join(FUSION_SITES)}.")
        if self.site != "head" and self.hooks is not None:
            raise ValueError(f"model.fusion_hooks belongs to fusion_site head; leave it empty for site {self.site}.")


def resize_features(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Feature maps (B, C, gh, gw) on another grid (h, w), bilinear between cell centres (align_corners=False)."""
    if tuple(features.shape[-2:]) == tuple(grid):
        return features
    return nn.functional.interpolate(features, tuple(grid), mode="bilinear", align_corners=False)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the most groups, up to 32, that divide `channels`."""
    groups = max(g for g in range(1, 33) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def projection(channels: int, width: int, narrow: bool = False) -> nn.Sequential:
    """GroupNorm(Conv1x1(channels -> width)); of one group where `narrow`, lest a group be a single channel."""
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.GroupNorm(1, width) if narrow else group_norm(width))


class Adapter(nn.Module, ABC):
    """Base of the modes: a mode is a subclass with `fuse`, and an entry of ADAPTERS. Each has P_d = `project_features`, and
    P_m = `project_tokens`, the identity unless m != o or the mode always needs it.

    channels, width, output  d, m and o of `FusionAdapter`
    inner_width              i: features first pass GELU(GroupNorm(Conv1x1(d -> i))), one group; None = they do not
    """

    def __init__(self, channels: int, width: int, output: int, identity_init: bool, inner_width: int | None = None):
        super().__init__()
        self.identity_init = identity_init
        self.condense: nn.Module = nn.Identity()
        if inner_width is not None:
            self.condense = nn.Sequential(*projection(channels, inner_width, narrow=True), nn.GELU())
        self.make(inner_width or channels, width, output)

    def make(self, channels: int, width: int, output: int) -> None:
        """Create the layers, with zeros in parameters that are no layer's."""
        self.project_features = projection(channels, output)
        self.project_tokens = nn.Identity() if width == output else projection(width, output)

    def last(self) -> nn.Module | None:
        """The layer whose weight and bias start at 0 with identity_init; None where a zero parameter does its work."""
        return None

    @abstractmethod
    def fuse(self, tokens: Tensor, projected: Tensor) -> Tensor:
        """tokens x (B, m, h, w), projected P_d f -> (B, o, h, w)."""

    def weights(self, tokens: Tensor, projected: Tensor) -> dict[str, Tensor]:
        """What the mode multiplies by, to be reported after training: name -> tensor of any shape."""
        return {}

    def reset_parameters(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                initialise(module, generator)
        if self.identity_init and (last := self.last()) is not None:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def projected(self, features: Tensor) -> Tensor:
        return self.project_features(self.condense(features))

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """tokens (B, m, h, w), features (B, d, h, w) on the same grid -> (B, o, h, w)."""
        if tokens.shape[-2:] != features.shape[-2:]:
            raise ValueError(
                f"Features on a {tuple(features.shape[-2:])} grid cannot join tokens on a "
                f"{tuple(tokens.shape[-2:])} grid; call resize_features first."
            )
        return self.fuse(tokens, self.projected(features))

    @torch.no_grad()
    def effect(self, tokens: Tensor, features: Tensor) -> dict[str, float]:
        """|fused - x| / |x|, the mean over the batch; then mean and, of several, standard deviation of each of
        `weights`. Needs m = o."""
        projected = self.projected(features)
        change = (self.fuse(tokens, projected) - tokens).flatten(1).norm(dim=1) / tokens.flatten(1).norm(dim=1)
        found = {"relative_change": change.mean().item()}
        for name, values in self.weights(tokens, projected).items():
            found[name] = values.mean().item()
            if values.numel() > 1:
                found[f"{name}_std"] = values.std(correction=0).item()
        return found


class Concat(Adapter):
    """x + GN0(Conv1x1(2o -> o)(cat[P_m x, P_d f])); no ReLU: at 0 it would never let a gradient pass."""

    def make(self, channels: int, width: int, output: int) -> None:
        super().make(channels, width, output)
        self.project_tokens = projection(width, output)
        self.join = projection(2 * output, output)

    def last(self) -> nn.Module:
        return self.join[1]

    def fuse(self, tokens: Tensor, projected: Tensor) -> Tensor:
        joined = self.join(torch.cat([self.project_tokens(tokens), projected], 1))
        return tokens + joined if self.identity_init else joined.relu()


class Add(Adapter):
    """x + P_d f."""

    def last(self) -> nn.Module:
        return self.project_features[1]

    def fuse(self, tokens: Tensor, projected: Tensor) -> Tensor:
        return self.project_tokens(tokens) + projected


class WeightedSum(Adapter):
    """(1 - a) x + a P_d f with one learned a."""

    def make(self, channels: int, width: int, output: int) -> None:
        super().make(channels, width, output)
        self.weight = nn.Parameter(torch.zeros(()))

    def weights(self, tokens: Tensor, projected: Tensor) -> dict[str, Tensor]:
        return {"weight": self.weight if self.identity_init else self.weight.sigmoid()}

    def fuse(self, tokens: Tensor, projected: Tensor) -> Tensor:
        tokens = self.project_tokens(tokens)
        weight = self.weights(tokens, projected)["weight"]
        return (1 - weight) * tokens + weight * projected


class ChannelWeights(WeightedSum):
    """(1 - a) x + a P_d f with a learned a per channel."""

    def make(self, channels: int, width: int, output: int) -> None:
        super().make(channels, width, output)
        self.weight = nn.Parameter(torch.zeros(output, 1, 1))


class Gated(WeightedSum):
    """(1 - a) x + a P_d f, a decided for every channel of every token: tanh(Conv0(2o -> o)(cat[GroupNorm(x), P_d f])), a
    gate that starts at 0 as Flamingo's (Alayrac et al. 2022, arXiv 2204.14198); without identity_init the logistic
    function in place of tanh, as in Gated Multimodal Units (Arevalo et al. 2017, arXiv 1702.01992)."""

    def make(self, channels: int, width: int, output: int) -> None:
        Adapter.make(self, channels, width, output)
        self.normalise = group_norm(output)
        self.gate = nn.Conv2d(2 * output, output, 1)

    def last(self) -> nn.Module:
        return self.gate

    def weights(self, tokens: Tensor, projected: Tensor) -> dict[str, Tensor]:
        raw = self.gate(torch.cat([self.normalise(tokens), projected], 1))
        return {"weight": raw.tanh() if self.identity_init else raw.sigmoid()}


class CrossAttend(Adapter):
    """x + Linear0(attention of LayerNorm(x) over P_d f), with RoPE2D: without places it could not tell a feature map
    from its cells in another order. Heads are about 32 wide."""

    def make(self, channels: int, width: int, output: int) -> None:
        super().make(channels, width, output)
        self.heads = max((h for h in range(1, output // 32 + 1) if output % (4 * h) == 0), default=1)
        self.normalise = nn.LayerNorm(output, eps=NORM_EPS)
        self.attention = CrossAttention(output, self.heads)

    def last(self) -> nn.Module:
        return self.attention.proj

    def fuse(self, tokens: Tensor, projected: Tensor) -> Tensor:
        tokens = self.project_tokens(tokens)
        grid = tuple(tokens.shape[-2:])
        angles = rope_angles(token_positions(grid, tokens.device), tokens.shape[1] // self.heads)
        queries, memory = self.normalise(tokens.flatten(2).mT), projected.flatten(2).mT
        return tokens + self.attention(queries, memory, angles, angles).mT.unflatten(-1, grid)


class Bottleneck(Adapter):
    """x + Conv0(r -> o)(GELU(GroupNorm(Conv1x1(o -> r)(x)) + P_d f)); P_d too is r = o / 4 wide, both norms have one group.

    (Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP, arXiv 1902.00751)
    """

    def make(self, channels: int, width: int, output: int) -> None:
        super().make(channels, width, output)
        inner = max(1, output // 4)
        self.project_features = projection(channels, inner, narrow=True)
        self.down = projection(output, inner, narrow=True)
        self.up = nn.Conv2d(inner, output, 1)

    def last(self) -> nn.Module:
        return self.up

    def fuse(self, tokens: Tensor, projected: Tensor) -> Tensor:
        tokens = self.project_tokens(tokens)
        return tokens + self.up(nn.functional.gelu(self.down(tokens) + projected))


class Film(Adapter):
    """(1 + c) x + b with (c, b) = Conv0(o -> 2o)(P_d f) in every cell: the one mode that scales what is there.

    (Perez et al. 2018, FiLM: Visual Reasoning with a General Conditioning Layer, arXiv 1709.07871)
    """

    def make(self, channels: int, width: int, output: int) -> None:
        super().make(channels, width, output)
        self.modulate = nn.Conv2d(output, 2 * output, 1)

    def last(self) -> nn.Module:
        return self.modulate

    def weights(self, tokens: Tensor, projected: Tensor) -> dict[str, Tensor]:
        scale, shift = self.modulate(projected).chunk(2, 1)
        return {"scale": 1 + scale, "shift": shift}

    def fuse(self, tokens: Tensor, projected: Tensor) -> Tensor:
        tokens = self.project_tokens(tokens)
        scale, shift = self.weights(tokens, projected).values()
        return scale * tokens + shift


ADAPTERS: dict[str, type[Adapter]] = {  # by FUSION_MODES
    "concat": Concat,
    "add": Add,
    "weighted_sum": WeightedSum,
    "channel_weights": ChannelWeights,
    "gated": Gated,
    "cross_attention": CrossAttend,
    "bottleneck": Bottleneck,
    "film": Film,
}


def FusionAdapter(
    dinov2_dim: int,
    mast3r_dim: int,
    output_dim: int | None = None,
    fusion_mode: str = "concat",
    identity_init: bool = True,
    generator: torch.Generator | None = None,
    inner_width: int | None = None,
) -> Adapter:
    """What joins a backbone's feature map f to a token map x; for any backbone, of any width.

    With P_d = GroupNorm(Conv1x1(d -> o)), P_m = GroupNorm(Conv1x1(m -> o)), each class of ADAPTERS states its formula with
    `identity_init` (needs o = m): a last layer marked 0 starts with weight and bias 0, the weight a of a sum is a plain
    number that starts at 0, and exactly x comes back before training. Without it nothing is marked 0, a = sigmoid(b)
    with b starting at 0, x passes through P_m if m != o, and concat is ReLU(GroupNorm(Conv1x1(2o -> o)(cat[P_m x, P_d
    f]))). Every GroupNorm has 32 groups, or, where 32 does not divide o, the largest divisor of o below it (the bundled
    network is 160 and 192 wide: 32 groups of 5 and of 6).

    dinov2_dim   d, channels of the backbone's features
    mast3r_dim   m, width of the tokens
    output_dim   o; None = m
    fusion_mode  one of FUSION_MODES; addition is add
    generator    draws the layers' weights, PyTorch's default distribution; None = one seeded with 0
    inner_width  see `Adapter` and `inner_width`
    raises       ValueError when identity_init is asked for with o != m, and for an unknown mode
    """
    mode = "add" if fusion_mode == "addition" else fusion_mode
    width = mast3r_dim if output_dim is None else output_dim
    if mode not in ADAPTERS:
        raise ValueError(f"model.fusion_mode is {fusion_mode!r}; choose one of {', '.join(ADAPTERS)}.")
    if identity_init and width != mast3r_dim:
        raise ValueError(
            f"model.identity_init needs an output as wide as the tokens ({mast3r_dim}), not {width}; "
            "set it to false or leave output_dim empty."
        )
    adapter = ADAPTERS[mode](dinov2_dim, mast3r_dim, width, identity_init, inner_width)
    adapter.reset_parameters(generator or torch.Generator().manual_seed(0))
    return adapter


def inner_width(fusion: FusionConfig, widths: list[int]) -> int | None:
    """The inner width that gives the adapters, one per token map of `widths`, fusion.parameters together; None when that
    is None. The number of parameters is linear in it, whatever the mode.

    raises    ValueError  when no inner width comes within 1 %
    """
    if fusion.parameters is None:
        return None

    def count(inner: int) -> int:
        sizes = fusion.identity_init, inner
        with torch.device("meta"):
            adapters = [ADAPTERS[fusion.mode](fusion.channels, width, width, *sizes) for width in widths]
        return sum(p.numel() for adapter in adapters for p in adapter.parameters())

    least = count(1)
    step = count(2) - least
    inner = 1 + max(0, round((fusion.parameters - least) / step))
    if abs(count(inner) - fusion.parameters) > PARAMETER_TOLERANCE * fusion.parameters:
        surely = max(least, math.ceil(step / 2 / PARAMETER_TOLERANCE))  # from here on a step is at most 2 %
        raise ValueError(
            f"model.fusion_parameters is {fusion.parameters:,}, which fusion_mode {fusion.mode} on "
            f"{fusion.channels} backbone channels cannot have within 1 %; every number from {surely:,} on "
            "can be had, so choose one that all runs to be compared can have."
        )
    return inner
