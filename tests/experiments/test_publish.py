"""What publishing computes from the tables of one run."""

import numpy as np
import pytest

from src.experiments.publish import moved_points


def clouds(own: list[float | None], points: list[float | None]) -> list[dict]:
    """Two episodes per scene, each as predicted (which nothing here may look at) and aligned."""
    return [
        {
            "episode": f"e{number}",
            "scene": f"s{number // 2}",
            "method": method,
            "alignment": alignment,
            "chamfer": value,
        }
        for method, values in (("render", own), ("points_splat", points))
        for number, chamfer in enumerate(values)
        for alignment, value in (("raw", 7.0), ("aligned", chamfer))
    ]


def test_gaussians_are_measured_against_the_points_of_the_same_pair():
    points = np.random.default_rng(0).uniform(0.1, 1, 20)
    moved = moved_points(clouds(list(points - 0.02), list(points)), 0.95)
    assert (moved.n, moved.scenes) == (20, 10)
    assert (moved.low, moved.mean, moved.high) == pytest.approx((-0.02,) * 3)


def test_pairs_without_depth_are_left_out_and_without_any_there_is_no_difference():
    own, points = [0.3] * 12, [0.2] * 12
    own[0] = points[0] = None
    assert moved_points(clouds(own, points), 0.95).n == 11
    assert moved_points(clouds([None], [None]), 0.95) is None
    assert moved_points(clouds([0.1], []), 0.95) is None
