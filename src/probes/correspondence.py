"""Whether the same place has the same features in two views: nearest neighbours between feature maps, without training."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from src.geometry.cameras import pixel_centres, project, relative_pose, transform, visible
from src.probes.compared import DISTANCES


@dataclass(frozen=True)
class Matches:
    """Of one pair, from each view to the other. The true place of a cell is a point where depth tells it, else a line.

    visible  cells of a view whose place the other view sees
    within   of these, how many have their nearest neighbour within each of DISTANCES cells of the true place
    mutual   of these, how many are their nearest neighbour's nearest neighbour too
    precise  of those, how many match within the least of DISTANCES
    """

    visible: int
    within: tuple[int, ...]
    mutual: int
    precise: int

    def __add__(self, other: "Matches") -> "Matches":
        within = tuple(a + b for a, b in zip(self.within, other.within))
        return Matches(self.visible + other.visible, within, self.mutual + other.mutual, self.precise + other.precise)


def matches(maps: Tensor, depth: Tensor, K: Tensor, c2w: Tensor, tolerance: float, relative: bool) -> Matches | None:
    """Matches of a pair by cosine similarity of its feature maps, centred over both; None where features do not vary.

    maps       (2, C, gh, gw)   of images that the grid covers evenly
    depth      (2, H, W)        true, 0 = invalid
    K, c2w     (2, 3, 3), (2, 4, 4)
    tolerance, relative         as of `visible`
    """

    def apart(own: int, other: int, found: Tensor) -> Tensor:
        return (found - true_places(own, other, maps, depth, K, c2w, tolerance, relative)).norm(dim=-1)

    return counted(maps, apart)


def epipolar_matches(maps: Tensor, size: tuple[int, int], K: Tensor, c2w: Tensor) -> Matches | None:
    """As `matches`, of a pair without depth: held against the epipolar line of each cell's centre, for a place is unknown.

    size       (width, height) of the images
    """

    def apart(own: int, other: int, found: Tensor) -> Tensor:
        return line_distances(own, other, found, maps, size, K, c2w)

    return counted(maps, apart)


def counted(maps: Tensor, apart: Callable[[int, int, Tensor], Tensor]) -> Matches | None:
    """Both ways. apart: (view, other view, the nearest cells' centres there (n, 2)) -> cells off the true place (n,), NaN
    for a cell whose place the other view does not see."""
    rows = maps.flatten(2).mT.float()  # (2, n, C)
    rows = rows - rows.mean((0, 1))
    if rows.abs().max() <= 1e-6:
        return None
    similarity = normalize(rows[0], dim=-1) @ normalize(rows[1], dim=-1).mT  # (n, n)
    forward, backward, width = similarity.argmax(1), similarity.argmax(0), maps.shape[-1]
    first, second = (torch.stack([each % width, each // width], -1) + 0.5 for each in (forward, backward))
    return one_way(forward, backward, apart(0, 1, first)) + one_way(backward, forward, apart(1, 0, second))


def true_places(
    own: int, other: int, maps: Tensor, depth: Tensor, K: Tensor, c2w: Tensor, tolerance: float, relative: bool
) -> Tensor:
    """Where the centre of each cell of view `own` lies in view `other`, in cells (n, 2), x and y, first cell's centre at
    0.5; NaN where that view does not see it."""
    height, width = depth.shape[-2:]
    cells = maps.new_tensor([maps.shape[-1], maps.shape[-2]])
    size = cells.new_tensor([width, height])
    centres = pixel_centres(*maps.shape[-2:], like=size) * size / cells  # (gh, gw, 2) pixels
    column, row = centres.floor().long().unbind(-1)
    rays = torch.cat([centres, torch.ones_like(centres[..., :1])], -1) @ torch.linalg.inv(K[own].double()).to(K).mT
    points = rays * depth[own][row, column][..., None]  # (gh, gw, 3)
    world = transform(c2w[own], points)
    seen = visible(world, depth[other], K[other], c2w[other], tolerance, relative) & (depth[own][row, column] > 0)
    inside = transform(relative_pose(c2w[other], c2w[own]), points)
    places = project(inside, K[other]) * cells / size
    return places.where(seen[..., None], torch.nan).flatten(0, 1)


def line_distances(
    own: int, other: int, found: Tensor, maps: Tensor, size: tuple[int, int], K: Tensor, c2w: Tensor
) -> Tensor:
    """How far places `found` (n, 2) in view `other` are from the epipolar lines of the cells of view `own`, in cells;
    NaN where a line misses the image. Hartley & Zisserman 2004, Multiple View Geometry, equation 9.2."""
    cells = torch.tensor([maps.shape[-1], maps.shape[-2]], dtype=torch.float64)
    pixels = torch.tensor(size, dtype=torch.float64) / cells  # of a cell
    inverse = torch.linalg.inv(K.double())
    centres = (pixel_centres(*maps.shape[-2:], like=pixels) * pixels).flatten(0, 1)
    rays = torch.cat([centres, torch.ones_like(centres[:, :1])], -1) @ inverse[own].mT
    there = relative_pose(c2w[other].double(), c2w[own].double())
    normals = torch.linalg.cross(there[:3, 3].expand_as(rays), rays @ there[:3, :3].mT)  # of the epipolar planes
    lines = normals @ inverse[other]
    lines = torch.cat([lines[:, :2] * pixels, lines[:, 2:]], -1)  # of places in cells
    corners = torch.cartesian_prod(*(cells.new_tensor([0, size]) for size in cells.tolist()))
    sides = lines[:, :2] @ corners.mT + lines[:, 2:]  # (n, 4)
    distances = ((lines[:, :2] * found).sum(-1) + lines[:, 2]).abs() / lines[:, :2].norm(dim=-1)
    return distances.where((sides.amin(-1) < 0) & (sides.amax(-1) > 0), torch.nan)


def one_way(nearest: Tensor, back: Tensor, apart: Tensor) -> Matches:
    """Matches from the n cells of one view: nearest (n,) in the other, and that one's in turn; apart as of `counted`."""
    seen = apart.isfinite()
    apart = apart[seen]
    mutual = (back[nearest] == torch.arange(len(nearest), device=nearest.device))[seen]
    return Matches(
        int(seen.sum()),
        tuple(int((apart <= distance).sum()) for distance in DISTANCES),
        int(mutual.sum()),
        int((mutual & (apart <= DISTANCES[0])).sum()),
    )
