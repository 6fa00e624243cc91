"""One pair of context views as the readouts see it: what may be read, and what is true."""

from dataclasses import dataclass

import torch
from torch import Tensor

from src.geometry.alignment import camera_in_prediction, context_points, depth_factor, scale_factor
from src.geometry.plane_sweep import swept_depth
from src.geometry.surface import cell_normals
from src.mast3r.attention import Grid
from src.mast3r.network import Mast3r
from src.splatt3r.posed import LEAST_DEPTH, OwnViews, own_views, unposed_points
from src.splatt3r.readout import by_patch, cell_log_depth, patch_parts
from src.splatt3r.samples import Sample

READ_TARGETS = ("log_depth", "normals", "distance", "direction", "correction")
ENOUGH = 0.5  # share of a patch's pixels that must have true depth
TORN = 0.2  # correction of a sub-cell beyond which its patch is at an edge seen in the wrong place: least squares would
# spend themselves on such


@dataclass(frozen=True)
class Looked:
    """A batch of one pair seen by the frozen geometry network.

    views   each view as the first of its pair
    swept   (1, 2, H, W)     their depth after they were compared along their rays
    points  (1, 2, H, W, 3)  of both views in view 1's frame, as without cameras
    scale   (1,)             predicted over true size of `views`
    """

    views: OwnViews
    swept: Tensor
    points: Tensor
    scale: Tensor


def look(network: Mast3r, batch: Sample) -> Looked:
    """raises ValueError when a pair has no depth"""
    tokens, grid = batch.tokens.float(), network.grid(batch.contexts.images[:, 0])
    views = own_views(network, tokens[:, 0], tokens[:, 1], grid)
    points = unposed_points(network, views, grid)
    scale = torch.stack([depth_factor(*each) for each in zip(views.depth, batch.contexts.depth)])
    contexts = batch.contexts
    relative = camera_in_prediction(contexts.c2w[:, 0], contexts.c2w[:, 1:], scale)[:, 0]
    return Looked(views, swept_depth(views.depth, contexts.images, contexts.K, relative), points, scale)


def untorn(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The patches whose correction is small enough to be one."""
    whole = (rows["correction"].abs() <= TORN).all(1)
    return {name: values[whole] for name, values in rows.items()}


def patch_means(values: Tensor, known: Tensor, grid: Grid) -> Tensor:
    """Means over the known pixels of each patch, NaN without: values (V, H, W, K), known (V, H, W) -> (V, h w, K)."""
    side = values.shape[1] // grid[0]
    cells = values.where(known[..., None], torch.nan).unflatten(2, (grid[1], side)).unflatten(1, (grid[0], side))
    return cells.transpose(2, 3).flatten(3, 4).nanmean(3).flatten(1, 2)


def pair_rows(looked: Looked, batch: Sample, grid: Grid) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and targets by name, a row per patch of both views of a pair, a batch of one; and which of the 2 n patches
    count, for they have depth enough. The rows are of all patches.

    inputs   those of `patch_parts`, of the swept depth
    targets  log_depth (1) and normals (3) of the surface in the own camera; distance (1), logarithm of true over predicted
             distance, and direction (3), the difference of unit vectors, of the points without cameras; correction (16),
             logarithm of true over swept depth in 4x4 sub-cells
    """
    depth, K, c2w = (getattr(batch.contexts, name)[0] for name in ("depth", "K", "c2w"))
    known = depth > 0
    # Inputs.
    tokens = looked.views.tokens[0], looked.views.tokens[-1]  # (2, n, C)
    features = None if batch.features is None else batch.features[0]
    rows = patch_parts(*tokens, looked.swept[0], looked.scale.expand(2), features, grid)
    # Targets of the surface.
    true_cells = by_patch(cell_log_depth(depth, grid))  # (2, n, 16), NaN where unknown
    truth = context_points(depth, K, c2w)  # (2, H, W, 3)
    points = looked.points[0] / scale_factor(looked.points[0], truth, known)
    lengths = truth.norm(dim=-1), points.norm(dim=-1).clamp_min(LEAST_DEPTH)
    correction = true_cells - rows["log_depth_cells"]  # what the scale of the pair takes away is in these already
    rows |= {
        "log_depth": true_cells.nanmean(-1, keepdim=True),
        "normals": cell_normals(depth, K, *grid).flatten(2).mT,
        "distance": patch_means((lengths[0].clamp_min(1e-6) / lengths[1]).log()[..., None], known, grid),
        "direction": patch_means(
            truth / lengths[0].clamp_min(1e-6)[..., None] - points / lengths[1][..., None], known, grid
        ),
        "correction": correction.where(correction.isfinite(), correction.nanmean(-1, keepdim=True)),
    }
    share = patch_means(known[..., None].float(), torch.ones_like(known), grid)[..., 0]
    counts = share.flatten() >= ENOUGH
    return {name: values.flatten(0, 1) for name, values in rows.items()}, counts
