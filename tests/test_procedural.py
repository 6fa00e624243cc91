import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from src.datasets import layouts
from src.datasets.procedural import (DEPTH_SCALE, FAMILIES, build, encode_srgb, generate, look_at, photograph, subpixels)
from src.datasets.textures import KINDS, albedo

SIZE = (48, 32)


@pytest.fixture(scope="module", params=FAMILIES)
def scene(request):
    return generate(request.param, 3, 6, SIZE, 4)


def metres(frame) -> np.ndarray:
    return frame.depth * frame.depth_scale


def nearest_triangle(triangles: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> float:
    """Smallest ray parameter among all triangles, solved one by one as a linear system."""
    best = math.inf
    for a, b, c in triangles:
        matrix = np.stack([b - a, c - a, -direction], 1)
        if abs(np.linalg.det(matrix)) < 1e-12:
            continue
        u, v, t = np.linalg.solve(matrix, origin - a)
        if u >= 0 and v >= 0 and u + v <= 1 and 1e-6 < t < best:
            best = t
    return best


def test_depth_equals_a_loop_over_triangles():
    rng = np.random.default_rng(0)
    layout = layouts.Layout(lamps=[layouts.Lamp(np.array([0, 0, 3.0]), np.ones(3), 0.1)])
    for position in ((0, 0, -0.2), (0.5, 0.3, 0.1), (-0.6, 0.2, 0.3)):
        layout.parts.append(layouts.part(rng, layouts.box(*rng.uniform(0.3, 1, 3)), position, Rotation.random(random_state=4)))
    c2w, K = look_at(np.array([2.0, -1.5, 1.2]), np.zeros(3)), np.array([[14.0, 0, 6], [0, 14, 5], [0, 0, 1]])
    _, depth = photograph(build(layout), K, c2w, (12, 10), 1)
    triangles = np.concatenate([p.mesh.triangles @ p.pose[:3, :3].T + p.pose[:3, 3] for p in layout.parts])
    for row in range(10):
        for column in range(12):
            ray = c2w[:3, :3] @ [(column + 0.5 - 6) / 14, (row + 0.5 - 5) / 14, 1]
            expected = nearest_triangle(triangles, c2w[:3, 3], ray)
            found = depth[row, column] * DEPTH_SCALE
            assert found == 0 if expected == math.inf else abs(found - expected) < 1.5 * DEPTH_SCALE


def test_a_seed_decides_the_bytes():
    one, two, other = (generate("objects", seed, 2, SIZE, 2) for seed in (5, 5, 6))
    for a, b, c in zip(one, two, other):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.depth, b.depth) and np.array_equal(a.c2w, b.c2w)
        assert not np.array_equal(a.image, c.image)


def test_two_views_agree_on_what_both_see(scene):
    """Carry pixels of one view into the next: depths agree, and colours are closer than between random pixels."""
    agreements, same, shuffled = [], [], []
    for first, second in zip(scene, scene[1:]):
        for row in range(0, SIZE[1], 3):
            for column in range(0, SIZE[0], 3):
                z = metres(first)[row, column]
                camera = np.array([(column + 0.5 - first.K[0, 2]) / first.K[0, 0] * z,
                                   (row + 0.5 - first.K[1, 2]) / first.K[1, 1] * z, z, 1])
                x, y, depth, _ = np.linalg.inv(second.c2w) @ first.c2w @ camera
                u, v = second.K[0, 0] * x / depth + second.K[0, 2], second.K[1, 1] * y / depth + second.K[1, 2]
                if depth <= 0 or not (0 <= u < SIZE[0] and 0 <= v < SIZE[1]):
                    continue
                there = metres(second)[int(v), int(u)]
                agreements.append(abs(there - depth) < 0.05)
                if agreements[-1]:
                    colour = first.image[row, column].astype(float)
                    same.append(np.abs(second.image[int(v), int(u)] - colour).mean())
                    shuffled.append(np.abs(second.image[SIZE[1] - 1 - int(v), SIZE[0] - 1 - int(u)] - colour).mean())
    assert len(agreements) > 200 and np.mean(agreements) > 0.6
    assert np.median(same) < 0.4 * np.median(shuffled)


def test_frames_are_whole_photographs(scene):
    for frame in scene:
        assert frame.image.shape == (SIZE[1], SIZE[0], 3) and frame.image.dtype == np.uint8
        assert frame.depth.dtype == np.uint16 and (frame.depth == 0).mean() < 0.02
        assert metres(frame)[frame.depth > 0].min() > 0.25
        rotation = frame.c2w[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        assert rotation[2, 1] < 0  # the image's y axis points down
        grey = frame.image.mean(2)
        assert 40 < grey.mean() < 215 and (grey > 252).mean() < 0.2
        assert np.abs(np.diff(grey, axis=1)).mean() > 2  # enough texture to match
    assert len({frame.image.tobytes() for frame in scene}) == len(scene)


@pytest.mark.parametrize("samples", [1, 2, 4, 9])
def test_samples_are_spread_around_the_pixels_centre(samples):
    positions = subpixels(samples)
    np.testing.assert_allclose(positions.mean(0), 0.5)
    for axis in positions.T:  # one in each row and each column
        assert sorted(np.floor(axis * samples)) == list(range(samples))


def test_srgb_encoding_equals_the_standards_samples():
    linear = np.array([0, 0.0031308, 0.2158605, 0.5, 1])  # 0, 10.3, 128, 187.5, 255 of 255
    assert encode_srgb(linear).tolist() == [0, 10, 128, 188, 255]


def test_patterns_fade_where_pixels_are_large():
    rng = np.random.default_rng(1)
    points, normals = rng.uniform(-1, 1, (4000, 3)), np.tile([0.0, 0, 1], (4000, 1))
    for kind in range(len(KINDS)):
        def spread(footprint: float) -> float:
            table = (np.array([kind]), np.array([0.1]), np.array([3]), np.array([[[0.1] * 3, [0.9] * 3, [0.5] * 3]]), np.array([0.0]))
            colours = albedo(points, normals, np.zeros(4000, np.int64), np.full(4000, footprint), *table)
            assert (colours >= 0).all() and (colours <= 1).all()
            return colours.std()

        assert spread(0.001) > 0.05
        assert spread(1.0) < 0.8 * spread(0.001) or KINDS[kind] in ("marble", "bricks", "cells")


@pytest.mark.parametrize(("arguments", "words"), [
    (("streets", 0, 4, SIZE), "objects, rooms"), (("objects", 0, 1, SIZE), "at least 2 views"),
    (("objects", 0, 4, (0, 32)), "1 pixel")])
def test_wrong_requests_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        generate(*arguments)
