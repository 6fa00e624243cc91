"""The rasteriser as plain vectorised torch, one tile at a time, gradients by autograd: slow, obvious, any float type.

It is what `rasterize_cpu` is measured against; nothing else uses it.
"""

import torch
from torch import Tensor

from src.geometry import covariances

TILE = 16
BLUR, MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE = 0.3, 1 / 255, 0.999, 1e-4


def footprints(means: Tensor, quats: Tensor, scales: Tensor, w2c: Tensor, K: Tensor, width: int,
               height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres in pixels (N, 2), 2D covariances (N, 2, 2) and depths (N,) in one view; depths must be positive."""
    rotation, size = w2c[:3, :3], means.new_tensor([width, height])
    centres = means @ rotation.T + w2c[:3, 3]
    slopes, z = centres[:, :2] / centres[:, 2:], centres[:, 2]
    focal, middle = torch.stack([K[0, 0], K[1, 1]]), K[:2, 2]
    margin = 0.3 * 0.5 * size / focal
    clamped = torch.minimum((size - middle) / focal + margin, torch.maximum(-middle / focal - margin, slopes))
    jacobian = torch.cat([torch.diag_embed(focal / z[:, None]), -(focal / z[:, None] * clamped)[..., None]], -1)
    projected = jacobian @ rotation
    blur = BLUR * torch.eye(2, dtype=means.dtype)
    return slopes * focal + middle, projected @ covariances(quats, scales) @ projected.mT + blur, z


def composite_tile(pixels: Tensor, centres: Tensor, conics: Tensor, opacities: Tensor, features: Tensor,
                   background: Tensor) -> tuple[Tensor, Tensor]:
    """Composite M footprints, nearest first, on P pixels: features (P, C) and alphas (P,)."""
    offsets = centres - pixels[:, None]  # (P, M, 2)
    sigma = 0.5 * torch.einsum("pmi,mij,pmj->pm", offsets, conics, offsets)
    alphas = (opacities * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    alphas = torch.where((sigma >= 0) & (alphas >= MIN_ALPHA), alphas, 0)
    after = torch.cumprod(1 - alphas, 1)
    weights = alphas * torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    weights = torch.where(after > MIN_TRANSMITTANCE, weights, 0)  # `after` never rises again
    covered = weights.sum(1)
    return weights @ features + (1 - covered)[:, None] * background, covered


def rasterize(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, w2c: Tensor, K: Tensor,
              width: int, height: int, near: float, background: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of `rasterize_cpu.rasterize`, in the float type of `means`."""
    background = torch.cat([means.new_zeros(3) if background is None else background, means.new_zeros(1)])
    views = [draw(means, quats, scales, opacities, *camera, width, height, near, background)
             for camera in zip(colors, w2c.to(means), K.to(means))]
    images, alphas, depths = zip(*views)
    return torch.stack(images), torch.stack(alphas), torch.stack(depths)


def draw(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, w2c: Tensor, K: Tensor,
         width: int, height: int, near: float, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One view: image (3, H, W), alpha (H, W), accumulated depth (H, W)."""
    seen = (means.detach() @ w2c[2, :3] + w2c[2, 3] >= near) & (opacities >= MIN_ALPHA)
    means, quats, scales, opacities, colors = (t[seen] for t in (means, quats, scales, opacities, colors))
    centres, covs, depths = footprints(means, quats, scales, w2c, K, width, height)
    order = depths.detach().argsort(stable=True)
    centres, covs, depths, opacities, colors = (t[order] for t in (centres, covs, depths, opacities, colors))
    conics, features = torch.linalg.inv(covs), torch.cat([colors, depths[:, None]], 1)
    with torch.no_grad():
        extent = torch.sqrt(2 * torch.log(opacities / MIN_ALPHA))[:, None] * covs.diagonal(dim1=1, dim2=2).sqrt() + 0.01
        low, high = centres - extent, centres + extent
    rows = []
    for top in range(0, height, TILE):
        row = []
        for left in range(0, width, TILE):
            h, w = min(TILE, height - top), min(TILE, width - left)
            corner, opposite = means.new_tensor([left, top]), means.new_tensor([left + w, top + h])
            touched = ((high > corner) & (low < opposite)).all(1).nonzero()[:, 0]
            y, x = torch.meshgrid(torch.arange(top, top + h) + 0.5, torch.arange(left, left + w) + 0.5, indexing="ij")
            pixels = torch.stack([x, y], -1).reshape(-1, 2).to(means)
            drawn, covered = composite_tile(pixels, centres[touched], conics[touched], opacities[touched],
                                            features[touched], background)
            row.append(torch.cat([drawn, covered[:, None]], 1).T.unflatten(1, (h, w)))
        rows.append(torch.cat(row, 2))
    picture = torch.cat(rows, 1)
    return picture[:3], picture[4], picture[3]
