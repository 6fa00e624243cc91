"""3D Gaussian Splatting's PLY file, which every splat viewer opens. Logits and logarithms live here alone."""

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyListProperty, PlyParseError
from torch import Tensor

from src.reproducible.files import whole_file
from src.splatting.gaussians import SH_COEFFICIENTS, Gaussians

EDGE = 1e-7  # opacities are kept this far from 0 and 1, where the logit is infinite
TINY_SCALE = 1e-12  # scene units; a scale of 0 has no logarithm


def property_names(num_coefficients: int) -> list[str]:
    """Vertex properties in file order, for d SH coefficients per colour; all of them float32."""
    rest = [f"f_rest_{i}" for i in range(3 * (num_coefficients - 1))]
    before, after = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2", "opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    return [*before.split(), *rest, *after.split()]


def vertex_table(gaussians: Gaussians) -> np.ndarray:
    """(N, properties) float32 in the order of `property_names`   (Kerbl et al. 2023, the reference implementation).

    Normals are 0; f_rest holds all of red, then green, then blue; opacity is a logit, scales natural logarithms,
    rotation wxyz of unit length.
    """
    if gaussians.opacities.ndim != 1:
        raise ValueError(
            f"A PLY file holds one set of Gaussians; got a batch of shape "
            f"{tuple(gaussians.opacities.shape)}, so index it first."
        )
    g = gaussians.detach().to("cpu", torch.float64)
    table = torch.cat(
        [
            g.means,
            torch.zeros_like(g.means),
            g.sh[:, 0],
            g.sh[:, 1:].mT.flatten(1),
            torch.logit(g.opacities, eps=EDGE)[:, None],
            g.scales.clamp_min(TINY_SCALE).log(),
            torch.nn.functional.normalize(g.quats, dim=-1),
        ],
        -1,
    )
    return table.numpy().astype("<f4")


def write_ply(path: str | Path, gaussians: Gaussians) -> None:
    """Write N Gaussians as binary little-endian PLY; coordinates and units stay those of `gaussians`.

    An existing file is replaced only once the new one is complete.
    """
    table = vertex_table(gaussians)
    rows = np.empty(len(table), [(name, "<f4") for name in property_names(gaussians.sh.shape[-2])])
    for column, name in zip(table.T, rows.dtype.names):
        rows[name] = column
    with whole_file(path) as partial:
        PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(partial)


def open_ply(path: str | Path) -> PlyData:
    """A PLY file of any kind: ascii or binary, of either byte order, with any elements, one of them `vertex`.

    raises ValueError when it is no such file, or is cut short
    """
    try:
        ply = PlyData.read(path)
    except (PlyParseError, ValueError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path} is no whole PLY file ({error}); export it again.") from error
    if "vertex" not in ply:
        found = ", ".join(element.name for element in ply.elements) or "none"
        raise ValueError(f"{path} must hold the PLY element vertex; its elements are: {found}.")
    return ply


def columns(element: PlyElement, names: list[str], path: str | Path) -> Tensor:
    """(N, names) float32 of numeric properties of any type.

    raises ValueError when one is missing, or is a list
    """
    single = {each.name for each in element.properties if not isinstance(each, PlyListProperty)}
    if missing := [name for name in names if name not in single]:
        raise ValueError(
            f"{path} lacks the {element.name} properties {', '.join(missing)}; it is not a 3DGS PLY file, so export "
            "it as one."
        )
    table = np.empty((element.count, len(names)), np.float32)
    with np.errstate(over="ignore"):  # doubles beyond float32 become infinite, as other readers have them
        for number, name in enumerate(names):
            table[:, number] = element[name]
    return torch.from_numpy(table)


def higher_bands(element: PlyElement, path: str | Path) -> Tensor:
    """(N, d - 1, 3) of the properties f_rest_0, f_rest_1, ... of an element: all of red, then green, then blue.

    raises ValueError when their number is that of no degree up to 3
    """
    count = sum(each.name.startswith("f_rest_") for each in element.properties)
    if count not in [3 * (d - 1) for d in SH_COEFFICIENTS]:
        raise ValueError(
            f"{path} has {count} f_rest properties; spherical harmonics of degree 0 to 3 have 0, 9, 24 or 45."
        )
    return columns(element, [f"f_rest_{i}" for i in range(count)], path).unflatten(-1, (3, count // 3)).mT


def gaussians_of(ply: PlyData, path: str | Path) -> Gaussians:
    """What `read_ply` returns, of an opened file."""
    vertex = ply["vertex"]
    names = [name for name in property_names(1) if name not in ("nx", "ny", "nz")]
    means, dc, logits, log_scales, quats = columns(vertex, names, path).split([3, 3, 1, 3, 4], -1)
    return Gaussians(
        means, quats, log_scales.exp(), logits[:, 0].sigmoid(), torch.cat([dc[:, None], higher_bands(vertex, path)], 1)
    )


def read_ply(path: str | Path) -> Gaussians:
    """Gaussians of a 3DGS PLY file, whatever else it holds; numbers that are not finite are handed on.

    raises ValueError when the file is no PLY, lacks a property, or is cut short
    """
    return gaussians_of(open_ply(path), path)
