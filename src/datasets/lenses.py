"""Lens distortion, and photographs resampled as a pinhole camera would have taken them.

The models and their coefficients are OpenCV's (and COLMAP's). Camera matrices have their origin at the image's corner;
OpenCV counts from the first pixel's centre, half a pixel further in.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.polynomial import Polynomial

CENTRE = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # of the first pixel, from the corner


@dataclass(frozen=True)
class Lens:
    """coefficients: k1 k2 p1 p2 (polynomial in the radius, tangential), then, where the lens has them, k3 (the radius's
    sixth power) or k3 k4 k5 k6 (k4 to k6 of the polynomial that the radius is divided by); or of a fisheye k1 k2 k3 k4
    (polynomial in the angle to the optical axis; Kannala and Brandt 2006)."""

    fisheye: bool = False
    coefficients: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    @property
    def straight(self) -> bool:
        """Whether photographs are a pinhole's already; a fisheye without coefficients is not."""
        return not self.fisheye and not any(self.coefficients)

    @property
    def reach(self) -> float:
        """The largest pinhole radius x / z that is told apart: beyond, the polynomial turns back into the image."""
        if self.fisheye:
            turn = first_root(odd_polynomial(self.coefficients).deriv())
            return float(np.tan(turn)) if turn < np.pi / 2 else np.inf
        k1, k2, _, _, k3, k4, k5, k6 = (*self.coefficients, 0.0, 0.0, 0.0, 0.0)[:8]
        above, below = odd_polynomial((k1, k2, k3)), Polynomial([1.0, 0, k4, 0, k5, 0, k6])
        # of the quotient's derivative the numerator; beyond a root of the divisor nothing is mapped any more
        return min(first_root(above.deriv() * below - above * below.deriv()), first_root(below))


def odd_polynomial(coefficients: tuple[float, ...]) -> Polynomial:
    """x (1 + k1 x^2 + k2 x^4 + ...)"""
    return Polynomial([0.0, 1.0, *(number for k in coefficients for number in (0.0, k))])


def first_root(polynomial: Polynomial) -> float:
    """The smallest positive real root; infinity where there is none."""
    roots = polynomial.roots()
    return float(roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)].min(initial=np.inf))


@dataclass(frozen=True, eq=False)
class Resampling:
    """Where each pixel of the pinhole photograph comes from.

    x, y     (H, W) float32  place in the distorted photograph, 0 = centre of the first pixel
    inside   (H, W) bool     whether that place is in the photograph at all
    """

    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W[, C]) uint8, bilinear; outside the photograph its border is repeated."""
        return cv2.remap(pixels, self.x, self.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def nearest(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) of any type, never mixed; 0 outside the photograph."""
        height, width = pixels.shape
        rows, columns = (
            np.clip(np.floor(places + 0.5), 0, side - 1).astype(np.int64)
            for places, side in ((self.y, height), (self.x, width))
        )
        return np.where(self.inside, pixels[rows, columns], pixels.dtype.type(0))


def resampling(K: np.ndarray, lens: Lens, size: tuple[int, int], pinhole: np.ndarray) -> Resampling:
    """From a photograph of `size` (W, H) taken with camera matrix K and `lens` to one of the same size taken with
    camera matrix `pinhole` and no distortion; both (3, 3), corner origin."""
    return _resampling(*(tuple((matrix - CENTRE).ravel()) for matrix in (K, pinhole)), lens, tuple(size))


@lru_cache(maxsize=2)  # the photographs of a scene mostly share one camera
def _resampling(K: tuple, pinhole: tuple, lens: Lens, size: tuple[int, int]) -> Resampling:
    """The same with camera matrices as OpenCV reads them, flattened."""
    K, pinhole = (np.array(matrix).reshape(3, 3) for matrix in (K, pinhole))
    maps = cv2.fisheye.initUndistortRectifyMap if lens.fisheye else cv2.initUndistortRectifyMap
    x, y = maps(K, np.array(lens.coefficients), np.eye(3), pinhole, size, cv2.CV_32FC1)
    columns, rows = ((np.arange(side) - pinhole[axis, 2]) / pinhole[axis, axis] for axis, side in enumerate(size))
    inside = (x >= -0.5) & (x <= size[0] - 0.5) & (y >= -0.5) & (y <= size[1] - 0.5)
    return Resampling(x, y, inside & (np.hypot(columns, rows[:, None]) < lens.reach))


def fisheye_pinhole(K: np.ndarray, lens: Lens, size: tuple[int, int]) -> np.ndarray:
    """The camera matrix (3, 3), corner origin, to undistort a fisheye with so that no pixel looks outside: OpenCV's
    choice at balance 0, its principal point moved to the image's centre as ScanNet++'s own tool does."""
    pinhole = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
        K - CENTRE, np.array(lens.coefficients), size, np.eye(3), balance=0.0
    )
    return np.array([[pinhole[0, 0], 0, size[0] / 2], [0, pinhole[1, 1], size[1] / 2], [0, 0, 1]])
