import math

import pytest
import torch

from src.geometry.cameras import invert_se3, transform
from src.splatt3r.losses import (
    average_distance,
    confidence_loss,
    masked_mse,
    mast3r_loss,
    mean_error,
    photometric_loss,
    point_errors,
)
from tests.conftest import load_fixture

CASES = ("dust3r_regr3d", "dust3r_conf", "mast3r_conf", "mast3r_test")


def stacked(tensors: dict, name: str) -> torch.Tensor:
    return torch.stack([tensors[f"input.{name}{view}"] for view in (1, 2)], 1)


def criterion(case: str, x: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss of one fixture case from stacked inputs."""
    if case == "mast3r_conf":
        return mast3r_loss(x["points"], x["conf"], x["truth"], x["valid"], x["sky"], x["metric"])
    if case == "mast3r_test":
        return mean_error(point_errors(x["points"], x["truth"], x["valid"], x["metric"], keep_truth=True), x["valid"])
    errors = point_errors(x["points"], x["truth"], x["valid"])
    if case == "dust3r_conf":
        return confidence_loss(errors, x["conf"], x["valid"], 0.2)
    return mean_error(errors, x["valid"])


def inputs(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    to_first = invert_se3(tensors["input.camera_pose1"])
    truth = torch.stack([transform(to_first, tensors[f"input.gt_pts3d{view}"]) for view in (1, 2)], 1)
    leaves = {
        "points": stacked(tensors, "pred_pts3d"),
        "conf": stacked(tensors, "conf"),
    }
    leaves = {name: value.float().requires_grad_() for name, value in leaves.items()}
    return leaves | {
        "truth": truth,
        "valid": stacked(tensors, "valid_mask").bool(),
        "sky": stacked(tensors, "sky_mask").bool(),
        "metric": tensors["input.is_metric_scale"].bool(),
    }


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", CASES)
def test_geometry_losses_and_gradients_equal_the_reference(case):
    tensors, _ = load_fixture("mast3r/losses.safetensors")
    x = inputs(tensors)
    loss = criterion(case, x)
    assert relative(loss.detach(), tensors[f"output.{case}.loss"]) <= 1e-5
    names = {"pred_pts3d": "points", "conf": "conf"}
    recorded = {name: ours for name, ours in names.items() if f"output.{case}.grad.{name}1" in tensors}
    if recorded:
        loss.backward()
    for name, ours in recorded.items():
        expected = torch.stack([tensors[f"output.{case}.grad.{name}{view}"] for view in (1, 2)], 1)
        assert relative(x[ours].grad, expected) <= 3e-5, name


@pytest.mark.parametrize(("case", "metric"), [("metric", [1, 1]), ("nonmetric", [0, 0]), ("mixed", [1, 0])])
def test_splatt3rs_mast3r_loss_equals_the_reference(case, metric):
    tensors, _ = load_fixture("splatt3r/mast3r_loss.safetensors")

    def pair(name: str) -> torch.Tensor:
        return torch.stack([tensors[f"{name}{view}"] for view in (1, 2)], 1)

    to_first = invert_se3(tensors["c2w1"])
    truth = torch.stack([transform(to_first, tensors[f"gt_pts{view}"]) for view in (1, 2)], 1)
    loss = mast3r_loss(
        pair("pred_pts"), pair("conf"), truth, pair("valid").bool(), pair("sky").bool(), torch.tensor(metric).bool()
    )
    assert relative(loss, tensors[f"loss_{case}"]) <= 1e-5


def test_point_errors_equal_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(0)
    predicted, truth = torch.randn(2, 2, 2, 3, 4, 3, generator=generator, dtype=torch.float64)
    valid = torch.rand(2, 2, 3, 4, generator=generator) < 0.7
    metric = torch.tensor([True, False])
    errors = point_errors(predicted, truth, valid, metric)
    for b in range(2):
        pixels = [(v, i, j) for v in range(2) for i in range(3) for j in range(4) if valid[b, v, i, j]]
        own = sum(math.dist(predicted[b][p].tolist(), (0, 0, 0)) for p in pixels) / len(pixels)
        true = sum(math.dist(truth[b][p].tolist(), (0, 0, 0)) for p in pixels) / len(pixels)
        assert average_distance(truth, valid)[b].item() == pytest.approx(true, rel=1e-7)
        for p in pixels:
            divisor = true if metric[b] else own
            expected = math.dist((predicted[b][p] / divisor).tolist(), (truth[b][p] / true).tolist())
            assert errors[b][p].item() == pytest.approx(expected, rel=1e-6)


def test_perfect_metric_points_have_no_error_and_a_wrong_scale_has():
    points = torch.randn(1, 2, 3, 4, 3, generator=torch.Generator().manual_seed(1))
    valid, metric = torch.ones(1, 2, 3, 4, dtype=torch.bool), torch.tensor([True])
    assert point_errors(points, points, valid, metric).max() == 0
    assert point_errors(2 * points, points, valid).max() < 1e-6
    assert point_errors(2 * points, points, valid, metric).mean() > 0.5


@pytest.mark.parametrize("targets", ["v1", "v3"])
def test_photometric_loss_equals_the_reference_and_the_intended_form(targets):
    tensors, _ = load_fixture("splatt3r/losses.safetensors")
    part = {name.split(".", 1)[1]: value for name, value in tensors.items() if name.startswith(targets)}
    mask = part["mask"].bool()

    def loss(apply: bool, average: bool) -> dict[str, torch.Tensor]:
        return photometric_loss(
            part["pred"], part["target"], mask, 1.0, 0.25, lambda target, render: part["lpips_map"], apply, average
        )

    for apply in (0, 1):
        ours = loss(bool(apply), False)
        for name in ("mse", "lpips", "loss"):
            assert ours[name].item() == pytest.approx(part[f"apply{apply}_avg0_{name}"].item(), abs=1e-6)
    ours = loss(True, True)
    assert ours["mse"].item() == pytest.approx(part["intended_mse_sum_over_rgb"].item(), abs=1e-6)
    assert ours["lpips"].item() == pytest.approx(part["apply1_avg1_lpips"].item(), abs=1e-6)
    if targets == "v1":  # with one target the original's masked MSE is right
        assert ours["loss"].item() == pytest.approx(part["apply1_avg1_loss"].item(), abs=1e-6)


def test_masked_mse_ignores_what_is_outside_the_mask():
    renders, targets = torch.rand(2, 1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(1, 2, 4, 5, dtype=torch.bool)
    mask[0, 0, 1, 2] = mask[0, 1, 3, 0] = True
    pixels = [(renders[0, t, :, i, j] - targets[0, t, :, i, j]).square().sum() for t, i, j in ((0, 1, 2), (1, 3, 0))]
    assert masked_mse(renders, targets, mask).item() == pytest.approx((sum(pixels) / 2).item(), rel=1e-6)
    renders[0, 0, :, 0, 0] = 99
    assert masked_mse(renders, targets, mask).item() == pytest.approx((sum(pixels) / 2).item(), rel=1e-6)


def test_an_empty_mask_is_refused():
    images = torch.zeros(1, 1, 3, 2, 2)
    with pytest.raises(ValueError, match="beta"):
        photometric_loss(images, images, torch.zeros(1, 1, 2, 2, dtype=torch.bool), lpips_weight=0)


def test_an_empty_view_adds_nothing():
    errors = torch.ones(1, 2, 2, 2)
    selected = torch.tensor([True, False]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert mean_error(errors, selected).item() == 1
