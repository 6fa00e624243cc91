import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from src.matching.pose import direction_error, epipolar_pose, rotation_error, share_under_curve

K = np.array([[[110.0, 0, 64], [0, 115, 48], [0, 0, 1]], [[90.0, 0, 60], [0, 90, 52], [0, 0, 1]]])


@pytest.mark.parametrize("angle", [0, 1e-6, 0.3, 25, 90, 179.9, 180])
def test_angles_between_rotations_are_those_of_scipy(angle):
    first, axis = Rotation.random(random_state=1), np.array([0.6, 0, -0.8])
    second = first * Rotation.from_rotvec(math.radians(angle) * axis)
    wanted = math.degrees((first.inv() * second).magnitude())
    assert rotation_error(first.as_matrix(), second.as_matrix()) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("angle", [0, 1e-6, 40, 90, 135, 180])
def test_angles_between_directions_are_those_by_which_scipy_turns_them(angle):
    shift = np.array([1.0, 2, -0.5])
    across = np.cross(shift, [0, 0, 1.0])
    turned = Rotation.from_rotvec(math.radians(angle) * across / np.linalg.norm(across)).apply(shift)
    assert direction_error(7 * turned, shift) == pytest.approx(angle, abs=1e-6)


def test_no_direction_is_as_wrong_as_a_right_angle_and_none_to_be_found_is_right():
    assert direction_error(np.zeros(3), np.ones(3)) == 90 and direction_error(np.ones(3), np.zeros(3)) == 0


def test_the_mean_share_is_the_area_under_the_curve_of_recall():
    errors = np.random.default_rng(0).exponential(8, 50)
    for threshold in (5, 10, 20):
        fine = (np.arange(200_000) + 0.5) / 200_000 * threshold
        recall = np.searchsorted(np.sort(errors), fine, side="right") / len(errors)
        found = np.mean([share_under_curve(error, threshold) for error in errors])
        assert found == pytest.approx(recall.mean(), abs=1e-5)


def seen(count: int, wrong: int = 0, noise: float = 0.0) -> tuple[torch.Tensor, np.ndarray]:
    """Pixels (2, count, 2) of points in front of two cameras, the first `wrong` at random in the second one; its c2w."""
    generator = np.random.default_rng(0)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_euler("yxz", [12, -5, 3], degrees=True).as_matrix(), [0.4, -0.1, 0.15]
    pixels = np.zeros((2, count, 2))
    for number in range(count):
        point = np.append(generator.uniform([-0.8, -0.6, 2], [0.8, 0.6, 5]), 1)
        for view, c2w in enumerate((np.eye(4), pose)):
            x, y, z = K[view] @ (np.linalg.inv(c2w) @ point)[:3]
            pixels[view, number] = x / z, y / z
    pixels[1] += noise * generator.normal(size=(count, 2))
    pixels[1, :wrong] = generator.uniform(0, 100, (wrong, 2))
    return torch.from_numpy(pixels), pose


def errors(found: np.ndarray, pose: np.ndarray) -> float:
    turned = Rotation.from_matrix(found[:3, :3].T @ pose[:3, :3]).magnitude()
    cosine = found[:3, 3] @ pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    assert np.linalg.norm(found[:3, 3]) == pytest.approx(1)
    return math.degrees(max(turned, math.acos(min(1, cosine))))


@pytest.mark.parametrize(("count", "wrong", "most"), [(8, 0, 0.1), (60, 0, 0.1), (60, 20, 0.5)])
def test_exact_matches_give_the_pose_nearly_so_where_some_are_wrong(count, wrong, most):
    pixels, pose = seen(count, wrong)
    assert errors(epipolar_pose(pixels, K, 0.1), pose) < most


def test_a_pose_is_the_same_each_time_and_grows_worse_with_noise():
    found = [
        errors(epipolar_pose(*each, 1.0), seen(200)[1]) for each in ((seen(200, 0, sd)[0], K) for sd in (0.05, 1.0))
    ]
    assert found[0] < found[1] < 10
    pixels, _ = seen(100, 30, 0.5)
    np.testing.assert_array_equal(epipolar_pose(pixels, K, 1.0), epipolar_pose(pixels, K, 1.0))


def test_too_few_matches_give_no_pose():
    assert epipolar_pose(seen(7)[0], K, 1.0) is None
