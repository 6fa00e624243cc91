import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from src.metrics.splatt3r import PUBLISHED_BATCH, pooled, splatt3r_scores
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

    def compare(self, photo, render):
        return self.values.mean((1, 2, 3)), self.values


def test_lpips_averages_agree_with_the_official_code(case):
    name, batch, expected, tensors = case
    scores = splatt3r_scores(*batch, StandIn(tensors[f"{name}.lpips_map"]))
    assert scores["lpips_splatt3r"] == pytest.approx(expected("apply1_avg0_lpips"), abs=1e-6)
    assert scores["lpips_splatt3r_masked"] == pytest.approx(expected("apply1_avg1_lpips"), abs=1e-6)


def test_scores_agree_with_loops_and_scikit_image():
    """Two pooled pictures; nothing is clamped, errors are summed over RGB and divided by the mask's pixels."""
    generator = torch.Generator().manual_seed(0)
    photos = torch.rand(2, 3, 14, 12, generator=generator)
    renders = photos + 0.4 * torch.randn(photos.shape, generator=generator)
    masks = torch.rand(2, 14, 12, generator=generator) < 0.5
    distances = torch.rand(2, 1, 14, 12, generator=generator)
    scores = splatt3r_scores(renders, photos, masks, StandIn(distances))
    total, lpips, similar, black, whole = 0, 0, 0, [], []
    for number in range(2):
        keep = masks[number].numpy()
        a, b = ((image[number].double().numpy() * keep) for image in (renders, photos))
        mean, full = structural_similarity(
            b, a, win_size=11, gaussian_weights=True, channel_axis=0, data_range=1.0, full=True
        )
        similar, whole = similar + full[:, keep].sum(), [*whole, mean]
        black += [float(x - y) ** 2 for x, y in zip(a.ravel(), b.ravel())]
        for y, x in zip(*np.nonzero(keep)):
            total += sum(float(renders[number, c, y, x] - photos[number, c, y, x]) ** 2 for c in range(3))
            lpips += distances[number, 0, y, x].item()
    pixels = masks.sum().item()
    expected = {
        "psnr_splatt3r": -10 * math.log10(sum(black) / len(black)),
        "ssim_splatt3r": sum(whole) / 2,
        "psnr_splatt3r_masked": -10 * math.log10(total / pixels),
        "ssim_splatt3r_masked": similar / pixels,
        "lpips_splatt3r": distances.mean().item(),
        "lpips_splatt3r_masked": lpips / pixels,
    }
    assert scores == {name: pytest.approx(value, abs=1e-6) for name, value in expected.items()}


def test_empty_masks_have_no_score():
    images, masks = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, 16)
    network = StandIn(torch.rand(2, 1, 16, 16))
    scores = splatt3r_scores(images, images, masks, network)
    assert set(scores.values()) == {None} and len(scores) == 6 and len(splatt3r_scores(images, images, masks)) == 4


def test_scores_of_single_pictures_are_pooled_into_those_of_batches():
    generator = torch.Generator().manual_seed(1)
    count = PUBLISHED_BATCH + 2
    photos = torch.rand(count, 3, 14, 12, generator=generator)
    noise = torch.linspace(0.05, 0.5, count)[:, None, None, None]
    renders = photos + noise * torch.randn(photos.shape, generator=generator)
    masks = torch.rand(count, 14, 12, generator=generator) < torch.linspace(0.2, 0.9, count)[:, None, None]
    distances = torch.rand(count, 1, 14, 12, generator=generator)

    def scores(part):
        return splatt3r_scores(renders[part], photos[part], masks[part], StandIn(distances[part]))

    rows = [
        scores(slice(i, i + 1)) | {"mask_share": masks[i].double().mean().item(), "psnr": 1.0} for i in range(count)
    ]
    whole, rest = scores(slice(PUBLISHED_BATCH)), scores(slice(PUBLISHED_BATCH, count))
    assert pooled(rows) == {
        name: {"mean": pytest.approx((whole[name] + rest[name]) / 2, abs=1e-6), "n": count} for name in whole
    }
    assert pooled(rows)["psnr_splatt3r"]["mean"] < sum(row["psnr_splatt3r"] for row in rows) / count - 0.5
    empty = dict.fromkeys(whole) | {"mask_share": 0.0, "psnr": 1.0}
    assert pooled([rows[0], empty])["ssim_splatt3r"] == {"mean": rows[0]["ssim_splatt3r"], "n": 1}
    assert pooled([empty]) == pooled([]) == {}
