"""How a frozen backbone's features join the tokens of the two-view network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.initialise import initialise

MODES = ("concat", "add", "weighted_sum")
SITES = ("head", "encoder")


@dataclass(frozen=True)
class FusionConfig:
    """What is fused where.

    channels       width of the backbone's feature map
    site           `head`: decoder tokens, for the Gaussian head alone; `encoder`: encoder tokens, for everything after
    hooks          site head: numbers of the token maps that are fused, among those the heads read beyond the first
                   (for 12 decoder blocks 6, 9, 12); None = the last
    mode           concat | add | weighted_sum
    identity_init  the adapter starts as the identity, so step 0 is the network without features
    """

    channels: int
    site: str = "head"
    hooks: tuple[int, ...] | None = None
    mode: str = "concat"
    identity_init: bool = True

    def __post_init__(self):
        if self.channels < 1:
            raise ValueError(f"Fusion needs backbone features with at least 1 channel; got {self.channels}. Without a "
                             "backbone, pass no fusion at all (model.backbone: none).")
        if self.site not in SITES:
            raise ValueError(f"model.fusion_site is {self.site!r}; choose one of {', '.join(SITES)}.")
        if self.site == "encoder" and self.hooks is not None:
            raise ValueError("model.fusion_hooks belongs to fusion_site head; leave it empty for site encoder.")


def resize_features(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Feature maps (B, C, gh, gw) on another grid (h, w), bilinear between cell centres (align_corners=False)."""
    if tuple(features.shape[-2:]) == tuple(grid):
        return features
    return nn.functional.interpolate(features, tuple(grid), mode="bilinear", align_corners=False)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the most groups, up to 32, that divide `channels`."""
    groups = max(g for g in range(1, 33) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


class DINOv2FeatureFusionAdapter(nn.Module):
    """Joins a backbone's feature map f to a token map x; works for any backbone, of any width.

    With P_d = GroupNorm(Conv1x1(d -> o)), P_m = GroupNorm(Conv1x1(m -> o)) and GN0 a GroupNorm whose weight and bias
    start at 0, the forms with `identity_init` (needs o = m) return exactly x before training:

        concat        x + GN0(Conv1x1(2o -> o)(cat[P_m x, P_d f]))     no ReLU: at 0 it would never let a gradient pass
        add           x + P_d f, P_d's GroupNorm starting at 0
        weighted_sum  (1 - a) x + a P_d f, a starting at 0

    and those without are the literal ones

        concat        ReLU(GroupNorm(Conv1x1(2o -> o)(cat[P_m x, P_d f])))
        add           x + P_d f
        weighted_sum  (1 - a) x + a P_d f, a = sigmoid(b), b starting at 0

    where the last two pass x through P_m only if m != o. Every GroupNorm has 32 groups, or, where 32 does not divide
    o, the largest divisor of o below it (the bundled network is 160 and 192 wide: 32 groups of 5 and of 6).

    dinov2_dim   d, channels of the backbone's features
    mast3r_dim   m, width of the tokens
    output_dim   o; None = m
    fusion_mode  concat | add (or addition) | weighted_sum
    generator    draws the convolutions' weights, PyTorch's default distribution; None = one seeded with 0
    raises       ValueError when identity_init is asked for with o != m, and for an unknown mode
    """

    def __init__(
        self, dinov2_dim: int, mast3r_dim: int, output_dim: int | None = None, fusion_mode: str = "concat",
        identity_init: bool = True, generator: torch.Generator | None = None,
    ):
        super().__init__()
        mode = "add" if fusion_mode == "addition" else fusion_mode
        width = mast3r_dim if output_dim is None else output_dim
        if mode not in MODES:
            raise ValueError(f"model.fusion_mode is {fusion_mode!r}; choose one of {', '.join(MODES)}.")
        if identity_init and width != mast3r_dim:
            raise ValueError(f"model.identity_init needs an output as wide as the tokens ({mast3r_dim}), not {width}; "
                             "set it to false or leave output_dim empty.")
        self.mode, self.identity_init = mode, identity_init
        self.project_features = nn.Sequential(nn.Conv2d(dinov2_dim, width, 1), group_norm(width))
        self.project_tokens: nn.Module = nn.Identity()
        if mode == "concat" or width != mast3r_dim:
            self.project_tokens = nn.Sequential(nn.Conv2d(mast3r_dim, width, 1), group_norm(width))
        if mode == "concat":
            self.join = nn.Sequential(nn.Conv2d(2 * width, width, 1), group_norm(width))
        if mode == "weighted_sum":
            self.weight = nn.Parameter(torch.zeros(()))
        self.reset_parameters(generator or torch.Generator().manual_seed(0))

    def reset_parameters(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initialise(module, generator)
        if self.identity_init and self.mode != "weighted_sum":
            last_norm = (self.join if self.mode == "concat" else self.project_features)[1]
            nn.init.zeros_(last_norm.weight)
            nn.init.zeros_(last_norm.bias)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """tokens (B, m, h, w), features (B, d, h, w) on the same grid -> (B, o, h, w)."""
        if tokens.shape[-2:] != features.shape[-2:]:
            raise ValueError(f"Features on a {tuple(features.shape[-2:])} grid cannot join tokens on a "
                             f"{tuple(tokens.shape[-2:])} grid; call resize_features first.")
        projected = self.project_features(features)
        if self.mode == "concat":
            joined = self.join(torch.cat([self.project_tokens(tokens), projected], 1))
            return tokens + joined if self.identity_init else joined.relu()
        tokens = self.project_tokens(tokens)
        if self.mode == "add":
            return tokens + projected
        weight = self.weight if self.identity_init else self.weight.sigmoid()
        return (1 - weight) * tokens + weight * projected
