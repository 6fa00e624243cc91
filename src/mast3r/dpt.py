"""Dense prediction transformer head: four token maps in, one value vector per pixel out.

Ranftl et al. 2021, Vision Transformers for Dense Prediction (arXiv 2103.13413), in the form DUSt3R and MASt3R use it.
State-dict keys are the official ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

ALIASES = {f"scratch.layer_rn.{i}.weight": f"scratch.layer{i + 1}_rn.weight" for i in range(4)}  # of one tensor each


def double(x: Tensor) -> Tensor:
    """Bilinear upsampling by 2 with aligned corners."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return double(x)


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))); what is added back is x before any ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x.relu()).relu())


class Refinement(nn.Module):
    """Adds a finer map to a coarse one, refines, and doubles the resolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        self.resConfUnit1 = ResidualUnit(channels)
        self.resConfUnit2 = ResidualUnit(channels)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        return double(self.out_conv(self.resConfUnit2(x)))  # a 1x1 convolution commutes with the upsampling


class Scratch(nn.Module):
    """The layers after the token maps have become an image pyramid; `layer_rn` names layer1_rn to layer4_rn again."""

    def __init__(self, layer_dims: Sequence[int], channels: int):
        super().__init__()
        layers = [nn.Conv2d(dim, channels, 3, padding=1, bias=False) for dim in layer_dims]
        for number, layer in enumerate(layers, 1):
            self.add_module(f"layer{number}_rn", layer)
        self.layer_rn = nn.ModuleList(layers)
        for number in range(1, 5):
            self.add_module(f"refinenet{number}", Refinement(channels))


class DPT(nn.Module):
    """DPT head for patches of 16 pixels.

    token_dims   widths of the four token maps, from the shallowest to the deepest
    layer_dims   channels of the four pyramid levels
    feature_dim  channels of the refinement stages
    last_dim     channels before the last layer
    out_channels values per pixel
    """

    def __init__(
        self, token_dims: Sequence[int], layer_dims: Sequence[int], feature_dim: int, last_dim: int, out_channels: int
    ):
        super().__init__()
        (t0, t1, t2, t3), (c0, c1, c2, c3) = token_dims, layer_dims
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(t0, c0, 1), nn.ConvTranspose2d(c0, c0, 4, stride=4)),
                nn.Sequential(nn.Conv2d(t1, c1, 1), nn.ConvTranspose2d(c1, c1, 2, stride=2)),
                nn.Sequential(nn.Conv2d(t2, c2, 1)),
                nn.Sequential(nn.Conv2d(t3, c3, 1), nn.Conv2d(c3, c3, 3, stride=2, padding=1)),
            ]
        )
        self.scratch = Scratch(layer_dims, feature_dim)
        self.head = nn.Sequential(
            nn.Conv2d(feature_dim, feature_dim // 2, 3, padding=1),
            Double(),
            nn.Conv2d(feature_dim // 2, last_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(last_dim, out_channels, 1),
        )

    def forward(self, tokens: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """tokens: four maps (B, h w, C_i), row by row; grid (h, w) -> (B, out_channels, 16 h, 16 w), no activation."""
        h, w = grid
        scratch = self.scratch
        maps = [
            layer(rows.mT.unflatten(-1, (h, w)).contiguous(memory_format=torch.channels_last))
            for layer, rows in zip(self.act_postprocess, tokens, strict=True)
        ]
        l0, l1, l2, l3 = (reduce(x) for reduce, x in zip(scratch.layer_rn, maps))
        x = scratch.refinenet4(l3)[:, :, :h, :w]  # the coarsest level has ceil(h / 2) rows
        x = scratch.refinenet3(x, l2)
        x = scratch.refinenet2(x, l1)
        return self.head(scratch.refinenet1(x, l0))
