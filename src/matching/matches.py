"""Matches between the feature maps of two views, without training, finer than the cells of the maps."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from src.geometry.cameras import pixel_centres

AT_A_TIME = 256  # cells of one view that are compared with all of the other
VARYING = 1e-6  # of centred features; what varies less says nothing


def centred(maps: Tensor) -> Tensor | None:
    """Maps (2, C, gh, gw) without the mean of both views, which cosine similarities would be full of; None where nothing is
    left."""
    found = maps.float() - maps.float().mean((0, 2, 3), keepdim=True)
    return found if found.abs().max() > VARYING else None


def matched_pixels(maps: Tensor, size: tuple[int, int], stride: int = 1) -> Tensor:
    """Pixels (2, M, 2) of views 1 and 2, x and y, that show the same place by cosine similarity.

    Mutual nearest neighbours: cells that are each the most alike of the other's view. Each gives two matches, one from the
    cell's centre in each view to the place between cells in the other one where similarity is highest.

    maps    (2, C, gh, gw)  of images that the grid covers evenly
    size    (width, height) of the images in pixels
    stride  rows and columns of view 1 between the cells that are tried (Leroy et al. 2024, MASt3R, sec. 3.3, begins so)
    """
    unit = normalize(maps.float().flatten(2).mT, dim=-1)  # (2, n, C)
    grid = maps.shape[-2], maps.shape[-1]
    every = torch.arange(grid[0] * grid[1]).view(grid)[stride // 2 :: stride, stride // 2 :: stride].flatten()
    # 1. There and back.
    there = nearest(unit[0][every], unit[1])
    kept = nearest(unit[1][there], unit[0]) == every
    cells = torch.stack([every[kept], there[kept]])  # (2, M)
    # 2. Between the cells.
    centres = pixel_centres(*grid, like=unit).flatten(0, 1)
    in_first = centres[cells[0]] + peak(unit[1][cells[1]], unit[0], cells[0], grid)
    in_second = centres[cells[1]] + peak(unit[0][cells[0]], unit[1], cells[1], grid)
    first = torch.cat([centres[cells[0]], in_first])
    second = torch.cat([in_second, centres[cells[1]]])
    return torch.stack([first, second]) * unit.new_tensor(size) / unit.new_tensor(grid[::-1])


def nearest(rows: Tensor, others: Tensor) -> Tensor:
    """Number of the most alike of others (n, C), the first of equals, for each of rows (M, C)."""
    found = [(part @ others.mT).argmax(1) for part in rows.split(AT_A_TIME)]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)


def peak(rows: Tensor, others: Tensor, cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where similarity is highest around each matched cell: offsets (M, 2) from its centre, x and y, at most half a cell.

    Vertex of the parabola through three neighbours, along each axis   (Tian and Huhns 1986, Algorithms for Subpixel
    Registration); none at the border and where no neighbour is less alike.

    rows    (M, C)  unit features of the other view's cells
    others  (n, C)  unit features of the view that `cells` (M,) are in
    """
    row, column = cells // grid[1], cells % grid[1]

    def along(place: Tensor, step: int, length: int) -> Tensor:
        inside = (place > 0) & (place < length - 1)
        around = [cells + shift * step * inside for shift in (-1, 0, 1)]
        before, here, after = ((rows * others[each]).sum(-1) for each in around)
        bend = before - 2 * here + after
        return torch.where(bend < 0, (before - after) / (2 * bend), 0).clamp(-0.5, 0.5)

    return torch.stack([along(column, 1, grid[1]), along(row, grid[1], grid[0])], -1)
