"""Episodes as tensors: the photographs, depths and cameras of their views, and the cached features of their contexts."""

from functools import lru_cache
from pathlib import Path
from typing import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from src.episodes.episodes import Episode
from src.geometry.alignment import context_points
from src.scenes.features import Features
from src.scenes.scene import Scene

OPEN_FILES = 64  # per process


class Samples(Dataset):
    """Episode number i as a dict of tensors, first the two contexts, then the T targets.

    images (2+T, 3, H, W) [0, 1] · depth (2+T, H, W) 0 = invalid · valid (2+T, H, W) bool · K (2+T, 3, 3) ·
    c2w (2+T, 4, 4) · tokens (2, n, E) of the contexts · features (2, C, gh, gw) of the contexts, absent without a backbone
    · true_points (2, H, W, 3) of the contexts in the first one's frame, NaN without depth; for the oracle alone
    """

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

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        episode = self.episode(index)
        scene = self.open(episode.scene)
        views = [scene.view(name, self.resolution) for name in (*episode.contexts, *episode.targets)]
        sample = {
            key: torch.stack([getattr(view, key) for view in views]) for key in ("image", "depth", "valid", "K", "c2w")
        }
        sample["images"] = sample.pop("image")
        sample["tokens"] = self.geometry.read(scene, episode.contexts)
        if self.backbone.channels:
            sample["features"] = self.backbone.read(scene, episode.contexts)
        if self.backbone.true_points:
            sample["true_points"] = true_points(sample, scene.id)
        return sample


def true_points(sample: dict[str, Tensor], scene: str) -> Tensor:
    """Points (2, H, W, 3) of both contexts in the first one's camera frame, NaN where a pixel has no depth.

    raises    ValueError  when a context has no depth at all
    """
    depth, K, c2w = (sample[key][:2] for key in ("depth", "K", "c2w"))
    known = depth > 0
    if not known.flatten(1).any(1).all():
        raise ValueError(
            f"model.backbone=oracle needs true points, but a context photograph of scene {scene} has no "
            "depth; choose a dataset with depth, or another backbone."
        )
    return context_points(depth, K, c2w).where(known[..., None], torch.nan)


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
