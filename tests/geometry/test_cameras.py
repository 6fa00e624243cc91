import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from src.geometry.cameras import (
    covariances,
    invert_se3,
    pixel_centres,
    project,
    quats_to_rotmats,
    relative_pose,
    transform,
    unproject,
    visible,
)
from tests.conftest import assert_reference, load_fixture
from tests.helpers.loops import visible_by_loop

DOUBLE = torch.float64


def random_poses(*batch: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    count = int(np.prod(batch, dtype=int))
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, random_state=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(count, 3))
    return torch.from_numpy(poses).reshape(*batch, 4, 4)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_rotations_agree_with_scipy(batch):
    quats = torch.randn(*batch, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    wanted = Rotation.from_quat(quats[..., [1, 2, 3, 0]].reshape(-1, 4).numpy()).as_matrix().reshape(*batch, 3, 3)
    torch.testing.assert_close(quats_to_rotmats(-3 * quats), torch.from_numpy(wanted), rtol=0, atol=1e-14)


def test_a_zero_quaternion_is_the_identity_with_a_finite_gradient():
    quats = torch.zeros(2, 4, requires_grad=True)
    rotations = quats_to_rotmats(quats)
    assert torch.equal(rotations, torch.eye(3).expand(2, 3, 3))
    rotations.square().sum().backward()
    assert quats.grad.isfinite().all()


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_covariances_agree_with_the_matrix_exponential(batch):
    g = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(*batch, 3, dtype=DOUBLE, generator=g), dim=-1)
    angle = 3 * torch.rand(*batch, 1, dtype=DOUBLE, generator=g)
    scales = torch.rand(*batch, 3, dtype=DOUBLE, generator=g)
    x, y, z = (angle * axis).unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*batch, 3, 3)
    R = torch.linalg.matrix_exp(skew)
    quats = torch.cat([(angle / 2).cos(), (angle / 2).sin() * axis], -1)
    torch.testing.assert_close(covariances(-3 * quats, scales), R @ torch.diag_embed(scales**2) @ R.mT)


def test_covariances_have_the_right_gradient():
    g = torch.Generator().manual_seed(0)
    quats = torch.randn(3, 4, dtype=DOUBLE, generator=g, requires_grad=True)
    scales = torch.rand(3, 3, dtype=DOUBLE, generator=g, requires_grad=True)
    assert torch.autograd.gradcheck(covariances, (quats, scales))


def test_covariances_agree_with_the_reference():
    data, _ = load_fixture("splatt3r/covariance_sh.safetensors")
    quats = data["quats_xyzw"].roll(1, -1)
    torch.testing.assert_close(quats_to_rotmats(quats), data["rotmats"], rtol=0, atol=1e-6)
    sigma = covariances(quats, data["scales"])
    torch.testing.assert_close(sigma, data["covariances"], rtol=0, atol=1e-6)
    upper = torch.triu_indices(3, 3)
    torch.testing.assert_close(sigma[:, upper[0], upper[1]], data["cov6_upper"], rtol=0, atol=1e-6)


def test_wrong_last_axes_are_refused():
    with pytest.raises(ValueError, match="quats"):
        covariances(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="wxyz"):
        quats_to_rotmats(torch.zeros(2, 3))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_inverse_poses_agree_with_a_general_inverse(batch):
    poses, base = random_poses(*batch), random_poses(*batch, seed=1)
    torch.testing.assert_close(invert_se3(poses), torch.linalg.inv(poses))
    torch.testing.assert_close(base @ relative_pose(base, poses), poses)


