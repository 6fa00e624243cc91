"""PlayCanvas's compressed PLY: 16 bytes a Gaussian, and a byte for each higher SH coefficient.

The element `chunk` holds bounds for each 256 Gaussians, `vertex` four words of 32 bits a Gaussian, `sh` the bytes.
gsplat writes it; https://api.playcanvas.com/splat-transform documents it.
"""

import re
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from src.renders.ply import columns, higher_bands, vertex_table
from src.reproducible.files import write_whole
from src.splatting.gaussians import Gaussians
from src.splatting.sh import rgb_to_dc

SPLATS_OF_A_CHUNK = 256  # Gaussians
AXES, LOG_SCALES, CHANNELS = ("x", "y", "z"), ("scale_x", "scale_y", "scale_z"), ("r", "g", "b")
WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
THREE = (11, 10, 11)  # bits of three numbers in a word
SH_RANGE = 4.0  # bytes span -4 to 4


def write_compressed_ply(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians by gsplat: rounded and reordered, without those of an opacity up to 1/255.

    raises ValueError when none is left
    """
    if not (gaussians.opacities > 1 / 255).any():
        raise ValueError(
            f"All Gaussians are too faint to be written to {path} (opacity up to 1/255); name a .ply file."
        )
    from gsplat import export_splats  # here, as it takes seconds

    g = gaussians.detach().to("cpu", torch.float32)
    logits, log_scales, quats = torch.from_numpy(vertex_table(gaussians)[:, -8:].astype(np.float32)).split([1, 3, 4], 1)
    data = export_splats(g.means, log_scales, quats, logits[:, 0], g.sh[:, :1], g.sh[:, 1:], "ply_compressed")
    # without view-dependent colour gsplat announces an element that has no properties, which viewers do not know
    write_whole(path, re.sub(rb"element sh \d+\nend_header", b"end_header", data, count=1))


def is_compressed(ply: PlyData) -> bool:
    return "chunk" in ply and {each.name for each in ply["vertex"].properties} >= set(WORDS)


def unit_numbers(words: np.ndarray, *bits: int) -> Tensor:
    """(N, len(bits)) float32 in [0, 1]: unsigned numbers of so many bits, the first in the highest, of their maximum."""
    found, shift = [], sum(bits)
    for width in bits:
        shift -= width
        found.append((words.astype(np.int64) >> shift) % 2**width / (2**width - 1))
    return torch.from_numpy(np.stack(found, -1).astype(np.float32))


def quaternions(words: np.ndarray) -> Tensor:
    """(N, 4) wxyz of unit length: two bits name the largest number, the other three follow in 10 bits each; they span
    -1/sqrt(2) to 1/sqrt(2), and the largest is positive."""
    others = (unit_numbers(words, 10, 10, 10) - 0.5) * 2**0.5  # (N, 3)
    largest = (1 - others.square().sum(-1, keepdim=True)).clamp_min(0).sqrt()  # (N, 1)
    place = torch.from_numpy((words >> 30).astype(np.int64))[:, None]  # (N, 1)
    numbers = torch.arange(4)
    sources = torch.where(numbers == place, 3, numbers - (numbers > place).long())  # (N, 4)
    return torch.cat([others, largest], -1).gather(-1, sources)


def between(chunks: PlyElement, names: tuple[str, ...], found: Tensor, path: str | Path) -> Tensor:
    """(N, 3) shares of the way from the chunk's lower bounds to its upper ones."""
    low, high = (columns(chunks, [f"{end}_{name}" for name in names], path) for end in ("min", "max"))
    own = torch.arange(len(found)) // SPLATS_OF_A_CHUNK
    return low[own] + (high - low)[own] * found


def unpacked_gaussians(ply: PlyData, path: str | Path) -> Gaussians:
    """Gaussians of an opened compressed file.

    raises ValueError when it lacks chunks, a property of them, or higher SH coefficients of some Gaussians
    """
    vertex, chunks = ply["vertex"], ply["chunk"]
    if len(chunks) < (wanted := -(-len(vertex) // SPLATS_OF_A_CHUNK)):
        raise ValueError(
            f"{path} has {len(chunks)} chunks where its {len(vertex)} Gaussians need {wanted}; export it again."
        )
    positions, rotations, scales, colours = (np.asarray(vertex[name]).astype(np.uint32) for name in WORDS)
    rgba = unit_numbers(colours, 8, 8, 8, 8)
    coloured = any(each.name == "min_r" for each in chunks.properties)  # older files: colours are in [0, 1] as they are
    rgb = between(chunks, CHANNELS, rgba[:, :3], path) if coloured else rgba[:, :3]
    sh = rgb_to_dc(rgb)[:, None]  # (N, 1, 3)
    if "sh" in ply and ply["sh"].properties:
        sh = torch.cat([sh, bands(ply["sh"], len(vertex), path)], 1)
    return Gaussians(
        means=between(chunks, AXES, unit_numbers(positions, *THREE), path),
        quats=quaternions(rotations),
        scales=between(chunks, LOG_SCALES, unit_numbers(scales, *THREE), path).exp(),
        opacities=rgba[:, 3],
        sh=sh,
    )


def bands(element: PlyElement, count: int, path: str | Path) -> Tensor:
    """(N, d - 1, 3) higher SH coefficients: the middles of the steps that the bytes name, and the very ends."""
    if len(element) != count:
        raise ValueError(
            f"{path} has SH coefficients of {len(element)} Gaussians where it holds {count}; export it again."
        )
    steps = higher_bands(element, path)
    share = torch.where(steps == 0, 0.0, torch.where(steps == 255, 1.0, (steps + 0.5) / 256))
    return (2 * share - 1) * SH_RANGE
