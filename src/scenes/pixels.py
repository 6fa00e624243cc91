"""Pixels to bytes and back: the PNG and JPEG encodings inside scene files, and photographs and depth maps of others."""

import hashlib
import io
import struct
import zlib

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF tag; 1 = as stored
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class BadPixels(ValueError):
    """Bytes that are not the picture they should be; `reason` is the word reports count it under."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def encode_png(pixels: np.ndarray) -> bytes:
    """Lossless PNG of (H, W, 3) uint8, (H, W) uint8, or (H, W) uint16 or float16 (its 16-bit patterns)."""
    pixels = pixels.view(np.uint16) if pixels.dtype == np.float16 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """JPEG of (H, W, 3) uint8 at quality 95 with full-resolution colour (4:4:4)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """The whole picture decoded: lazy opening would accept a truncated file.

    raises BadPixels `bad_image`
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except DECODE_ERRORS as error:
        raise BadPixels("bad_image", f"the image cannot be decoded ({error}).") from error
    return image


def sixteen_bits(data: bytes) -> bool:
    """Whether a picture's colours have 16 bits each, of which decoding would silently keep 8."""
    return any(";16" in str(tile) for tile in Image.open(io.BytesIO(data)).tile)


def decode(data: bytes) -> np.ndarray:
    """Pixels of an image this module encoded: (H, W, 3) uint8, (H, W) uint8 or (H, W) uint16."""
    pixels = np.array(open_image(data))
    return pixels.astype(np.uint16) if pixels.dtype == np.int32 else pixels


def decode_photograph(data: bytes, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """A dataset's photograph as sRGB, and its alpha channel if it has one; grey is replicated, RGBA laid on white.

    size      (W, H) the dataset announced; None = unknown
    returns   (H, W, 3) uint8, and (H, W) uint8 or None
    raises    BadPixels  bad_image (undecodable), exif_rotated, size_mismatch, bad_mode (palette, CMYK, 16 bit, ...),
                         redacted (all black)
    """
    image = open_image(data)
    if (orientation := image.getexif().get(ORIENTATION, 1)) != 1:
        raise BadPixels("exif_rotated", f"the image asks to be rotated (EXIF orientation {orientation}).")
    if size is not None and image.size != tuple(size):
        raise BadPixels("size_mismatch", f"the image is {image.width}x{image.height}, listed as {size[0]}x{size[1]}.")
    if sixteen_bits(data):
        raise BadPixels("bad_mode", "the image has 16 bits per channel; only 8 are read.")
    if image.mode not in ("RGB", "L", "RGBA"):
        raise BadPixels("bad_mode", f"the image has Pillow mode {image.mode}; only RGB, RGBA and 8-bit grey are read.")
    alpha = None
    if image.mode == "RGBA":
        rgba = np.array(image)
        alpha, share = rgba[..., 3], rgba[..., 3:] / 255.0
        pixels = np.floor(rgba[..., :3] * share + 255 * (1 - share) + 0.5).astype(np.uint8)
    else:
        pixels = np.array(image.convert("RGB"))
    if not pixels.any():
        raise BadPixels("redacted", "the image is black everywhere.")
    return pixels, alpha


def decode_depth(data: bytes, size: tuple[int, int], encoding: str) -> np.ndarray:
    """Raw samples (H, W) of a 16-bit depth PNG: uint16 for encoding `u16`, the same bits as float16 for `f16`.

    raises    BadPixels `bad_depth` when undecodable, not 16 bit, or not of `size` (W, H)
    """
    try:
        image = open_image(data)
    except BadPixels as error:
        raise BadPixels("bad_depth", f"depth: {error}") from error
    if image.mode not in ("I;16", "I;16B", "I") or image.size != tuple(size):
        raise BadPixels(
            "bad_depth",
            f"the depth map is {image.width}x{image.height} in Pillow mode {image.mode}, not "
            f"{size[0]}x{size[1]} with 16 bits.",
        )
    samples = np.array(image).astype(np.uint16)
    return samples.view(np.float16) if encoding == "f16" else samples


def decode_mask(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """A foreground or validity mask (H, W) uint8; 1-bit masks become 0 and 255.

    raises    BadPixels `mask_size` when not of `size` (W, H), `bad_image` when undecodable, `bad_mode` otherwise
    """
    image = open_image(data)
    if image.size != tuple(size):
        raise BadPixels("mask_size", f"the mask is {image.width}x{image.height}, the image {size[0]}x{size[1]}.")
    if image.mode not in ("1", "L"):
        raise BadPixels("bad_mode", f"the mask has Pillow mode {image.mode}; only 1-bit and 8-bit grey are read.")
    return np.array(image.convert("L"))


def depth_metres(samples: np.ndarray, scale: float) -> np.ndarray:
    """z-depth (H, W) float32 in scene units of stored samples (uint16 or float16); non-finite and negative become 0."""
    depth = samples.astype(np.float32) * np.float32(scale)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def content_hash(pixels: np.ndarray) -> str:
    """SHA-256 of decoded pixels and their shape: equal for equal pictures, whatever file they came from."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
