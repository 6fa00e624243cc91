import json
import math
import warnings

import cv2
import lpips
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchvision.models import alexnet

from src.metrics.image import Lpips, load_lpips, lpips_scores, psnr, ssim, ssim_map
from tests.conftest import assert_reference, load_fixture


def images(height: int = 40, width: int = 33, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A photograph, a render that leaves [0, 1], and a mask."""
    generator = torch.Generator().manual_seed(seed)
    photo = torch.rand(3, height, width, generator=generator)
    render = photo + 0.3 * torch.randn(3, height, width, generator=generator)
    return render, photo, torch.rand(height, width, generator=generator) < 0.4


def loop_psnr(render, photo, mask) -> float:
    total, count = 0.0, 0
    for channel in range(3):
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                if mask[y, x]:
                    shown = min(1.0, max(0.0, float(render[channel, y, x])))
                    total, count = total + (shown - float(photo[channel, y, x])) ** 2, count + 1
    return 10 * math.log10(1 / (total / count))


@pytest.mark.parametrize("seed", [0, 1])
def test_masked_psnr_agrees_with_a_loop(seed):
    render, photo, mask = images(12, 9, seed)
    assert psnr(render, photo, mask) == pytest.approx(loop_psnr(render, photo, mask), abs=1e-9)


def test_full_psnr_agrees_with_scikit_image():
    render, photo, _ = images()
    expected = peak_signal_noise_ratio(photo.double().numpy(), render.clamp(0, 1).double().numpy(), data_range=1)
    assert psnr(render, photo) == pytest.approx(expected, abs=1e-9)


def test_psnr_agrees_with_torchmetrics_and_inside_a_mask_with_scikit_image():
    render, photo, mask = images()
    shown = render.clamp(0, 1)
    assert psnr(render, photo) == pytest.approx(torchmetrics_psnr(shown, photo, (0.0, 1.0)).item(), abs=1e-4)
    inside = (image[:, mask].double().numpy() for image in (photo, shown))
    assert psnr(render, photo, mask) == pytest.approx(peak_signal_noise_ratio(*inside, data_range=1), abs=1e-9)


def loop_ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One channel, pixel by pixel, weighted two-pass moments; samples outside are mirrored."""
    height, width = first.shape
    result = np.empty(first.shape)
    weights = np.array([[math.exp(-(i * i + j * j) / (2 * 1.5**2)) for j in range(-5, 6)] for i in range(-5, 6)])
    weights /= weights.sum()
    mirrored = [np.pad(image, 5, mode="symmetric") for image in (first, second)]
    for y in range(height):
        for x in range(width):
            a, b = (image[y : y + 11, x : x + 11] for image in mirrored)
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            factor = 121 / 120
            var_a, var_b = factor * (weights * (a - mean_a) ** 2).sum(), factor * (weights * (b - mean_b) ** 2).sum()
            cov = factor * (weights * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = 0.0001, 0.0009
            result[y, x] = (
                (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return result


def test_ssim_map_agrees_with_a_loop():
    render, photo, _ = images(15, 13)
    expected = [loop_ssim_map(a, b) for a, b in zip(render.double().numpy(), photo.double().numpy())]
    torch.testing.assert_close(ssim_map(render, photo), torch.tensor(np.stack(expected)), atol=1e-10, rtol=0)


def test_ssim_agrees_with_the_loop_averaged_whole_and_inside_a_mask():
    """Whole: windows that stay inside the image; masked: all of the mask's pixels."""
    render, photo, mask = images(15, 13)
    shown = render.clamp(0, 1).double().numpy()
    expected = np.stack([loop_ssim_map(a, b) for a, b in zip(shown, photo.double().numpy())])
    inner = [expected[channel, y, x] for channel in range(3) for y in range(5, 10) for x in range(5, 8)]
    assert ssim(render, photo) == pytest.approx(sum(inner) / len(inner), abs=1e-10)
    assert ssim(render, photo, mask) == pytest.approx(expected[:, mask.numpy()].mean(), abs=1e-10)


def opencv_ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of images (C, H, W); OpenCV's filter, where this repository uses scikit-image's."""

    def blurred(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)

    found = []
    for a, b in zip(first, second):
        mean_a, mean_b = blurred(a), blurred(b)
        var_a, var_b, cov = (
            121 / 120 * (blurred(product) - means)
            for product, means in ((a * a, mean_a**2), (b * b, mean_b**2), (a * b, mean_a * mean_b))
        )
        numerator = (2 * mean_a * mean_b + 0.0001) * (2 * cov + 0.0009)
        found.append(numerator / ((mean_a**2 + mean_b**2 + 0.0001) * (var_a + var_b + 0.0009)))
    return np.stack(found)


def test_ssim_agrees_with_opencv_whole_and_inside_a_mask():
    render, photo, mask = images()
    expected = opencv_ssim_map(render.clamp(0, 1).double().numpy(), photo.double().numpy())
    np.testing.assert_allclose(ssim_map(render.clamp(0, 1), photo), expected, atol=1e-10)
    assert ssim(render, photo) == pytest.approx(expected[:, 5:-5, 5:-5].mean(), abs=1e-10)
    assert ssim(render, photo, mask) == pytest.approx(expected[:, mask.numpy()].mean(), abs=1e-10)


def test_ssim_maps_keep_the_shape_of_a_batch_and_of_one_channel():
    renders, photos = (torch.stack([images(seed=seed)[n] for seed in (0, 1)]) for n in (0, 1))
    found = ssim_map(renders, photos)
    assert found.shape == renders.shape and torch.equal(found[1], ssim_map(renders[1], photos[1]))
    assert torch.equal(found[1, 2], ssim_map(renders[1, 2], photos[1, 2]))


@pytest.mark.parametrize("case", ["v1", "v3"])
def test_masked_scores_agree_with_the_reference(case):
    tensors, _ = load_fixture("splatt3r/losses.safetensors")
    renders, photos, masks = (tensors[f"{case}.{name}"].flatten(0, 1) for name in ("pred", "target", "mask"))
    for number, (render, photo, mask) in enumerate(zip(renders, photos, masks.bool())):
        expected = tensors[f"{case}.per_image_masked_psnr_clamped"].flatten()[number].item()
        assert psnr(render, photo, mask) == pytest.approx(expected, abs=1e-4)
        expected = tensors[f"{case}.ssim_map"][number]
        assert_reference(ssim_map(render, photo).float(), expected)


def test_clamping_is_part_of_the_score():
    photo = torch.full((3, 16, 16), 0.9)
    assert psnr(torch.full((3, 16, 16), 7.0), photo) == pytest.approx(20.0, abs=1e-5)


def test_a_perfect_image_scores_one_hundred_decibels_and_ssim_one():
    _, photo, mask = images()
    assert psnr(photo, photo) == psnr(photo, photo, mask) == 100.0
    assert ssim(photo, photo) == pytest.approx(1.0, abs=1e-12)


def test_an_empty_mask_has_no_score():
    render, photo, mask = images()
    nothing = torch.zeros_like(mask)
    assert psnr(render, photo, nothing) is None and ssim(render, photo, nothing) is None


def test_a_mask_of_another_size_is_refused():
    render, photo, mask = images()
    with pytest.raises(ValueError, match="heights and widths must agree"):
        psnr(render, photo, mask[:-1])


def test_ssim_of_a_tiny_image_is_refused():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim_map(torch.zeros(3, 10, 20), torch.zeros(3, 10, 20))


@pytest.fixture(scope="module")
def reference() -> lpips.LPIPS:
    """The package's own network with a seeded random trunk: no pretrained file is needed to compare the plumbing."""
    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        return lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory):
    """That trunk under torchvision's names."""
    path = tmp_path_factory.mktemp("lpips")
    trunk = {"features." + key.split(".", 1)[1]: value for key, value in reference.net.state_dict().items()}
    save_file(trunk, path / "model.safetensors")
    (path / "record.json").write_text(json.dumps({"name": "alex"}))
    return path


def scores_of(network: Lpips, render: torch.Tensor, photo: torch.Tensor, mask: torch.Tensor) -> tuple:
    """lpips and lpips_masked of one picture."""
    (scores,) = lpips_scores(network, render[None], network.features(photo[None]), mask)
    return scores["lpips"], scores["lpips_masked"]


def test_lpips_agrees_with_the_package(reference, folder):
    render, photo, mask = images(64, 64)
    network = load_lpips(folder)
    inputs = photo[None], render.clamp(0, 1)[None]
    with torch.no_grad():
        reference.spatial = False
        expected = reference(*inputs, normalize=True).item()
        reference.spatial = True
        pixel_map = reference(*inputs, normalize=True)[0, 0]
    found = scores_of(network, render, photo, mask)
    assert found == pytest.approx((expected, pixel_map[mask].mean().item()), abs=1e-6)


def test_renders_scored_together_are_scored_as_alone(folder):
    render, photo, mask = images(64, 64)
    network, others = load_lpips(folder), torch.stack([render, photo.flip(0), photo])
    together = lpips_scores(network, others, network.features(photo[None]), mask)
    for scores, other in zip(together, others, strict=True):
        assert (scores["lpips"], scores["lpips_masked"]) == pytest.approx(
            scores_of(network, other, photo, mask), abs=1e-6
        )
    assert together[2]["lpips"] < 1e-9 < 0.01 < together[0]["lpips"]  # kernels differ by the size of the batch


def test_lpips_agrees_with_its_formula(folder):
    """Zhang et al. 2018, eq. 1, written out on torchvision's own layers."""
    render, photo, mask = images(64, 64)
    network = load_lpips(folder)
    linear = torch.load(lpips.__path__[0] + "/weights/v0.1/alex.pth", "cpu", weights_only=True)
    layers = alexnet().features
    trunk = load_file(folder / "model.safetensors")
    layers.load_state_dict({key.removeprefix("features."): value for key, value in trunk.items()})
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    taps, total, pixels = (1, 4, 7, 9, 11), 0.0, 0.0
    pair = [(2 * image - 1 - shift[:, None, None]) / scale[:, None, None] for image in (render.clamp(0, 1), photo)]
    with torch.no_grad():
        for index, layer in enumerate(layers):
            pair = [layer.eval()(image.clone()) for image in pair]
            if index in taps:
                a, b = (image / (image.norm(dim=0) + 1e-10) for image in pair)
                weight = linear[f"lin{taps.index(index)}.model.1.weight"][0, :, 0, 0]
                distance = torch.einsum("chw,c->hw", (a - b) ** 2, weight)
                total += distance.mean().item()
                pixels += cv2.resize(distance.numpy(), (64, 64), interpolation=cv2.INTER_LINEAR)
    found = scores_of(network, render, photo, mask)
    assert found == pytest.approx((total, pixels[mask.numpy()].mean()), abs=1e-5)


def test_lpips_stays_in_evaluation_mode(folder):
    network = load_lpips(folder)
    torch.nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert scores_of(network, images(64, 64)[1], images(64, 64)[1], torch.zeros(64, 64)) == (0, None)


def test_lpips_without_its_trunk_is_refused(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="eval.lpips"):
        load_lpips(tmp_path)
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "record.json").write_text(json.dumps({"name": "vgg"}))
    with pytest.raises(ValueError, match="features.0.weight"):
        load_lpips(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps({"name": "resnet"}))
    with pytest.raises(ValueError, match="alex, squeeze, vgg"):
        load_lpips(tmp_path)
