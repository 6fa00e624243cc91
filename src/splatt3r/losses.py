"""What training minimises: errors of point maps (DUSt3R, MASt3R), descriptor matching, and of rendered targets.

Both views of a pair are stacked: points (B, 2, H, W, 3) in view 1's camera frame, masks and confidences (B, 2, H, W).
Wang et al. 2024, DUSt3R (arXiv 2312.14132), eq. 2-4; Leroy et al. 2024, MASt3R (arXiv 2406.09756), sec. 3.1-3.2;
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


@torch.no_grad()
def scale_shift_invariant_error(predicted: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """DUSt3R's test criterion: predictions brought to the truth's median depth and spread, one pair at a time, then
    `mean_error`."""
    predicted = predicted / average_distance(predicted, valid).view(-1, 1, 1, 1, 1)
    errors = torch.zeros_like(valid, dtype=predicted.dtype)
    for b, mask in enumerate(valid):
        p, g = predicted[b].clone(), truth[b].clone()
        for points in (p, g):
            points[..., 2] -= points[mask][:, 2].median()
        spreads = [(x[mask] - x[mask].median(0).values).norm(dim=-1).median() for x in (p, g)]
        errors[b] = (p * (spreads[1] / spreads[0].clamp(1e-3, 1e3)) - g).norm(dim=-1)
    return mean_error(errors, valid)


def matching_loss(
    descriptors: Tensor,
    confidence: Tensor,
    pixels: Tensor,
    valid: Tensor,
    temperature: float = 0.05,
    alpha: float = 10.0,
) -> Tensor:
    """MASt3R's matching: each correspondence must prefer its partner, in both directions (InfoNCE), weighted by the
    descriptors' confidence.

    descriptors  (B, 2, H, W, D) unit length; confidence (B, 2, H, W) > 0
    pixels       (B, 2, N, 2)    int64 (x, y): row n of both views is one correspondence
    valid        (B, N) bool     invalid ones serve as negatives only
    """
    x, y = pixels.unbind(-1)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    view = torch.arange(2, device=x.device)[None, :, None]
    a, b = descriptors[batch, view, y, x].unbind(1)  # (B, N, D)
    weight = confidence[batch, view, y, x].mean(1)
    similarity = (a @ b.mT / temperature).exp()
    own = similarity.diagonal(dim1=1, dim2=2)
    losses = -sum((own / similarity.sum(dim)).clamp(min=1e-8).log() for dim in (1, 2))
    return (losses * weight - alpha * weight.log())[valid].mean()


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
