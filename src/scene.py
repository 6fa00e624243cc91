"""Scenes on disk: one immutable safetensors file per scene, its frames encoded, its cameras exact."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One photograph as stored: pixels, and the camera that took it.

    image        (H, W, 3)  uint8 sRGB
    depth        (H, W)     uint16 or float16 samples; times `depth_scale` = z-depth in scene units; 0 = invalid
    fg           (H, W)     uint8, foreground probability * 255
    flags        (H, W)     uint8 bit field: 1 = photometrically valid, 2 = depth reliable; None = all of both
    K            (3, 3)     float64, pixels of this image, corner origin (first pixel centre at 0.5)
    c2w          (4, 4)     float64, OpenCV axes, world in scene units
    timestamp               seconds, NaN when unknown
    """

    name: str
    image: np.ndarray
    depth: np.ndarray | None
    depth_scale: float
    fg: np.ndarray | None
    flags: np.ndarray | None
    K: np.ndarray
    c2w: np.ndarray
    frame_number: int
    timestamp: float = float("nan")
