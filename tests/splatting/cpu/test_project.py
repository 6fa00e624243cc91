import math

import numpy as np
import pytest
import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

from src.splatting.cpu.project import (
    COLUMNS,
    DEPTH,
    HALF_XX,
    HALF_YY,
    XY,
    X,
    Y,
    camera_numbers,
    project_gaussians,
    tile_range,
)
from tests.helpers.compositor import footprint

WIDTH, HEIGHT = 50, 37


def scene(count: int = 400, seed: int = 0) -> dict[str, np.ndarray]:
    """Gaussians inside and around the view, some behind it, some far outside the field of view."""
    rng = np.random.default_rng(seed)
    angle = 0.4
    w2c = np.eye(4)
    w2c[:3, :3] = [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    w2c[:3, 3] = [0.1, -0.2, 0.3]
    values = {
        "means": rng.normal(size=(count, 3)) * [2, 2, 2] + [0, 0, 2],
        "quats": rng.normal(size=(count, 4)),
        "scales": np.exp(rng.normal(size=(count, 3)) - 2.5),
        "opacities": rng.random(count),
        "colors": rng.random((count, 3)),
    }
    return {k: v.astype(np.float32) for k, v in values.items()} | {
        "w2c": w2c,
        "K": np.array([[45, 0, 27.0], [0, 41, 16.5], [0, 0, 1]]),
    }


def run(values: dict[str, np.ndarray], near: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    count = len(values["means"])
    prints, tiles = np.empty((count, COLUMNS), np.float32), np.empty((count, 4), np.int32)
    project_gaussians(
        *(values[k] for k in ("means", "quats", "scales", "opacities", "colors", "w2c")),
        camera_numbers(values["K"], WIDTH, HEIGHT),
        WIDTH,
        HEIGHT,
        near,
        prints,
        tiles,
    )
    return prints, tiles


def test_footprints_agree_with_gsplat_s_torch_implementation():
    values = scene()
    prints, tiles = run(values)
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
    covariances, _ = _quat_scale_to_covar_preci(tensors["quats"], tensors["scales"], True, False)
    radii, means2d, depths, conics, _ = _fully_fused_projection(
        tensors["means"], covariances, tensors["w2c"][None], tensors["K"][None], WIDTH, HEIGHT, near_plane=0.02
    )
    drawn = tiles[:, 2] > 0
    assert 50 < drawn.sum() < 350
    assert (radii[0].numpy() > 0).all(1)[drawn].all()  # its rectangles ignore the opacity: ours are within them
    for columns, wanted in (((X, Y), means2d), ((DEPTH,), depths[..., None])):
        np.testing.assert_allclose(prints[drawn][:, columns], wanted[0][drawn], rtol=1e-6, atol=1e-5)
    quadratic = prints[drawn][:, (HALF_XX, XY, HALF_YY)] * [2, 1, 2]
    np.testing.assert_allclose(quadratic, conics[0][drawn], rtol=1e-6, atol=1e-9)


def test_tiles_hold_every_pixel_that_a_gaussian_can_colour_and_no_tile_too_many():
    values = scene(60, seed=1)
    _, tiles = run(values)
    for i in range(60):
        needed = np.zeros((math.ceil(HEIGHT / 16), math.ceil(WIDTH / 16)), bool)
        if (values["w2c"] @ [*values["means"][i], 1])[2] >= 0.02:
            centre, covariance, _ = footprint(
                *(values[name][i] for name in ("means", "quats", "scales")), values["w2c"], values["K"], WIDTH, HEIGHT
            )
            conic = np.linalg.inv(covariance)
            for y in range(HEIGHT):
                for x in range(WIDTH):
                    d = centre - [x + 0.5, y + 0.5]
                    needed[y // 16, x // 16] |= values["opacities"][i] * math.exp(-0.5 * d @ conic @ d) >= 1 / 255
        left, top, right, bottom = tiles[i]
        given = np.zeros_like(needed)
        given[top:bottom, left:right] = True
        assert (given | ~needed).all(), i
        if needed.any():  # the rectangle is tight: its first and last columns and rows are there for some pixel
            tall, wide = needed.any(1).nonzero()[0], needed.any(0).nonzero()[0]
            assert given.sum() <= (tall[-1] - tall[0] + 2) * (wide[-1] - wide[0] + 2)


@pytest.mark.parametrize(
    "name, value",
    [
        ("opacities", 0.0),
        ("opacities", np.nan),
        ("opacities", 1 / 256),
        ("quats", 0.0),
        ("quats", np.nan),
        ("scales", np.inf),
        ("scales", np.nan),
        ("means", np.nan),
        ("means", np.inf),
    ],
)
def test_what_cannot_be_drawn_gets_no_tiles(name, value):
    values = scene(1)
    values["means"][:], values["w2c"][:] = [0, 0, 2], np.eye(4)
    values["opacities"][:] = 0.5
    assert run(values)[1][0, 2] > 0
    values[name][0] = value
    assert (run(values)[1] == 0).all()


def test_the_near_plane_itself_is_drawn():
    values = scene(3)
    values["w2c"][:], values["opacities"][:] = np.eye(4), 0.5
    values["means"][:] = [[0, 0, 0.5], [0, 0, 0.49999], [0, 0, -1]]
    assert (run(values, near=0.5)[1][:, 2] > 0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "centre, radius, pixels, wanted",
    [
        (8.0, 2.0, 50, (0, 1)),
        (16.0, 0.4, 50, (0, 0)),
        (16.0, 0.6, 50, (0, 2)),
        (48.5, 0.0, 50, (3, 4)),
        (49.5, 9.0, 50, (2, 4)),
        (-3.0, 3.4, 50, (0, 0)),
        (-3.0, 3.6, 50, (0, 1)),
        (60.0, 9.0, 50, (0, 0)),
        (0.5, math.inf, 50, (0, 4)),
        (1e30, 1e28, 50, (0, 0)),
        (math.nan, 1.0, 50, (0, 0)),
        (0.5, 0.1, 1, (0, 1)),
    ],
)
def test_tile_range(centre, radius, pixels, wanted):
    assert tile_range(centre, radius, pixels) == wanted
