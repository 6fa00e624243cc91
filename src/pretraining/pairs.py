"""Pairs of procedural photographs without end: what the pipelines beside data/bundled train on and measure with.

Scenes are rendered by worker processes ahead of their use. Which scenes are in the pool, and which pairs a batch holds,
follow from numbers and seeds alone, however fast the workers are.
"""

import multiprocessing
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.episodes.overlap import overlap_matrix
from src.geometry.alignment import context_points
from src.pretraining.matching import patch_matches
from src.procedural.scenes import DEPTH_SCALE, generate
from src.reproducible.files import whole_file
from src.reproducible.hashes import module_hashes, params_hash
from src.scenes.crop import PATCH

AHEAD = 24  # scenes rendered before they are asked for
Pairs = dict[str, Tensor]


def render_scene(
    family: str, seed: int, views: int, resolution: list[int], samples: int, bounces: int, path: Path
) -> Path:
    """Worker: one scene as arrays on disk; images uint8 (V, H, W, 3), depths uint16 (V, H, W), K, c2w, overlap."""
    if not path.exists():
        frames = generate(family, seed, views, tuple(resolution), samples, bounces)
        depths = np.stack([frame.depth for frame in frames])
        K, c2w = np.stack([frame.K for frame in frames]), np.stack([frame.c2w for frame in frames])
        overlap = overlap_matrix(*(torch.from_numpy(x) for x in (depths * DEPTH_SCALE, K, c2w)), "metre")
        with whole_file(path) as partial:
            np.savez(
                partial,
                images=np.stack([frame.image for frame in frames]),
                depths=depths,
                K=K,
                c2w=c2w,
                overlap=overlap,
            )
    return path


class PosedImages:
    """One scene as tensors: images (V, 3, H, W) uint8, depth (V, H, W) in metres, 0 = invalid, K (V, 3, 3),
    c2w (V, 4, 4) float64; and pairs (P, 2), the ordered pairs of views that overlap by at least `min_overlap`."""

    def __init__(self, arrays: dict[str, np.ndarray], min_overlap: float, device: torch.device | str = "cpu"):
        overlap = arrays["overlap"]
        self.pairs = np.argwhere((overlap >= min_overlap) & ~np.eye(len(overlap), dtype=bool))
        depth = torch.from_numpy(arrays["depths"].astype(np.float32) * np.float32(DEPTH_SCALE))
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2)
        self.views = {
            "images": images.contiguous().to(device),
            "depth": depth.to(device),
            "K": torch.from_numpy(arrays["K"]).to(device),
            "c2w": torch.from_numpy(arrays["c2w"]).to(device),
        }


class Stream:
    """Scenes 0, 1, 2, ... in a fixed order, alternating between the families, rendered ahead by processes.

    params      the section `stream` of data/bundled/params.yaml
    first_seed  of scene 0
    workers     processes
    folder      where rendered scenes are kept
    """

    def __init__(self, params, first_seed: int, workers: int, folder: Path, device: torch.device | str = "cpu"):
        self.params, self.first_seed, self.folder, self.device = params, first_seed, folder, device
        self.pending, self.scenes = deque(), []
        self.generator = module_hashes("src.procedural.")
        self.executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
        folder.mkdir(parents=True, exist_ok=True)

    def family(self, number: int) -> str:
        return self.params.families[number % len(self.params.families)]

    def submit(self) -> None:
        number = len(self.scenes) + len(self.pending)
        seed = self.first_seed + number
        how = self.params.views, list(self.params.resolution), self.params.samples, self.params.bounces
        path = self.folder / f"{self.family(number)}-{seed}-{params_hash([how, self.generator])}.npz"
        self.pending.append(self.executor.submit(render_scene, self.family(number), seed, *how, path))

    def grow(self, size: int) -> None:
        """Wait until at least `size` scenes are in the pool."""
        while len(self.scenes) < size:
            while len(self.pending) < AHEAD:
                self.submit()
            with np.load(self.pending.popleft().result()) as arrays:
                self.scenes.append(PosedImages(dict(arrays), self.params.min_overlap, self.device))

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)


def gathered(chosen: list[tuple[PosedImages, np.ndarray]]) -> Pairs:
    """Pairs of views (i, j) of scenes: images (B, 2, 3, H, W) in [0, 1], points (B, 2, H, W, 3) in view i's camera frame
    in metres, valid (B, 2, H, W) bool, matches (B, 2, h, w, h, w) of `patch_matches`."""
    views = {
        name: torch.stack([scene.views[name][view] for scene, pair in chosen for view in pair]).unflatten(0, (-1, 2))
        for name in ("images", "depth", "K", "c2w")
    }
    points = context_points(views["depth"].double(), views["K"], views["c2w"]).float()
    matches = patch_matches(views["depth"], views["K"].float(), views["c2w"].float(), PATCH)
    return {"images": views["images"].float() / 255, "points": points, "valid": views["depth"] > 0, "matches": matches}


def mirrored(pairs: Pairs, which: Tensor) -> Pairs:
    """The pairs `which` (B,) bool seen in a mirror: columns reversed, x of camera 1 negated."""
    axes = {"images": [4], "points": [3], "valid": [3], "matches": [3, 5]}
    flipped = {name: tensor.flip(axes[name]) for name, tensor in pairs.items()}
    flipped["points"] = flipped["points"] * flipped["points"].new_tensor([-1, 1, 1])
    return {
        name: torch.where(which.view(-1, *[1] * (tensor.ndim - 1)), flipped[name], tensor)
        for name, tensor in pairs.items()
    }


def recoloured(images: Tensor, rng: np.random.Generator) -> Tensor:
    """One random exposure and tint for both views of each pair (B, 2, 3, H, W): images ** gamma * gain per channel,
    clamped to [0, 1]. Half of the pairs get their channels in a random order first: other materials, the same shapes."""
    count = len(images)
    orders = [rng.permutation(3) if rng.random() < 0.5 else np.arange(3) for _ in range(count)]
    images = torch.stack([pair[:, order.tolist()] for pair, order in zip(images, orders)])
    gain = images.new_tensor(rng.uniform(0.8, 1.2, (count, 1)) * rng.uniform(0.92, 1.08, (count, 3)))
    gamma = images.new_tensor(rng.uniform(0.8, 1.25, count))
    return (images ** gamma.view(-1, 1, 1, 1, 1) * gain.view(-1, 1, 3, 1, 1)).clamp(0, 1)


def draw_pairs(scenes: list[PosedImages], batch_size: int, rng: np.random.Generator) -> Pairs:
    """Augmented pairs of random scenes that have any, as of `gathered`."""
    chosen = []
    while len(chosen) < batch_size:
        scene = scenes[rng.integers(len(scenes))]
        if len(scene.pairs):
            chosen.append((scene, scene.pairs[rng.integers(len(scene.pairs))]))
    pairs = gathered(chosen)
    pairs = mirrored(pairs, torch.from_numpy(rng.random(batch_size) < 0.5).to(pairs["images"].device))
    return pairs | {"images": recoloured(pairs["images"], rng)}
