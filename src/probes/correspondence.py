"""Whether the same place has the same features in two views: nearest neighbours between feature maps, without training."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from src.geometry.cameras import pixel_centres, project, relative_pose, transform, visible
from src.probes.compared import DISTANCES


@dataclass(frozen=True)
class Matches:
    """Of one pair, from each view to the other.

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
    rows = maps.flatten(2).mT.float()  # (2, n, C)
    rows = rows - rows.mean((0, 1))
    if rows.abs().max() <= 1e-6:
        return None
    similarity = normalize(rows[0], dim=-1) @ normalize(rows[1], dim=-1).mT  # (n, n)
    forward, backward = similarity.argmax(1), similarity.argmax(0)
    first = one_way(forward, backward, true_places(0, 1, maps, depth, K, c2w, tolerance, relative), maps.shape[-2:])
    second = one_way(backward, forward, true_places(1, 0, maps, depth, K, c2w, tolerance, relative), maps.shape[-2:])
    return first + second


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


def one_way(nearest: Tensor, back: Tensor, places: Tensor, grid: tuple[int, int]) -> Matches:
    """Matches from the n cells of one view: nearest (n,) in the other, and that one's in turn; places as true_places."""
    seen = places[:, 0].isfinite()
    found = torch.stack([nearest % grid[1], nearest // grid[1]], -1) + 0.5
    apart = (found - places).norm(dim=-1)[seen]
    mutual = (back[nearest] == torch.arange(len(nearest), device=nearest.device))[seen]
    return Matches(
        int(seen.sum()),
        tuple(int((apart <= distance).sum()) for distance in DISTANCES),
        int(mutual.sum()),
        int((mutual & (apart <= DISTANCES[0])).sum()),
    )
