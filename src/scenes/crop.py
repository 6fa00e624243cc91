"""Crop and resize images so that the principal point stays central and the camera matrix stays exact.

All in float64 with round(x) = floor(x + 0.5). K has its origin at the image's corner, so resizing needs no half-pixel
terms: Pillow's resampling is corner-aligned too.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

PATCH = 16  # pixels per side of the geometry networks' tokens
EPSILON = 1e-3  # pixels; absorbs the noise of a principal point such as 240.00000001
CENTRAL = 5  # the principal point must lie further than 1/5 of the side from the border


class OffCentre(ValueError):
    """The principal point is too close to the image's border to crop around it."""


@dataclass(frozen=True)
class Fit:
    """How one image becomes another: cut `box`, resize to `resized`, cut a window of `size` at `offset`.

    box (left, top, right, bottom) source pixels; resized, size (W, H); offset (x, y); K (3, 3) float64 of the result
    """

    box: tuple[int, int, int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]
    K: np.ndarray

    @property
    def upscaled(self) -> bool:
        return self.resized[0] > self.box[2] - self.box[0] or self.resized[1] > self.box[3] - self.box[1]

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        left, top, right, bottom = self.box
        return pixels[top:bottom, left:right]

    def window(self, pixels: np.ndarray) -> np.ndarray:
        (x, y), (width, height) = self.offset, self.size
        return np.ascontiguousarray(pixels[y : y + height, x : x + width])

    def resample(self, pixels: np.ndarray, filter: Image.Resampling) -> np.ndarray:
        pixels = self.cut(pixels)
        if (pixels.shape[1], pixels.shape[0]) != self.resized:
            pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(self.resized, filter))
        return self.window(pixels)

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, Lanczos when shrinking, bicubic when growing; unchanged when nothing is resized."""
        return self.resample(pixels, Image.Resampling.BICUBIC if self.upscaled else Image.Resampling.LANCZOS)

    def area(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) uint8 probabilities, averaged over the source area of each pixel."""
        return self.resample(pixels, Image.Resampling.BOX)

    def nearest(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) of any type, the source pixel under each result pixel's centre: never mixes depths."""
        pixels = self.cut(pixels)
        rows, columns = (
            ((np.arange(after) + 0.5) * before / after).astype(np.int64)
            for after, before in zip(self.resized[::-1], pixels.shape)
        )
        return self.window(pixels[rows[:, None], columns])


def two(numbers: Iterable[int]) -> tuple[int, int]:
    """A size (W, H) or an offset (x, y)."""
    x, y = map(int, numbers)
    return x, y


def nearest_integer(x: float) -> int:
    return math.floor(x + 0.5)


