import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from src.episodes.overlap import (
    OverlapError,
    covisibility,
    depth_covisibility,
    focus_point,
    frustum_covisibility,
    nothing_to_measure,
    overlap_matrix,
    read_overlap,
    sparse_covisibility,
    write_overlap,
)
from src.scenes.reconstruction import Points
from src.scenes.scene import Frame, Scene, write_scene
from tests.conftest import fixture_path

SIZE = (48, 32)


def look_at(centre, target) -> np.ndarray:
    """c2w of a camera at `centre` that looks at `target`, world z up."""
    z = np.subtract(target, centre) / np.linalg.norm(np.subtract(target, centre))
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    return np.vstack([np.column_stack([x, np.cross(z, x), z, centre]), [0, 0, 0, 1]])


def ball_in_a_room(c2w: np.ndarray, K: np.ndarray, size=SIZE) -> np.ndarray:
    """Exact z-depth (H, W) of a unit ball at the origin standing on the plane z = -1; sky is 0."""
    width, height = size
    depth = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            ray = c2w[:3, :3] @ [(column + 0.5 - K[0, 2]) / K[0, 0], (row + 0.5 - K[1, 2]) / K[1, 1], 1.0]
            a, b, c = ray @ ray, ray @ c2w[:3, 3], c2w[:3, 3] @ c2w[:3, 3] - 1
            hits = [(-b - math.sqrt(b * b - a * c)) / a] if b * b > a * c else []
            hits += [-(1 + c2w[2, 3]) / ray[2]] if ray[2] < 0 else []
            depth[row, column] = min([hit for hit in hits if 0 < hit < 20], default=0)
    return depth


@pytest.fixture(scope="module")
def orbit():
    """Seven views of the ball, unevenly spaced around it: depths (V, H, W), K (V, 3, 3), c2w (V, 4, 4)."""
    K = np.array([[45.0, 0, 24.5], [0, 44.0, 15.75], [0, 0, 1]])
    poses = [
        look_at([4 * math.cos(a), 4 * math.sin(a), 0.3 + 0.3 * a], [0, 0, 0]) for a in (0, 0.2, 0.5, 0.9, 1.6, 2.5, 4)
    ]
    return np.stack([ball_in_a_room(pose, K) for pose in poses]), np.stack([K] * 7), np.stack(poses)


