"""LPIPS on the trunks that a package ships, against known values of the `lpips` package on scikit-image's photographs."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from skimage import data

from src.fetching.packages import INSTALL, installed
from src.metrics.image import load_lpips
from src.pretrained.trunks import TRUNKS, read_trunk
from tests.conftest import fixture_path

CHANGES = {
    "blurred": lambda image: gaussian_filter(image, (2, 2, 0), mode="nearest"),
    "shifted": lambda image: np.roll(image, 3, 1),
    "mirrored": lambda image: image[:, ::-1],
}


def as_images(array: np.ndarray) -> torch.Tensor:
    """(H, W, 3) in [0, 1] -> (1, 3, H, W)"""
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None].float()


def pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The two images (H, W, 3) that an entry of the known values is about."""
    photograph = name.split()[0]
    if photograph == "stereo_motorcycle":
        left, right, _ = data.stereo_motorcycle()
        return tuple(image[100:356, 200:456, :3] / 255 for image in (left, right))
    image = getattr(data, photograph)()[64:256, 96:288, :3] / 255
    return image, CHANGES[re.search("|".join(CHANGES), name)[0]](image)


@pytest.fixture(scope="module", params=["alex", "vgg"])
def trunk(request, tmp_path_factory):
    """The trunk's name, and LPIPS on it."""
    path = installed(TRUNKS[request.param][1].packaged)
    if path is None:
        pytest.skip(f"the package of the trunks is not installed: {INSTALL}")
    folder = tmp_path_factory.mktemp("lpips")
    save_file(
        {name: tensor.contiguous() for name, tensor in read_trunk(path, request.param).items()},
        folder / "model.safetensors",
    )
    (folder / "record.json").write_text(json.dumps({"name": request.param}))
    return request.param, load_lpips(folder)


@torch.no_grad()
def test_the_known_values_come_out(trunk):
    name, network = trunk
    known = json.loads(fixture_path("lpips/values.json").read_text())[name]
    assert len(known) == 13
    seen = {}
    for about, value in known.items():
        first, second = (as_images(image) for image in pair(about))
        photograph = about.split()[0]  # the first image of three pairs
        if photograph not in seen:
            seen[photograph] = network.features(first)
        found, _ = network.distances(seen[photograph], network.features(second), first.shape[-2:])
        assert found.item() == pytest.approx(value, abs=1e-4), about
