"""Anybody's own photograph, of whatever size, turn and colours, as the networks take it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from src.scenes.crop import PATCH, Fit, fit
from src.scenes.pixels import ORIENTATION, BadPixels, in_srgb, open_image, sixteen_bits

CONVERTED = {"1": "black and white", "L": "grey", "P": "palette", "CMYK": "CMYK", "YCbCr": "YCbCr"}  # by Pillow mode
TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


@dataclass(frozen=True)
class Snapshot:
    """image (3, H, W) float32 sRGB in [0, 1]; notes: what was done to the photograph, in words; K (3, 3) float64 pixels of
    the image, where the photograph's was given."""

    image: Tensor
    notes: list[str]
    K: np.ndarray | None = None


def read_snapshot(path: str | Path, resolution: tuple[int, int], K: np.ndarray | None = None) -> Snapshot:
    """The photograph turned upright, its largest central part of the wanted shape, resized; never squashed.

    resolution  (W, H) in pixels
    K           (3, 3) of the upright photograph, which is then cropped around its principal point
    raises      FileNotFoundError; ValueError when the file is no picture, too small, or of 16 bits and the like
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no photograph {path}; name two picture files.")
    image = opened(path)
    image, turned = upright(image)
    try:
        image, profiled = in_srgb(image)
    except BadPixels as error:
        raise ValueError(f"{path}: {error} Save it as a JPEG or PNG without a profile.") from error
    image, coloured = in_colour(image, path)
    turned += [f"converted to sRGB from {profiled}"] if profiled else []
    if min(image.size) < PATCH:
        raise ValueError(
            f"{path} is {image.width}x{image.height} pixels; a photograph needs at least {PATCH} along each side."
        )
    fitted = fit(central_K(image.size) if K is None else K, image.size, resolution)
    width, height = used_size(fitted)
    used = "all" if (width, height) == image.size else f"the middle {width} x {height}"
    size = (
        f"{image.width} x {image.height} pixels, {used} of it {'enlarged' if fitted.upscaled else 'used'} at "
        f"{resolution[0]} x {resolution[1]}"
    )
    pixels = torch.tensor(fitted.image(np.array(image))).permute(2, 0, 1).contiguous()
    return Snapshot(pixels.float() / 255, [*turned, *coloured, size], None if K is None else fitted.K)


def opened(path: Path) -> Image.Image:
    """The picture in a file.

    raises    ValueError  when it is none, moves, or holds more than 8 bits per colour
    """
    if path.suffix.lower() in (".heic", ".heif"):
        try:
            import pillow_heif
        except ImportError:
            raise ValueError(
                f"{path} is a HEIC picture, which needs a reader: pip install pillow-heif, or save it as a JPEG."
            ) from None
        pillow_heif.register_heif_opener()
    data = path.read_bytes()
    try:
        image = open_image(data)
    except BadPixels as error:
        raise ValueError(f"{path}: {error} Give a JPEG, PNG or another picture that Pillow reads.") from error
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError(
            f"{path} moves: it holds {image.n_frames} pictures; save the one that you mean as a JPEG or PNG."
        )
    if sixteen_bits(data):
        raise ValueError(
            f"{path} has 16 bits per colour, which does not say how bright it should be shown; save it as 8-bit RGB."
        )
    return image


def upright(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The picture as its EXIF orientation asks to be shown, and a note where that turned it."""
    orientation = image.getexif().get(ORIENTATION, 1)
    if orientation not in range(2, 9):
        return image, []
    return ImageOps.exif_transpose(image), [f"turned upright (EXIF orientation {orientation})"]


def in_colour(image: Image.Image, path: Path) -> tuple[Image.Image, list[str]]:
    """The picture as RGB: transparent parts on white, other colours converted; a note where anything was done.

    raises    ValueError  for modes that have no agreed way to 8-bit colours
    """
    if image.mode == "RGB":
        return image, []
    if image.mode in TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"), ["laid on white"]
    if image.mode in CONVERTED:
        return image.convert("RGB"), [f"{CONVERTED[image.mode]} converted to RGB"]
    raise ValueError(
        f"{path} has Pillow mode {image.mode}, which does not say how bright it should be shown; save it as 8-bit RGB."
    )


def central_K(size: tuple[int, int]) -> np.ndarray:
    """A camera matrix (3, 3) that says only that the principal point is in the middle, for cropping."""
    return np.array([[1.0, 0, size[0] / 2], [0, 1.0, size[1] / 2], [0, 0, 1]])


def used_size(fitted: Fit) -> tuple[int, int]:
    """(W, H) in pixels of the photograph of what the crop leaves of it."""
    left, top, right, bottom = fitted.box
    cut = right - left, bottom - top
    return tuple(round(side * whole / after) for side, whole, after in zip(fitted.size, cut, fitted.resized))
