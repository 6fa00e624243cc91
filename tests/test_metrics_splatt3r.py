import pytest
import torch

from src.metrics_splatt3r import splatt3r_scores
from tests.conftest import load_fixture


@pytest.fixture(params=["v1", "v3"])
def case(request):
    """Pooled renders, photographs and masks of one batch, and the official code's results on it."""
    tensors, _ = load_fixture("splatt3r/losses.safetensors")
    batch = [tensors[f"{request.param}.{name}"].flatten(0, 1) for name in ("pred", "target", "mask")]
    return request.param, batch, lambda name: tensors[f"{request.param}.{name}"].item(), tensors


def test_scores_of_the_blacked_out_pictures_agree_with_the_official_code(case):
    _, batch, expected, _ = case
    scores = splatt3r_scores(*batch)
    assert scores["psnr_splatt3r"] == pytest.approx(expected("apply1_avg0_psnr"), abs=1e-4)
    assert scores["ssim_splatt3r"] == pytest.approx(expected("apply1_avg0_ssim"), abs=1e-5)


def test_scores_per_mask_pixel_agree_with_the_official_code(case):
    name, batch, expected, _ = case
    scores = splatt3r_scores(*batch)
    error = 10 ** (-scores["psnr_splatt3r_masked"] / 10)
    assert error == pytest.approx(expected("intended_mse_sum_over_rgb"), rel=1e-5)
    if name == "v1":  # with three targets the original pairs views with colour channels, which nobody should repeat
        assert scores["psnr_splatt3r_masked"] == pytest.approx(expected("apply1_avg1_psnr"), abs=1e-4)
    assert scores["ssim_splatt3r_masked"] == pytest.approx(expected("apply1_avg1_ssim"), rel=3e-5)


class StandIn(torch.nn.Module):
    """Answers with a stored pixel map, as the reference was computed."""

    def __init__(self, values: torch.Tensor):
        super().__init__()
        self.values = values

    def forward(self, photo, render):
        return self.values

    def whole(self, photo, render):
        return self.values.mean((1, 2, 3))


def test_lpips_averages_agree_with_the_official_code(case):
    name, batch, expected, tensors = case
    scores = splatt3r_scores(*batch, StandIn(tensors[f"{name}.lpips_map"]))
    assert scores["lpips_splatt3r"] == pytest.approx(expected("apply1_avg0_lpips"), abs=1e-6)
    assert scores["lpips_splatt3r_masked"] == pytest.approx(expected("apply1_avg1_lpips"), abs=1e-6)


def test_empty_masks_have_no_score():
    images, masks = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, 16)
    network = StandIn(torch.rand(2, 1, 16, 16))
    scores = splatt3r_scores(images, images, masks, network)
    assert set(scores.values()) == {None} and len(scores) == 6 and len(splatt3r_scores(images, images, masks)) == 4