def symmetric_box(K: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box (left, top, right, bottom) of image `size` (W, H) with the principal point at its centre.

    raises OffCentre when half its width or height is below a fifth of the image's
    """
    edges = []
    for centre, side, axis in zip(K[:2, 2], size, "xy"):
        half = math.floor(min(centre, side - centre) + EPSILON)
        if half < side / CENTRAL:
            raise OffCentre(
                f"the principal point c{axis} {centre:.1f} is off the centre of {side} pixels; a crop "
                f"around it would keep {max(0, 2 * half)}."
            )
        edges.append((nearest_integer(centre) - half, nearest_integer(centre) + half))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def central_box(K: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """`symmetric_box`, but the whole side on which the principal point rounds to the middle, as an earlier cut leaves
    it: a second one would take up to two pixels more, to be made up by enlarging.

    raises OffCentre
    """
    box = np.reshape(symmetric_box(K, size), (2, 2))
    whole = np.floor(K[:2, 2] + 0.5 + EPSILON) == np.array(size) / 2
    return tuple(np.where(whole, [(0, 0), size], box).ravel().tolist())


def scaled_K(K: np.ndarray, box: tuple[int, int, int, int], resized: tuple[int, int]) -> np.ndarray:
    """K (3, 3) after cutting `box` and resizing it to `resized` (W, H)."""
    left, top, right, bottom = box
    shifted = K.astype(np.float64) - [[0, 0, left], [0, 0, top], [0, 0, 0]]
    return np.diag([resized[0] / (right - left), resized[1] / (bottom - top), 1]) @ shifted


def fit(K: np.ndarray, size: tuple[int, int], target: tuple[int, int]) -> Fit:
    """Cut symmetrically around the principal point, scale until the target is filled, cut the excess: never squashes.

    K         (3, 3)  pixels of the image, corner origin
    size      (W, H)  of the image; when it already is `target`, nothing changes at all
    target    (W, H)  wanted
    raises    OffCentre
    """
    size, target = two(size), two(target)
    if size == target:
        return Fit((0, 0, *size), size, (0, 0), size, K.astype(np.float64))
    box = central_box(K, size)
    cut = box[2] - box[0], box[3] - box[1]
    scale = max(wanted / side for wanted, side in zip(target, cut))
    resized = two(max(wanted, nearest_integer(side * scale)) for wanted, side in zip(target, cut))
    K = scaled_K(K, box, resized)
    offset = two(
        min(max(nearest_integer(centre - wanted / 2), 0), side - wanted)
        for centre, wanted, side in zip(K[:2, 2], target, resized)
    )
    return Fit(box, resized, offset, target, K - [[0, 0, offset[0]], [0, 0, offset[1]], [0, 0, 0]])


def fit_stored(K: np.ndarray, size: tuple[int, int], short_side: int = 512) -> Fit:
    """As stored in a scene: cut symmetrically around the principal point, shrink until the short side is at most
    `short_side` pixels; no final cut, and nothing grows.

    raises    OffCentre
    """
    box = symmetric_box(K, size)
    cut = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, short_side / min(cut))
    resized = two(nearest_integer(side * scale) for side in cut)
    return Fit(box, resized, (0, 0), resized, scaled_K(K, box, resized))


@dataclass(frozen=True)
class PublishedFit(Fit):
    """A `Fit` whose nearest neighbour lies at the corner of a result pixel instead of its centre."""

    def nearest(self, pixels: np.ndarray) -> np.ndarray:
        pixels = self.cut(pixels)
        rows, columns = (np.arange(after) * before // after for after, before in zip(self.resized[::-1], pixels.shape))
        return self.window(pixels[rows[:, None], columns])


def fit_published(K: np.ndarray, size: tuple[int, int], target: tuple[int, int]) -> PublishedFit:
    """The crop that Splatt3R was trained and scored with, kept for comparison with its published numbers: around the
    principal point rounded to a pixel, sizes rounded down, K without the last half pixel of what rounding cost.

    K, size, target, raises  as in `fit`
    """
    size, target = two(size), two(target)
    centre = K[:2, 2] - 0.5  # the published code counts from the first pixel's centre
    middle = [round(float(c)) for c in centre]
    half = [min(c, side - c) for c, side in zip(middle, size)]
    for axis, margin, side in zip("xy", half, size):
        if margin < side / CENTRAL:
            raise OffCentre(
                f"the principal point c{axis} is off the centre of {side} pixels; a crop around it would "
                f"keep {max(0, 2 * margin)}."
            )
    (left, top), cut = (c - margin for c, margin in zip(middle, half)), [2 * margin for margin in half]
    scale = max(wanted / side for wanted, side in zip(target, cut)) + 1e-8
    resized = two(math.floor(side * scale) for side in cut)
    lost = np.array([side * scale - after for side, after in zip(cut, resized)])
    offset = two(round((after - wanted) / 2) for after, wanted in zip(resized, target))
    fitted = np.diag([scale, scale, 1]) @ K.astype(np.float64)
    fitted[:2, 2] = (centre - [left, top] + 0.5) * scale - lost / 2 - offset
    return PublishedFit((left, top, left + cut[0], top + cut[1]), resized, offset, target, fitted)
