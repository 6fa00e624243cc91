"""What a depth map says of the surface in it: depth and direction, also of cells of pixels."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize, pad

from src.geometry.cameras import unproject


def cell_medians(depth: Tensor, rows: int, columns: int) -> Tensor:
    """Lower median of the valid depths of each cell, NaN where it has none; depth (B, H, W), 0 = invalid
    -> (B, rows, columns), whose numbers divide H and W."""
    cells = depth.where(depth > 0, torch.inf).unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
    ordered = cells.transpose(2, 3).flatten(3).sort(3).values  # (B, rows, columns, pixels), unknown ones last
    middle = (ordered.isfinite().sum(3, keepdim=True) - 1).div(2, rounding_mode="floor").clamp_min(0)
    medians = ordered.gather(3, middle).squeeze(3)
    return medians.where(medians.isfinite(), torch.nan)


def normals(depth: Tensor, K: Tensor) -> Tensor:
    """Unit normals (B, 3, H, W), towards the camera, of the surface that depth (B, H, W) shows, in the camera's frame, from
    the differences of neighbouring points; 0 where a neighbour has no depth."""
    points = unproject(depth, K)  # (B, H, W, 3)
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    known = depth > 0
    whole = known[:, 1:-1, 2:] & known[:, 1:-1, :-2] & known[:, 2:, 1:-1] & known[:, :-2, 1:-1]
    found = normalize(torch.linalg.cross(down, across), dim=-1) * whole[..., None]  # (B, H - 2, W - 2, 3)
    return pad(found.movedim(-1, 1), (1, 1, 1, 1))


def cell_normals(depth: Tensor, K: Tensor, rows: int, columns: int) -> Tensor:
    """Mean of `normals` over each cell: (B, 3, rows, columns); shorter than 1 where the surface is bent."""
    side = depth.shape[-2] // rows, depth.shape[-1] // columns
    return avg_pool2d(normals(depth, K), side)
