"""Pictures of one test episode, as the stage render wrote them."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor


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
        """A copied photograph has no alignment: it is the same tensor under both."""
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
