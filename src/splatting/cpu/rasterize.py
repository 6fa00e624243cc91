"""3D Gaussians to images on the CPU, differentiable: the mathematics and thresholds of gsplat 1.5's `rasterization`.

Footprints (project.py), sorted by depth, are dealt to tiles of 16 x 16 pixels (composite.py), which are composited
independently. Views are drawn one after the other; images and gradients are the same bits for any number of threads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.splatting.cpu.composite import Passage, Picture, TileLists, add_rows, composite, composite_backward, deal
from src.splatting.cpu.project import (
    COLUMNS,
    DEPTH,
    GRADIENTS,
    camera_numbers,
    project_backward,
    project_gaussians,
)
from src.splatting.thresholds import TILE

LARGEST = 1 << 24  # Gaussians: positions in a tile's list are held in float32
BLOCK = 1 << 20  # gradient rows held at a time, a bound on memory


@dataclass(frozen=True)
class DrawnView:
    """What the gradient of one view needs again."""

    w2c: np.ndarray
    camera: np.ndarray
    footprints: np.ndarray
    tiles: np.ndarray
    lists: TileLists
    passage: Passage


@contextmanager
def shared_threads() -> Iterator[int]:
    """Let Numba use as many threads as torch does. Its OpenMP layer would leave torch with one per core, and torch's
    results depend on how many it has."""
    before = torch.get_num_threads()
    count = min(before, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


def busiest_first(lengths: np.ndarray) -> np.ndarray:
    return np.argsort(-lengths, kind="stable")


def draw_view(
    gaussians: list[np.ndarray],
    w2c: np.ndarray,
    K: np.ndarray,
    size: tuple[int, int],
    near: float,
    background: np.ndarray,
    workers: int,
    picture: Picture,
) -> DrawnView:
    """Write one view's `picture`; `gaussians` are means, quats, scales, opacities, colours."""
    width, height = size
    columns, rows = -(-width // TILE), -(-height // TILE)
    camera = camera_numbers(K, width, height)
    footprints = np.empty((len(gaussians[0]), COLUMNS), np.float32)
    tiles = np.empty((len(gaussians[0]), 4), np.int32)
    project_gaussians(*gaussians, w2c, camera, width, height, float(np.float32(near)), footprints, tiles)

    visible = np.flatnonzero(tiles[:, 2])
    bits = footprints[visible, DEPTH].view(np.uint32)  # of positive floats: ordered as the floats are
    order = (np.sort(bits.astype(np.uint64) << 32 | visible.astype(np.uint64)) & 0xFFFFFFFF).astype(np.int64)
    lists = deal(order, tiles, columns, rows)

    transmittance, last = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    passage = Passage(transmittance, last, np.empty(columns * rows, np.int64))
    composite(footprints, lists, busiest_first(np.diff(lists.offsets)), workers, background, picture, passage)
    return DrawnView(w2c, camera, footprints, tiles, lists, passage)


def draw_backward(
    view: DrawnView,
    gaussians: list[np.ndarray],
    background: np.ndarray,
    workers: int,
    to_picture: Picture,
    to_gaussians: list[np.ndarray],
) -> None:
    """Add one view's gradients to `to_gaussians` (means, quats, scales, opacities, colours), given its picture's."""
    reached = view.passage.reached
    sums = np.zeros((len(view.tiles), GRADIENTS), np.float32)
    ends, first = np.cumsum(reached), 0
    while first < len(reached):  # as many tiles at a time as BLOCK rows hold, at least one
        done = ends[first] - reached[first]
        last = max(first + 1, int(np.searchsorted(ends, done + BLOCK, "right")))
        starts = np.concatenate([[0], ends]) - done
        rows = np.empty((starts[last], GRADIENTS), np.float32)
        order = first + busiest_first(reached[first:last])
        composite_backward(
            view.footprints, view.lists, order, workers, background, view.passage, to_picture, starts, rows
        )
        add_rows(view.lists, first, last, workers, starts, rows, sums)
        first = last
    means, quats, scales = gaussians[:3]
    project_backward(means, quats, scales, view.w2c, view.camera, view.footprints, view.tiles, sums, *to_gaussians)


def array(tensor: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    return tensor.detach().to(dtype).contiguous().numpy()


class Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, w2c, K, size, near, background):
        shared = [array(tensor) for tensor in (means, quats, scales, opacities)]
        poses, intrinsics, background = array(w2c, torch.float64), array(K, torch.float64), array(background)
        shape = (len(poses), size[1], size[0])
        images, alphas, depths = torch.empty(shape[0], 3, *shape[1:]), torch.empty(shape), torch.empty(shape)
        with shared_threads() as workers:
            ctx.views = [
                draw_view(
                    [*shared, array(colors[v])],
                    poses[v],
                    intrinsics[v],
                    size,
                    near,
                    background,
                    workers,
                    Picture(images[v].numpy(), alphas[v].numpy(), depths[v].numpy()),
                )
                for v in range(len(poses))
            ]
        ctx.background = background
        ctx.save_for_backward(means, quats, scales, opacities, colors)
        return images, alphas, depths

    @staticmethod
    @once_differentiable
    def backward(ctx, *to_outputs):
        inputs = ctx.saved_tensors
        gradients = [torch.zeros(tensor.shape) for tensor in inputs]
        shared, to_shared = [array(tensor) for tensor in inputs[:4]], [gradient.numpy() for gradient in gradients[:4]]
        with shared_threads() as workers:
            for v, view in enumerate(ctx.views):
                draw_backward(
                    view,
                    shared,
                    ctx.background,
                    workers,
                    Picture(*(array(to_output[v]) for to_output in to_outputs)),
                    [*to_shared, gradients[4][v].numpy()],
                )
        return *gradients, None, None, None, None, None


def check_inputs(
    gaussians: dict[str, Tensor], cameras: dict[str, Tensor], width: int, height: int, near: float
) -> None:
    """gaussians, cameras: the tensors of `rasterize` by their names there, those with a gradient and those without.

    raises ValueError when a shape, type, device or range is wrong
    """
    given = gaussians | cameras
    views, count = len(given["w2c"]), len(given["means"])
    wanted = {
        "means": (count, 3),
        "quats": (count, 4),
        "scales": (count, 3),
        "opacities": (count,),
        "colors": (views, count, 3),
        "w2c": (views, 4, 4),
        "K": (views, 3, 3),
        "background": (3,),
    }
    for name, shape in wanted.items():
        if tuple(given[name].shape) != shape:
            raise ValueError(
                f"rasterize: {name} has shape {tuple(given[name].shape)}; with {count} means and {views} "
                f"cameras it must be {shape}."
            )
        if given[name].device.type != "cpu":
            raise ValueError(
                f"rasterize: {name} is on {given[name].device}; this rasteriser takes CPU tensors, "
                "src.splatting.render.render takes either."
            )
    for name, tensor in gaussians.items():
        if tensor.dtype != torch.float32:
            raise ValueError(f"rasterize: {name} is {tensor.dtype}; convert it to torch.float32.")
    if width < 1 or height < 1:
        raise ValueError(f"rasterize: the image is {width} x {height} pixels; both sides must be at least 1.")
    if not near > 0:
        raise ValueError(f"rasterize: near is {near}; it must be greater than 0.")
    if not (given["K"][:, [0, 1], [0, 1]] > 0).all():
        raise ValueError("rasterize: K has a focal length that is not positive; give intrinsics in pixels.")
    if count >= LARGEST:
        raise ValueError(f"rasterize: {count} Gaussians were given; fewer than {LARGEST} fit.")


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    w2c: Tensor,
    K: Tensor,
    width: int,
    height: int,
    near: float,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Images of N Gaussians seen by V cameras, float32, on as many threads as torch uses.

    A Gaussian is not drawn where its centre is nearer than `near`, its opacity below 1/255, its quaternion zero, or its
    centre, shape or opacity not finite; its gradients are then 0. Cameras and background get no gradient.

    means       (N, 3)     scene units
    quats       (N, 4)     wxyz, any non-zero length
    scales      (N, 3)     standard deviations, scene units
    opacities   (N,)       in [0, 1]
    colors      (V, N, 3)  of each Gaussian in each view
    w2c         (V, 4, 4)  world to camera, OpenCV axes, rigid
    K           (V, 3, 3)  pixels, first pixel centre at 0.5; skew is ignored
    width, height          pixels
    near                   scene units, > 0
    background  (3,)       shown where light passes; None is black
    returns     images (V, 3, H, W), not clamped; alphas (V, H, W) in [0, 1); accumulated z-depth (V, H, W), the sum of
                weight times z, scene units
    raises      ValueError when a shape, type, device or range above is wrong
    """
    background = means.new_zeros(3) if background is None else background
    gaussians = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
    check_inputs(gaussians, {"w2c": w2c, "K": K, "background": background}, width, height, near)
    return Rasterize.apply(*gaussians.values(), w2c, K, (width, height), near, background)
