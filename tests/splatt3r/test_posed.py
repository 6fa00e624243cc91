import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from src.geometry.cameras import quats_to_rotmats, transform, turned_quats, unproject
from src.splatt3r.fusion import FusionConfig
from src.splatt3r.network import load_trained, trained_state_dict
from src.splatt3r.posed import SIZE_DISTANCE, Cameras, PosedSplatt3R, carried
from src.splatt3r.readout import CELLS
from src.splatting.gaussians import Gaussians
from src.splatting.sh import basis, turned
from tests.helpers.networks import SMALL, generator, with_drawn_geometry

SIZE = (32, 48)  # H, W
CHANNELS = 40


def posed(fusion: FusionConfig | None = None, **options) -> PosedSplatt3R:
    """A small model whose geometry weights are the same for every `fusion`."""
    small = replace(SMALL, head="dpt")
    model = with_drawn_geometry(PosedSplatt3R(small, fusion=fusion, generator=generator(), **options))
    return model.eval()


def rotation(*angles: float) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_euler("xyz", angles).as_matrix()).float()


def cameras(batch: int = 2) -> Cameras:
    relative = torch.eye(4).repeat(batch, 1, 1)
    relative[:, :3, :3] = rotation(0.1, -0.2, 0.05)
    relative[:, :3, 3] = torch.tensor([0.3, 0.1, -0.1])
    K = torch.tensor([[40.0, 0, 24], [0, 42, 16], [0, 0, 1]]).expand(batch, 2, 3, 3)
    return Cameras(K, relative, torch.ones(batch))


def outputs(model: PosedSplatt3R, features: bool):
    g = generator(1)
    images = torch.rand(2, 2, 3, *SIZE, generator=g)
    maps = torch.randn(2, 2, CHANNELS, 3, 4, generator=g) if features else None
    tokens = [model.encode(2 * images[:, view] - 1).detach() for view in range(2)]
    each = (maps[:, 0], maps[:, 1]) if features else (None, None)
    views = model.look(*tokens, model.grid(images[:, 0]), *each)
    return views, *model(views, images, cameras(), maps)


@pytest.mark.parametrize("site", ["depth", "head", "encoder"])
def test_step_0_is_the_model_without_a_backbone_bit_for_bit(site):
    _, plain, _ = outputs(posed(), features=False)
    _, fused, _ = outputs(posed(FusionConfig(CHANNELS, site)), features=True)
    for name, tensor in vars(plain.gaussians).items():
        assert torch.equal(tensor, getattr(fused.gaussians, name)), name


def test_gaussians_stand_on_exact_rays_in_view_1s_frame():
    model = posed(use_offsets=False)
    views, output, before = outputs(model, features=False)
    own = [output.points1.pts3d, output.points2.pts3d]
    assert torch.equal(before, torch.stack(own, 1))  # no readout yet
    given = cameras()
    back = transform(torch.linalg.inv(given.relative), own[1])  # in view 2's own camera
    for points, K in ((own[0], given.K[:, 0]), (back, given.K[:, 1])):
        rays = unproject(torch.ones(2, *SIZE), K)
        assert torch.allclose(points / points[..., 2:], rays, atol=1e-4)
    assert torch.allclose(output.gaussians.means, torch.cat([p.flatten(1, 2) for p in own], 1), atol=1e-6)
    assert (views.depth > 0).all() and output.points1.conf.shape == (2, *SIZE)


def test_each_view_is_seen_as_the_first_one():
    model = posed()
    views, *_ = outputs(model, features=False)
    images = torch.rand(2, 2, 3, *SIZE, generator=generator(1))
    tokens = [model.encode(2 * images[:, view] - 1) for view in range(2)]
    grid = model.grid(images[:, 0])
    for view in range(2):
        lists, _ = model.decode(tokens[view], tokens[1 - view], grid, grid)
        wanted = model.head(1, lists, grid).pts3d[..., 2].clamp_min(0.02)
        assert torch.allclose(views.depth[:, view], wanted, atol=1e-5)


def test_sizes_are_in_proportion_to_depth():
    _, output, _ = outputs(posed(initial_scale=0.02), features=False)
    depth = output.points1.pts3d[..., 2].flatten(1)
    assert torch.allclose(output.gaussians.scales[:, : depth.shape[1], 0], 0.02 * depth / SIZE_DISTANCE, rtol=1e-2)


