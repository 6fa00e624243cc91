"""A linear readout of what tokens and features know of depth: per patch, the correction of 4x4 sub-cells."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, unfold

from src.geometry.surface import cell_medians
from src.mast3r.attention import Grid
from src.reproducible.files import whole_file
from src.splatt3r.fusion import resize_features

CELLS = 4  # sub-cells of a patch along a side
CORRECTED = ("encoded", "decoded", "log_depth_cells", "places", "features")  # what a correction is read from, in order
SAME_SURFACE = 0.03  # of the logarithm of depth: sub-cells farther away from a pixel's own depth hardly count


def cell_log_depth(depth: Tensor, grid: Grid) -> Tensor:
    """Logarithm of the median depth of each sub-cell, NaN where it has none; depth (B, H, W), 0 = invalid
    -> (B, 4 h, 4 w) for a grid of (h, w) patches."""
    return cell_medians(depth, CELLS * grid[0], CELLS * grid[1]).log()


def by_patch(cells: Tensor) -> Tensor:
    """Sub-cells (B, 4 h, 4 w) of each patch, row by row: (B, h w, 16)."""
    patches = cells.unflatten(2, (-1, CELLS)).unflatten(1, (-1, CELLS))  # (B, h, 4, w, 4)
    return patches.transpose(2, 3).flatten(3).flatten(1, 2)


def positions(grid: Grid, like: Tensor) -> Tensor:
    """x, y, x^2, y^2, x y of each patch's centre, -1 and 1 at the image's borders: (h w, 5)."""
    y, x = ((2 * torch.arange(cells, dtype=like.dtype, device=like.device) + 1) / cells - 1 for cells in grid)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, x * x, y * y, x * y], -1).flatten(0, 1)


def patch_parts(
    encoded: Tensor, decoded: Tensor, depth: Tensor, scale: Tensor, features: Tensor | None, grid: Grid
) -> dict[str, Tensor]:
    """What can be read of a patch, each (B, h w, its width): both token maps, the logarithm of the sub-cells' depth in the
    cameras' unit, the patch's place, and features where there are any; by the names and in the order of CORRECTED.

    encoded, decoded  (B, h w, E), (B, h w, D)  the geometry network's encoder tokens and last decoder map
    depth             (B, H, W)                 z-depth, predicted
    scale             (B,)                      predicted over true size
    features          (B, C, gh, gw)            on any grid
    """
    log_depth = by_patch(cell_log_depth(depth, grid)) - scale.log()[:, None, None]
    places = positions(grid, log_depth).expand(len(log_depth), -1, -1)
    parts = [encoded.float(), decoded.float(), log_depth, places]
    if features is not None:
        parts.append(resize_features(features.float(), grid).flatten(2).mT)
    return dict(zip(CORRECTED, parts))


def patch_inputs(*of_patches: Tensor | Grid | None) -> Tensor:
    """`patch_parts`, whose arguments these are, side by side: what a correction is read from, (B, h w, P)."""
    return torch.cat(list(patch_parts(*of_patches).values()), -1)


class DepthReadout(nn.Module):
    """Corrections of log-depth, linear in `patch_inputs`. Zero until `load_solution`, and then fixed: its values are the
    solution of a ridge regression, which gradient descent would only blur.

    inputs  P, width of `patch_inputs`
    """

    mean: Tensor
    inverse_sd: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("inverse_sd", torch.zeros(inputs))
        self.register_buffer("weight", torch.zeros(inputs, CELLS**2))
        self.register_buffer("bias", torch.zeros(CELLS**2))

    def load_solution(self, solution: Mapping[str, Tensor]) -> None:
        """Take over mean, inverse_sd, weight and bias, of the module's shapes."""
        self.load_state_dict({name: tensor.to(self.bias.dtype) for name, tensor in solution.items()})

    def forward(self, inputs: Tensor, grid: Grid) -> Tensor:
        """Corrections (B, 4 h, 4 w), to be added to the logarithm of depth, of inputs (B, h w, P)."""
        read = self.inverse_sd != 0  # inputs that never change are left out: they could but round differently
        found = ((inputs - self.mean) * self.inverse_sd)[..., read] @ self.weight[read] + self.bias  # (B, h w, 16)
        return pixel_shuffle(found.mT.unflatten(2, grid), CELLS)[:, 0]


def corrected_depth(depth: Tensor, correction: Tensor) -> Tensor:
    """Depth (B, H, W) times exp of corrections (B, 4 h, 4 w), interpolated between sub-cells but not across edges.

    Each pixel mixes the sub-cells around it, those of its own depth most: bilinear weights times exp(-|difference of
    log-depth| / SAME_SURFACE)   (Kopf et al. 2007, Joint Bilateral Upsampling).
    """
    batch, rows, columns = correction.shape
    height, width = depth.shape[-2:]
    guide = cell_log_depth(depth, (rows // CELLS, columns // CELLS))  # (B, 4 h, 4 w)

    def around(cells: Tensor) -> Tensor:
        """The 3x3 sub-cells around each pixel's own, (B, 9, H, W)."""
        near = unfold(pad(cells[:, None], (1, 1, 1, 1), mode="replicate"), 3).view(batch, 9, rows, columns)
        return near.repeat_interleave(height // rows, 2).repeat_interleave(width // columns, 3)

    vertical, horizontal = tents(height, rows, depth), tents(width, columns, depth)  # (3, H), (3, W)
    spatial = (vertical[:, None, :, None] * horizontal[None, :, None, :]).flatten(0, 1)  # (9, H, W)
    apart = (depth.log()[:, None] - around(guide)).abs()
    weights = spatial * (-apart / SAME_SURFACE).exp() + 1e-12 * spatial
    mixed = (weights * around(correction)).sum(1) / weights.sum(1)
    return depth * mixed.exp()


def tents(pixels: int, cells: int, like: Tensor) -> Tensor:
    """Linear interpolation weights of the cells before, at and after each pixel's own: (3, pixels)."""
    side = pixels // cells
    place = (torch.arange(pixels, dtype=like.dtype, device=like.device) + 0.5) / side - 0.5
    own = torch.arange(pixels, device=like.device) // side
    return torch.stack([(1 - (place - (own + step)).abs()).clamp_min(0) for step in (-1, 0, 1)])


def write_solutions(path: str | Path, solutions: Mapping[str, Mapping[str, Tensor]]) -> None:
    """A file of the corrections' solutions, see `DepthReadout`, by what they are read from: `tokens`, or `both` with
    features. None where there was no depth to learn them from."""
    tensors = {f"{inputs}.{name}": x.contiguous() for inputs, found in solutions.items() for name, x in found.items()}
    with whole_file(path) as partial:
        save_file(tensors, partial)


def read_solution(path: str | Path, inputs: str) -> dict[str, Tensor]:
    """The solution of one kind of inputs; empty where the file has none."""
    return {name.partition(".")[2]: x for name, x in load_file(path).items() if name.startswith(f"{inputs}.")}
