"""What training minimises: errors of point maps (DUSt3R, MASt3R), and of rendered targets.

Both views of a pair are stacked: points (B, 2, H, W, 3) in view 1's camera frame, masks and confidences (B, 2, H, W).
Wang et al. 2024, DUSt3R (arXiv 2312.14132), eq. 2-4; Leroy et al. 2024, MASt3R (arXiv 2406.09756), sec. 3.1;
Smart et al. 2024, Splatt3R (arXiv 2408.13912), sec. 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SKY_ERROR = 2.0


def average_distance(points: Tensor, valid: Tensor) -> Tensor:
    """Scale of a pair: mean distance to the origin of the valid points of both views, at least 1e-8; (B,)"""
    distances = torch.where(valid, points.norm(dim=-1), 0).flatten(1).sum(1)
    return (distances / (valid.flatten(1).sum(1) + 1e-8)).clamp(min=1e-8)


def point_errors(
    predicted: Tensor, truth: Tensor, valid: Tensor, in_metres: Tensor | None = None, keep_truth: bool = False
) -> Tensor:
    """Euclidean distance of each predicted point from the true one after both pairs are brought to one scale.

    predicted, truth  (B, 2, H, W, 3)  in view 1's camera frame
    valid             (B, 2, H, W)     bool; the scale is taken over these pixels
    in_metres         (B,) bool        pairs whose scale must be learned: their prediction is divided by the truth's
                                       scale instead of its own. None = none (DUSt3R)
    keep_truth        leave truth as it is; predictions in metres then too
    returns           (B, 2, H, W)     meaningful where valid
    """
    own, true = average_distance(predicted, valid), average_distance(truth, valid)
    if keep_truth:
        true = torch.ones_like(true)
    if in_metres is None:
        in_metres = torch.zeros(len(own), dtype=torch.bool, device=own.device)
    divisor = torch.where(in_metres, true, own)
    return (predicted / divisor.view(-1, 1, 1, 1, 1) - truth / true.view(-1, 1, 1, 1, 1)).norm(dim=-1)


def mean_error(errors: Tensor, selected: Tensor) -> Tensor:
    """Sum over the two views of the mean error of the selected pixels of the whole batch; an empty view adds 0."""
    return sum(errors[:, view][selected[:, view]].mean() for view in range(2) if selected[:, view].any())


def confidence_loss(errors: Tensor, confidence: Tensor, selected: Tensor, alpha: float = 0.2) -> Tensor:
    """Errors weighted by confidence, with a reward for confidence: mean of l c - alpha log c, summed over the views."""
    return mean_error(errors * confidence - alpha * confidence.log(), selected)


def with_sky(errors: Tensor, valid: Tensor, sky: Tensor, sky_error: float = SKY_ERROR) -> tuple[Tensor, Tensor]:
    """Errors with `sky_error` on sky pixels that have no valid point, and the pixels that count: valid or such sky."""
    sky = sky & ~valid
    return torch.where(sky, sky_error, errors), valid | sky


def mast3r_loss(
    predicted: Tensor, confidence: Tensor, truth: Tensor, valid: Tensor, sky: Tensor, in_metres: Tensor
) -> Tensor:
    """MASt3R's confidence-weighted regression: pairs in metres keep their scale, sky counts as an error of 2."""
    errors, selected = with_sky(point_errors(predicted, truth, valid, in_metres), valid, sky)
    return confidence_loss(errors, confidence, selected)


def masked_mse(renders: Tensor, targets: Tensor, mask: Tensor, average_over_mask: bool = True) -> Tensor:
    """Squared error of renders (B, T, 3, H, W): over mask (B, T, H, W) pixels, summed over the three colours (so that
    LPIPS keeps its usual weight beside it), or the plain mean over everything."""
    squares = (renders - targets).square()
    if not average_over_mask:
        return squares.mean()
    return (squares * mask[:, :, None]).sum() / mask.sum()


def masked_lpips(
    renders: Tensor,
    targets: Tensor,
    mask: Tensor,
    spatial: Callable[[Tensor, Tensor], Tensor],
    average_over_mask: bool = True,
) -> Tensor:
    """Mean of LPIPS maps over the mask's pixels, or over all; `spatial` maps two (N, 3, H, W) to (N, 1, H, W)."""
    maps = spatial(targets.flatten(0, 1), renders.flatten(0, 1))
    if not average_over_mask:
        return maps.mean()
    return (maps * mask.flatten(0, 1)[:, None]).sum() / mask.sum()


def photometric_loss(
    renders: Tensor,
    targets: Tensor,
    mask: Tensor,
    mse_weight: float = 1.0,
    lpips_weight: float = 0.25,
    spatial_lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    apply_mask: bool = True,
    average_over_mask: bool = True,
) -> dict[str, Tensor]:
    """Splatt3R's loss on rendered targets: mse_weight * MSE + lpips_weight * LPIPS, outside the mask black in both.

    renders, targets (B, T, 3, H, W), mask (B, T, H, W) bool; spatial_lpips is needed when lpips_weight > 0
    returns `loss` and its parts `mse` and, if it counts, `lpips`
    raises  ValueError when no pixel is in the mask
    """
    if not mask.any():
        raise ValueError(
            "No target pixel of a training batch is seen by its contexts; raise "
            "datasets.<name>.episodes.beta so that targets overlap them."
        )
    if apply_mask:
        renders, targets = renders * mask[:, :, None], targets * mask[:, :, None]
    parts = {"mse": masked_mse(renders, targets, mask, average_over_mask)}
    parts["loss"] = mse_weight * parts["mse"]
    if lpips_weight:
        parts["lpips"] = masked_lpips(renders, targets, mask, spatial_lpips, average_over_mask)
        parts["loss"] = parts["loss"] + lpips_weight * parts["lpips"]
    return parts
