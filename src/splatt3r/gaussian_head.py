"""The Gaussian head: a second DPT per view, and what its raw channels become.

Smart et al. 2024, Splatt3R: Zero-shot Gaussian Splatting from Uncalibrated Image Pairs (arXiv 2408.13912), section 3.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.mast3r.dpt import DPT
from src.mast3r.initialise import draw_uniform, initialise
from src.mast3r.network import Mast3rConfig
from src.splatting.gaussians import Gaussians
from src.splatting.sh import rgb_to_dc

OFFICIAL_SCALE, OFFICIAL_OPACITY = math.exp(-7), 1 / (1 + math.exp(2))  # of an untrained Splatt3R: 0.9 mm, 0.12


@dataclass(frozen=True)
class Limits:
    """Largest standard deviation of a Gaussian, and largest distance from its pixel's point, in scene units. Infinite,
    as published, they let Gaussians grow without bound where nothing but a squared error on pixels holds them."""

    scale: float = math.inf
    offset: float = math.inf


def offsets(raw: Tensor, limit: float = math.inf) -> Tensor:
    """Displacement of a Gaussian from its pixel's point: raw / |raw| * (exp(|raw| - 6) - exp(-6)), at most `limit` long.

    Zero at zero, where the gradient is 0 too; 1 unit at |raw| = 6; (..., 3).
    """
    length = torch.linalg.vector_norm(raw, dim=-1, keepdim=True)
    return (
        raw / length.clamp_min(1e-8) * (math.exp(-6) * torch.expm1(length.clamp(max=math.log1p(math.exp(6) * limit))))
    )


def wxyz(raw: Tensor) -> Tensor:
    """Unit quaternions wxyz of raw xyzw ones (..., 4); zero, which has no direction, becomes the identity."""
    length = torch.linalg.vector_norm(raw, dim=-1, keepdim=True)
    identity = raw.new_tensor([0, 0, 0, 1])
    return torch.where(length > 0, raw / (length + 1e-8), identity).roll(1, -1)


def activate(
    raw: Tensor,
    points: Tensor,
    images: Tensor,
    use_offsets: bool = True,
    limits: Limits = Limits(),
    unit: Tensor | float = 1.0,
) -> Gaussians:
    """Gaussians of one view's pixels from the Gaussian head's raw channels   (Splatt3R, section 3).

    Means are the points plus an offset and send no gradient to the points; colours are the image's plus what the
    head adds.

    raw     (B, 11 + 3 d, H, W)  offset 3, log scale 3, quaternion xyzw 4, SH 3 d (colour-major), opacity logit 1
    points  (B, H, W, 3)         of the point head, view 1's frame
    images  (B, 3, H, W)         this view's image in [0, 1]
    unit    (B, H W, 1)          or a number: what sizes, offsets and their limits are multiples of, in units of points
    returns batch of B sets of H W Gaussians, row by row, in the frame and units of points
    """
    coefficients = (raw.shape[1] - 11) // 3
    # One row of raw channels per pixel, cut into the five quantities.
    raw = raw.flatten(2).mT  # (B, H W, 11 + 3 d)
    raw_offsets, log_scales, raw_quats, raw_sh, logits = raw.split([3, 3, 4, 3 * coefficients, 1], -1)
    # Gaussians stand on the points, but rendering does not move these: what it learns is the offset.
    means = points.detach().flatten(1, 2)  # (B, H W, 3)
    # The head adds to the pixel's own colour, in the coefficient that is alike in all directions.
    sh = raw_sh.unflatten(-1, (3, coefficients)).mT  # (B, H W, d, 3)
    residual = rgb_to_dc(images.flatten(2).mT)[..., None, :]  # (B, H W, 1, 3)
    # Raw numbers become what they mean: lengths by exp, directions by their length, shares by the logistic function.
    return Gaussians(
        means=means + unit * offsets(raw_offsets, limits.offset) if use_offsets else means,
        quats=wxyz(raw_quats),
        scales=unit * log_scales.clamp(max=math.log(limits.scale)).exp(),
        opacities=logits.squeeze(-1).sigmoid(),
        sh=torch.cat([sh[..., :1, :] + residual, sh[..., 1:, :]], -2),
    )


class GaussianHead(nn.Module):
    """A second DPT, with weights of its own, whose output is a pixel's raw Gaussian; one per view."""

    def __init__(
        self,
        config: Mast3rConfig,
        sh_degree: int,
        generator: torch.Generator,
        initial_scale: float = OFFICIAL_SCALE,
        initial_opacity: float = OFFICIAL_OPACITY,
    ):
        super().__init__()
        self.coefficients = (sh_degree + 1) ** 2
        self.initial_scale, self.initial_opacity = initial_scale, initial_opacity
        widths = (config.enc_embed_dim, *[config.dec_embed_dim] * 3)
        self.dpt = DPT(
            widths, config.dpt_layer_dims, config.dpt_feature_dim, config.dpt_last_dim, 11 + 3 * self.coefficients
        )
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Equal Gaussians on the points: initial_scale wide, initial_opacity opaque, offset by about 4e-6.

        Rows of the last layer are Xavier-uniform (Glorot & Bengio 2010) each quantity by itself, times a gain.
        """
        for layer in self.dpt.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                initialise(layer, generator)
        last, row = self.dpt.head[-1], 0
        fan_in = last.weight.shape[1]
        colours = 3 * self.coefficients
        log_scale, logit = math.log(self.initial_scale), math.log(self.initial_opacity / (1 - self.initial_opacity))
        for rows, gain, bias in ((3, 0.001, 0.001), (3, 0.00003, log_scale), (4, 1, 0), (colours, 1, 0), (1, 1, logit)):
            part = slice(row, row + rows)
            draw_uniform(last.weight[part], gain * math.sqrt(6 / (fan_in + rows)), generator)
            last.bias[part] = bias
            row += rows

    @torch.no_grad()
    def start_from(self, points: DPT) -> None:
        """Take the layers of a trained point head, all but the last one: what tells where a surface is, and how surely,
        serves its Gaussians from the first step. Splatt3R draws them instead.

        Colours and opacities start without weights: trained activations are so large that drawn ones would repaint the
        image.
        """
        last = self.dpt.head[-1]
        last.weight[-3 * self.coefficients - 1 :] = 0
        self.dpt.load_state_dict(points.state_dict() | last.state_dict(prefix=f"head.{len(self.dpt.head) - 1}."))
