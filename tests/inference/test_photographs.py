import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from src.inference.photographs import read_snapshot
from tests.helpers.profiles import icc_profile, in_srgb_by_formula

ORIENTATIONS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, -1),
}


def blocks(width: int = 96, height: int = 64) -> np.ndarray:
    """Four flat quarters of different colours."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = (250, 20, 20), (20, 240, 30)
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = (10, 30, 230), (200, 200, 40)
    return image


def read(path, resolution=(96, 64)) -> tuple[np.ndarray, list[str]]:
    snapshot = read_snapshot(path, resolution)
    assert snapshot.image.shape == (3, *resolution[::-1]) and 0 <= snapshot.image.min() <= snapshot.image.max() <= 1
    return np.rint(snapshot.image.permute(1, 2, 0).numpy() * 255).astype(np.uint8), snapshot.notes


def test_a_photograph_of_the_wanted_size_is_taken_as_it_is(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.png")
    pixels, notes = read(tmp_path / "a.png")
    assert np.array_equal(pixels, blocks()) and notes == ["96 x 64 pixels, all of it used at 96 x 64"]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientations_are_undone_and_said(tmp_path, orientation):
    """The stored pixels are turned the other way by hand; what comes back is upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(ORIENTATIONS[orientation](blocks()))).save(tmp_path / "a.png", exif=exif)
    pixels, notes = read(tmp_path / "a.png")
    assert np.array_equal(pixels, blocks()) and f"EXIF orientation {orientation}" in notes[0]


@pytest.mark.parametrize(
    ("size", "resolution", "used"),
    [
        ((300, 200), (64, 64), "the middle 200 x 200 of it used"),
        ((200, 301), (96, 64), "the middle 200 x 133 of it used"),
        ((40, 20), (96, 64), "the middle 30 x 20 of it enlarged"),
    ],
)
def test_the_largest_middle_part_is_used(tmp_path, size, resolution, used):
    """Seen in a picture whose colours say where they are."""
    columns, rows = np.meshgrid(np.linspace(0, 250, size[0]), np.linspace(0, 250, size[1]))
    Image.fromarray(np.stack([columns, rows, 0 * rows], -1).astype(np.uint8)).save(tmp_path / "a.png")
    pixels, notes = read(tmp_path / "a.png", resolution)
    assert used in notes[-1]
    side = min(size[0] / resolution[0], size[1] / resolution[1])
    for axis in range(2):
        share = side * resolution[axis] / size[axis]
        ends = [250 * (1 - share) / 2, 250 * (1 + share) / 2]
        line = pixels[resolution[1] // 2, :, 0] if axis == 0 else pixels[:, resolution[0] // 2, 1]
        assert np.abs(line[[0, -1]].astype(float) - ends).max() < 250 / min(size) + 5


@pytest.mark.parametrize(
    ("mode", "said"), [("L", "grey"), ("CMYK", "CMYK"), ("YCbCr", "YCbCr"), ("1", "black and white")]
)
def test_other_colours_are_converted_and_said(tmp_path, mode, said):
    image = Image.fromarray(blocks()).convert(mode)
    image.save(tmp_path / "a.tif")
    pixels, notes = read(tmp_path / "a.tif")
    assert said in notes[0]
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).max() == 0
    if mode == "L":
        weights = blocks() @ np.array([0.299, 0.587, 0.114])
        assert np.abs(pixels - weights[..., None]).max() <= 1


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path):
    Image.fromarray(blocks()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    pixels, _ = read(tmp_path / "a.jpg")
    assert np.abs(pixels[16, 16].astype(int) - blocks()[16, 16]).max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white(tmp_path, mode):
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[:, 48:72], alpha[:, 72:] = 51, 0
    image = Image.fromarray(np.dstack([blocks(), alpha]))
    image.convert(mode).save(tmp_path / "a.png")
    pixels, notes = read(tmp_path / "a.png")
    colour = np.asarray(image.convert("RGBA" if mode == "RGBA" else "LA").convert("RGBA"))[..., :3]
    assert notes[0] == "laid on white" and (pixels[:, 72:] == 255).all()
    assert np.array_equal(pixels[:, :48], colour[:, :48])
    assert np.abs(pixels[:, 48:72] - (0.2 * colour[:, 48:72] + 0.8 * 255)).max() <= 1


def test_a_palette_with_a_transparent_colour_is_laid_on_white(tmp_path):
    Image.fromarray(blocks()).quantize(4).save(tmp_path / "a.png", transparency=0)
    pixels, notes = read(tmp_path / "a.png")
    assert notes[0] == "laid on white" and (pixels == 255).all(-1).mean() == 0.25


def test_what_is_no_photograph_is_refused_by_name(tmp_path):
    Image.fromarray(np.zeros((64, 96), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(blocks(96, 12)).save(tmp_path / "flat.png")
    (tmp_path / "text.jpg").write_text("not a picture")
    Image.fromarray(blocks()).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:300])
    for name, words in (
        ("deep.png", "save it as 8-bit RGB"),
        ("flat.png", "at least 16"),
        ("text.jpg", "cannot be decoded"),
        ("cut.jpg", "cannot be decoded"),
        ("none.jpg", "no photograph"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
            read_snapshot(tmp_path / name, (96, 64))
        assert name in str(error.value)


def test_a_colour_profile_is_undone_and_said(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.png", icc_profile=icc_profile("Display P3"))
    pixels, notes = read(tmp_path / "a.png")
    assert "converted to sRGB from Display P3" in notes
    np.testing.assert_allclose(pixels, in_srgb_by_formula(blocks()), atol=2)


def test_a_profile_that_cannot_be_read_is_refused_by_the_file_s_name(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "odd.png", icc_profile=b"no profile at all")
    with pytest.raises(ValueError, match="odd.png: the image's colour profile cannot be used .*Save it"):
        read(tmp_path / "odd.png")


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_per_colour_are_refused(tmp_path, channels):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 96, channels), 40000, np.uint16))
    with pytest.raises(ValueError, match="a.png has 16 bits per colour.*save it as 8-bit RGB"):
        read(tmp_path / "a.png")


def test_pictures_that_move_are_refused(tmp_path):
    frames = [Image.fromarray(blocks()), Image.fromarray(blocks()[::-1])]
    for ending in ("gif", "png", "webp"):
        frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match="moves: it holds 2 pictures"):
            read(tmp_path / f"a.{ending}")


def test_a_heic_picture_without_its_reader_says_how_to_have_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.HEIC").write_bytes(b"ftypheic")
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        read(tmp_path / "a.HEIC")


def test_a_picture_that_is_too_large_to_open_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    Image.fromarray(blocks()).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png: the image has over 0 million pixels; shrink it first"):
        read(tmp_path / "a.png")
