"""Depth of two views from each other: where along its ray does a pixel look like what the other view shows?

Collins 1996, A Space-Sweep Approach to True Multi-Image Matching; here around a depth that a network has predicted.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

from src.geometry.cameras import invert_se3, unproject

REACH = 0.2  # of the logarithm of depth: how far from the prediction is searched
STEPS = 17  # depths that are tried
PREDICTED_SD = 0.05  # of the logarithm of depth, how far predictions are believed to be off
APPEARANCE_SD = 0.01  # of the colour differences that count as agreement
UNLIKE = 0.3  # a colour difference beyond which a pixel is hidden or outside, whatever it looks like
WINDOW = 3  # pixels, over which differences are averaged


@torch.no_grad()
def swept_depth(depth: Tensor, images: Tensor, K: Tensor, relative: Tensor) -> Tensor:
    """Depth of both views of pairs after each was compared with the other along its rays.

    The mean of the tried depths, each weighted by exp(-difference / APPEARANCE_SD) and by a normal distribution around
    the prediction: where nothing is to be seen in the other view, or nothing distinguishes the depths, the prediction
    stays.

    depth     (B, 2, H, W)     predicted z-depth, > 0
    images    (B, 2, 3, H, W)  in [0, 1]
    K         (B, 2, 3, 3)     pixels
    relative  (B, 4, 4)        c2w of view 2 in view 1's camera frame, units of depth
    returns   (B, 2, H, W)
    """
    looks = appearance(images.flatten(0, 1)).unflatten(0, images.shape[:2])  # (B, 2, 5, H, W)
    to_first, to_second = relative, invert_se3(relative)
    found = [
        swept(depth[:, 0], looks[:, 0], looks[:, 1], K[:, 0], K[:, 1], to_second),
        swept(depth[:, 1], looks[:, 1], looks[:, 0], K[:, 1], K[:, 0], to_first),
    ]
    return torch.stack(found, 1)


def appearance(images: Tensor) -> Tensor:
    """Colours, and the differences of brightness across and down: (N, 3, H, W) -> (N, 5, H, W)."""
    grey = images.mean(1, keepdim=True)
    across = pad(grey[..., 2:] - grey[..., :-2], (1, 1, 0, 0), mode="replicate")
    down = pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1), mode="replicate")
    return torch.cat([images, across, down], 1)


def swept(depth: Tensor, own: Tensor, other: Tensor, own_K: Tensor, other_K: Tensor, to_other: Tensor) -> Tensor:
    """Depth (B, H, W) of one view, compared with the other; to_other (B, 4, 4) carries its camera frame into that one's."""
    height, width = depth.shape[-2:]
    steps = torch.linspace(-REACH, REACH, STEPS, dtype=depth.dtype, device=depth.device)
    # The other camera with its image between -1 and 1: what it sees of a ray, x, y and 1 times z, is linear in depth.
    to_square = depth.new_tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    camera = to_square @ other_K @ to_other[:, :3]  # (B, 3, 4)
    along = (unproject(depth, own_K).flatten(1, 2) @ camera[..., :3].mT).unflatten(1, (height, width))  # (B, H, W, 3)
    differences, inside = [], []
    for step in steps:  # one at a time: all at once would take STEPS times the memory
        # 1. Where the pixel would be seen by the other camera, were it this far away.
        seen = along * step.exp() + camera[:, None, None, :, 3]
        places = seen[..., :2] / seen[..., 2:]
        inside.append((seen[..., 2] > 0) & (places >= -1).all(-1) & (places < 1).all(-1))
        # 2. How much what is seen there differs.
        places = places.where(inside[-1][..., None], 9)
        shown = grid_sample(other, places, padding_mode="border", align_corners=False)
        differences.append((shown - own).abs().mean(1).clamp(max=UNLIKE))
    # 3. A depth at which the pixel leaves the other image says nothing: it counts like the mean of the others.
    difference, known = torch.stack(differences, 1), torch.stack(inside, 1)  # (B, STEPS, H, W)
    mean = (difference * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
    padded = pad(difference.where(known, mean), (WINDOW // 2,) * 4, mode="replicate")
    # 4. Agreement weighs against the prediction.
    belief = -((steps / PREDICTED_SD) ** 2) / 2
    weights = (belief[:, None, None] - avg_pool2d(padded, WINDOW, 1) / APPEARANCE_SD).softmax(1)
    return depth * (weights * steps[:, None, None]).sum(1).exp()