@pytest.mark.parametrize("batch, points", [((), ()), ((), (7,)), ((2,), (4, 5)), ((2, 3), (6,)), ((2, 3), ())])
def test_transform_moves_every_point_by_its_own_pose(batch, points):
    poses = random_poses(*batch)
    p = torch.randn(*batch, *points, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    moved = transform(poses, p)
    flat_poses = poses.reshape(-1, 4, 4)
    for i, (pose, ps) in enumerate(zip(flat_poses, p.reshape(len(flat_poses), -1, 3))):
        for j, point in enumerate(ps):
            wanted = pose @ torch.cat([point, torch.ones(1, dtype=DOUBLE)])
            torch.testing.assert_close(moved.reshape(len(flat_poses), -1, 3)[i, j], wanted[:3])


def test_unprojecting_by_hand_and_back():
    K = torch.tensor([[[50.0, 0.5, 4.2], [0, 45, 3.9], [0, 0, 1]]], dtype=DOUBLE)  # with skew
    depth = torch.rand(1, 7, 9, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) + 0.5
    points = unproject(depth, K)
    y = (2 + 0.5 - 3.9) / 45 * depth[0, 2, 5]
    x = (5 + 0.5 - 4.2 - 0.5 * (2 + 0.5 - 3.9) / 45) / 50 * depth[0, 2, 5]
    torch.testing.assert_close(points[0, 2, 5], torch.stack([x, y, depth[0, 2, 5]]))
    torch.testing.assert_close(project(points, K), pixel_centres(7, 9, depth)[None])
    torch.testing.assert_close(project(points[0, 2, 5], K[0]), torch.tensor([5.5, 2.5], dtype=DOUBLE))


def test_geometry_agrees_with_the_reference():
    data, _ = load_fixture("splatt3r/geometry.safetensors")
    half = torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # the reference has integer pixel centres
    world = transform(data["c2w"], unproject(data["depth"], data["K"] + half))
    assert_reference(world, data["world"])
    for u in range(data["c2w_to"].shape[1]):
        for v in range(data["c2w"].shape[1]):
            cam = transform(invert_se3(data["c2w_to"][:, u]), world[:, v])
            assert_reference(cam, data["cam"][:, v, u])
            pixels = project(cam, data["K_to"][:, u] + half) - 0.5
            far = cam[..., 2].abs() > 0.1
            assert_reference(pixels[far], data["pix"][:, v, u][far])


@pytest.mark.parametrize("case", ["small", "render"])
def test_cameras_handed_to_the_rasteriser_agree_with_the_reference(case):
    data, _ = load_fixture("splatt3r/raster_inputs.safetensors")
    data = {k.removeprefix(case + "."): v for k, v in data.items() if k.startswith(case + ".")}
    c2w = relative_pose(data["base_c2w"][:, None], data["target_c2w"]).flatten(0, 1)
    scaled = c2w.clone()
    scaled[:, :3, 3] *= 10  # the reference works at ten times the size
    torch.testing.assert_close(invert_se3(scaled).mT, data["viewmatrix"], rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(scaled[:, :3, 3], data["campos"], rtol=1e-5, atol=1e-5)
    quats = torch.cat([data[f"pred{v}_rotations"][0].flatten(0, 1) for v in (1, 2)]).roll(1, -1)
    scales = torch.cat([data[f"pred{v}_scales"][0].flatten(0, 1) for v in (1, 2)])
    upper = torch.triu_indices(3, 3)
    sigma = covariances(quats, scales)[:, upper[0], upper[1]] * 100
    torch.testing.assert_close(sigma, data["first_cov6"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("relative", [False, True])
def test_visibility_agrees_with_a_loop(relative):
    rng = np.random.default_rng(3)
    depth = rng.uniform(1, 2, (2, 6, 8)) * (rng.random((2, 6, 8)) > 0.2)
    K = np.tile([[6.0, 0, 4], [0, 6, 3], [0, 0, 1]], (2, 1, 1))
    c2w = random_poses(2).numpy()
    points = rng.uniform(-2, 2, (2, 11, 13, 3))
    wanted = np.stack([visible_by_loop(points[b], depth[b], K[b], c2w[b], 0.4, relative) for b in range(2)])
    assert 0.01 < wanted.mean() < 0.99
    found = visible(*map(torch.from_numpy, (points, depth, K, c2w)), 0.4, relative)
    assert np.array_equal(found.numpy(), wanted)


def test_a_point_at_the_camera_or_behind_it_is_not_visible():
    K, c2w, depth = torch.eye(3)[None], torch.eye(4)[None], torch.ones(1, 1, 1)
    points = torch.tensor([[[0, 0, 0], [0.3, 0.3, -1], [0.3, 0.3, 1], [1e30, 0, 1e-30]]])
    assert visible(points, depth, K, c2w, 0.1).tolist() == [[False, False, True, False]]
