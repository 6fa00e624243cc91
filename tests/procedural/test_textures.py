import numpy as np
import pytest

from src.procedural.textures import KINDS, albedo

COLOURS = np.array([[[0.1, 0.1, 0.1], [0.8, 0.7, 0.6], [0.3, 0.5, 0.2], [0.05, 0.3, 0.6]]])


def paint(
    kind: str,
    points: np.ndarray,
    normals: np.ndarray,
    footprint: float,
    seed: int = 3,
    grain: float = 0.0,
    wrap: float = 0.0,
    scale: float = 0.1,
) -> np.ndarray:
    return albedo(
        points,
        normals,
        np.zeros(len(points), np.int64),
        np.full(len(points), footprint),
        np.array([KINDS.index(kind)]),
        np.array([scale]),
        np.array([seed]),
        COLOURS,
        np.array([grain]),
        np.array([wrap]),
    )


def plane(count: int, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """A square grid of count^2 points on z = 0.02, and its normals."""
    x, y = np.meshgrid(np.linspace(0, extent, count), np.linspace(0, extent, count))
    return np.stack([x, y, np.full_like(x, 0.02)], -1).reshape(-1, 3), np.tile([0.0, 0, 1], (count * count, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_patterns_show_colours_and_fade_where_pixels_are_large(kind):
    points, normals = plane(96, 0.3)
    if kind in ("painting", "label", "scenery"):
        points = points - (0.05, 0.05, 0)  # the picture lies around the origin
    fine, coarse = paint(kind, points, normals, 0.0005), paint(kind, points, normals, 1.0)
    assert fine.shape == (96 * 96, 3) and fine.min() >= 0 and fine.max() <= 0.95
    assert fine.std(0).max() > 0.02
    if kind not in ("painting", "label", "scenery", "stones", "bricks", "marble"):  # those keep a colour per cell
        assert coarse.std(0).max() < 0.6 * fine.std(0).max()
    other = paint(kind, points, normals, 0.0005, seed=8)
    assert np.abs(other - fine).mean() > 0.01


def test_coarse_footprints_agree_with_the_mean_of_fine_ones():
    """Twice the footprint is about the mean over four points: no frequency beyond a pixel is left to alias."""
    count, step = 128, 0.004
    for kind in ("plaster", "wood", "planks", "stripes", "checker"):
        points, normals = plane(count, (count - 1) * step)
        sharp = paint(kind, points, normals, step, grain=0.4).reshape(count, count, 3)
        blurred = sharp.reshape(count // 2, 2, count // 2, 2, 3).mean((1, 3))
        centres = points.reshape(count, count, 3).reshape(count // 2, 2, count // 2, 2, 3).mean((1, 3)).reshape(-1, 3)
        coarse = paint(kind, centres, normals[: len(centres)], 2 * step, grain=0.4).reshape(blurred.shape)
        assert np.abs(coarse - blurred).mean() < 0.5 * sharp.std(), kind
        assert coarse.std() < 1.1 * sharp.std(), kind


@pytest.mark.parametrize("radius", [0.137, 0.05, 0.4])
def test_wrapped_patterns_close_around_the_axis(radius):
    """Just before and just behind the seam at angle pi the colours are the same, whatever the radius."""
    sides, z = [], np.linspace(0.01, 0.4, 200)
    for angle in (np.pi - 1e-8, -np.pi + 1e-8):
        normals = np.tile([np.cos(angle), np.sin(angle), 0], (200, 1))
        sides.append(paint("plaid", np.c_[radius * normals[:, :2], z], normals, 0.002, wrap=radius))
    np.testing.assert_allclose(sides[0], sides[1], atol=1e-4)
    assert sides[0].std() > 0.05


def test_grain_is_a_factor_on_everything():
    points, normals = plane(64, 1.0)
    plain, grained = paint("checker", points, normals, 0.002), paint("checker", points, normals, 0.002, grain=0.4)
    ratio = grained / plain
    assert ratio.std() > 0.05 and 0.5 < ratio.min() and ratio.max() < 1.6
