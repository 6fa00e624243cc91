import hashlib
import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from src.procedural.cameras import cameras
from src.procedural.scenes import DEPTH_SCALE, LAYOUTS, developed, encode_srgb, generate, subpixels
from src.procedural.world import World
from tests.helpers.repository import ROOT

SIZE = (64, 48)


@pytest.fixture(scope="module", params=LAYOUTS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def scene(family):
    return generate(family, 3, 12, SIZE, 4)


def metres(frame) -> np.ndarray:
    return frame.depth * frame.depth_scale


def carried(source, target) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every pixel of one view, unprojected and projected into another: inside (N,) bool, column, row, z there."""
    column, row = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    z = metres(source)
    camera = np.stack(
        [
            (column - source.K[0, 2]) / source.K[0, 0] * z,
            (row - source.K[1, 2]) / source.K[1, 1] * z,
            z,
            np.ones_like(z),
        ],
        -1,
    ).reshape(-1, 4)
    there = camera @ (np.linalg.inv(target.c2w) @ source.c2w).T
    u = target.K[0, 0] * there[:, 0] / there[:, 2] + target.K[0, 2]
    v = target.K[1, 1] * there[:, 1] / there[:, 2] + target.K[1, 2]
    inside = (z.ravel() > 0) & (there[:, 2] > 0) & (u >= 0) & (u < SIZE[0]) & (v >= 0) & (v < SIZE[1])
    column, row = np.floor(u).clip(0, SIZE[0] - 1).astype(int), np.floor(v).clip(0, SIZE[1] - 1).astype(int)
    return inside, column, row, there[:, 2]


def overlap(first, second) -> float:
    shares = []
    for a, b in ((first, second), (second, first)):
        inside, column, row, z = carried(a, b)
        shares.append(np.mean(inside & (np.abs(metres(b)[row, column] - z) < 0.1)))
    return min(shares)


def test_depth_equals_all_triangles_one_by_one(family, scene):
    """Moeller and Trumbore 1997 over every triangle of the same world, at a few pixels."""
    rng = np.random.default_rng([list(LAYOUTS).index(family), 3])
    world = World(LAYOUTS[family](rng))
    K, poses = cameras(family, world, rng, 12, SIZE)
    corners = world.vertices[world.faces]
    origin, edges = corners[:, 0], (corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for number in (0, 7):
        assert np.array_equal(scene[number].K, K) and np.array_equal(scene[number].c2w, poses[number])
        for column, row in ((5, 40), (33, 11), (60, 30), (20, 25), (48, 45)):
            ray = poses[number][:3, :3] @ [(column + 0.5 - K[0, 2]) / K[0, 0], (row + 0.5 - K[1, 2]) / K[1, 1], 1]
            across = np.cross(ray, edges[1])
            size = (edges[0] * across).sum(1)
            with np.errstate(divide="ignore", invalid="ignore"):
                offset = poses[number][:3, 3] - origin
                u = (offset * across).sum(1) / size
                beyond = np.cross(offset, edges[0])
                v, t = (beyond @ ray) / size, (beyond * edges[1]).sum(1) / size
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-6)
            assert metres(scene[number])[row, column] == pytest.approx(t[hit].min(), abs=0.75 * DEPTH_SCALE)


def test_views_agree_on_what_both_see(scene):
    """Depths agree to centimetres but at edges; colours of the same place are much closer than those of others."""
    depths, same, other = [], [], []
    for first, second in zip(scene, scene[1:]):
        inside, column, row, z = carried(first, second)
        there = metres(second)[row, column]
        depths.append((np.abs(there - z) < 0.04 * z)[inside])
        agree = inside & (np.abs(there - z) < 0.02)
        colours = first.image.reshape(-1, 3)[agree].astype(float)
        same.append(np.abs(second.image[row, column][agree] - colours).mean(1))
        other.append(np.abs(second.image[::-1, ::-1][row, column][agree] - colours).mean(1))
    assert np.concatenate(depths).mean() > 0.7
    assert np.median(np.concatenate(same)) < 0.3 * np.median(np.concatenate(other))


def test_pairs_of_all_overlaps_exist(family):
    found = [overlap(*pair) for seed in range(3) for pair in combinations(generate(family, seed, 12, SIZE, 1), 2)]
    counts = np.histogram(found, [0.3, 0.5, 0.7, 0.9, 1.0])[0]
    assert (counts >= 4).all(), counts
    assert np.mean(np.array(found) > 0.3) > 0.5


def test_frames_are_whole_photographs(scene):
    for frame in scene:
        assert frame.image.shape == (SIZE[1], SIZE[0], 3) and frame.image.dtype == np.uint8
        assert frame.depth.dtype == np.uint16 and (frame.depth == 0).mean() < 0.005
        assert 0.3 <= metres(frame)[frame.depth > 0].min() and metres(frame).max() < 13.1
        rotation = frame.c2w[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        assert rotation[2, 1] < -0.5  # the image's y axis points down
        grey = frame.image.mean(2)
        assert 50 < grey.mean() < 205 and (grey > 250).mean() < 0.15 and (grey < 5).mean() < 0.1
        assert np.abs(np.diff(grey, axis=1)).mean() > 2.5  # enough texture to match
        assert frame.image.astype(int).reshape(-1, 3).std(0).max() > 20
    assert len({frame.image.tobytes() for frame in scene}) == len(scene)


def digest(family: str, seed: int) -> str:
    frames = generate(family, seed, 2, SIZE, 2)
    return hashlib.sha256(b"".join(f.image.tobytes() + f.depth.tobytes() + f.c2w.tobytes() for f in frames)).hexdigest()


def test_a_seed_decides_the_bytes_in_every_process(family):
    """Another process, with another number of threads and the vector units of an older processor, renders the same bytes;
    another seed does not."""
    code = f"from tests.procedural.test_scenes import digest; print(digest({family!r}, 5))"
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    older = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3"
    environment |= {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": older}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert digest(family, 5) == printed.strip() != digest(family, 6)


def test_more_samples_refine_the_same_photograph(family):
    frames = {samples: generate(family, 4, 2, SIZE, samples)[0] for samples in (1, 4, 36)}
    off = {samples: np.abs(frames[samples].image.astype(float) - frames[36].image).mean() for samples in (1, 4)}
    assert off[4] < 9 and off[4] < 0.65 * off[1]
    assert np.array_equal(frames[1].depth, frames[4].depth)


@pytest.mark.parametrize("samples", [1, 2, 4, 9, 64])
def test_subpixels_fill_the_pixel_around_its_centre(samples):
    positions = subpixels(samples)
    assert ((0 < positions) & (positions < 1)).all()
    np.testing.assert_allclose(positions.mean(0), 0.5)
    for axis in range(2):  # no two in one row or column
        assert sorted(np.floor(positions[:, axis] * samples)) == list(range(samples))
    if samples == 64:
        counts = np.histogram2d(*positions.T, bins=4, range=((0, 1), (0, 1)))[0]
        assert counts.min() >= 3 and counts.max() <= 5


def test_srgb_encoding_equals_the_standards_samples():
    linear = np.array([0, 0.0031308, 0.2158605, 0.5, 1])  # 0, 10.3, 128, 187.5, 255 of 255
    assert encode_srgb(linear).tolist() == [0, 10, 128, 188, 255]


def test_highlights_are_compressed_without_a_kink():
    values = np.linspace(0, 8, 4001)
    out = developed(values)
    assert np.array_equal(out[values < 0.64], values[values < 0.64]) and out.max() <= 1
    slopes = np.diff(out) / np.diff(values)
    assert (slopes >= 0).all() and np.abs(np.diff(slopes)).max() < 0.02


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("streets", 0, 4, SIZE), "objects, rooms"),
        (("objects", 0, 1, SIZE), "at least 2 views"),
        (("objects", 0, 4, (0, 32)), "1 pixel"),
        (("rooms", 0, 4, SIZE, 0), "0 samples"),
        (("rooms", 0, 4, SIZE, 1, 0), "0 bounces"),
    ],
)
def test_wrong_requests_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        generate(*arguments)
