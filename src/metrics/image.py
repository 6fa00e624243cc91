"""How close a render is to the target image: PSNR, SSIM and LPIPS of one image, whole or inside a mask.

Every function scores one image, so that means and spreads over images are the caller's plain statistics. Renders are
clamped to [0, 1] first. A score over an empty mask does not exist: it is None, never 0 or NaN.
"""

import json
import math
import warnings
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from lpips import LPIPS

MSE_FLOOR = 1e-10  # PSNR of a perfect image: 100 dB, so that means stay finite
SSIM_RADIUS = 5  # pixels; scikit-image cuts its Gaussian window of sigma 1.5 there


def decibels(mse: float) -> float:
    """PSNR of a mean squared error at data range 1, at most 100 dB."""
    return -10 * math.log10(max(mse, MSE_FLOOR))


def masked_mean(values: Tensor, mask: Tensor | None) -> float | None:
    """Mean of values (C, H, W) over all channels of the pixels where mask (H, W) is true; None when there are none."""
    if mask is None:
        return values.double().mean().item()
    if mask.shape != values.shape[-2:]:
        raise ValueError(
            f"The mask is {tuple(mask.shape)} but the image is {tuple(values.shape)}; heights and widths must agree."
        )
    chosen = values[..., mask.bool()]
    return chosen.double().mean().item() if chosen.numel() else None


