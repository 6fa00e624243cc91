"""Baselines that need no training: what the geometry network's points, or a copied context image, already show."""

import torch
from torch import Tensor

from src.geometry.cameras import invert_se3, project, transform
from src.splatting.gaussians import Gaussians
from src.splatting.sh import rgb_to_dc

OPAQUE = 0.999


def nearest_context(context_c2w: Tensor, target_c2w: Tensor) -> Tensor:
    """Index of the context whose camera centre is nearest to each target's; contexts (V, 4, 4), targets (T, 4, 4) -> (T,)"""
    return torch.cdist(target_c2w[:, :3, 3], context_c2w[:, :3, 3]).argmin(-1)


def splat_points(points: Tensor, colours: Tensor, c2w: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
    """Z-buffered points, one pixel each: the nearest wins, black where none falls.

    points, colours (N, 3)        in the frame of c2w; colours in [0, 1]
    c2w, K          (T, 4, 4), (T, 3, 3)
    size            (W, H)
    returns         (T, 3, H, W)
    """
    width, height = size
    images = colours.new_zeros(len(c2w), height * width, 3)
    for image, w2c, intrinsics in zip(images, invert_se3(c2w), K):
        camera = transform(w2c[None], points[None])[0]
        pixels = project(camera[None], intrinsics[None])[0].floor()
        inside = (camera[:, 2] > 0) & (pixels >= 0).all(-1) & (pixels < pixels.new_tensor([width, height])).all(-1)
        far_to_near = camera[inside, 2].argsort(descending=True, stable=True)
        column, row = pixels[inside][far_to_near].long().unbind(-1)
        last = torch.full((height * width,), -1, dtype=torch.long, device=points.device)
        order = torch.arange(len(row), device=points.device)
        last.scatter_reduce_(0, row * width + column, order, "amax")
        image[last >= 0] = colours[inside][far_to_near][last[last >= 0]]
    return images.view(-1, height, width, 3).permute(0, 3, 1, 2)


def points_as_gaussians(points: Tensor, colours: Tensor, focal: Tensor) -> Gaussians:
    """Round opaque Gaussians as wide as half a pixel of the view that saw the point, so that few holes open.

    points, colours (N, 3) in view 1's camera frame; focal () in pixels. The standard deviation is 0.5 |p| / focal:
    distance instead of depth, since points of view 2 may lie beside or behind view 1's camera.
    """
    count = len(points)
    quats = points.new_tensor([1.0, 0, 0, 0]).expand(count, 4)
    scales = (0.5 * points.norm(dim=-1, keepdim=True) / focal).clamp(min=1e-6).expand(count, 3)
    return Gaussians(points, quats, scales, points.new_full((count,), OPAQUE), rgb_to_dc(colours)[:, None])
