"""3D Gaussian Splatting's PLY files, which every splat viewer opens, and the smaller files that gsplat makes of them.
Logits and logarithms live here alone."""

import re
from pathlib import Path

import numpy as np
import torch

from src.reproducible.files import write_whole
from src.splatting.gaussians import SH_COEFFICIENTS, Gaussians

# endings of the formats that gsplat writes, under its names: 32 bytes a Gaussian, and 16 in PlayCanvas's quantised form
COMPRESSED = {".splat": "splat", ".compressed.ply": "ply_compressed"}
HEADER_BYTES = 65536  # a 3DGS header has about 1,500
EDGE = 1e-7  # opacities are kept this far from 0 and 1, where the logit is infinite
TINY_SCALE = 1e-12  # scene units; a scale of 0 has no logarithm


def property_names(num_coefficients: int) -> list[str]:
    """Vertex properties in file order, for d SH coefficients per colour; all of them float32."""
    rest = [f"f_rest_{i}" for i in range(3 * (num_coefficients - 1))]
    return [
        "x",
        "y",
        "z",
        "nx",
        "ny",
        "nz",
        "f_dc_0",
        "f_dc_1",
        "f_dc_2",
        *rest,
        "opacity",
        "scale_0",
        "scale_1",
        "scale_2",
        "rot_0",
        "rot_1",
        "rot_2",
        "rot_3",
    ]


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
    names = property_names(gaussians.sh.shape[-2])
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(table)}",
        *(f"property float {name}" for name in names),
        "end_header",
    ]
    write_whole(path, "\n".join(header).encode("ascii") + b"\n" + table.tobytes())


def check_ending(path: str | Path) -> str:
    """The format that the ending of a file's name asks for: ply, or gsplat's name of a compressed one.

    raises    ValueError  for other endings
    """
    for ending, name in (COMPRESSED | {".ply": "ply"}).items():
        if str(path).lower().endswith(ending):
            return name
    raise ValueError(f"{path} must end in .ply, {' or '.join(COMPRESSED)}; the ending says which format is meant.")


def write_splats(path: str | Path, gaussians: Gaussians) -> None:
    """Write N Gaussians in the format of the file's ending: .ply as `write_ply`; by gsplat, rounded and reordered,
    .splat (without view-dependent colour) or .compressed.ply (without Gaussians fainter than 1/255).

    raises    ValueError  for other endings, and for a compressed file of no Gaussians
    """
    if (name := check_ending(path)) == "ply":
        return write_ply(path, gaussians)
    if not len(gaussians):
        raise ValueError(f"There is no Gaussian to write to {path}; an empty scene can be a .ply only.")
    from gsplat import export_splats

    g = gaussians.detach().to("cpu", torch.float32)
    logits, log_scales, quats = torch.from_numpy(vertex_table(gaussians)[:, -8:].astype(np.float32)).split([1, 3, 4], 1)
    data = export_splats(g.means, log_scales, quats, logits[:, 0], g.sh[:, :1], g.sh[:, 1:], name)
    # without view-dependent colour gsplat announces an element that has no properties, which viewers do not know
    write_whole(path, re.sub(rb"element sh \d+\nend_header", b"end_header", data, count=1))


def read_ply(path: str | Path) -> Gaussians:
    """Gaussians of a 3DGS PLY file (binary little-endian, float32 vertices only, properties in any order).

    raises ValueError when the file is not such a PLY, lacks a property, or is cut short
    """
    data = Path(path).read_bytes()
    names, count, start = _parse_header(data, path)
    wanted = count * len(names) * 4
    if len(data) - start < wanted:
        raise ValueError(
            f"{path} is cut short: its header promises {wanted} bytes of vertices and {len(data) - start} "
            "follow; export it again."
        )
    table = np.frombuffer(data, "<f4", count * len(names), start).reshape(count, len(names))
    columns = {name: torch.from_numpy(table[:, i].astype(np.float32)) for i, name in enumerate(names)}
    num_rest = sum(name.startswith("f_rest_") for name in names)
    if num_rest not in [3 * (d - 1) for d in SH_COEFFICIENTS]:
        raise ValueError(
            f"{path} has {num_rest} f_rest properties; spherical harmonics of degree 0 to 3 have 0, 9, 24 or 45."
        )
    needed = [name for name in property_names(num_rest // 3 + 1) if name not in ("nx", "ny", "nz")]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"{path} lacks the vertex properties {', '.join(missing)}; it is not a 3DGS PLY file.")

    def stack(*prefixed: str) -> torch.Tensor:
        return torch.stack([columns[name] for name in prefixed], -1)

    dc = stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    rest = stack(*(f"f_rest_{i}" for i in range(num_rest))).unflatten(-1, (3, -1)).mT if num_rest else dc[:, :0]
    return Gaussians(
        means=stack("x", "y", "z"),
        quats=stack("rot_0", "rot_1", "rot_2", "rot_3"),
        scales=stack("scale_0", "scale_1", "scale_2").exp(),
        opacities=columns["opacity"].sigmoid(),
        sh=torch.cat([dc, rest], 1),
    )


def _parse_header(data: bytes, path: str | Path) -> tuple[list[str], int, int]:
    """Names of the float properties of the only element `vertex`, number of vertices, byte where they start."""
    mark = b"end_header\n"
    end = data.find(mark, 0, HEADER_BYTES)
    lines = [line.split() for line in data[: max(end, 0)].decode("ascii", "replace").splitlines()]
    if end < 0 or lines[0] != ["ply"] or ["format", "binary_little_endian", "1.0"] not in lines:
        raise ValueError(f"{path} does not start with the header of a binary little-endian PLY file.")
    elements = [line for line in lines if line[:1] == ["element"]]
    if len(elements) != 1 or elements[0][1] != "vertex" or not elements[0][2].isdigit():
        raise ValueError(
            f"{path} must hold exactly one PLY element, vertex, with its number; found "
            f"{[' '.join(element) for element in elements]}."
        )
    properties = [line for line in lines if line[:1] == ["property"]]
    if any(line[1] not in ("float", "float32") or len(line) != 3 for line in properties):
        raise ValueError(f"{path} has vertex properties that are not float32; a 3DGS PLY file has none.")
    return [line[2] for line in properties], int(elements[0][2]), end + len(mark)
