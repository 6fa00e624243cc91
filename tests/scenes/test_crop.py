import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from src.scenes.crop import OffCentre, fit, fit_published, fit_stored
from tests.conftest import fixture_path, load_fixture


def camera(fx=550.0, fy=553.0, cx=240.0, cy=320.5):
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def test_agrees_with_the_fixture():
    case = json.loads(fixture_path("datasets/conversions.json").read_text())["cases"]["crop_resize"]
    given = case["input"]
    for target, wanted in zip(given["targets_wh"], case["expected"], strict=True):
        found = fit(np.array(given["K"]), (given["width"], given["height"]), target)
        assert list(found.box) == wanted["crop_ltrb"]
        assert list(found.resized) == wanted["resized_wh"]
        assert list(found.offset) == wanted["final_offset_xy"]
        assert list(found.size) == wanted["output_wh"]
        np.testing.assert_allclose(found.K, wanted["K"], atol=1e-4)


def test_noise_of_the_principal_point_changes_nothing():
    exact, noisy = (fit(camera(cx=240 + noise), (479, 640), (224, 224)) for noise in (0, 1e-8))
    assert (exact.box, exact.resized, exact.offset) == (noisy.box, noisy.resized, noisy.offset)


@pytest.mark.parametrize(
    ("size", "target", "centre"),
    [
        ((479, 640), (224, 224), (240, 320.5)),
        ((640, 480), (128, 64), (300.3, 251.7)),
        ((900, 2000), (512, 384), (452, 990)),
        ((128, 128), (224, 224), (63, 66.5)),
        ((300, 200), (100, 160), (149.9, 100.2)),
        ((300, 200), (100, 160), (150.3, 93)),
        ((128, 96), (224, 160), (63.5, 48.4)),
    ],
)
def test_a_ray_lands_on_the_pixel_that_shows_it(size, target, centre):
    """Paint smooth coordinates into an image: what a result pixel shows is where its ray hits the source image."""
    (width, height), K = size, camera(200, 210, *centre)
    found = fit(K, size, target)
    for axis, span in ((0, width), (1, height)):
        ramp = np.indices((height, width))[1 - axis] + 0.5
        painted = np.repeat((ramp / span * 250)[..., None], 3, -1).round().astype(np.uint8)
        result = found.image(painted)[..., 0]
        assert result.shape == (target[1], target[0])
        pixels = np.indices(result.shape)[1 - axis] + 0.5
        rays = (pixels - found.K[axis, 2]) / found.K[axis, axis]
        source = rays * K[axis, axis] + K[axis, 2]
        assert np.abs(result - source / span * 250)[2:-2, 2:-2].max() < 1.6  # rounding to 8 bits, twice
        nearest = found.nearest(ramp)
        step = (found.box[2 + axis] - found.box[axis]) / found.resized[axis]
        assert np.abs(nearest - source).max() <= 0.5 * max(1, step) + 0.51 * (step < 1) + 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_the_result_is_filled_and_the_principal_point_central(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(100, 900, 2))
    target = tuple(int(side) for side in rng.integers(2, 14, 2) * 16)
    K = camera(500, 500, *(np.array(size) * rng.uniform(0.35, 0.65, 2)))
    found = fit(K, size, target)
    left, top, right, bottom = found.box
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    assert all(0 <= o and o + t <= r for o, t, r in zip(found.offset, target, found.resized))
    if not found.upscaled:
        assert np.abs(found.K[:2, 2] - np.array(target) / 2).max() <= 0.5 + 1e-9
    assert abs(found.K[0, 0] / found.K[1, 1] - 1) < 0.03  # never squashed


def test_the_box_is_the_largest_with_a_central_principal_point():
    box = fit(camera(cx=180.25, cy=300), (479, 640), (224, 224)).box
    assert box == (0, 0, 360, 600)


def test_same_size_changes_nothing_at_all():
    K, image = camera(cx=61, cy=66.5), np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    found = fit(K, (128, 128), (128, 128))
    assert np.array_equal(found.K, K) and np.array_equal(found.image(image), image) and not found.upscaled
    depth = image[..., 0].astype(np.float16)
    assert np.array_equal(found.nearest(depth), depth)


def test_nearest_is_pillows_centre_sampling():
    values = np.random.default_rng(0).integers(0, 65536, (1000, 777), np.uint16)
    found = fit(camera(cx=777 / 2, cy=500), (777, 1000), (224, 224))
    left, top, right, bottom = found.box
    wanted = Image.fromarray(values[top:bottom, left:right]).resize(found.resized, Image.Resampling.NEAREST)
    x, y = found.offset
    assert np.array_equal(found.nearest(values), np.asarray(wanted)[y : y + 224, x : x + 224])


def test_area_filter_averages():
    checks = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 200
    assert np.abs(fit(camera(cx=32, cy=32), (64, 64), (16, 16)).area(checks).astype(int) - 100).max() <= 1


