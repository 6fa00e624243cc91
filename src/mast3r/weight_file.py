"""Weight files: ours, written as safetensors with one metadata key; and the geometry networks' official files."""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from src.mast3r.dpt import ALIASES
from src.mast3r.network import Mast3r, Mast3rConfig
from src.reproducible.files import whole_file

ZIP = b"PK\x03\x04"  # what torch.save writes since its version 1.6


class CheckpointError(ValueError):
    """A weight file that cannot be used; the message names the file, what is wrong with it, and what to do."""


def opening(path: Path) -> bytes:
    """The first bytes of a weight file.

    raises CheckpointError when they are a web page's or a Git LFS pointer's, which downloads leave under a file's name,
           or an archive's whose end is missing
    """
    with open(path, "rb") as file:
        head = file.read(512)
    if head[8:9] != b"{" and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":  # safetensors: a length, then JSON
        raise CheckpointError(
            f"{path} is a web page, not a weight file (a sign-in or error page was saved under that "
            "name); delete it and fetch the file again."
        )
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights it stands for; run git lfs pull where it came from."
        )
    if head.startswith(ZIP) and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is damaged or not whole (the end is missing); delete it and fetch it again.")
    return head


@dataclass(frozen=True)
class Checkpoint:
    """A geometry network's weights and sizes, whatever file they came from."""

    config: Mast3rConfig
    state_dict: dict[str, Tensor]


def without_aliases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with one name per tensor; safetensors refuses shared storage, and loading fills the second name in."""
    return {
        name: tensor.contiguous()
        for name, tensor in state.items()
        if not any(name.endswith(f"dpt.{alias}") for alias in ALIASES)
    }


def write_geometry(path: str | Path, config: Mast3rConfig, state: dict[str, Tensor]) -> None:
    """A safetensors file that `read_checkpoint` reads back; its bytes depend on its content alone."""
    with whole_file(path) as partial:
        save_file(without_aliases(state), partial, {"geometry": json.dumps(asdict(config), sort_keys=True)})


def read_checkpoint(path: str | Path) -> Checkpoint:
    """A geometry network's weights and sizes from one of our safetensors files.

    raises FileNotFoundError when there is no such file, CheckpointError when it is not whole or does not say its sizes
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no weight file {path}; run dvc repro weights, or check the entry of "
            "geometries that model.geometry selects."
        )
    opening(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({error}); fetch it again.") from error
    if "geometry" not in metadata:
        raise CheckpointError(
            f"{path} does not say how large its network is (no metadata key `geometry`); place "
            "the hub's config.json beside it, or convert it with write_geometry."
        )
    try:
        sizes = json.loads(metadata["geometry"])
        return Checkpoint(Mast3rConfig(**sizes | {"dpt_layer_dims": tuple(sizes["dpt_layer_dims"])}), state)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} describes its network's sizes in a way that cannot be read ({error}); fetch it "
            "again, or convert it with write_geometry."
        ) from error


def load_geometry(folder: Path) -> Mast3r:
    """The frozen two-view network of a weights folder, its tensors taken over without a copy; Gaussian heads, which a
    Splatt3R file has as well, are left out."""
    path = folder / "model.safetensors"
    checkpoint = read_checkpoint(path)
    state = {name: tensor for name, tensor in checkpoint.state_dict.items() if ".gaussian_dpt." not in name}
    with torch.device("meta"):
        network = Mast3r(checkpoint.config)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not hold the network its sizes describe "
            f"({' '.join(str(error).split())[:200]}…); run dvc repro -f weights."
        ) from error
    return network.eval().requires_grad_(False)
