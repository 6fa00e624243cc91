"""Episodes as tensors: images, depths and cameras of their views, and the cached features of their contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from src.episodes.episodes import Episode
from src.geometry.alignment import context_points
from src.scenes.features import Features
from src.scenes.scene import Scene, View

OPEN_FILES = 64  # per process
Tensors = TypeVar("Tensors", "Views", "Sample")


def each_tensor(function: Callable[..., Tensor], *parts: Tensors) -> Tensors:
    """Views or samples alike, made of function(tensors in the same place of all parts); None stays None."""

    def joined(values: tuple) -> Tensor | Views | None:
        if values[0] is None:
            return None
        return function(*values) if isinstance(values[0], Tensor) else each_tensor(function, *values)

    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(**{name: joined(tuple(getattr(part, name) for part in parts)) for name in names})


@dataclass(frozen=True)
class Views:
    """V views at one resolution; in a batch each tensor begins with B.

    images  (V, 3, H, W)  float32 in [0, 1]
    depth   (V, H, W)     float32 z-depth, scene units, 0 = invalid
    valid   (V, H, W)     bool, photometrically valid
    K       (V, 3, 3)     float32 pixels, first pixel centre at 0.5
    c2w     (V, 4, 4)     float32, OpenCV axes
    """

    images: Tensor
    depth: Tensor
    valid: Tensor
    K: Tensor
    c2w: Tensor

    @classmethod
    def of(cls, views: Sequence[View]) -> Views:
        """Views of a scene file, stacked."""
        stacked = {
            name: torch.stack([getattr(view, name) for view in views]) for name in ("depth", "valid", "K", "c2w")
        }
        return cls(images=torch.stack([view.image for view in views]), **stacked)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels"""
        return self.images.shape[-1], self.images.shape[-2]


@dataclass(frozen=True)
class Sample:
    """One episode; in a batch of episodes, see `collate`, each tensor begins with B.

    contexts                    the two views that go in
    targets                     the T views held out
    tokens       (2, n, E)      float32, of the contexts, from the frozen geometry encoder
    features     (2, C, gh, gw) float32, of the contexts, from the backbone; None without one
    true_points  (2, H, W, 3)   of the contexts in the first one's camera frame, NaN without depth; for the oracle alone
    """

    contexts: Views
    targets: Views
    tokens: Tensor
    features: Tensor | None = None
    true_points: Tensor | None = None

    def to(self, device: torch.device | str) -> Sample:
        return each_tensor(lambda tensor: tensor.to(device), self)


def collate(samples: Sequence[Sample]) -> Sample:
    """A batch of samples alike in shape."""
    return each_tensor(lambda *tensors: torch.stack(tensors), *samples)


class Samples(Dataset):
    """Episode number i as a `Sample`."""

    def __init__(
        self,
        scenes: str | Path,
        geometry: Features,
        backbone: Features,
        resolution: tuple[int, int],
        episode: Callable[[int], Episode],
        length: int,
    ):
        self.scenes, self.geometry, self.backbone = Path(scenes), geometry, backbone
        self.resolution, self.episode, self.length = tuple(resolution), episode, length
        self.open = lru_cache(OPEN_FILES)(lambda name: Scene.open(self.scenes / "scenes" / f"{name}.safetensors"))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        episode = self.episode(index)
        scene = self.open(episode.scene)
        contexts, targets = (
            Views.of([scene.view(name, self.resolution) for name in names])
            for names in (episode.contexts, episode.targets)
        )
        return Sample(
            contexts,
            targets,
            self.geometry.read(scene, episode.contexts),
            self.backbone.read(scene, episode.contexts) if self.backbone.channels else None,
            true_points(contexts, scene.id) if self.backbone.true_points else None,
        )


def true_points(contexts: Views, scene: str) -> Tensor:
    """Points (2, H, W, 3) of both contexts in the first one's camera frame, NaN where a pixel has no depth.

    raises    ValueError  when a context has no depth at all
    """
    known = contexts.depth > 0
    if not known.flatten(1).any(1).all():
        raise ValueError(
            f"model.backbone=oracle needs true points, but a context view of scene {scene} has no "
            "depth; choose a dataset with depth, or another backbone."
        )
    return context_points(contexts.depth, contexts.K, contexts.c2w).where(known[..., None], torch.nan)


class StepSampler(Sampler):
    """`length` indices in order from `start`, dealt out in turn to `processes`, each of which takes as many. All but
    `length` is set before each pass: what a step sees depends on its number alone, so a resumed run sees what an
    uninterrupted one would have."""

    def __init__(self, length: int):
        self.length, self.start, self.rank, self.processes = length, 0, 0, 1

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start + self.rank, self.start + self.length * self.processes, self.processes))
