"""The rasteriser as plain vectorised torch, one tile at a time, gradients by autograd: slow, obvious, any float type.

It is what `cpu/rasterize.py` is measured against; nothing else uses it.
"""

import torch
from torch import Tensor

from src.geometry.cameras import covariances
from src.splatting.thresholds import BLUR, MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, TILE


def footprints(
    means: Tensor, quats: Tensor, scales: Tensor, w2c: Tensor, K: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor]:
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


def composite_tile(x: Tensor, y: Tensor, prints: Tensor, background: Tensor) -> Tensor:
    """Composite M footprints, nearest first, on P pixels: (P, 5), the four features and alpha.

    prints (M, 10): centre 2, inverse covariance xx, xy, yy, opacity, features 4
    """
    u, v, xx, xy, yy, opacity = prints[:, :6].unbind(1)
    dx, dy = u - x[:, None], v - y[:, None]  # (P, M)
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alphas = (opacity * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    alphas = torch.where((sigma >= 0) & (alphas >= MIN_ALPHA), alphas, 0)
    after = torch.cumprod(1 - alphas, 1)
    weights = alphas * torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    weights = torch.where(after > MIN_TRANSMITTANCE, weights, 0)  # `after` never rises again
    covered = weights.sum(1, keepdim=True)
    return torch.cat([weights @ prints[:, 6:] + (1 - covered) * background, covered], 1)


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    w2c: Tensor,
    K: Tensor,
    width: int,
    height: int,
    near: float,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the CPU's `rasterize`, in the float type of `means`."""
    background = torch.cat([means.new_zeros(3) if background is None else background, means.new_zeros(1)])
    views = [
        draw([means, quats, scales, opacities, seen], *camera, (width, height), near, background)
        for seen, *camera in zip(colors, w2c.to(means), K.to(means))
    ]
    images, alphas, depths = zip(*views)
    return torch.stack(images), torch.stack(alphas), torch.stack(depths)


def draw(
    gaussians: list[Tensor], w2c: Tensor, K: Tensor, size: tuple[int, int], near: float, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One view: image (3, H, W), alpha (H, W), accumulated depth (H, W); `gaussians` are means, quats, scales, opacities,
    colours."""
    width, height = size
    seen = (gaussians[0].detach() @ w2c[2, :3] + w2c[2, 3] >= near) & (gaussians[3] >= MIN_ALPHA)
    means, quats, scales, opacities, colors = (tensor[seen] for tensor in gaussians)
    centres, covs, depths = footprints(means, quats, scales, w2c, K, width, height)
    order = depths.detach().argsort(stable=True)
    conics = torch.linalg.inv(covs).flatten(1)[:, [0, 1, 3]]
    prints = torch.cat([centres, conics, opacities[:, None], colors, depths[:, None]], 1)[order]
    with torch.no_grad():
        extent = torch.sqrt(2 * torch.log(opacities / MIN_ALPHA))[:, None] * covs.diagonal(dim1=1, dim2=2).sqrt() + 0.01
        low, high = (centres - extent)[order], (centres + extent)[order]
        corners = [(left, top) for top in range(0, height, TILE) for left in range(0, width, TILE)]
        lists = [
            ((high > means.new_tensor(corner)) & (low < means.new_tensor(corner) + TILE)).all(1).nonzero()[:, 0]
            for corner in corners
        ]
    tiles = []
    for (left, top), chosen in zip(corners, prints[torch.cat(lists)].split([len(found) for found in lists])):
        y, x = torch.meshgrid(
            *(
                torch.arange(start, min(start + TILE, end)).to(means) + 0.5
                for start, end in ((top, height), (left, width))
            ),
            indexing="ij",
        )
        tiles.append(composite_tile(x.flatten(), y.flatten(), chosen, background).T.unflatten(1, x.shape))
    columns = -(-width // TILE)
    picture = torch.cat([torch.cat(tiles[i : i + columns], 2) for i in range(0, len(tiles), columns)], 1)
    return picture[:3], picture[4], picture[3]