def test_a_readout_moves_points_along_their_rays():
    model = posed(FusionConfig(CHANNELS, "depth"), use_offsets=False)
    width = len(model.readout.mean)
    solution = {name: torch.zeros_like(x) for name, x in model.readout.state_dict().items()}
    solution["bias"] = torch.full((CELLS**2,), math.log(1.5))
    solution["inverse_sd"] = torch.ones(width)
    _, before, _ = outputs(model, features=True)
    model.readout.load_solution(solution)
    _, after, swept = outputs(model, features=True)
    assert torch.allclose(after.points1.pts3d, 1.5 * before.points1.pts3d, rtol=1e-5)
    assert torch.equal(swept[:, 0], before.points1.pts3d)  # the geometry's own points stay what they were
    # Features count: one of theirs alone changes the correction.
    solution["weight"][-1] = 0.1
    model.readout.load_solution(solution)
    _, featured, _ = outputs(model, features=True)
    assert not torch.allclose(featured.points1.pts3d, after.points1.pts3d)


def test_one_head_is_trained_and_kept_with_the_readout(tmp_path):
    model = posed(FusionConfig(CHANNELS, "depth"))
    trained = trained_state_dict(model)
    assert all(name.startswith(("downstream_head1.gaussian_dpt", "readout.")) for name in trained)
    model.readout.bias += 1
    other = posed(FusionConfig(CHANNELS, "depth"))
    load_trained(other, trained_state_dict(model))
    assert torch.equal(other.readout.bias, torch.ones(CELLS**2))
    with pytest.raises(ValueError, match="missing"):
        load_trained(other, {name: x for name, x in trained.items() if not name.startswith("readout")})


def test_rendering_reaches_every_trained_parameter():
    model = posed(FusionConfig(CHANNELS, "depth")).train()
    with torch.no_grad():
        for p in model.downstream_head1.gaussian_dpt.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=generator(3)))
    _, output, _ = outputs(model, features=True)
    sum(tensor.square().sum() for tensor in vars(output.gaussians).values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_quaternions_turn_as_scipys():
    g = generator(2)
    quats, turn = torch.randn(1, 5, 4, generator=g), rotation(0.4, 1.2, -2.0)[None]
    wanted = turn[:, None] @ quats_to_rotmats(quats)
    assert torch.allclose(quats_to_rotmats(turned_quats(turn, quats)), wanted, atol=1e-5)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_turn_with_the_scene(degree):
    g = generator(4)
    sh, turn = torch.randn(6, (degree + 1) ** 2, 3, generator=g), rotation(-0.7, 0.3, 1.9)
    directions = torch.randn(20, 3, generator=g)
    before = torch.einsum("md,ndc->mnc", basis(directions, degree), sh)
    after = torch.einsum("md,ndc->mnc", basis(directions @ turn.T, degree), turned(sh, turn))
    assert torch.allclose(before, after, atol=1e-4)


def test_a_carried_scene_looks_the_same_from_a_carried_camera():
    from src.splatting.render import render

    g = generator(5)
    means = torch.randn(1, 40, 3, generator=g) * 0.4 + torch.tensor([0, 0, 2.0])
    scene = Gaussians(
        means,
        torch.randn(1, 40, 4, generator=g),
        0.05 + 0.1 * torch.rand(1, 40, 3, generator=g),
        torch.rand(1, 40, generator=g),
        torch.randn(1, 40, 4, 3, generator=g) * 0.3,
    )
    pose = torch.eye(4)[None].clone()
    pose[:, :3, :3], pose[:, :3, 3] = rotation(0.3, -0.5, 0.9), torch.tensor([0.4, -0.2, 0.7])
    K = torch.tensor([[[40.0, 0, 16], [0, 40, 16], [0, 0, 1]]])
    before = render(scene[0], torch.eye(4)[None], K, (32, 32))
    after = render(carried(scene, pose)[0], pose, K, (32, 32))
    assert torch.allclose(before.images, after.images, atol=2e-3) and before.alphas.max() > 0.5


def test_features_are_expected_exactly_where_something_is_fused():
    with pytest.raises(ValueError, match="got none"):
        outputs(posed(FusionConfig(CHANNELS, "depth")), features=False)
    with pytest.raises(ValueError, match="got some"):
        outputs(posed(), features=True)
