"""Pictures of one test episode, as the stage render wrote them."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from src.reproducible.files import whole_file


@dataclass(frozen=True)
class Rendered:
    """One file of data/renders. about: episode, scene, contexts, targets, bin, category; tensors: of render_targets."""

    about: dict
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "Rendered":
        with safe_open(path, framework="pt") as file:
            return cls(json.loads(file.metadata()["episode"]), {name: file.get_tensor(name) for name in file.keys()})

    def picture(self, name: str, alignment: str) -> Tensor:
        """(T, ...) float32"""
        return self.tensors[self.tensor_name(name, alignment)].float()

    def tensor_name(self, name: str, alignment: str) -> str:
        """A copied image has no alignment: it is the same tensor under both."""
        aligned = f"{name}_aligned" if alignment == "aligned" else name
        return aligned if aligned in self.tensors else name

    @property
    def resolution(self) -> tuple[int, int]:
        """(W, H)"""
        height, width = self.tensors["mask"].shape[-2:]
        return width, height

    @property
    def names(self) -> dict[str, str]:
        """The columns that say which episode this is."""
        return {name: self.about[name] for name in ("episode", "scene", "category", "bin")}


def stored(name: str, tensor: Tensor) -> Tensor:
    """As written: half precision, except masks (uint8) and the scales (float64)."""
    kinds = {"mask": torch.uint8} | dict.fromkeys(("scale", "points_scale"), torch.float64)
    return tensor.to(kinds.get(name, torch.float16)).contiguous()


def write_episode(folder: Path, about: dict, pictures: dict[str, Tensor]) -> None:
    """The file that `Rendered.read` reads; about and pictures as there."""
    with whole_file(folder / f"{about['episode']}.safetensors") as partial:
        save_file(
            {name: stored(name, tensor) for name, tensor in pictures.items()},
            partial,
            {"episode": json.dumps(about, sort_keys=True)},
        )