def seen_by_loop(depths, K, c2w, i, j, tolerance, relative, step=1):
    """{(row, column) of i: is it seen in j}, every step-th pixel with depth, from the definition."""
    height, width = depths[0].shape
    inverse, i_to_j, seen = np.linalg.inv(K[i]), np.linalg.inv(c2w[j]) @ c2w[i], {}
    for row in range(step // 2, height, step):
        for column in range(step // 2, width, step):
            if (depth := depths[i][row, column]) <= 0:
                continue
            q = i_to_j[:3, :3] @ (depth * inverse @ [column + 0.5, row + 0.5, 1.0]) + i_to_j[:3, 3]
            u, v = (K[j] @ q)[:2] / q[2]
            inside = q[2] > 0 and 0 <= u < width and 0 <= v < height
            stored = depths[j][int(v), int(u)] if inside else 0
            seen[row, column] = stored > 0 and abs(q[2] - stored) <= (tolerance * q[2] if relative else tolerance)
    return seen


def share(flags):
    return sum(flags) / len(flags)


@pytest.mark.parametrize(("units", "tolerance"), [("metre", (0.1, False)), ("scene", (0.05, True))])
def test_coverage_agrees_with_a_loop(orbit, units, tolerance):
    found = depth_covisibility(*orbit, units)
    wanted = np.array([[share(seen_by_loop(*orbit, i, j, *tolerance).values()) for j in range(7)] for i in range(7)])
    np.testing.assert_allclose(found.coverage, wanted, atol=6e-4)  # stored as float16
    np.testing.assert_allclose(found.overlap, np.minimum(wanted, wanted.T), atol=6e-4)
    assert 0.05 < wanted.min() < 0.3 and np.allclose(np.diag(wanted), 1)


def test_union_coverage_agrees_with_a_loop(orbit):
    found = depth_covisibility(*orbit, "metre").union_coverage(0, 4)
    for t in range(7):
        first, second = (seen_by_loop(*orbit, t, context, 0.1, False) for context in (0, 4))
        assert found[t] == pytest.approx(share([first[pixel] or second[pixel] for pixel in first]), abs=1e-9)


def test_agrees_with_the_fixture():
    case = json.loads(fixture_path("datasets/conversions.json").read_text())["cases"]["coverage_two_views"]
    given, wanted = case["input"], case["expected"]
    arguments = [np.array([given[f"{key}_{view}"] for view in "ab"]) for key in ("depth", "c2w")]
    found = depth_covisibility(arguments[0], np.array([given["K"]] * 2), arguments[1], "scene")
    assert found.coverage[0, 1] == np.float16(wanted["a_to_b"]["cov_valid"])
    assert found.coverage[1, 0] == wanted["b_to_a"]["cov_valid"]
    assert found.overlap[0, 1] == wanted["overlap_min"] == found.overlap[1, 0]
    assert found.usable.tolist() == [wanted["a_to_b"]["n_valid"], wanted["b_to_a"]["n_valid"]]
    for i, j, key in ((0, 1, "a_to_b"), (1, 0, "b_to_a")):
        assert np.array_equal(np.unpackbits(found.seen[j, i]).reshape(4, 4), wanted[key]["visible"])


def test_large_views_are_sampled_finely_enough(orbit):
    _, K, c2w = orbit
    scale = np.diag([4, 4, 1.0])
    depths = np.stack([ball_in_a_room(pose, scale @ K[0], (192, 128)) for pose in c2w[[0, 2]]])
    found = depth_covisibility(depths, scale @ K[[0, 2]], c2w[[0, 2]], "metre")
    assert found.usable.max() <= 32 * 48
    for i, j in ((0, 1), (1, 0)):
        exact = share(seen_by_loop(depths, scale @ K[[0, 2]], c2w[[0, 2]], i, j, 0.1, False, step=2).values())
        assert found.coverage[i, j] == pytest.approx(exact, abs=0.02)


def test_views_with_hardly_any_depth_cover_nothing(orbit):
    depths = orbit[0].copy()
    depths[1] = 0
    depths[1, 10:14, 10:26] = orbit[0][1, 10:14, 10:26]  # 64 of 1536 pixels
    found = depth_covisibility(depths, *orbit[1:], "metre")
    assert found.usable[1] == 0 and not found.coverage[1].any() and found.union_coverage(0, 2)[1] == 0
    assert 0 < found.coverage[0, 1] < 0.2 and not found.overlap[0, 1]


def test_overlap_matrix_is_symmetric(orbit):
    matrix = overlap_matrix(*orbit, units="metre")
    assert matrix.shape == (7, 7) and np.array_equal(matrix, matrix.T)


def test_sparse_points_count_by_projection_and_by_tracks(orbit):
    _, K, c2w = orbit
    points = np.random.default_rng(0).normal(size=(300, 3)) * 2
    names = tuple("abcdefg")
    found = sparse_covisibility(points, K, c2w, SIZE, names)

    def observed(view, point):
        q = (np.linalg.inv(c2w[view]) @ np.append(point, 1))[:3]
        u, v = (K[view] @ q)[:2] / q[2]
        return q[2] > 0 and 0 <= u < SIZE[0] and 0 <= v < SIZE[1]

    table = np.array([[observed(view, point) for point in points] for view in range(7)])
    for i in range(7):
        for j in range(7):
            assert found.coverage[i, j] == pytest.approx((table[i] & table[j]).sum() / table[i].sum(), abs=6e-4)
    tracks = np.random.default_rng(1).random((7, 300)) < 0.3
    found = sparse_covisibility(points, K, c2w, SIZE, names, tracks)
    assert found.coverage[2, 5] == pytest.approx((tracks[2] & tracks[5]).sum() / tracks[2].sum(), abs=6e-4)
    assert found.union_coverage(0, 1)[6] == pytest.approx((tracks[6] & (tracks[0] | tracks[1])).sum() / tracks[6].sum())


def test_focus_point_is_where_the_axes_meet(orbit):
    c2w = torch.from_numpy(orbit[2])
    assert focus_point(c2w).norm() < 1e-9
    assert focus_point(c2w[:1].repeat(4, 1, 1)) is None


def test_frustum_overlap_agrees_with_a_loop(orbit):
    _, K, c2w = orbit
    found = frustum_covisibility(K, c2w, SIZE, tuple("abcdefg"))
    for i, j in ((0, 1), (3, 0), (1, 4), (0, 6)):
        inside = 0
        for factor in (0.5, 1, 2):
            z = factor * np.linalg.norm(c2w[i, :3, 3])  # the axes meet in the origin
            for row in range(16):
                for column in range(16):
                    pixel = [(column + 0.5) * SIZE[0] / 16, (row + 0.5) * SIZE[1] / 16, 1]
                    q = (np.linalg.inv(c2w[j]) @ c2w[i] @ np.append(z * np.linalg.solve(K[i], pixel), 1))[:3]
                    u, v = (K[j] @ q)[:2] / q[2]
                    inside += q[2] > 0 and 0 <= u < SIZE[0] and 0 <= v < SIZE[1]
        wanted = inside / 768 * max(0, c2w[i, :3, 2] @ c2w[j, :3, 2])
        assert found.coverage[i, j] == pytest.approx(wanted, abs=2e-3)
    both, single = found.union_coverage(0, 4), found.coverage[:, [0, 4]].astype(float)
    assert (both >= single.max(1) - 1e-3).all() and (both <= single.sum(1) + 1e-3).all()
    assert frustum_covisibility(K, np.stack([c2w[0]] * 7), SIZE, tuple("abcdefg")) is None


def scene_of(path, orbit, depth=True, parallel=False) -> Scene:
    depths, K, c2w = orbit
    rng = np.random.default_rng(0)
    samples = [(array * 2000).astype(np.uint16) if depth else None for array in depths]
    frames = [
        Frame(
            f"f{i}",
            rng.integers(1, 255, (32, 48, 3), np.uint8),
            samples[i],
            0.0005,
            None,
            None,
            K[i],
            c2w[0 if parallel else i],
            i,
        )
        for i in range(7)
    ]
    write_scene(path, frames, {"id": "a__b", "category": "a", "units": "metre"}, lossless=True)
    return Scene.open(path)


def test_the_best_measure_a_scene_allows_is_taken(orbit, tmp_path):
    points = partial(Points, np.random.default_rng(0).normal(size=(300, 3)))
    full, blind = scene_of(tmp_path / "full", orbit), scene_of(tmp_path / "blind", orbit, depth=False)
    parallel = scene_of(tmp_path / "parallel", orbit, depth=False, parallel=True)
    found = covisibility(full, SIZE, points)
    assert found.source == "depth" and found.names == tuple(full.names)
    np.testing.assert_allclose(found.coverage, depth_covisibility(*orbit, "metre").coverage, atol=0.01)
    assert covisibility(blind, SIZE, points).source == "sparse"
    tracks = {"f0": np.arange(0, 20), "f1": np.arange(10, 20)}
    tracked = covisibility(blind, SIZE, partial(Points, points().xyz, tracks))
    assert tracked.coverage[0, 1] == 0.5 and tracked.coverage[1, 0] == 1 and not tracked.usable[2:].any()
    assert covisibility(blind, SIZE).source == "frustum"
    nothing = covisibility(parallel, SIZE)
    assert nothing.source == "gap" and not nothing.coverage.any() and not nothing.union_coverage(0, 1).any()


def test_very_many_points_are_thinned(orbit, tmp_path, monkeypatch):
    points = np.random.default_rng(0).normal(size=(3000, 3))
    blind = scene_of(tmp_path / "blind", orbit, depth=False)
    exact = covisibility(blind, SIZE, partial(Points, points))
    monkeypatch.setattr("src.episodes.overlap.MAX_SEEN", 7 * 7 * 1000)
    found = covisibility(blind, SIZE, partial(Points, points))
    assert exact.seen.shape[-1] == 375 and found.seen.shape[-1] == 125
    np.testing.assert_allclose(found.coverage, exact.coverage, atol=0.1)


def test_file_round_trip_reads_samples_lazily(orbit, tmp_path):
    written = depth_covisibility(*orbit, "metre", tuple("abcdefg"))
    write_overlap(tmp_path / "o", written, "f" * 64)
    found = read_overlap(tmp_path / "o", list("abcdefg"), "f" * 64)
    assert not isinstance(found.seen, np.ndarray)
    assert np.array_equal(found.coverage, written.coverage) and found.source == "depth"
    assert np.array_equal(found.union_coverage(2, 5), written.union_coverage(2, 5))
    first = (tmp_path / "o").read_bytes()
    write_overlap(tmp_path / "o", written, "f" * 64)
    assert (tmp_path / "o").read_bytes() == first
    write_overlap(tmp_path / "gap", nothing_to_measure(("a", "b")), "f" * 64)
    assert read_overlap(tmp_path / "gap", ["a", "b"], "f" * 64).source == "gap"


def test_files_that_do_not_fit_are_refused(orbit, tmp_path):
    written, path = depth_covisibility(*orbit, "metre", tuple("abcdefg")), tmp_path / "o"
    write_overlap(path, written, "f" * 64)
    with pytest.raises(OverlapError, match="another version"):
        read_overlap(path, list("abcdefg"), "e" * 64)
    with pytest.raises(OverlapError, match="another version"):
        read_overlap(path, list("gfedcba"), "f" * 64)
    with pytest.raises(FileNotFoundError, match="dvc repro prepare"):
        read_overlap(tmp_path / "absent", [], "")
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(OverlapError, match="not an overlap file"):
        read_overlap(path, [], "")
    for change, words in ((np.nan, "outside"), (1.5, "outside"), (None, r"\(6, 7\)")):
        coverage = written.coverage.copy()
        if change is not None:
            coverage[1, 2] = change
        broken = type(written)(**vars(written) | {"coverage": coverage if change is not None else coverage[:6]})
        write_overlap(path, broken, "f" * 64)
        with pytest.raises(OverlapError, match=words):
            read_overlap(path, list("abcdefg"), "f" * 64)
