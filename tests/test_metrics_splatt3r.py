import pytest
import torch

from src.metrics_splatt3r import (lpips_splatt3r, lpips_splatt3r_masked, psnr_splatt3r, psnr_splatt3r_masked,
                                  ssim_splatt3r, ssim_splatt3r_masked)
from tests.conftest import load_fixture


@pytest.fixture(params=["v1", "v3"])
def case(request):
    """Pooled renders, photographs and masks of one batch, and the official code's results on it."""
    tensors, _ = load_fixture("splatt3r/losses.safetensors")
    batch = [tensors[f"{request.param}.{name}"].flatten(0, 1) for name in ("pred", "target", "mask")]
    return request.param, batch, lambda name: tensors[f"{request.param}.{name}"].item(), tensors


def test_scores_of_the_blacked_out_pictures_agree_with_the_official_code(case):
    _, (renders, photos, masks), expected, _ = case
    assert psnr_splatt3r(renders, photos, masks) == pytest.approx(expected("apply1_avg0_psnr"), abs=1e-4)
    assert ssim_splatt3r(renders, photos, masks) == pytest.approx(expected("apply1_avg0_ssim"), abs=1e-5)


def test_scores_per_mask_pixel_agree_with_the_official_code(case):
    name, (renders, photos, masks), expected, _ = case
    error = 10 ** (-psnr_splatt3r_masked(renders, photos, masks) / 10)
    assert error == pytest.approx(expected("intended_mse_sum_over_rgb"), rel=1e-5)
    if name == "v1":  # with three targets the original pairs views with colour channels, which nobody should repeat
        assert psnr_splatt3r_masked(renders, photos, masks) == pytest.approx(expected("apply1_avg1_psnr"), abs=1e-4)
    assert ssim_splatt3r_masked(renders, photos, masks) == pytest.approx(expected("apply1_avg1_ssim"), abs=1e-4)


class StandIn(torch.nn.Module):
    """Answers with a stored pixel map, as the reference was computed."""

    def __init__(self, values: torch.Tensor):
        super().__init__()
        self.values = values

    def forward(self, render, photo):
        return self.values.mean((1, 2, 3))

    def map(self, render, photo):
        return self.values


def test_lpips_averages_agree_with_the_official_code(case):
    name, batch, expected, tensors = case
    network = StandIn(tensors[f"{name}.lpips_map"])
    assert lpips_splatt3r(network, *batch) == pytest.approx(expected("apply1_avg0_lpips"), abs=1e-6)
    assert lpips_splatt3r_masked(network, *batch) == pytest.approx(expected("apply1_avg1_lpips"), abs=1e-6)


def test_empty_masks_have_no_score():
    images, masks = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, 16)
    network = StandIn(torch.rand(2, 1, 16, 16))
    assert {score(images, images, masks) for score in (psnr_splatt3r, psnr_splatt3r_masked, ssim_splatt3r,
                                                      ssim_splatt3r_masked)} == {None}
    assert {score(network, images, images, masks) for score in (lpips_splatt3r, lpips_splatt3r_masked)} == {None}
