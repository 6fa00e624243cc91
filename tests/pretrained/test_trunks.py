import pickle
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch

from src.fetching.packages import INSTALL, installed
from src.mast3r.weight_file import CheckpointError
from src.pretrained.pickled_arrays import read_arrays
from src.pretrained.trunks import TRUNKS, layers, read_trunk

# torchvision's names of the convolutions, from its documentation of the networks
PLACES = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
NAMES = {"alex": "AlexNet_0", "vgg": "VGG16_0"}


def shipped(trunk: str) -> Path:
    """The package's file; skips where it is not installed."""
    path = installed(TRUNKS[trunk][1].packaged)
    if path is None:
        pytest.skip(f"the package of the trunks is not installed: {INSTALL}")
    return path


@pytest.mark.parametrize("trunk", PLACES)
def test_every_kernel_and_bias_of_the_package_is_in_its_place(trunk):
    path = shipped(trunk)
    found, arrays = read_trunk(path, trunk), read_arrays(path)[NAMES[trunk]]
    assert len(found) == 2 * len(PLACES[trunk]) == 2 * len(arrays)
    generator = np.random.default_rng(0)
    for number, place in enumerate(PLACES[trunk]):
        kernel, weight = arrays[f"Conv_{number}"]["kernel"], found[f"features.{place}.weight"]
        assert np.array_equal(found[f"features.{place}.bias"], arrays[f"Conv_{number}"]["bias"])
        for _ in range(20):
            y, x, into, out = (int(generator.integers(size)) for size in kernel.shape)
            assert weight[out, into, y, x] == kernel[y, x, into, out]


@pytest.mark.parametrize("trunk", PLACES)
def test_the_package_s_linear_layers_are_those_of_lpips(trunk):
    arrays = read_arrays(shipped(trunk))
    linear = torch.load(Path(lpips.__file__).parent / f"weights/v0.1/{trunk}.pth", "cpu", weights_only=True)
    assert len(linear) == 5
    for layer in range(5):
        kernel = arrays[f"NetLinLayer_{layer}"]["Conv_0"]["kernel"]
        assert np.array_equal(kernel.transpose(3, 2, 0, 1), linear[f"lin{layer}.model.1.weight"])


def small(change) -> dict:
    """AlexNet's shapes in the package's layout, of zeros, after `change`."""
    convolutions = [layer for layer in layers("alex") if isinstance(layer, torch.nn.Conv2d)]
    arrays = {
        f"Conv_{number}": {
            "kernel": np.zeros(tuple(layer.weight.permute(2, 3, 1, 0).shape), np.float32),
            "bias": np.zeros(len(layer.bias), np.float32),
        }
        for number, layer in enumerate(convolutions)
    }
    change(arrays)
    return {"AlexNet_0": arrays}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: arrays.pop("Conv_4"), "2 keys missing .features.10.bias, features.10.weight., 0 unexpected"),
        (lambda arrays: arrays.update(Conv_5=arrays["Conv_4"]), "0 keys missing .*, 2 unexpected .features.Conv_5"),
        (lambda arrays: arrays["Conv_0"].update(scale=np.zeros(3)), "1 unexpected .features.0.scale"),
        (lambda arrays: arrays["Conv_0"].update(bias=np.zeros(3)), r"features.0.bias has shape \(3,\) and should"),
    ],
)
def test_another_layout_is_named(tmp_path, change, words):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(small(change), 4))
    with pytest.raises(CheckpointError, match=words):
        read_trunk(tmp_path / "a.ckpt", "alex")


def test_the_other_trunk_s_file_and_no_file_are_refused(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(small(lambda arrays: None), 4))
    assert set(read_trunk(tmp_path / "a.ckpt", "alex")) == set(layers("alex").state_dict(prefix="features."))
    for other in ("vgg", "squeeze"):
        with pytest.raises(CheckpointError, match="a.ckpt does not match the network"):
            read_trunk(tmp_path / "a.ckpt", other)
    with pytest.raises(FileNotFoundError):
        read_trunk(tmp_path / "b.ckpt", "alex")
