import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from src.geometry.alignment import baseline_factor, camera_in_prediction, context_points, scale_factor


def random_c2w(rng: np.random.Generator, count: int) -> np.ndarray:
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.random(count, random_state=rng).as_matrix()
    c2w[:, :3, 3] = rng.normal(size=(count, 3))
    return c2w


def test_context_points_lie_where_a_loop_over_pixels_puts_them():
    rng = np.random.default_rng(0)
    c2w, depth = random_c2w(rng, 2), rng.uniform(1, 3, (2, 3, 4))
    K = np.array([[[5.0, 0, 2.2], [0, 6, 1.4], [0, 0, 1]]] * 2)
    points = context_points(*(torch.from_numpy(x) for x in (depth, K, c2w))).numpy()
    for v in range(2):
        for y in range(3):
            for x in range(4):
                z = depth[v, y, x]
                camera = np.array(
                    [(x + 0.5 - K[v, 0, 2]) / K[v, 0, 0] * z, (y + 0.5 - K[v, 1, 2]) / K[v, 1, 1] * z, z, 1]
                )
                np.testing.assert_allclose(points[v, y, x], (np.linalg.inv(c2w[0]) @ c2w[v] @ camera)[:3], atol=1e-12)


def test_scale_factor_recovers_a_known_scale_despite_outliers_and_invalid_pixels():
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(2, 50, 3, generator=generator)
    predicted = 1.7 * truth
    predicted[0, :20] *= 9
    valid = torch.ones(2, 50, dtype=torch.bool)
    valid[1, :10] = False
    predicted[1, :10] = float("nan")
    assert scale_factor(predicted, truth, valid).item() == pytest.approx(1.7, rel=1e-6)
    with pytest.raises(ValueError, match="No pixel"):
        scale_factor(predicted, truth, torch.zeros_like(valid))


def test_a_scaled_camera_sees_the_scaled_world_in_the_same_pixels():
    rng = np.random.default_rng(2)
    context, target = random_c2w(rng, 1)[0], random_c2w(rng, 3)
    world = np.append(rng.normal(size=3), 1)
    cameras = camera_in_prediction(torch.from_numpy(context), torch.from_numpy(target), torch.tensor(2.5)).numpy()
    scaled_in_context = 2.5 * (np.linalg.inv(context) @ world)[:3]
    for camera, c2w in zip(cameras, target):
        np.testing.assert_allclose(
            (np.linalg.inv(camera) @ np.append(scaled_in_context, 1))[:3],
            2.5 * (np.linalg.inv(c2w) @ world)[:3],
            atol=1e-12,
        )


def test_without_depth_the_distance_between_the_cameras_gives_the_scale():
    generator = torch.Generator().manual_seed(4)
    c2w = torch.eye(4).repeat(2, 1, 1)
    for view, vector in enumerate(([0.3, -0.2, 0.1], [-0.1, 0.6, 0.2])):
        c2w[view, :3, :3] = torch.tensor(Rotation.from_rotvec(vector).as_matrix())
        c2w[view, :3, 3] = torch.randn(3, generator=generator)
    K = torch.tensor([[30.0, 0, 9], [0, 28, 7], [0, 0, 1]])
    predicted, relative = torch.zeros(12, 16, 3), torch.linalg.inv(c2w[0]) @ c2w[1]
    for row in range(12):
        for column in range(16):  # a wavy surface, seen by a network that believes everything 0.4 times as large
            z = 2 + 0.3 * torch.sin(torch.tensor(row + 2.0 * column))
            point = torch.tensor([(column + 0.5 - 9) / 30, (row + 0.5 - 7) / 28, 1]) * z
            predicted[row, column] = 0.4 * (relative[:3, :3] @ point + relative[:3, 3])
    assert baseline_factor(predicted, K, c2w).item() == pytest.approx(0.4, rel=1e-4)
    noisy = predicted + 0.01 * torch.randn(predicted.shape, generator=generator)
    assert baseline_factor(noisy, K, c2w).item() == pytest.approx(0.4, rel=0.1)
    with pytest.raises(ValueError, match="from one place"):
        baseline_factor(predicted, K, c2w[:1].repeat(2, 1, 1))
