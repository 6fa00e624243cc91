"""Pairs of images for whoever has none at hand: procedural scenes that no training and no score has seen."""

import numpy as np
import torch
from torch import Tensor

from src.procedural.scenes import generate

EXAMPLE_FAMILIES, EXAMPLE_SEED = ("objects", "rooms"), 250_000  # seeds of test scenes, beyond those that are scored
EXAMPLE_VIEWS, EXAMPLE_STEP = 12, 2  # of a camera's path around the scene; between the two images


def example_pair(family: str, resolution: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Two images (2, 3, H, W) in [0, 1] of one scene, and their cameras: K (2, 3, 3) and c2w (2, 4, 4), in metres."""
    frames = generate(family, EXAMPLE_SEED, EXAMPLE_VIEWS, resolution)[: EXAMPLE_STEP + 1 : EXAMPLE_STEP]
    images = torch.stack([torch.from_numpy(frame.image).permute(2, 0, 1).float() / 255 for frame in frames])
    K, c2w = (torch.from_numpy(np.stack([getattr(frame, name) for frame in frames])) for name in ("K", "c2w"))
    return images, (K, c2w)