def psnr(render: Tensor, target: Tensor, mask: Tensor | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB, -10 log10 of the mean squared error over 3 channels and the mask's pixels.

    render  (3, H, W)  clamped to [0, 1] here
    target  (3, H, W)  in [0, 1]
    mask    (H, W)     pixels that count; None = all
    returns at most 100 (a perfect image); None for an empty mask
    """
    error = masked_mean((render.clamp(0, 1).double() - target.double()).square(), mask)
    return None if error is None else decibels(error)


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of each pixel and channel   (Wang et al. 2004, Image quality assessment, eq. 13).

    By scikit-image with the settings that pixelSplat and Splatt3R score with: an 11 x 11 Gaussian window, edges
    mirrored, and *sample* covariances (times 121/120), where Wang's code has population ones.

    first, second (..., H, W)  in [0, 1]
    returns       (..., H, W)  in [-1, 1], float64, on the CPU
    """
    if min(first.shape[-2:]) < 2 * SSIM_RADIUS + 1:
        raise ValueError(f"SSIM needs images of at least 11 x 11 pixels; got {tuple(first.shape[-2:])}.")
    height, width = first.shape[-2:]
    pair = (image.detach().cpu().double().reshape(-1, height, width).numpy() for image in (first, second))
    _, similarity = structural_similarity(*pair, channel_axis=0, gaussian_weights=True, data_range=1.0, full=True)
    return torch.from_numpy(similarity).view(first.shape)


def mean_similarity(similarity: Tensor, mask: Tensor | None = None) -> float | None:
    """Mean of an SSIM map (3, H, W) over a mask (H, W), borders included; None when empty. Without a mask: over all
    but 5 pixels at each border, where the window would leave the image, as scikit-image averages."""
    if mask is None:
        inner = slice(SSIM_RADIUS, -SSIM_RADIUS)
        return similarity[..., inner, inner].mean().item()
    return masked_mean(similarity, mask)


def ssim(render: Tensor, target: Tensor, mask: Tensor | None = None) -> float | None:
    """Structural similarity of one image, render (3, H, W) clamped to [0, 1]: `mean_similarity` of `ssim_map`."""
    return mean_similarity(ssim_map(render.clamp(0, 1), target), mask)


class Lpips(nn.Module):
    """LPIPS v0.1 (Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features): the package's calibrated linear
    layers on a pretrained trunk. Always in evaluation mode: its linear layers hold a dropout."""

    def __init__(self, network: "LPIPS") -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Lpips":
        return super().train(False)

    def forward(self, target: Tensor, render: Tensor) -> Tensor:
        """Distance of each pixel of images (B, 3, H, W) in [0, 1], (B, 1, H, W): each layer upsampled, then summed."""
        return self.compare(target, render)[1]

    def compare(self, target: Tensor, render: Tensor) -> tuple[Tensor, Tensor]:
        """`distances` of images (B, 3, H, W) in [0, 1]."""
        return self.distances(self.features(target), self.features(render), target.shape[-2:])

    def features(self, images: Tensor) -> list[Tensor]:
        """Each layer's map (B, C, h, w), of unit length along C, of images (B, 3, H, W) in [0, 1]."""
        import lpips  # here, as it takes seconds and most runs have no trunk

        layers = self.network.net(self.network.scaling_layer(2 * images - 1))
        return [lpips.normalize_tensor(layer) for layer in layers]

    def distances(self, target: list[Tensor], render: list[Tensor], size: torch.Size) -> tuple[Tensor, Tensor]:
        """Distances of whole images, (B,), each layer averaged over its own pixels; and of each pixel, as `forward`.

        target, render  of `features`; a target of one image stands beside every render
        size           (H, W) of the images
        """
        layers = [lin((a - b).square()) for lin, a, b in zip(self.network.lins, target, render, strict=True)]
        whole = sum(layer.mean((1, 2, 3)) for layer in layers)
        pixels = reduce(torch.add, (interpolate(layer, list(size), mode="bilinear") for layer in layers))
        return whole, pixels


def load_lpips(folder: str | Path) -> Lpips:
    """LPIPS on the trunk in `folder`: model.safetensors with torchvision's names (`features.0.weight`, ...) and
    record.json whose `name` is alex or vgg. Nothing is fetched.

    raises FileNotFoundError where there is no trunk, ValueError where it is not the one the record names
    """
    path = Path(folder) / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"LPIPS needs its pretrained trunk, but {path} does not exist; set eval.lpips to none "
            "and loss.lpips_loss_weight to 0, or let the stage weights provide it."
        )
    name = json.loads((Path(folder) / "record.json").read_text())["name"]
    import lpips  # here, as it takes seconds and most runs have no trunk

    calibrated = Path(lpips.__file__).parent / "weights/v0.1"
    if name not in (known := sorted(file.stem for file in calibrated.glob("*.pth"))):
        raise ValueError(f"{folder}/record.json names the LPIPS trunk {name!r}; it must be one of {', '.join(known)}.")

    # on device meta: without drawing or holding the weights of a whole classifier; it warns of its own old spelling
    with torch.device("meta"), warnings.catch_warnings(action="ignore", category=UserWarning):
        network = lpips.LPIPS(pretrained=False, net=name, pnet_rand=True, verbose=False)
    network.scaling_layer = lpips.ScalingLayer()
    linear = torch.load(calibrated / f"{name}.pth", "cpu", weights_only=True)
    trunk = load_file(path)
    state = network.scaling_layer.state_dict(prefix="scaling_layer.") | linear
    state |= {key.replace("lin", "lins.", 1): value for key, value in linear.items()}
    for key in network.net.state_dict():
        if (source := "features." + key.split(".", 1)[1]) not in trunk:
            raise ValueError(f"{path} holds no {source}; it is not torchvision's {name} network.")
        state[f"net.{key}"] = trunk[source].float()
    network.load_state_dict(state, assign=True)
    return Lpips(network)


@torch.no_grad()
def lpips_scores(network: Lpips, renders: Tensor, target: list[Tensor], mask: Tensor) -> list[dict[str, float | None]]:
    """lpips and lpips_masked of each render (N, 3, H, W), clamped, against the target with these features; masked is the
    mean of the pixels' distances over mask (H, W)."""
    whole, pixels = network.distances(target, network.features(renders.clamp(0, 1).float()), renders.shape[-2:])
    return [
        {"lpips": one.item(), "lpips_masked": masked_mean(each, mask)} for one, each in zip(whole, pixels, strict=True)
    ]


def image_scores(render: Tensor, target: Tensor, mask: Tensor) -> dict[str, float | None]:
    """psnr and ssim of one picture (3, H, W), and each `_masked` by mask (H, W)."""
    similarity = ssim_map(render.clamp(0, 1), target)
    return {
        "psnr": psnr(render, target),
        "psnr_masked": psnr(render, target, mask),
        "ssim": mean_similarity(similarity),
        "ssim_masked": mean_similarity(similarity, mask),
    }
