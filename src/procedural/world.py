"""A furnished world ready for rays: parts with materials, lamps, and all triangles in one embree scene.

World axes: z up, metres. Colours are linear RGB.
"""

import math
from dataclasses import dataclass, field

import numba
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from src.procedural.meshes import Mesh
from src.procedural.textures import KINDS, albedo
from src.procedural.vectors import turn, unit

MEAN_SHARES = np.array([0.45, 0.3, 0.15, 0.1])  # of a material's four colours, roughly, over all patterns


@dataclass(frozen=True, eq=False)
class Material:
    """A surface: `kind` of KINDS at `scale` metres per pattern unit, in four colours (4, 3).

    grain  strength of the fine noise over everything · gloss  share of the highlight · glow  light of its own
    """

    kind: str
    scale: float
    colours: np.ndarray
    grain: float = 0.3
    gloss: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh of one material, turned by `rotation` (3, 3) and put at `position` (3,); `seed` of its texture's noise."""

    mesh: Mesh
    material: Material
    position: np.ndarray
    rotation: np.ndarray
    seed: int


@dataclass(frozen=True, eq=False)
class Lamp:
    """A round lamp of `radius` metres at `position`; `colour` is its light at 1 m. Shadows of a `sharp` lamp are traced
    for each image; those of the others are soft and stored with the vertices."""

    position: np.ndarray
    colour: np.ndarray
    radius: float
    sharp: bool = True


@dataclass(eq=False)
class Layout:
    """What a world is made of. `ambient` (3,) is the light that has been reflected more than once; `room` (3,) the
    inner extents of the walls around the origin, floor at z = 0; `focus` the height of what a camera circles
    around; the first `shell` parts are the room itself."""

    room: np.ndarray
    parts: list[Part] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    ambient: np.ndarray = field(default_factory=lambda: np.full(3, 0.3))
    focus: float = 0.0
    shell: int = 0


class World:
    """A layout's triangles and tables.

    vertices, normals (V, 3) · faces (F, 3) · flat (F, 3) unit normals of the faces · part_of_face (F,)
    rotations (P, 3, 3) and positions (P, 3), part to world · gloss, glow (P,) · mean (P, 3) colour seen from afar
    """

    def __init__(self, layout: Layout):
        self.layout, parts = layout, layout.parts
        starts = np.cumsum([0, *(len(part.mesh.vertices) for part in parts[:-1])])
        self.positions = np.stack([part.position for part in parts]) + apart(len(parts), layout.shell)
        self.vertices = np.concatenate(
            [turn(part.mesh.vertices, part.rotation) + position for part, position in zip(parts, self.positions)]
        )
        self.normals = np.concatenate([turn(part.mesh.normals, part.rotation) for part in parts])
        self.faces = np.concatenate([part.mesh.faces + start for part, start in zip(parts, starts)])
        self.part_of_face = np.repeat(np.arange(len(parts)), [len(part.mesh.faces) for part in parts])
        corners = self.vertices[self.faces]
        self.flat = unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
        self.rotations = np.stack([part.rotation for part in parts])
        materials = [part.material for part in parts]
        self.gloss = np.array([material.gloss for material in materials])
        self.glow = np.array([material.glow for material in materials])
        colours = np.stack([material.colours for material in materials])
        self.mean = np.einsum("pcr,c->pr", colours, MEAN_SHARES)
        self.tables = (
            np.array([KINDS.index(material.kind) for material in materials]),
            np.array([material.scale for material in materials]),
            np.array([part.seed for part in parts]),
            colours,
            np.array([material.grain for material in materials]),
            np.array([part.mesh.wrap for part in parts]),
        )
        self.scene = EmbreeScene(robust=True)
        TriangleMesh(self.scene, self.vertices.astype(np.float32), self.faces.astype(np.int32))

    def trace(self, origins: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        """First hits of rays (N, 3): primID (N,), -1 = none; tfar (N,) in lengths of `directions`; u, v barycentric.

        embree says which triangle is hit. Where, is computed here: its own numbers are rounded as the processor likes.
        """
        origins = np.ascontiguousarray(np.broadcast_to(origins, directions.shape))
        found = self.scene.run(origins.astype(np.float32), directions.astype(np.float32), output=True)
        t, u, v = _meet(origins, np.ascontiguousarray(directions), found["primID"], self.faces, self.vertices)
        return {"primID": found["primID"], "tfar": t, "u": u, "v": v}

    def reaches(self, origins: np.ndarray, ways: np.ndarray) -> np.ndarray:
        """Whether nothing stands between `origins` and `origins + ways`, (N,) bool."""
        hits = self.scene.run(
            np.ascontiguousarray(origins, dtype=np.float32),
            np.ascontiguousarray(ways, dtype=np.float32),
            np.ones(len(ways), np.float32),
            query="OCCLUDED",
        )
        return hits == -1

    def colours(self, points: np.ndarray, normals: np.ndarray, part: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Reflectance (N, 3) at points in the frames of their parts; footprint (N,) metres per sample."""
        return albedo(points, normals, part, footprint, *self.tables)


def apart(parts: int, whole: int) -> np.ndarray:
    """Metres (parts, 3), some tenths of a millimetre, by which parts after the first `whole` are moved against each other.

    Of two surfaces in one plane, such as a table and what stands on it, the processor's rounding would decide which a ray
    hits.
    """
    number = np.maximum(np.arange(parts) - whole + 1, 0)
    angle = number * math.pi * (3 - math.sqrt(5))
    return np.where(number > 0, [2e-4 * np.cos(angle), 2e-4 * np.sin(angle), 4e-6 * number], 0).T


@numba.njit(cache=True)
def _meet(
    origins: np.ndarray, directions: np.ndarray, prim: np.ndarray, faces: np.ndarray, vertices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t, u and v (N,) of rays in the planes of the triangles they hit (Möller & Trumbore 1997); misses are at infinity."""
    t, u, v = np.full(len(prim), np.inf), np.zeros(len(prim)), np.zeros(len(prim))
    for n in range(len(prim)):
        if prim[n] < 0:
            continue
        a, b, c = vertices[faces[prim[n], 0]], vertices[faces[prim[n], 1]], vertices[faces[prim[n], 2]]
        way, side, other, start = directions[n], b - a, c - a, origins[n] - a
        across = _cross(way, other)
        size = _dot(side, across)
        if size == 0:
            continue  # along the plane: nothing is hit
        around = _cross(start, side)
        t[n], u[n], v[n] = _dot(other, around) / size, _dot(start, across) / size, _dot(way, around) / size
    return t, u, v


@numba.njit(cache=True)
def _cross(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@numba.njit(cache=True)
def _dot(a: np.ndarray, b: tuple[float, float, float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
