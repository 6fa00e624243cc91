import numpy as np
import pytest

from src.datasets.lenses import Lens, fisheye_pinhole, resampling
from tests.helpers.miniatures import bent, straightened

FOX = np.array([[1375.52, 0, 554.558], [0, 1374.49, 965.268], [0, 0, 1]])
FOX_LENS = Lens(False, (0.0578, -0.0805, -0.00098, 0.00016))


@pytest.mark.parametrize(
    ("lens", "kind"),
    [
        (Lens(False, (0.09, -0.06, 0.004, -0.003)), "opencv"),
        (Lens(True, (-0.03, 0.01, -0.002, 0.001)), "fisheye"),
        (Lens(True), "fisheye"),
    ],
)
def test_every_pixel_is_fetched_from_where_its_ray_met_the_sensor(lens, kind):
    K = np.array([[90.0, 0, 51.3], [0, 93.0, 77.8], [0, 0, 1]])
    pinhole = np.array([[80.0, 0, 55.0], [0, 85.0, 70.0], [0, 0, 1]])
    found = resampling(K, lens, (110, 150), pinhole)
    for row, column in ((0, 0), (149, 3), (70, 55), (20, 100), (140, 109)):
        x, y = (column + 0.5 - 55) / 80, (row + 0.5 - 70) / 85
        u, v = bent(np.array(x), np.array(y), (kind, lens.coefficients))
        u, v = 90 * u + 51.3, 93 * v + 77.8
        assert (found.x[row, column] + 0.5, found.y[row, column] + 0.5) == pytest.approx((u, v), abs=1e-4)
        assert found.inside[row, column] == (0 <= u <= 110 and 0 <= v <= 150)


def test_the_phone_capture_of_instant_ngp_moves_as_measured():
    found = resampling(FOX, FOX_LENS, (1080, 1920), FOX)
    columns, rows = np.meshgrid(np.arange(1080), np.arange(1920))
    moved = np.hypot(found.x - columns, found.y - rows)
    assert moved.max() == pytest.approx(10.8, abs=0.1) and np.median(moved) == pytest.approx(4.4, abs=0.1)
    assert 1 - found.inside.mean() == pytest.approx(0.017, abs=0.001)


def test_images_are_interpolated_and_other_planes_are_not():
    K = np.array([[60.0, 0, 40], [0, 60.0, 30], [0, 0, 1]])
    lens = Lens(False, (-0.3, 0.05, 0.0, 0.0))
    found = resampling(
        K, lens, (80, 60), np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]]) * [[0.5, 1, 1], [1, 0.5, 1], [1, 1, 1]]
    )
    ramp = np.repeat(np.arange(80, dtype=np.uint8)[None] * 3, 60, 0)
    inside = found.inside & (found.x > 0) & (found.x < 79)
    assert 0.2 < inside.mean() < 0.9
    np.testing.assert_allclose(found.image(ramp)[inside], 3 * found.x[inside], atol=0.6)
    depth = np.random.default_rng(0).choice(np.array([7, 900, 65535], np.uint16), (60, 80))
    nearest = found.nearest(depth)
    assert set(np.unique(nearest)) == {0, 7, 900, 65535} and nearest.dtype == np.uint16
    assert not nearest[~found.inside].any() and (nearest[found.inside] > 0).all()
    row, column = np.argwhere(inside)[500]
    assert nearest[row, column] == depth[int(found.y[row, column] + 0.5), int(found.x[row, column] + 0.5)]


def test_rays_beyond_the_turning_point_of_the_polynomial_are_not_believed():
    """x (1 - 0.25 x^2) rises up to x = 2 / sqrt(3) and comes back to the centre at x = 2."""
    K = np.array([[10.0, 0, 50], [0, 10, 50], [0, 0, 1]])
    found = resampling(K, Lens(False, (-0.25, 0.0, 0.0, 0.0)), (100, 100), K)
    radius = np.hypot(*np.meshgrid(np.arange(100) - 49.5, np.arange(100) - 49.5)) / 10
    assert np.array_equal(found.inside, radius < 2 / np.sqrt(3))
    assert Lens(True, (-0.5, 0.0, 0.0, 0.0)).reach == pytest.approx(np.tan(np.sqrt(2 / 3)))
    assert Lens(True, (0.1, 0.0, 0.0, 0.0)).reach == np.inf == Lens().reach


def test_a_fisheye_is_cut_so_that_its_middle_looks_nowhere_outside():
    K, lens = np.array([[70.0, 0, 83], [0, 70, 59], [0, 0, 1]]), Lens(True, (-0.03, 0.01, -0.002, 0.001))
    pinhole = fisheye_pinhole(K, lens, (160, 120))
    assert pinhole[:2, 2].tolist() == [80, 60]
    inside = resampling(K, lens, (160, 120), pinhole).inside
    assert inside.mean() > 0.97  # OpenCV's choice is exact for its own principal point
    x, y = straightened(np.array((0.5 - 83) / 70), np.array((60 - 59) / 70), ("fisheye", lens.coefficients))
    assert 80 + pinhole[0, 0] * x < 4  # the left edge's middle stays (nearly) the left edge


def test_a_pinhole_is_straight_and_a_fisheye_is_not():
    assert Lens().straight and not Lens(True).straight and not Lens(False, (0.0, 0.0, 1e-5, 0.0)).straight


def quotient(x, y, k1, k2, p1, p2, k3=0.0, k4=0.0, k5=0.0, k6=0.0):
    """Brown's model with OpenCV's divisor, number by number   (OpenCV's documentation of calib3d)."""
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


@pytest.mark.parametrize(
    "coefficients",
    [(0.09, -0.06, 0.004, -0.003, 0.02), (0.3, -0.06, 0.004, -0.003, 0.02, 0.25, 0.01, -0.004)],
)
def test_the_sixth_power_and_the_divisor_bend_as_the_formula_says(coefficients):
    K = np.array([[90.0, 0, 51.3], [0, 93.0, 77.8], [0, 0, 1]])
    found = resampling(K, Lens(False, coefficients), (110, 150), K)
    for row, column in ((0, 0), (149, 3), (70, 55), (20, 100), (140, 109)):
        u, v = quotient((column + 0.5 - 51.3) / 90, (row + 0.5 - 77.8) / 93, *coefficients)
        wanted = 90 * u + 51.3, 93 * v + 77.8
        assert (found.x[row, column] + 0.5, found.y[row, column] + 0.5) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    "coefficients",
    [(-0.3, 0, 0, 0), (0.1, 0, 0, 0, -0.2), (0.0, 0, 0, 0, 0, 0.6, 0.3, 0), (0.1, 0, 0, 0, 0, -0.2, 0, 0)],
)
def test_the_reach_is_where_a_walk_outwards_first_turns_back(coefficients):
    radii = np.linspace(0, 3, 300001)
    with np.errstate(divide="ignore"):
        bent_radii, _ = quotient(radii, 0.0, *coefficients)
    turn = np.argmax(np.diff(bent_radii) <= 0)
    assert Lens(False, coefficients).reach == pytest.approx(radii[turn], abs=3e-5)
