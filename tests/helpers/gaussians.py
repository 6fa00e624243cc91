"""Drawn Gaussians."""

import numpy as np
import torch

from src.splatting.gaussians import Gaussians


def random_gaussians(*lead: int, coefficients: int = 4, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(*lead, 3, generator=g),
        quats=torch.randn(*lead, 4, generator=g),
        scales=torch.rand(*lead, 3, generator=g),
        opacities=torch.rand(*lead, generator=g),
        sh=torch.randn(*lead, coefficients, 3, generator=g),
    )


def nearest_of(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each written centre the number of the Gaussian it is."""
    return np.linalg.norm(found[:, None] - wanted[None], axis=-1).argmin(1)
