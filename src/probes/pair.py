"""One pair of context views as the readouts see it: what may be read, and what is true."""

from dataclasses import dataclass

import torch
from torch import Tensor

from src.geometry.alignment import camera_in_prediction, context_points, depth_factor, scale_factor
from src.geometry.plane_sweep import swept_depth
from src.geometry.surface import cell_normals
from src.mast3r.attention import Grid
from src.mast3r.network import Mast3r
from src.splatt3r.fusion import resize_features
from src.splatt3r.posed import LEAST_DEPTH, OwnViews, own_views
from src.splatt3r.prediction import unposed_points
from src.splatt3r.readout import by_patch, cell_log_depth, positions
from src.splatt3r.samples import Sample

READ_TARGETS = ("log_depth", "normals", "distance", "direction", "correction")
ENOUGH = 0.5  # share of a patch's pixels that must have true depth
TORN = 0.2  # correction of a sub-cell beyond which its patch is at an edge seen in the wrong place: least squares would
# spend themselves on such


@dataclass(frozen=True)
class Looked:
    """A batch of pairs seen by the frozen geometry network.

    views   each view as the first of its pair
    swept   (B, 2, H, W)     their depth after they were compared along their rays
    points  (B, 2, H, W, 3)  of both views in view 1's frame, as without cameras
    scale   (B,)             predicted over true size of `views`
    """

    views: OwnViews
    swept: Tensor
    points: Tensor
    scale: Tensor


def look(network: Mast3r, batch: Sample) -> Looked:
    """raises ValueError when a pair has no depth"""
    tokens, grid = batch.tokens.float(), network.grid(batch.contexts.images[:, 0])
    views = own_views(network, tokens[:, 0], tokens[:, 1], grid)
    points = torch.stack(unposed_points(network, tokens, grid), 1)
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


def pair_rows(looked: Looked, batch: Sample, number: int, grid: Grid) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and targets by name, a row per patch of both views of pair `number`; and which of the 2 n patches count,
    for they have depth enough. The rows are of all patches.

    inputs   places, encoded, decoded, log_depth_cells (of the swept depth, in the cameras' unit), features where there are
    targets  log_depth (1) and normals (3) of the surface in the own camera; distance (1), logarithm of true over predicted
             distance, and direction (3), the difference of unit vectors, of the points without cameras; correction (16),
             logarithm of true over swept depth in 4x4 sub-cells
    """
    depth, K, c2w = (getattr(batch.contexts, name)[number] for name in ("depth", "K", "c2w"))
    known, scale, batches = depth > 0, looked.scale[number], len(looked.scale)
    both = [number, batches + number]  # of what is stacked by view
    encoded, decoded = looked.views.tokens[0][both], looked.views.tokens[-1][both]  # (2, n, C)
    # Inputs.
    log_cells = by_patch(cell_log_depth(looked.swept[number], grid)) - scale.log()  # (2, n, 16)
    rows = {
        "places": positions(grid, log_cells).expand(2, -1, -1),
        "encoded": encoded,
        "decoded": decoded,
        "log_depth_cells": log_cells,
    }
    if batch.features is not None:
        rows["features"] = resize_features(batch.features[number], grid).flatten(2).mT
    # Targets of the surface.
    true_cells = by_patch(cell_log_depth(depth, grid))  # (2, n, 16), NaN where unknown
    truth = context_points(depth, K, c2w)  # (2, H, W, 3)
    points = looked.points[number] / scale_factor(looked.points[number], truth, known)
    lengths = truth.norm(dim=-1), points.norm(dim=-1).clamp_min(LEAST_DEPTH)
    correction = true_cells - log_cells  # what the scale of the pair takes away is in log_cells already
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
