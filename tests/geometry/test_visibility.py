import json

import pytest
import torch

from src.geometry.visibility import loss_mask
from tests.conftest import assert_reference, fixture_path, load_fixture
from tests.helpers.loops import visible_by_loop

HALF = torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # the reference's K has integer pixel centres


@pytest.fixture
def scenes() -> dict[str, torch.Tensor]:
    data, _ = load_fixture("splatt3r/loss_mask.safetensors")
    return {key: value + HALF if key.endswith("_K") else value for key, value in data.items()}


def views(scenes, which):
    return [scenes[f"{which}_{name}"] for name in ("depth", "K", "c2w")]


def test_splatt3r_mode_agrees_with_the_reference_wherever_it_is_stable(scenes):
    mask = loss_mask(*views(scenes, "target"), *views(scenes, "context"), mode="splatt3r")
    stable = scenes["stable"].bool()
    assert stable.float().mean() > 0.99
    assert torch.equal(mask[stable], scenes["mask"].bool()[stable])


def test_splatt3r_mode_of_a_view_with_itself(scenes):
    context = [tensor[:, :1] for tensor in views(scenes, "context")]
    mask = loss_mask(*context, *context, mode="splatt3r")
    stable = scenes["self_stable_context0"].bool()
    assert torch.equal(mask[stable], scenes["self_mask_context0"].bool()[stable])
    assert not mask[..., 0, :].any() and not mask[..., :, 0].any()  # the half-pixel shift


def test_splatt3r_coverage_agrees_with_the_fixture(scenes):
    frames = [torch.cat([c[0], t[0]])[:, None] for c, t in zip(views(scenes, "context"), views(scenes, "target"))]
    for i in range(5):
        for j in range(5):
            mask = loss_mask(*(f[j] for f in frames), *(f[i] for f in frames), mode="splatt3r")
            assert mask.float().mean() == pytest.approx(float(scenes["coverage_batch0"][i, j]), abs=2e-3)


def test_strict_mode_is_visibility_in_any_one_context(scenes):
    target, context = views(scenes, "target"), views(scenes, "context")
    mask = loss_mask(*target, *context)
    depth, K, c2w = (tensor[0, 1].double().numpy() for tensor in target)
    inverse = torch.linalg.inv(torch.from_numpy(K)).numpy()
    points = torch.zeros(48, 48, 3).double().numpy()
    for y in range(48):
        for x in range(48):
            points[y, x] = (c2w[:3, :3] @ (depth[y, x] * inverse @ [x + 0.5, y + 0.5, 1])) + c2w[:3, 3]
    wanted = torch.zeros(48, 48, dtype=torch.bool)
    for v in range(2):
        wanted |= torch.from_numpy(visible_by_loop(points, *(t[0, v].double().numpy() for t in context), 0.1, False))
    wanted &= target[0][0, 1] > 0
    assert (mask[0, 1] != wanted).float().mean() < 2e-3  # float32 against float64 at the thresholds
    assert 0.1 < wanted.float().mean() < 0.95


def test_strict_mode_sees_every_valid_pixel_of_itself(scenes):
    context = [tensor[:, :1] for tensor in views(scenes, "context")]
    depth, K, c2w = (tensor.double() for tensor in context)
    assert torch.equal(loss_mask(depth, K, c2w, depth, K, c2w), depth > 0)


def test_strict_mode_asks_all_of_one_context_where_splatt3r_mixes_two():
    """Context 0 has the target's points in its image, at a wrong depth; all lie 5 cm before context 1, outside its
    image, where the sampled depth is 0."""
    K = torch.tensor([[[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]])
    target = (torch.full((1, 8, 8), 2.0), K, torch.eye(4)[None])
    near = torch.eye(4)[None].clone()
    near[:, 2, 3] = 1.95
    context = [torch.cat(pair) for pair in zip((target[0] - 1, K, target[2]), (target[0], K, near))]
    assert not loss_mask(*target, *context).any()
    assert loss_mask(*target, *context, mode="splatt3r")[0, 1:, 1:].all()


def test_points_behind_a_context_are_hidden_in_strict_mode():
    K = torch.tensor([[[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]])
    depth = torch.full((1, 8, 8), 2.0)
    turned = torch.diag(torch.tensor([-1.0, 1, -1, 1]))[None]  # looks the other way
    assert not loss_mask(depth, K, torch.eye(4)[None], depth, K, turned).any()


def test_the_worked_example_of_two_views():
    case = json.loads(fixture_path("datasets/conversions.json").read_text())["cases"]["coverage_two_views"]
    given = {key: torch.tensor(value, dtype=torch.float64) for key, value in case["input"].items()}
    a, b = ((given[f"depth_{x}"][None], given["K"][None], given[f"c2w_{x}"][None]) for x in "ab")
    for pair, name in (((*a, *b), "a_to_b"), ((*b, *a), "b_to_a")):
        mask = loss_mask(*pair, tolerance=case["input"]["tolerance_rel"], relative=True)
        assert mask[0].int().tolist() == case["expected"][name]["visible"]


def test_intermediate_values_agree_with_the_reference(scenes):
    from src.geometry.cameras import invert_se3, project, transform, unproject
    from src.geometry.visibility import _sample_bilinear

    depth, K, c2w = (tensor[:1, :1] for tensor in views(scenes, "target"))
    world = transform(c2w, unproject(depth, K))
    assert_reference(world[0, 0], scenes["b0t0c0_world"])
    depth, K, c2w = (tensor[:1, 0] for tensor in views(scenes, "context"))
    cam = transform(invert_se3(c2w), world)
    assert_reference(cam[0, 0], scenes["b0t0c0_cam"])
    pixels = project(cam, K) - 0.5
    far = cam[0, 0, ..., 2].abs() > 0.1
    assert_reference(pixels[0, 0][far], scenes["b0t0c0_pix"][far])
    sampled = _sample_bilinear(depth, 2 * pixels / 48 - 1)[0, 0]
    stable = scenes["stable"][0, 0].bool() & far
    assert_reference(sampled[stable], scenes["b0t0c0_sampled_depth"][stable])


@pytest.mark.parametrize("arguments", [{"mode": "loose"}, {"mode": "splatt3r", "relative": True}])
def test_refusals_name_the_mask(scenes, arguments):
    with pytest.raises(ValueError, match=f"masks .*{arguments['mode']}.*strict"):
        loss_mask(*views(scenes, "target"), *views(scenes, "context"), **arguments)
