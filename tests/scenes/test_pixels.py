import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from src.scenes.pixels import (
    BadPixels,
    content_hash,
    decode,
    decode_depth,
    decode_mask,
    decode_photograph,
    depth_metres,
    encode_jpeg,
    encode_png,
)
from tests.conftest import fixture_path
from tests.helpers.profiles import icc_profile, in_srgb_by_formula


def rng():
    return np.random.default_rng(0)


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "pixels",
    [
        rng().integers(0, 256, (7, 5, 3), np.uint8),
        rng().integers(0, 256, (7, 5), np.uint8),
        rng().integers(0, 65536, (7, 5), np.uint16),
    ],
)
def test_png_round_trips_exactly(pixels):
    assert np.array_equal(decode(encode_png(pixels)), pixels) and decode(encode_png(pixels)).dtype == pixels.dtype


def test_half_precision_depth_keeps_its_bits():
    depth = rng().random((6, 9)).astype(np.float16)
    assert np.array_equal(decode(encode_png(depth)).view(np.float16), depth)


def test_jpeg_keeps_full_resolution_colour():
    """Colour stripes one pixel wide stay within a few levels; 4:2:0 would average neighbours."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, ::2], pixels[:, 1::2] = (200, 60, 60), (60, 60, 200)
    assert np.abs(decode(encode_jpeg(pixels)).astype(int) - pixels).max() < 12
    buffer = file_of(Image.fromarray(pixels), "JPEG", quality=95, subsampling=2)
    assert np.abs(decode(buffer).astype(int) - pixels).max() > 40


def test_depth_bits_agree_with_the_fixture():
    case = json.loads(fixture_path("datasets/conversions.json").read_text())["cases"]["depth_float16_in_uint16"]
    given, wanted = case["input"], case["expected"]
    height, width = np.shape(given["uint16_pixels"])
    samples = decode_depth(base64.b64decode(given["png16_base64"]), (width, height), "f16")
    assert np.array_equal(samples.view(np.uint16), given["uint16_pixels"])
    depth = depth_metres(samples, given["scale_adjustment"])
    np.testing.assert_allclose(depth, wanted["depth"], atol=1e-6)
    mask = decode_mask(base64.b64decode(given["depth_mask_png1_base64"]), (width, height))
    assert np.array_equal(mask > 0, np.array(given["depth_mask"], bool))
    assert np.array_equal((depth > 0) & (mask > 0), np.array(wanted["valid"], bool))


def test_grey_is_replicated_and_rgba_is_laid_on_white():
    grey = rng().integers(1, 256, (4, 6), np.uint8)
    pixels, alpha = decode_photograph(file_of(Image.fromarray(grey)), (6, 4))
    assert alpha is None and all(np.array_equal(pixels[..., c], grey) for c in range(3))
    rgba = rng().integers(0, 256, (4, 6, 4), np.uint8)
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 255
    pixels, alpha = decode_photograph(file_of(Image.fromarray(rgba)), (6, 4))
    assert np.array_equal(alpha, rgba[..., 3])
    assert pixels[0, 0].tolist() == [255, 255, 255] and np.array_equal(pixels[0, 1], rgba[0, 1, :3])
    white = Image.new("RGBA", (6, 4), "white")
    white.alpha_composite(Image.fromarray(rgba))
    assert np.abs(np.asarray(white.convert("RGB")).astype(int) - pixels).max() <= 1


def photograph(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(rng().integers(0, 256, (32, 48, 3), np.uint8)).convert(mode)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(photograph(), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "bad_image"),
        (b"<html>404</html>", "bad_image"),
        (file_of(photograph())[:-200], "bad_image"),
        (file_of(photograph(), "JPEG")[:-300], "bad_image"),
        (rotated(), "exif_rotated"),
        (file_of(photograph().resize((48, 31))), "size_mismatch"),
        (file_of(photograph("CMYK"), "JPEG"), "bad_mode"),
        (file_of(photograph("P")), "bad_mode"),
        (encode_png(np.ones((32, 48), np.uint16)), "bad_mode"),
        (file_of(Image.new("RGB", (48, 32))), "redacted"),
    ],
)
def test_unusable_photographs_are_refused_with_their_reason(data, reason):
    with pytest.raises(BadPixels) as error:
        decode_photograph(data, (48, 32))
    assert error.value.reason == reason


def test_damaged_bytes_never_raise_anything_else():
    data = encode_png(rng().integers(0, 256, (16, 16, 3), np.uint8))
    refused = 0
    for place in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        try:
            decode(bytes(damaged))
        except BadPixels:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("data", [encode_png(np.ones((4, 6), np.uint8)), encode_png(np.ones((4, 5), np.uint16)), b"no"])
def test_depth_of_another_kind_is_refused(data):
    with pytest.raises(BadPixels) as error:
        decode_depth(data, (6, 4), "u16")
    assert error.value.reason == "bad_depth"


def test_mask_of_another_size_is_refused():
    with pytest.raises(BadPixels) as error:
        decode_mask(encode_png(np.ones((4, 6), np.uint8)), (4, 6))
    assert error.value.reason == "mask_size"


def test_content_hash_knows_pixels_and_shape():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert content_hash(pixels) == content_hash(pixels.copy())
    assert content_hash(pixels) != content_hash(pixels.reshape(4, 2, 3)) != content_hash(pixels + np.uint8(1))


HALVES = np.repeat(np.array([[0, 1]], bool), 24, 1).repeat(32, 0)  # (32, 48): the right half is on
WHITE, RED = (255, 255, 255), (200, 10, 10)


def in_colours(off, on, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.where(HALVES[..., None], on, off).astype(np.uint8), mode)


def in_palette(transparent: bool) -> Image.Image:
    image = Image.fromarray(HALVES.astype(np.uint8), "P")
    image.putpalette([9, 9, 9, 250, 250, 250])
    if transparent:
        image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    "mask",
    [
        in_colours((0, 0, 0), WHITE),
        in_colours((0, 0, 0), RED),
        in_colours((10, 20, 30), (40, 50, 60)),
        in_colours((255, 255, 255, 0), (255, 255, 255, 255), "RGBA"),
        in_colours((0, 0, 0, 255), (255, 255, 255, 255), "RGBA"),
        in_colours((7, 0), (7, 255), "LA"),
        in_palette(False),
        in_palette(True),
        Image.fromarray(np.where(HALVES, 65535, 0).astype(np.uint16)),
        Image.fromarray(HALVES),
    ],
)
def test_masks_of_two_values_are_read_whatever_their_channels(mask):
    data = file_of(mask, **({"transparency": 0} if mask.info.get("transparency") == 0 else {}))
    assert np.array_equal(decode_mask(data, (48, 32)), np.where(HALVES, 255, 0))


@pytest.mark.parametrize(
    ("colour", "value"), [(WHITE, 255), ((0, 0, 0), 0), ((0, 0, 0, 255), 0), ((9, 9, 9, 255), 255)]
)
def test_masks_of_one_colour_are_all_or_nothing(colour, value):
    assert (
        decode_mask(file_of(Image.new("RGB" if len(colour) == 3 else "RGBA", (48, 32), colour)), (48, 32)) == value
    ).all()


@pytest.mark.parametrize("mask", [in_colours((255, 0, 0), (0, 255, 0)), photograph("RGB")])
def test_masks_whose_channels_say_different_things_are_refused(mask):
    with pytest.raises(BadPixels, match="more than two values") as error:
        decode_mask(file_of(mask), mask.size)
    assert error.value.reason == "bad_mode"


def test_a_colour_profile_is_undone():
    pixels = rng().integers(60, 190, (8, 8, 3)).astype(np.uint8)
    pixels[0, 0] = (255, 255, 255)
    data = file_of(Image.fromarray(pixels), icc_profile=icc_profile("Display P3"))
    found, _ = decode_photograph(data)
    wanted = in_srgb_by_formula(pixels)
    np.testing.assert_allclose(found, wanted, atol=1.5)
    assert np.abs(wanted - pixels).max() > 4  # it matters


def test_srgbs_own_profile_and_none_change_nothing_and_a_broken_one_is_named():
    pixels = rng().integers(0, 256, (8, 8, 3)).astype(np.uint8)
    for options in ({}, {"icc_profile": icc_profile("sRGB IEC61966-2.1")}):
        assert np.array_equal(decode_photograph(file_of(Image.fromarray(pixels), **options))[0], pixels)
    with pytest.raises(BadPixels, match="colour profile cannot be used") as error:
        decode_photograph(file_of(Image.fromarray(pixels), icc_profile=b"not a profile"))
    assert error.value.reason == "bad_profile"
