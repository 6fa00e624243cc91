"""Pixels of a dataset's photograph, its depth and its masks, as a pinhole camera would have taken them."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.datasets.colmap_model import decode_depth_map
from src.datasets.lenses import resampling
from src.datasets.raw_files import RawFiles
from src.datasets.transforms_json import Camera
from src.datasets.usable import Tally, check_intrinsics
from src.scenes.pixels import BadPixels, decode_depth, decode_mask, decode_photograph, open_image
from src.scenes.scene import RELIABLE, VALID, Frame

DEPTH_LIMIT = 65535  # of 16-bit samples
BACKGROUND = 65504  # the largest float16, which depth maps hold where nothing was hit
FURTHEST = 4  # times the depth that 99 % of a map's samples stay below: beyond it lie outliers


@dataclass(frozen=True)
class ListedPhotograph:
    """One listed photograph: its name and place in the capture, and the files of its planes, relative to the dataset's
    root; None = there is none.

    depth_unit   scene units per stored depth unit
    keep         mask of the pixels to use: those of at least `keep_from`
    ignore       mask of the pixels not to use: those above 0
    """

    name: str
    number: int
    image: str
    depth: str | None = None
    depth_unit: float = 0.001
    keep: str | None = None
    keep_from: int = 1
    ignore: str | None = None


def near_names(path: Path) -> list[str]:
    """Names in the same folder that differ from the path's in capitals alone."""
    if not path.parent.is_dir():
        return []
    return sorted(other.name for other in path.parent.iterdir() if other.name.lower() == path.name.lower())