@pytest.mark.parametrize("centre", [(40, 64), (64, 110), (-3, 64)])
def test_off_centre_principal_points_are_refused(centre):
    with pytest.raises(OffCentre, match="principal point c[xy]"):
        fit(camera(100, 100, *centre), (256, 128), (64, 64))
    with pytest.raises(OffCentre):
        fit_stored(camera(100, 100, *centre), (256, 128))


def test_stored_size_never_grows_and_keeps_the_shape():
    small = fit_stored(camera(cx=64, cy=64), (128, 128))
    assert small.box == (0, 0, 128, 128) and small.size == (128, 128) and np.array_equal(small.K, camera(cx=64, cy=64))
    large = fit_stored(camera(cx=540, cy=960), (1080, 1920))
    assert large.size == (512, int(Fraction(512 * 1920, 1080) + Fraction(1, 2)))
    np.testing.assert_allclose(large.K[:2, 2], np.array(large.size) / 2, atol=1e-9)


@pytest.mark.parametrize(
    ("target", "resized"),
    [((384, 512), (384, 698)), ((512, 384), (512, 930)), ((512, 512), (512, 930)), ((224, 224), (224, 407))],
)
def test_the_phone_capture_of_instant_ngp_is_cut_as_measured(target, resized):
    """1080 x 1920, upright: stored around its principal point, then cut to either orientation, never turned, never cut
    around the principal point again."""
    stored = fit_stored(camera(1375.52, 1374.49, 554.558, 965.268), (1080, 1920))
    assert stored.box == (30, 11, 1080, 1919) and stored.size == (512, 930)
    np.testing.assert_allclose(
        stored.K[:2], [[1375.52 * 512 / 1050, 0, 524.558 * 512 / 1050], [0, 1374.49 * 930 / 1908, 954.268 * 930 / 1908]]
    )
    found = fit(stored.K, stored.size, target)
    assert found.size == target and found.resized == resized and not found.upscaled
    assert np.abs(found.K[:2, 2] - np.array(target) / 2).max() <= 0.5
    assert found.K[0, 0] / found.K[1, 1] == pytest.approx(1375.52 / 1374.49, rel=2e-3)


@pytest.mark.parametrize(
    ("size", "centre"),
    [
        ((520, 640), (257.3, 310.8)),
        ((514, 700), (256.6, 350)),
        ((516, 700), (258.3, 349.5)),
        ((1080, 1920), (536, 965.3)),
    ],
)
def test_a_stored_photograph_is_not_cut_around_its_principal_point_again(size, centre):
    """Not enlarged to make up for two lost pixels: a training size gets the stored pixels themselves."""
    stored = fit_stored(camera(cx=centre[0], cy=centre[1]), size)
    found = fit(stored.K, stored.size, (512, 384))
    assert stored.size[0] == 512 and (found.box[0], found.box[2]) == (0, 512)
    pixels = np.random.default_rng(0).integers(0, 256, (*stored.size[::-1], 3), np.uint8)
    x, y = np.add(found.box[:2], found.offset)
    assert np.array_equal(found.image(pixels), pixels[y : y + 384, x : x + 512])
    np.testing.assert_allclose(found.K, stored.K - [[0, 0, x], [0, 0, y], [0, 0, 0]], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("centre", "box"),
    [
        ((320, 240), (0, 0, 640, 480)),
        ((319.5, 240.4), (0, 0, 640, 480)),
        ((319.5 - 1e-8, 239.6), (0, 0, 640, 480)),
        ((320.5, 240), (2, 0, 640, 480)),
        ((318, 240.3), (0, 0, 636, 480)),
        ((320.2, 251.7), (0, 24, 640, 480)),
    ],
)
def test_a_side_is_whole_where_the_principal_point_rounds_to_its_middle(centre, box):
    assert fit(camera(cx=centre[0], cy=centre[1]), (640, 480), (224, 224)).box == box


@pytest.mark.parametrize("case", range(5))
def test_the_published_crop_equals_the_reference(case):
    tensors, _ = load_fixture("splatt3r/crop_intrinsics.safetensors")
    part = {name.partition("_")[2]: value for name, value in tensors.items() if name.startswith(f"case{case}_")}
    (height, width), target = part["in_hw"].tolist(), tuple(part["resolution_wh"].tolist())
    corner = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # the fixture's K counts from the first pixel's centre
    fitted = fit_published(part["K_in"].double().numpy() + corner, (width, height), target)
    expected = part["K_out"].double().numpy()
    assert np.abs(fitted.K - corner - expected).max() <= 3e-5 * np.abs(expected).max()
    picture = fitted.image(np.zeros((height, width, 3), np.uint8))
    assert picture.shape == (target[1], target[0], 3) and fitted.size == target
    if "depth_in" in part:
        assert np.array_equal(fitted.nearest(part["depth_in"].numpy()), part["depth_out"].numpy())


def test_the_published_crop_refuses_what_it_cannot_centre():
    with pytest.raises(OffCentre, match="cy is off the centre of 100 pixels; a crop around it would keep 20"):
        fit_published(np.array([[90, 0, 50.5], [0, 90, 10.5], [0, 0, 1]]), (100, 100), (64, 64))
