"""Splatt3R's own scores, under names of their own, for comparison with its published table and nothing else.

They differ from `metrics` on purpose: a batch is pooled before the logarithm, renders are not clamped, and

- without "_masked" both images are blacked out outside the mask and the whole picture counts: small masks flatter;
- with "_masked" errors are *summed* over RGB and divided by the mask's pixels: PSNR reads 10 log10(3) = 4.77 dB lower
  and SSIM three times higher than a mean would.

Inputs everywhere: renders and targets (B, 3, H, W), masks (B, H, W) bool. None when all masks are empty.
"""

import torch
from torch import Tensor

from src.metrics.image import Lpips, decibels, mean_similarity, ssim_map
from src.results.tables import Row, metrics_of, present_scores

PUBLISHED_BATCH = 12  # images of a batch, as published


def blacked_out(renders: Tensor, targets: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Both images in float64 with zeros outside the mask."""
    keep = masks.bool()[:, None]
    return renders.double() * keep, targets.double() * keep


def per_mask_pixel(values: Tensor, masks: Tensor) -> float | None:
    """Sum of values (B, C, H, W) over channels and mask pixels, over the number of mask pixels."""
    pixels = masks.bool().sum().item()
    return (values.double() * masks.bool()[:, None]).sum().item() / pixels if pixels else None


def psnr_splatt3r_masked(renders: Tensor, targets: Tensor, masks: Tensor) -> float | None:
    """dB of the squared error summed over RGB per mask pixel (the original's numbers in brackets)."""
    error = per_mask_pixel((renders.double() - targets.double()).square(), masks)
    return None if error is None else decibels(error)


@torch.no_grad()
def splatt3r_scores(
    renders: Tensor, targets: Tensor, masks: Tensor, network: Lpips | None = None
) -> dict[str, float | None]:
    """psnr_splatt3r, ssim_splatt3r and, with its network, lpips_splatt3r of a batch, and each `_masked`."""
    metrics = ("psnr", "ssim", "lpips") if network else ("psnr", "ssim")
    names = [f"{metric}_splatt3r{kind}" for metric in metrics for kind in ("", "_masked")]
    if not masks.any():
        return dict.fromkeys(names)
    render, target = blacked_out(renders, targets, masks)
    similarity = ssim_map(render, target)
    values = [
        decibels((render - target).square().mean().item()),
        psnr_splatt3r_masked(renders, targets, masks),
        mean_similarity(similarity),
        per_mask_pixel(similarity, masks),
    ]
    if network:
        render, target = render.float(), target.float()
        whole, pixels = network.compare(target, render)
        values += [whole.mean().item(), per_mask_pixel(pixels, masks)]
    return dict(zip(names, values))


def pooled(rows: list[Row]) -> dict[str, dict[str, float | int]]:
    """mean and n of every `_splatt3r` score as published: over batches of PUBLISHED_BATCH rows in their order, each
    pooled, all of one weight however small the last is.

    rows    of one method and alignment, with `splatt3r_scores` of single pictures of one size and their `mask_share`
    """
    found = {}
    for name in metrics_of(rows):
        present = [row for row in rows if row[name] is not None]
        if "_splatt3r" in name and present:
            batches = [
                pooled_score(name, present[first : first + PUBLISHED_BATCH])
                for first in range(0, len(present), PUBLISHED_BATCH)
            ]
            found[name] = {"mean": sum(batches) / len(batches), "n": len(present)}
    return found


def pooled_score(name: str, rows: list[Row]) -> float:
    """What `splatt3r_scores` of the pictures behind the rows as one batch would be."""
    weights = present_scores(rows, "mask_share") if name.endswith("_masked") else [1.0] * len(rows)
    values = [10 ** (-score / 10) if name.startswith("psnr") else score for score in present_scores(rows, name)]
    mean = sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
    return decibels(mean) if name.startswith("psnr") else mean
