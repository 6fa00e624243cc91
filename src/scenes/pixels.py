"""Pixels to bytes and back: the PNG and JPEG encodings inside scene files, and photographs and depth maps of others."""

import hashlib
import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageCms

ORIENTATION = 0x0112  # EXIF tag; 1 = as stored
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of what is refused below
            image = Image.open(io.BytesIO(data))
            image.load()
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise BadPixels("bad_image", f"the image has over {most} million pixels; shrink it first.") from error
    except DECODE_ERRORS as error:
        raise BadPixels("bad_image", f"the image cannot be decoded ({error}).") from error
    return image


def header_size(data: bytes) -> tuple[int, int] | None:
    """(W, H) of a picture as its first bytes say; None when they say nothing."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        return None


def sixteen_bits(data: bytes) -> bool:
    """Whether a picture's colours have 16 bits each, of which decoding would silently keep 8."""
    return any(";16" in str(tile) for tile in Image.open(io.BytesIO(data)).tile)


def in_srgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """An RGB or RGBA picture whose colour profile is not sRGB's, converted to sRGB, and the profile's name; every other
    picture as it is, and None: without a profile a picture counts as sRGB.

    raises BadPixels `bad_profile` when the profile cannot be read or does not fit the picture
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA"):
        return image, None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip() or "unnamed"
        if "srgb" in name.lower():
            return image, None
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=image.mode)
        assert converted is not None  # only a conversion in place gives nothing
    except (ImageCms.PyCMSError, OSError) as error:
        raise BadPixels("bad_profile", f"the image's colour profile cannot be used ({error}).") from error
    return converted, name


def decode(data: bytes) -> np.ndarray:
    """Pixels of an image this module encoded: (H, W, 3) uint8, (H, W) uint8 or (H, W) uint16."""
    pixels = np.array(open_image(data))
    return pixels.astype(np.uint16) if pixels.dtype == np.int32 else pixels


def decode_photograph(data: bytes, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """A dataset's photograph as sRGB, and its alpha channel if it has one; grey is replicated, RGBA laid on white.

    size      (W, H) the dataset announced; None = unknown
    returns   (H, W, 3) uint8, and (H, W) uint8 or None
    raises    BadPixels  bad_image (undecodable), exif_rotated, size_mismatch, bad_mode (palette, CMYK, 16 bit, ...),
                         bad_profile, redacted (all black)
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
    image, _ = in_srgb(image)
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


def decode_depth(data: bytes, size: tuple[int, int] | None, encoding: str) -> np.ndarray:
    """Raw samples (H, W) of a 16-bit depth PNG: uint16 for encoding `u16`, the same bits as float16 for `f16`.

    raises    BadPixels `bad_depth` when undecodable, not 16 bit, or not of `size` (W, H); None = any size
    """
    try:
        image = open_image(data)
    except BadPixels as error:
        raise BadPixels("bad_depth", f"depth: {error}") from error
    if image.mode not in ("I;16", "I;16B", "I") or image.size != tuple(size or image.size):
        wanted = f"{size[0]}x{size[1]} with 16 bits" if size else "one with 16 bits"
        raise BadPixels(
            "bad_depth", f"the depth map is {image.width}x{image.height} in Pillow mode {image.mode}, not {wanted}."
        )
    samples = np.array(image).astype(np.uint16)
    return samples.view(np.float16) if encoding == "f16" else samples


def decode_mask(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """A foreground or validity mask (H, W) uint8; 1-bit masks become 0 and 255, and so do the two values of masks with
    colours, transparency, a palette or 16 bits.

    raises    BadPixels `mask_size` when not of `size` (W, H), `bad_image` when undecodable, `bad_mode` otherwise
    """
    image = open_image(data)
    if image.size != tuple(size):
        raise BadPixels("mask_size", f"the mask is {image.width}x{image.height}, the image {size[0]}x{size[1]}.")
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    planes = np.atleast_3d(np.array(image))
    varying = [plane for plane in np.moveaxis(planes, -1, 0) if plane.min() < plane.max()]
    if not varying:  # one colour: black is nothing, whatever its transparency
        colours = planes[..., : max(1, planes.shape[-1] // 2 * 2 - 1)] if image.mode in ("LA", "RGBA") else planes
        return np.full(planes.shape[:2], 255 if colours.any() else 0, np.uint8)
    on = varying[0] == varying[0].max()
    for plane in varying:
        if len(np.unique(plane)) > 2 or not np.array_equal(plane == plane.max(), on):
            raise BadPixels(
                "bad_mode",
                f"the mask has Pillow mode {image.mode} and more than two values; only masks of two values, and 8-bit "
                "grey ones, are read.",
            )
    return np.where(on, 255, 0).astype(np.uint8)


def depth_metres(samples: np.ndarray, scale: float) -> np.ndarray:
    """z-depth (H, W) float32 in scene units of stored samples (uint16 or float16); non-finite and negative become 0."""
    depth = samples.astype(np.float32) * np.float32(scale)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def content_hash(pixels: np.ndarray) -> str:
    """SHA-256 of decoded pixels and their shape: equal for equal pictures, whatever file they came from."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
