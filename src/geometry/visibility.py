"""Which pixels of a target view the context views can know about."""

import torch
from torch import Tensor

from src.geometry.cameras import invert_se3, project, transform, unproject, visible
from src.geometry.choices import MASKS


def depth_tolerance(in_metres: bool) -> tuple[float, bool]:
    """How far two depths of one surface may differ, and whether that is a share of the depth: 0.1 m, or, in a scene that
    is not in metres, 5 % of the depth."""
    return (0.1, False) if in_metres else (0.05, True)


@torch.no_grad()
def loss_mask(
    target_depth: Tensor,
    target_K: Tensor,
    target_c2w: Tensor,
    context_depth: Tensor,
    context_K: Tensor,
    context_c2w: Tensor,
    mode: str = "strict",
    tolerance: float = 0.1,
    relative: bool = False,
) -> Tensor:
    """Per target pixel: is the surface point it shows also seen by a context view?

    `strict`: one and the same context has the point in front of it, inside its image, and at the depth it stored there
    (nearest pixel) up to `tolerance`. `splatt3r`: the mask of Splatt3R (Smart et al. 2024) with its peculiarities, for
    scores comparable with that paper: "inside some image" and "at some stored depth" may be two contexts, points behind
    a camera are not excluded, depth is sampled bilinearly across holes, half a pixel off, with 1e-5 |depth| added to
    the tolerance.

    target_depth  (*B, T, H, W)  z-depth, 0 = invalid (never in the mask)
    context_depth (*B, V, H, W)  same size and units
    *_K, *_c2w    (*B, T or V, 3, 3), (*B, T or V, 4, 4); K in pixels, corner origin, in both modes
    tolerance                    scene units; a share of the point's depth when `relative` (strict only)
    returns       (*B, T, H, W)  bool
    raises        ValueError     for an unknown mode, and for `relative` in mode splatt3r
    """
    if mode not in MASKS:
        raise ValueError(f"masks is {mode!r}; choose one of {', '.join(MASKS)}.")
    if mode == "splatt3r" and relative:
        raise ValueError(
            "masks splatt3r is defined for an absolute tolerance only; use strict for scenes without metric scale."
        )
    world = transform(target_c2w, unproject(target_depth, target_K))  # (*B, T, H, W, 3)
    contexts = [
        (context_depth.select(-3, v), context_K.select(-3, v), context_c2w.select(-3, v))
        for v in range(context_depth.shape[-3])
    ]
    if mode == "splatt3r":
        return (target_depth > 1e-6) & _splatt3r_covered(world, contexts, tolerance)
    seen = [visible(world, depth, K, c2w, tolerance, relative) for depth, K, c2w in contexts]
    return (target_depth > 0) & torch.stack(seen).any(0)


def _splatt3r_covered(world: Tensor, contexts: list[tuple[Tensor, Tensor, Tensor]], tolerance: float) -> Tensor:
    """(*B, T, H, W) bool: inside any context's image, and at the sampled depth of any context."""
    inside = torch.zeros(world.shape[:-1], dtype=torch.bool, device=world.device)
    matched = inside.clone()
    for depth, K, c2w in contexts:
        points = transform(invert_se3(c2w), world)
        # the original works with integer pixel centres: its coordinates are half a pixel below ours
        pixels = project(points, K) - 0.5
        size = pixels.new_tensor([depth.shape[-1], depth.shape[-2]])
        inside |= ((pixels > 0) & (pixels < size)).all(-1)
        z = points[..., 2]
        sampled = _sample_bilinear(depth, 2 * pixels / size - 1)
        matched |= (z - sampled).abs() <= tolerance + 1e-5 * sampled.abs()
    return inside & matched


def _sample_bilinear(depth: Tensor, grid: Tensor) -> Tensor:
    """depth (*B, H, W) at normalised coordinates (*B, T, h, w, 2), corners at -1 and 1, zeros outside."""
    batch = depth.ndim - 2
    grid = grid.nan_to_num(3).clamp(-3, 3)  # 3 is outside; NaN and inf (z = 0) must not reach the sampler
    flat = grid.reshape(-1, grid.shape[batch:-1].numel(), 1, 2)
    sampled = torch.nn.functional.grid_sample(
        depth.reshape(-1, 1, *depth.shape[-2:]), flat, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled.reshape(grid.shape[:-1])
