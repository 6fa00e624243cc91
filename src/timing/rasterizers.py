"""The CPU rasteriser against vectorised torch with autograd: the same Gaussians, the same run, taking turns.

`python -m src.benchmark --rasterizer` prints it.
"""

import time

import numba
import psutil
import torch
from torch import Tensor

from src.geometry.cameras import pixel_centres, unproject
from src.splatting import reference
from src.splatting.cpu import rasterize
from src.splatting.render import NEAR
from src.splatting.thresholds import TILE
from src.timing.measure import hardware

SIDES = (112, 224, 512)
REPEATS = {112: 7, 224: 5, 512: 3}
BYTES_PER_PAIR = 4 * 14  # float32 numbers that autograd keeps per pixel and touching Gaussian in rasterize_torch


def scene(side: int, spread: float = 1.0) -> tuple:
    """Arguments of `rasterize`: 2 side^2 Gaussians on a wavy surface as two images would give them, one per pixel
    each, `spread` pixels wide, seen from the first image's place."""
    g = torch.Generator().manual_seed(0)
    K = torch.tensor([[1.1 * side, 0, side / 2], [0, 1.1 * side, side / 2], [0, 0, 1]])
    x, y = pixel_centres(side, side, K).unbind(-1)
    depth = 2 + 0.5 * torch.sin(6 * x / side) + 0.3 * torch.cos(9 * y / side)
    first = unproject(depth, K).reshape(-1, 3)
    second = first + 0.7 * first[:, 2:] / K[0, 0] * torch.randn(first.shape, generator=g)  # not on the first's pixels
    means, count = torch.cat([first, second]), 2 * side * side
    scales = means[:, 2:] * spread / K[0, 0] * torch.exp(0.4 * torch.randn(count, 3, generator=g))
    return (
        means,
        torch.randn(count, 4, generator=g),
        scales,
        torch.rand(count, generator=g),
        torch.rand(1, count, 3, generator=g),
        torch.eye(4)[None],
        K[None],
        side,
        side,
        NEAR,
    )


def forward_and_backward(rasterize, arguments: tuple, weights: list[Tensor]) -> tuple[float, float, list[Tensor]]:
    """Milliseconds of each, and the gradients."""
    inputs = [tensor.requires_grad_() for tensor in arguments[:5]]
    start = time.perf_counter()
    outputs = rasterize(*inputs, *arguments[5:])
    middle = time.perf_counter()
    gradients = torch.autograd.grad(outputs, inputs, weights)
    return 1000 * (middle - start), 1000 * (time.perf_counter() - middle), list(gradients)


def intersections(arguments: tuple) -> int:
    """Pairs of a Gaussian and a tile that its footprint touches, in the first view."""
    images, _, _ = rasterize.rasterize(*(tensor.requires_grad_() for tensor in arguments[:5]), *arguments[5:])
    return len(images.grad_fn.views[0].lists.ids)


def same_bits(arguments: tuple, weights: list[Tensor]) -> bool | None:
    """Whether one thread and two give the same pictures and gradients to the last bit; None without a second thread."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        return None
    before, results = torch.get_num_threads(), []
    inputs = [tensor.requires_grad_() for tensor in arguments[:5]]
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            outputs = rasterize.rasterize(*inputs, *arguments[5:])
            results.append([*outputs, *torch.autograd.grad(outputs, inputs, weights)])
    finally:
        torch.set_num_threads(before)
    return all(torch.equal(a, b) for a, b in zip(*results))


def disagreement(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest relative distance of a gradient from its twin."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs))


def median(rows: list[tuple], column: int) -> float:
    return float(torch.tensor([row[column] for row in rows], dtype=torch.float64).median())


def timed_line(side: int, spread: float = 1.0, against_torch: bool = True) -> str:
    """A line of the table: medians of calls that took turns, ours after a warm-up."""
    arguments, count = scene(side, spread), 2 * side * side
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(shape, generator=g) for shape in ((1, 3, side, side), (1, side, side), (1, side, side))]
    pairs = intersections(arguments)
    fits = pairs * TILE**2 * BYTES_PER_PAIR < 0.6 * psutil.virtual_memory().available
    ours, theirs = [], []
    forward_and_backward(rasterize.rasterize, arguments, weights)
    for _ in range(REPEATS[side]):
        ours.append(forward_and_backward(rasterize.rasterize, arguments, weights))
        if fits and against_torch:
            theirs.append(forward_and_backward(reference.rasterize, arguments, weights))
    fast = median(ours, 0), median(ours, 1)
    line = (
        f"{side:4d}  {count:9d}  {spread:6g}  {pairs:13d}  {fast[0]:7.1f}  {fast[1]:8.1f}  "
        f"{1e6 * sum(fast) / pairs:5.0f}"
    )
    line += f"  { ({True: 'same', False: 'DIFFERENT', None: '-'}[same_bits(arguments, weights)]):>9}"
    if not against_torch:
        return line
    if not theirs:
        return f"{line}  (torch not run: autograd would keep about {pairs * 256 * BYTES_PER_PAIR / 2**30:.0f} GiB)"
    slow = median(theirs, 0), median(theirs, 1)
    return (
        f"{line}  {slow[0]:10.0f}  {slow[1]:10.0f}  {sum(slow) / sum(fast):7.1f}x  "
        f"{disagreement(ours[-1][2], theirs[-1][2]):.0e}"
    )


def main() -> None:
    found = hardware()
    print(
        f"{found['cpu']}, {found['cpu_cores']} cores, {found['threads']} threads; medians in ms; spread: pixels per "
        "standard deviation; ns: forward + backward per intersection; bits: of 1 and 2 threads\n"
        "side  Gaussians  spread  intersections  forward  backward     ns       bits   torch fwd   torch bwd  "
        "speed-up  gradients differ"
    )
    for side in SIDES:
        print(timed_line(side), flush=True)
    for spread in (0.5, 2.0, 4.0):  # the time grows with the intersections
        print(timed_line(224, spread, against_torch=False), flush=True)