def read_image(files: RawFiles, path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The photograph (H, W, 3) uint8 and its alpha channel (H, W) uint8 or None.

    raises    BadPixels, also `missing_image`
    """
    if path not in files:
        near = near_names(files.root / path)
        instead = f", but {near[0]}" if near else ""
        raise BadPixels("missing_image", f"there is no file {path}{instead}.")
    return decode_photograph(files.read(path))


def read_depth(
    files: RawFiles, listed: ListedPhotograph, size: tuple[int, int], tally: Tally
) -> tuple[np.ndarray | None, float]:
    """Depth samples (H, W) uint16 and their unit: of a 16-bit PNG as they are; of COLMAP's, a .npy array or 32-bit picture
    rounded to a unit as fine as fits, negative, non-finite and too large ones and outliers that the unit does not reach
    0 and counted. A smaller map of the image's shape is enlarged, each sample repeated. None when there is no such file,
    or when it cannot be used, which is counted.
    """
    path, unit = listed.depth, listed.depth_unit
    if path is None or path not in files:
        return None, unit
    try:
        return read_samples(files.read(path), path, unit, size, tally)
    except BadPixels as error:
        tally.lose("depth_unusable", listed.name, str(error))
        return None, unit


def read_samples(data: bytes, path: str, unit: float, size: tuple[int, int], tally: Tally) -> tuple[np.ndarray, float]:
    """raises BadPixels `bad_depth`"""
    samples = wide_samples(data, path)
    if samples is None:
        return enlarged(decode_depth(data, None, "u16"), size, tally), unit
    samples = enlarged(samples, size, tally)
    good = (samples >= 0) & (samples <= DEPTH_LIMIT)  # false for NaN
    samples = np.where(good, samples, 0)
    finer = fineness(samples)
    fits = samples * finer <= DEPTH_LIMIT
    tally.count("depth_pixels_zeroed", int((~(good & fits)).sum()))
    return np.floor(np.where(fits, samples, 0) * finer + 0.5).astype(np.uint16), unit / finer


def enlarged(samples: np.ndarray, size: tuple[int, int], tally: Tally) -> np.ndarray:
    """A depth map at the image's `size` (W, H): phones store it smaller. Depths are never mixed.

    raises    BadPixels `bad_depth` when it is larger, or of another shape by more than a pixel of its own
    """
    if samples.shape == size[::-1]:
        return samples
    if samples.ndim != 2 or not all(samples.shape):
        raise BadPixels("bad_depth", f"the depth map's shape is {samples.shape}, the image is {size[0]}x{size[1]}.")
    height, width = samples.shape
    if width > size[0] or height > size[1] or abs(width * size[1] - height * size[0]) > max(size):
        raise BadPixels("bad_depth", f"the depth map is {width}x{height}, the image is {size[0]}x{size[1]}.")
    tally.count("depth_enlarged")
    rows, columns = ((np.arange(side) + 0.5) * own / side for side, own in ((size[1], height), (size[0], width)))
    return samples[rows.astype(np.int64)[:, None], columns.astype(np.int64)]


def fineness(samples: np.ndarray) -> float:
    """Into how many parts, a power of two, 16 bits may divide the unit of samples from 0 to 65535: 1 where all of them
    are whole, else as many as fit the largest that is no outlier."""
    if not (samples % 1).any():
        return 1.0
    seen = samples[(samples > 0) & (samples != BACKGROUND)]
    reach = min(seen.max(), FURTHEST * np.percentile(seen, 99))
    return 2.0 ** min(20, int(np.log2(DEPTH_LIMIT / reach)))


def wide_samples(data: bytes, path: str) -> np.ndarray | None:
    """The numbers of COLMAP's .bin, a .npy array or a picture with 32 bits per pixel, float64; None for others."""
    if path.endswith(".bin"):
        return decode_depth_map(data).astype(np.float64)
    if not path.lower().endswith(".npy"):
        try:
            picture = open_image(data)
        except BadPixels as error:
            raise BadPixels("bad_depth", f"depth: {error}") from error
        return np.array(picture, np.float64) if picture.mode in ("I", "F") else None
    try:
        return np.load(io.BytesIO(data), allow_pickle=False).squeeze().astype(np.float64)
    except (ValueError, OSError, EOFError) as error:
        raise BadPixels("bad_depth", f"the depth array cannot be read ({error}).") from error


def usable_pixels(files: RawFiles, listed: ListedPhotograph, size: tuple[int, int], tally: Tally) -> np.ndarray:
    """(H, W) bool: what the masks leave.

    raises    BadPixels `mask_size`, and what decoding raises
    """
    usable = np.ones(size[::-1], bool)
    for path, lowest, keeps in ((listed.keep, listed.keep_from, True), (listed.ignore, 1, False)):
        if path is not None and path not in files:
            tally.count("mask_missing")
        elif path is not None:
            usable &= (decode_mask(files.read(path), size) >= lowest) == keeps
    tally.count("mask_empty", int(not usable.any()))
    return usable


def photograph(
    files: RawFiles,
    listed: ListedPhotograph,
    pixels: tuple[np.ndarray, np.ndarray | None],
    camera: Camera,
    pinhole: np.ndarray,
    tally: Tally,
) -> Frame:
    """The frame of decoded `pixels` (image, alpha) that `camera` took, resampled for camera matrix `pinhole` (3, 3)
    where the lens is not straight; masked pixels and those from outside the photograph are marked invalid.

    raises    BadPixels, BadFrame
    """
    image, alpha = pixels
    if (size := image.shape[1::-1]) != camera.size:
        raise BadPixels(
            "size_mismatch", f"the image is {size[0]}x{size[1]}, listed as {camera.size[0]}x{camera.size[1]}."
        )
    check_intrinsics(camera.K, size)
    (depth, unit), usable = read_depth(files, listed, size, tally), usable_pixels(files, listed, size, tally)
    if not camera.lens.straight:
        resample = resampling(camera.K, camera.lens, size, pinhole)
        image, alpha = (plane if plane is None else resample.image(plane) for plane in (image, alpha))
        depth, usable = (plane if plane is None else resample.nearest(plane) for plane in (depth, usable))
    flags = None if usable.all() else np.where(usable, VALID | RELIABLE, 0).astype(np.uint8)
    return Frame(listed.name, image, depth, unit, alpha, flags, pinhole, camera.c2w, listed.number)
