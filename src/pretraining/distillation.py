"""What distilling a backbone consists of: crops of images, a linear map between features, a loss, scores.

The student's patch features, linearly projected to the teacher's width, approach the teacher's, which are standardised
per channel (Shang et al. 2024, Theia, arXiv 2407.20179), in direction and in value: 0.9 (1 - cosine) + 0.1 smooth L1
(Ranzinger et al. 2024, AM-RADIO, arXiv 2312.06709).
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, smooth_l1_loss

from src.backbones.base import resize
from src.mast3r.attention import Grid
from src.scenes.scene import Scene, read_index

RIDGE = 1e-4  # of the linear map, as a share of the mean variance of what it maps
COSINE, SMOOTH = 0.9, 0.1  # weights of the loss's parts


class SplitImages:
    """All images of a split (3, H, W) in [0, 1], at their stored size.

    raises    ValueError  when the split has none
    """

    def __init__(self, scenes: Path, split: str):
        records = [record for record in read_index(scenes) if record.split == split]
        opened = [Scene.open(scenes / record.file, record.sha256) for record in records]
        self.places = [(scene, name) for scene in opened for name in scene.names]
        if not self.places:
            raise ValueError(f"{scenes} has no images of split {split}, which distillation needs.")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        scene, name = self.places[index]
        return torch.tensor(scene.frame(name).image).permute(2, 0, 1) / 255

    def spread(self, count: int) -> list[int]:
        """Indices of at most `count` of them, evenly spread."""
        return np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)).tolist()


def cropped(image: Tensor, grid: Grid, min_area: float, rng: np.random.Generator) -> Tensor:
    """A random window (3, h, w) of an image, as wide for its height as the grid, in one of two cases mirrored.

    min_area  share of the largest such window's area; the size is drawn from there up to all of it
    """
    height, width = image.shape[1:]
    unit = min(height / grid[0], width / grid[1]) * math.sqrt(rng.uniform(min_area, 1))
    h, w = (max(1, math.floor(unit * cells)) for cells in grid)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    window = image[:, top : top + h, left : left + w]
    return window.flip(2) if rng.random() < 0.5 else window


def draw_crops(
    images: SplitImages, count: int, cells: list[int], min_area: float, patch: int, rng: np.random.Generator
) -> tuple[Tensor, Grid]:
    """Crops of `count` images (count, 3, patch gh, patch gw), and the grid (gh, gw) that was drawn for all of them
    from cells[0] to cells[1] patches per side."""
    grid = tuple(int(side) for side in rng.integers(cells[0], cells[1] + 1, 2))
    windows = [cropped(images[index], grid, min_area, rng) for index in rng.integers(len(images), size=count)]
    sides = grid[0] * patch, grid[1] * patch
    return torch.cat([resize(window[None], sides) for window in windows]).clamp(0, 1), grid


def patch_rows(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B h w, C)"""
    return maps.flatten(2).mT.flatten(0, 1)


class Head(nn.Module):
    """Linear map from a student's features to a teacher's standardised ones: (value - mean) / std of each channel.

    projection  linear, student's channels -> teacher's · mean, std (teacher's channels,)
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.projection = nn.Linear(inputs, outputs)
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("std", torch.ones(outputs))

    def forward(self, student: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs), standardised"""
        return self.projection(student)

    def target(self, teacher: Tensor) -> Tensor:
        """(N, outputs) -> (N, outputs), standardised"""
        return (teacher - self.mean) / self.std

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """The teacher's statistics, and the least-squares map with a slight ridge, from pairs of features (N, inputs)
        and (N, outputs), in one pass over them."""
        width, count, total, products = self.projection.in_features, 0, 0, 0
        for student, teacher in pairs:
            both = torch.cat([student, teacher], 1).double()
            count, total, products = count + len(both), total + both.sum(0), products + both.mT @ both
        mean = total / count
        covariance = products / count - mean.outer(mean)
        self.mean.copy_(mean[width:])
        self.std.copy_(covariance.diag()[width:].clamp(min=0).sqrt() + 1e-6)  # a constant channel has none
        within = covariance[:width, :width]
        within = within + RIDGE * within.diag().mean() * torch.eye(width, dtype=within.dtype, device=within.device)
        weight = torch.linalg.solve(within, covariance[:width, width:] / self.std).mT
        self.projection.weight.copy_(weight)
        self.projection.bias.copy_(-weight @ mean[:width])


def agreement_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Of standardised features, both (N, C)."""
    cosine = cosine_similarity(predicted, target).mean()
    return COSINE * (1 - cosine) + SMOOTH * smooth_l1_loss(predicted, target)


def mean_scores(
    pairs: Iterable[tuple[Tensor, Tensor]], predictors: dict[str, Callable[[Tensor], Tensor]]
) -> dict[str, dict[str, float]]:
    """How well each predictor(student's features) meets the teacher's standardised ones, both (N, C), a mean over the
    patches of all pairs: squared_error in units of a channel's variance, and cosine, 0 where nothing is predicted."""
    sums, count = {name: torch.zeros(2, dtype=torch.float64) for name in predictors}, 0
    for student, target in pairs:
        count += len(target)
        for name, predict in predictors.items():
            predicted = predict(student)
            sums[name] += (
                torch.stack([(predicted - target).square().mean(1).sum(), cosine_similarity(predicted, target).sum()])
                .double()
                .cpu()
            )
    return {name: dict(zip(("squared_error", "cosine"), (total / count).tolist())) for name, total in sums.items()}
