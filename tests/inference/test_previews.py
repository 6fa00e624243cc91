import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from src.geometry.cameras import unproject
from src.inference.cameras import fitted_focal_length, second_camera
from src.inference.previews import path_between

HEIGHT, WIDTH, FOCAL = 24, 36, 41.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])


def seen(c2w: np.ndarray) -> torch.Tensor:
    """What the pixels of a camera see of a wavy surface, (H, W, 3) in the world, by a loop over pixels."""
    points = np.zeros((HEIGHT, WIDTH, 3))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            z = 2 + 0.4 * np.sin(x / 5) + 0.3 * np.cos(y / 4)
            ray = np.array([(x + 0.5 - WIDTH / 2) / FOCAL, (y + 0.5 - HEIGHT / 2) / FOCAL, 1])
            points[y, x] = c2w[:3, :3] @ (z * ray) + c2w[:3, 3]
    return torch.from_numpy(points).float()


def camera() -> np.ndarray:
    c2w = np.eye(4)
    c2w[:3, :3] = Rotation.from_rotvec([0.1, -0.4, 0.05]).as_matrix()
    c2w[:3, 3] = 0.7, -0.1, 0.2
    return c2w


def test_the_focal_length_is_found_despite_outliers():
    points = seen(np.eye(4))
    torch.testing.assert_close(points, unproject(points[..., 2], torch.from_numpy(K).float()))
    points[:4] = torch.randn(4, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    points[20:] *= -1  # behind the camera
    assert fitted_focal_length(points) == pytest.approx(FOCAL, rel=1e-3)
    with pytest.raises(ValueError, match="behind the first camera"):
        fitted_focal_length(-seen(np.eye(4)))


def test_the_second_camera_is_found_despite_outliers():
    points = seen(camera())
    points[:3] += 1
    np.testing.assert_allclose(second_camera(points, K), camera(), atol=2e-3)
    with pytest.raises(ValueError, match="fit no camera"):
        second_camera(torch.randn(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0)), K)


def test_the_way_between_two_cameras_is_even():
    path = path_between(camera(), 5)
    np.testing.assert_allclose(path[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(path[-1], camera(), atol=1e-12)
    steps = [np.linalg.inv(before) @ after for before, after in zip(path, path[1:])]
    angles = [Rotation.from_matrix(step[:3, :3]).magnitude() for step in steps]
    assert np.ptp(angles) < 1e-9 and sum(angles) == pytest.approx(Rotation.from_matrix(camera()[:3, :3]).magnitude())
    assert np.ptp(np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1)) < 1e-12
