"""How much of what one view shows do other views show too? Measured on a grid of about 32 x 32 pixels per view.

cov(i -> j) is the share of view i's samples that view j sees; it is not symmetric. ov(i, j) is the smaller of both
directions. cov({c} <- t) is the share of target t's samples that at least one context sees.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from src.geometry.cameras import invert_se3, project, transform, unproject, visible
from src.geometry.visibility import depth_tolerance
from src.scenes.reconstruction import Points
from src.scenes.scene import Scene, write_arrays

OVERLAP_SOURCES = ("depth", "sparse", "frustum", "gap")
SAMPLES = 32  # per short side: 1/8 of a 256-pixel image
MIN_VALID = 0.05  # share of a view's samples that must have depth
MIN_DEPTH_FRACTION = 0.1  # share of a scene's frames that must have depth, or its depth is not used
FRUSTUM_DEPTHS = (0.5, 1.0, 2.0)
MAX_SEEN = 2**28  # views * views * points; of more points, every so many-th is taken
SAME_SHARE = 0.01  # by which two measurements of one coverage may differ, on another machine
PARALLEL = 1e-4  # conditioning of the focus point below which optical axes count as parallel


class OverlapError(ValueError):
    """An overlap file that does not fit its scene."""


@dataclass(frozen=True, eq=False)
class Covisibility:
    """Which samples of V views are seen in which other views; n samples per view, packed eight to a byte.

    source    what it was measured from, one of SOURCES; `gap` = nothing to measure, no samples
    names     the V frames, in scene order
    usable    (V,)          int64  usable samples of each view; 0 where too few to say anything
    coverage  (V, V)        float16  [i, j] = cov(i -> j); row 0 where nothing is usable
    seen      (V, V, n/8)   uint8  seen[j, i]: samples of view i that view j sees; may be an unread slice of a file
    weight    (V, V)        float32  weight[j, i] in [0, 1] multiplies what j sees of i
    """

    source: str
    names: tuple[str, ...]
    usable: np.ndarray
    coverage: np.ndarray
    seen: np.ndarray
    weight: np.ndarray

    @property
    def overlap(self) -> np.ndarray:
        """(V, V) float64, symmetric: ov(i, j) = min(cov(i -> j), cov(j -> i))."""
        return np.minimum(self.coverage, self.coverage.T).astype(np.float64)

    def union_coverage(self, a: int, b: int) -> np.ndarray:
        """(V,) float64: cov({a, b} <- t) for every view t."""
        bits_a, bits_b, weight_a, weight_b = self.seen[a], self.seen[b], self.weight[a], self.weight[b]
        both, only_a, only_b = (
            np.bitwise_count(bits).sum(-1, dtype=np.int64)
            for bits in (bits_a & bits_b, bits_a & ~bits_b, bits_b & ~bits_a)
        )
        return shares(only_a * weight_a + only_b * weight_b + both * np.maximum(weight_a, weight_b), self.usable)


def shares(counts: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """counts (..., V) as shares of the usable samples (V,), 0 where there are none."""
    return np.where(usable > 0, counts / np.maximum(usable, 1), 0)


def from_samples(
    source: str, names: tuple[str, ...], valid: np.ndarray, seen: np.ndarray, weight: np.ndarray | None = None
) -> Covisibility:
    """valid (V, n) bool; seen (V, V, n) bool, [j, i] = samples of i that j sees (invalid ones are dropped here)."""
    views, n = valid.shape
    weight = np.ones((views, views), np.float32) if weight is None else weight.astype(np.float32)
    usable = valid.sum(-1, dtype=np.int64)
    if source == "depth":
        usable[usable < MIN_VALID * n] = 0
    seen = seen & valid
    coverage = shares(seen.sum(-1) * weight, usable).T.astype(np.float16)
    return Covisibility(source, tuple(names), usable, coverage, np.packbits(seen, -1), weight)


def nothing_to_measure(names: tuple[str, ...]) -> Covisibility:
    """Neither depth, nor points, nor converging cameras: views are chosen in capture order."""
    return from_samples("gap", names, np.zeros((len(names), 0), bool), np.zeros((len(names), len(names), 0), bool))


def sample_grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column numbers of the centre pixels of a regular grid with about SAMPLES per short side."""
    step = max(1, min(height, width) // SAMPLES)
    return torch.arange(step // 2, height, step), torch.arange(step // 2, width, step)


def depth_covisibility(depths: Tensor, K: Tensor, c2w: Tensor, units: str, names: tuple[str, ...] = ()) -> Covisibility:
    """Measured by carrying sampled surface points into the other views and comparing with the depth stored there.

    depths  (V, H, W)  z-depth, 0 = invalid;  K (V, 3, 3);  c2w (V, 4, 4)
    units   metre: depths agree within 0.1 m; scene: within 5 % of the point's depth
    """
    depths, K, c2w = torch.as_tensor(depths), torch.as_tensor(K).double(), torch.as_tensor(c2w).double()
    rows, columns = sample_grid(*depths.shape[1:])
    points = torch.stack(
        [
            transform(pose, unproject(depth.double(), camera)[rows[:, None], columns]).flatten(0, 1)
            for depth, camera, pose in zip(depths, K, c2w)
        ]
    )  # (V, n, 3)
    valid = (depths[:, rows[:, None], columns] > 0).flatten(1)
    tolerance, relative = depth_tolerance(units == "metre")
    seen = [visible(points.flatten(0, 1), *view, tolerance, relative).view(valid.shape) for view in zip(depths, K, c2w)]
    return from_samples("depth", names or tuple(map(str, range(len(K)))), valid.numpy(), torch.stack(seen).numpy())


def overlap_matrix(depths: Tensor, K: Tensor, c2w: Tensor, units: str) -> np.ndarray:
    """(V, V) float64 in [0, 1]: ov(i, j) of views with depth; arguments as in `depth_covisibility`."""
    return depth_covisibility(depths, K, c2w, units).overlap


def in_image(points: Tensor, K: Tensor, c2w: Tensor, size: tuple[int, int]) -> Tensor:
    """Which world points (n, 3) lie in front of a camera and inside its image of `size` (W, H); (n,) bool."""
    points = transform(invert_se3(c2w), points)
    pixels = project(points, K)
    return (points[:, 2] > 0) & ((pixels >= 0) & (pixels < pixels.new_tensor(size))).all(-1)


def sparse_covisibility(
    points: Tensor,
    K: Tensor,
    c2w: Tensor,
    size: tuple[int, int],
    names: tuple[str, ...],
    observed: Tensor | None = None,
) -> Covisibility:
    """Measured on the reconstruction's points (P, 3) in world coordinates: with `observed` (V, P) bool by the tracks,
    without it by projection into the images of `size` (W, H)."""
    points, K, c2w = (torch.as_tensor(array).double() for array in (points, K, c2w))
    if observed is None:
        observed = torch.stack([in_image(points, *view, size) for view in zip(K, c2w)])
    valid = torch.as_tensor(observed).numpy()
    seen = np.broadcast_to(valid[:, None], (len(valid), *valid.shape))
    return from_samples("sparse", names, valid, seen)


def focus_point(c2w: Tensor) -> Tensor | None:
    """The point nearest to all optical axes in the least-squares sense; None when the axes are (almost) parallel."""
    centres, axes = c2w[:, :3, 3], c2w[:, :3, 2]
    across = torch.eye(3, dtype=c2w.dtype) - axes[:, :, None] * axes[:, None]  # projectors onto the axes' normal planes
    normal = across.mean(0)
    if torch.linalg.eigvalsh(normal)[0] < PARALLEL:
        return None
    return torch.linalg.solve(normal, (across @ centres[..., None]).mean(0)[:, 0])


def frustum_covisibility(K: Tensor, c2w: Tensor, size: tuple[int, int], names: tuple[str, ...]) -> Covisibility | None:
    """Guessed from cameras alone: a 16 x 16 grid of rays at half, once and twice the distance of the point everybody
    looks at, weighted by the cosine between the optical axes. None when the axes are parallel."""
    K, c2w = (torch.as_tensor(array).double() for array in (K, c2w))
    if (focus := focus_point(c2w)) is None:
        return None
    cells = torch.diag(torch.tensor([16 / size[0], 16 / size[1], 1], dtype=torch.float64))
    rays = unproject(torch.ones(len(K), 16, 16, dtype=torch.float64), cells @ K).flatten(1, 2)  # (V, 256, 3), z = 1
    distances = (c2w[:, :3, 3] - focus).norm(dim=-1)
    points = torch.cat([rays * (factor * distances)[:, None, None] for factor in FRUSTUM_DEPTHS], 1)
    points = transform(c2w, points)
    valid = np.ones(points.shape[:2], bool)
    seen = torch.stack([in_image(points.flatten(0, 1), *view, size).view(valid.shape) for view in zip(K, c2w)])
    axes = c2w[:, :3, 2]
    return from_samples("frustum", names, valid, seen.numpy(), (axes @ axes.mT).clamp(0, 1).numpy())


def covisibility(scene: Scene, resolution: tuple[int, int], points: Callable[[], Points] | None = None) -> Covisibility:
    """Of a scene's views at `resolution` (W, H), the best measure it allows: its depth, else the reconstruction's
    points, else its cameras, else none."""
    names = tuple(scene.names)
    cameras = np.stack([scene.camera(name, resolution) for name in names]), scene.c2w
    if scene.depth_fraction >= MIN_DEPTH_FRACTION:
        depths = torch.stack([scene.depth(name, resolution) for name in names])
        return depth_covisibility(depths, *cameras, scene.units, names)
    if points is not None and len((known := points()).xyz):
        step = max(1, math.ceil(len(known.xyz) * len(names) ** 2 / MAX_SEEN))
        table = known.table(scene.names)
        return sparse_covisibility(
            known.xyz[::step], *cameras, resolution, names, None if table is None else table[:, ::step]
        )
    return frustum_covisibility(*cameras, resolution, names) or nothing_to_measure(names)


def overlap_findings(overlap: Covisibility, scene: Scene, resolution: tuple[int, int]) -> list[str]:
    """What is wrong with the overlap that was written down for a scene at `resolution` (W, H): by its own samples, and by
    those that the scene's depth or cameras give again; a reconstruction's points are not at hand for that."""
    names, counts = overlap.names, np.bitwise_count(overlap.seen[:]).sum(-1, dtype=np.int64)
    own = shares(counts * overlap.weight, overlap.usable).T
    found = (
        []
        if np.abs(own - overlap.coverage).max(initial=0) < SAME_SHARE
        else ["its coverage is not that of its samples"]
    )
    if overlap.source == "sparse":
        return found
    again = covisibility(scene, resolution)
    if again.source != overlap.source:
        return [*found, f"it says that it was measured by {overlap.source}, but the scene gives {again.source}"]
    off = np.abs(again.coverage.astype(np.float64) - overlap.coverage)
    if off.max(initial=0) >= SAME_SHARE:
        first, second = np.unravel_index(off.argmax(), off.shape)
        found.append(
            f"it says that {names[second]} shows {overlap.coverage[first, second]:.3f} of {names[first]}, but it shows "
            f"{again.coverage[first, second]:.3f}"
        )
    return found


def write_overlap(path: str | Path, overlap: Covisibility, scene_sha256: str) -> None:
    """One safetensors file for the scene whose file has that SHA-256."""
    about = {"source": overlap.source, "names": overlap.names, "scene_sha256": scene_sha256}
    arrays = {key: getattr(overlap, key) for key in ("usable", "coverage", "seen", "weight")}
    write_arrays(path, arrays, "overlap", about)


def read_overlap(path: str | Path, names: list[str], scene_sha256: str) -> Covisibility:
    """What `write_overlap` wrote, the samples left on disk until a pair is asked about.

    raises    FileNotFoundError; OverlapError when it belongs to another scene file, other frames, or makes no sense
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run dvc repro prepare.")
    try:
        file = safe_open(path, framework="numpy")
        about = json.loads(file.metadata()["overlap"])
        usable, coverage, weight = (file.get_tensor(key) for key in ("usable", "coverage", "weight"))
        overlap = Covisibility(about["source"], tuple(about["names"]), usable, coverage, file.get_slice("seen"), weight)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise OverlapError(f"{path} is not an overlap file ({error!r}); run dvc repro prepare.") from error
    if about["scene_sha256"] != scene_sha256 or list(overlap.names) != list(names):
        raise OverlapError(f"{path} was measured on another version of its scene; run dvc repro prepare.")
    check_coverage(overlap.coverage, len(names), str(path))
    return overlap


def check_coverage(coverage: np.ndarray, views: int, where: str) -> None:
    """raises OverlapError unless coverage is (views, views) with all values in [0, 1]"""
    if coverage.shape != (views, views):
        raise OverlapError(f"{where}: the coverage matrix is {coverage.shape}, but the scene has {views} frames.")
    if not ((coverage >= 0) & (coverage <= 1)).all():  # false for NaN
        raise OverlapError(f"{where}: the coverage matrix holds values outside [0, 1].")
