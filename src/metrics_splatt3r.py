"""Splatt3R's own scores, under names of their own, for comparison with its published table and nothing else.

They differ from `metrics` on purpose: a batch is pooled before the logarithm, renders are not clamped, and

- without "_masked" both images are blacked out outside the mask and the whole picture counts: small masks flatter;
- with "_masked" errors are *summed* over RGB and divided by the mask's pixels: PSNR reads 10 log10(3) = 4.77 dB lower
  and SSIM three times higher than a mean would.

Inputs everywhere: renders and photos (B, 3, H, W), masks (B, H, W) bool. None when all masks are empty.
"""

import torch
from torch import Tensor

from src.metrics import SSIM_RADIUS, Lpips, decibels, ssim_map


def blacked_out(renders: Tensor, photos: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Both images in float64 with zeros outside the mask."""
    keep = masks.bool()[:, None]
    return renders.double() * keep, photos.double() * keep


def per_mask_pixel(values: Tensor, masks: Tensor) -> float | None:
    """Sum of values (B, C, H, W) over channels and mask pixels, over the number of mask pixels."""
    pixels = masks.bool().sum().item()
    return (values.double() * masks.bool()[:, None]).sum().item() / pixels if pixels else None


def psnr_splatt3r(renders: Tensor, photos: Tensor, masks: Tensor) -> float | None:
    """dB over the whole blacked-out pictures of the batch (the original's apply_mask without average_over_mask)."""
    render, photo = blacked_out(renders, photos, masks)
    return decibels((render - photo).square().mean().item()) if masks.any() else None


def psnr_splatt3r_masked(renders: Tensor, photos: Tensor, masks: Tensor) -> float | None:
    """dB of the squared error summed over RGB per mask pixel (the original's numbers in brackets)."""
    error = per_mask_pixel((renders.double() - photos.double()).square(), masks)
    return None if error is None else decibels(error)


def ssim_splatt3r(renders: Tensor, photos: Tensor, masks: Tensor) -> float | None:
    """Mean SSIM of the blacked-out pictures, 5 pixels cropped at each border."""
    inner = slice(SSIM_RADIUS, -SSIM_RADIUS)
    similarity = ssim_map(*blacked_out(renders, photos, masks))[..., inner, inner]
    return similarity.mean().item() if masks.any() else None


def ssim_splatt3r_masked(renders: Tensor, photos: Tensor, masks: Tensor) -> float | None:
    """SSIM of the blacked-out pictures summed over RGB per mask pixel: up to 3."""
    return per_mask_pixel(ssim_map(*blacked_out(renders, photos, masks)), masks)


@torch.no_grad()
def lpips_splatt3r(network: Lpips, renders: Tensor, photos: Tensor, masks: Tensor) -> float | None:
    """LPIPS of the blacked-out pictures."""
    render, photo = (image.float() for image in blacked_out(renders, photos, masks))
    return network(render, photo).mean().item() if masks.any() else None


@torch.no_grad()
def lpips_splatt3r_masked(network: Lpips, renders: Tensor, photos: Tensor, masks: Tensor) -> float | None:
    """Pixel map of LPIPS of the blacked-out pictures, per mask pixel."""
    render, photo = (image.float() for image in blacked_out(renders, photos, masks))
    return per_mask_pixel(network.map(render, photo), masks)
