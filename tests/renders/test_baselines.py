import numpy as np
import torch

from src.renders.baselines import nearest_context, points_as_gaussians, splat_points
from src.splatting.sh import dc_to_rgb


def camera(x: float, y: float, z: float) -> torch.Tensor:
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([x, y, z])
    return c2w


def test_nearest_context_is_decided_by_camera_centres():
    contexts = torch.stack([camera(0, 0, 0), camera(2, 0, 0)])
    targets = torch.stack([camera(0.9, 0, 0), camera(1.2, 0, 0.1), camera(5, 1, 0)])
    assert nearest_context(contexts, targets).tolist() == [0, 1, 1]


def test_splatted_points_agree_with_a_loop_over_points():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(400, 3, generator=generator) + torch.tensor([0, 0, 2.0])  # some behind the camera
    colours = torch.rand(400, 3, generator=generator)
    c2w = torch.stack([camera(0, 0, 0), camera(0.3, -0.2, -0.5)])
    K = torch.tensor([[10.0, 0, 6.3], [0, 9, 4.8], [0, 0, 1]]).expand(2, 3, 3)
    width, height = 13, 10
    expected = np.zeros((2, 3, height, width))
    for t in range(2):
        nearest = np.full((height, width), np.inf)
        for point, colour in zip(points.double().numpy(), colours.numpy()):
            x, y, z = point - c2w[t, :3, 3].double().numpy()
            if z <= 0:
                continue
            u, v = int(np.floor(10 * x / z + 6.3)), int(np.floor(9 * y / z + 4.8))
            if 0 <= u < width and 0 <= v < height and z < nearest[v, u]:
                nearest[v, u] = z
                expected[t, :, v, u] = colour
    np.testing.assert_allclose(splat_points(points, colours, c2w, K, (width, height)).numpy(), expected, atol=1e-6)
    assert (expected > 0).any(axis=1).mean() > 0.3


def test_no_point_in_view_gives_a_black_image():
    images = splat_points(
        torch.tensor([[0.0, 0, -1]]), torch.ones(1, 3), camera(0, 0, 0)[None], torch.eye(3)[None], (4, 4)
    )
    assert images.shape == (1, 3, 4, 4) and images.abs().max() == 0


def test_point_gaussians_keep_colour_and_cover_half_a_pixel():
    points, colours = torch.tensor([[0.0, 0, 2], [3, 0, 4]]), torch.tensor([[0.2, 0.4, 0.6], [1, 0, 0.5]])
    gaussians = points_as_gaussians(points, colours, torch.tensor(100.0))
    torch.testing.assert_close(dc_to_rgb(gaussians.sh[:, 0]), colours)
    torch.testing.assert_close(gaussians.scales, torch.tensor([0.01, 0.025])[:, None].expand(2, 3))
