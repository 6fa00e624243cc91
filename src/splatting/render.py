"""Gaussians and cameras to images: gsplat on CUDA, our own rasteriser on the CPU, the same mathematics on both."""

from dataclasses import dataclass

import torch
from torch import Tensor

from src.geometry.cameras import invert_se3
from src.splatting.cpu.rasterize import rasterize
from src.splatting.gaussians import Gaussians
from src.splatting.sh import colours

NEAR = 0.02  # Splatt3R's: the Inria rasteriser culls at 0.2, in a scene enlarged by 1 / 0.1


@dataclass(frozen=True)
class Rendering:
    """images (V, 3, H, W) float32 sRGB >= 0, not clamped above; alphas (V, H, W) in [0, 1), the share of light that the
    Gaussians stop; depths (V, H, W), expected z-depth of what stops it, scene units, 0 where alpha is 0."""

    images: Tensor
    alphas: Tensor
    depths: Tensor


def render(
    gaussians: Gaussians,
    c2w: Tensor,
    K: Tensor,
    size: tuple[int, int],
    background: Tensor | None = None,
    near: float = NEAR,
) -> Rendering:
    """Gaussians seen by V cameras; differentiable in the Gaussians, not in the cameras. In float32, under autocast too.

    gaussians              without batch dimension; N may be 0
    c2w         (V, 4, 4)  rigid camera poses, OpenCV axes, in the frame of the means
    K           (V, 3, 3)  pixels, first pixel centre at 0.5
    size                   (width, height) in pixels
    background  (3,)       shown where light passes; None is black
    near                   Gaussians whose centre has a smaller z-depth are not drawn; scene units
    raises      ValueError when a shape, size or near is wrong, or the tensors are on different devices
    """
    means = gaussians.means
    if means.ndim != 2:
        raise ValueError(
            f"render takes one set of Gaussians, but its means have shape {tuple(means.shape)}; index the batch."
        )
    if c2w.ndim != 3 or c2w.shape[1:] != (4, 4) or K.shape != (len(c2w), 3, 3):
        raise ValueError(f"render needs c2w (V, 4, 4) and K (V, 3, 3); got {tuple(c2w.shape)} and {tuple(K.shape)}.")
    for name, tensor in (("c2w", c2w), ("K", K), ("background", background)):
        if tensor is not None and tensor.device != means.device:
            raise ValueError(
                f"render: {name} is on {tensor.device} but the Gaussians are on {means.device}; move it there."
            )
    gaussians = gaussians.to(torch.float32)
    means, quats, scales, opacities, sh = vars(gaussians).values()
    c2w, K = c2w.detach().double(), K.detach()
    background = None if background is None else background.detach().float()
    draw = rasterize_cuda if means.is_cuda else rasterize
    with torch.autocast(means.device.type, enabled=False):
        images, alphas, accumulated = draw(
            means,
            quats,
            scales,
            opacities,
            colours(sh, means, c2w[:, :3, 3].float()),
            invert_se3(c2w),
            K,
            *size,
            near,
            background,
        )
    covered = alphas > 0
    depths = torch.where(covered, accumulated / torch.where(covered, alphas, 1), 0)
    return Rendering(images, alphas, depths)


def rasterize_cuda(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    w2c: Tensor,
    K: Tensor,
    width: int,
    height: int,
    near: float,
    background: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The CPU's `rasterize` by gsplat, which compiles its kernels when it is first used."""
    from gsplat import rasterization

    backgrounds = None if background is None else background.expand(len(w2c), 3)
    pictures, alphas, _ = rasterization(
        means,
        quats,
        scales,
        opacities,
        colors,
        w2c.float(),
        K.float(),
        width,
        height,
        near_plane=near,
        packed=False,
        backgrounds=backgrounds,
        render_mode="RGB+D",
    )
    return pictures[..., :3].permute(0, 3, 1, 2), alphas[..., 0], pictures[..., 3]
