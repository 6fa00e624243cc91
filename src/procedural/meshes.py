"""Triangle meshes with normals: lathed, boxed, swept and extruded solids. Metres, own frame, z up.

Every solid is closed and stands on z = 0 with its axis or centre over the origin; faces wind outwards. Vertices lie
close enough together for light to be stored at them.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from src.procedural.vectors import length, products, turn, unit

CREASE = 0.7  # radians between two pieces of an outline that still share a normal
SPACING = 0.05  # metres between vertices, unless a caller asks otherwise


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices (V, 3) · normals (V, 3) unit, outwards · faces (F, 3) vertex numbers, counter-clockwise from outside.

    wrap   radius in metres at which patterns are wrapped around the z axis; 0 = projected along the main axes instead
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    wrap: float = 0.0

    @property
    def height(self) -> float:
        return float(self.vertices[:, 2].max())

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> "Mesh":
        return replace(self, vertices=self.vertices + (x, y, z))

    def turned(self, axes: str, *angles: float) -> "Mesh":
        """Rotated about the origin by extrinsic Euler `angles` in radians, e.g. turned("xz", 0.1, 2)."""
        matrix = Rotation.from_euler(axes, angles if len(angles) > 1 else angles[0]).as_matrix()
        return replace(self, vertices=turn(self.vertices, matrix), normals=turn(self.normals, matrix))

    def grounded(self) -> "Mesh":
        return self.moved(z=-self.vertices[:, 2].min())


def join(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)]),
        meshes[0].wrap,
    )


@lru_cache(512)
def grid_faces(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Two triangles per cell of a (rows, columns) grid of vertices, read-only; `closed` joins the last column to the
    first."""
    p, q = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    right = (q + 1) % columns
    a, b, c, d = p * columns + q, p * columns + right, (p + 1) * columns + right, (p + 1) * columns + q
    faces = np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    faces.flags.writeable = False  # every caller is handed the same one
    return faces


def solid(vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, wrap: float = 0.0) -> Mesh:
    """A mesh without the triangles that have no area."""
    corners = vertices[faces]
    areas = length(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    return Mesh(vertices, normals, faces[areas > 1e-12], wrap)


def faceted(mesh: Mesh) -> Mesh:
    """Every triangle with its own flat normal."""
    corners = mesh.vertices[mesh.faces]
    flat = unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    return replace(
        mesh,
        vertices=corners.reshape(-1, 3),
        normals=np.repeat(flat, 3, axis=0),
        faces=np.arange(3 * len(corners)).reshape(-1, 3),
    )


def subdivide(outline: np.ndarray, spacing: float) -> np.ndarray:
    """A polyline (P, d) with points added so that none of its pieces is longer than `spacing`."""
    pieces = [outline[:1]]
    for start, end in zip(outline[:-1], outline[1:]):
        count = max(1, int(np.ceil(length(end - start) / spacing)))
        pieces.append(start + (end - start) * np.arange(1, count + 1)[:, None] / count)
    return np.concatenate(pieces)


def lathe(outline: list | np.ndarray, sections: int = 36, spacing: float = SPACING) -> Mesh:
    """The solid of revolution of an outline of (radius, z): from the axis at the bottom outwards, up, back to it.

    A closed outline that does not touch the axis makes a ring. Pieces that meet at less than CREASE are smooth.
    """
    outline = np.asarray(outline, float)
    points = subdivide(outline, spacing)
    steps = np.diff(points, axis=0)
    across = unit(np.stack([steps[:, 1], -steps[:, 0]], 1))
    bends = np.abs(
        np.arctan2(across[:-1, 0] * across[1:, 1] - across[:-1, 1] * across[1:, 0], (across[:-1] * across[1:]).sum(1))
    )
    angles = 2 * np.pi * np.arange(sections) / sections
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    parts, start = [], 0
    for end in [*(np.flatnonzero(bends > CREASE) + 1), len(points) - 1]:
        smooth = np.zeros((end - start + 1, 2))
        smooth[:-1] += across[start:end]
        smooth[1:] += across[start:end]
        smooth = unit(smooth)

        def revolve(pairs: np.ndarray) -> np.ndarray:
            plane = pairs[:, None, :1] * circle[None]
            upright = np.broadcast_to(pairs[:, None, 1:], (*plane.shape[:2], 1))
            return np.concatenate([plane, upright], -1).reshape(-1, 3)

        parts.append(
            solid(
                revolve(points[start : end + 1]),
                revolve(smooth),
                grid_faces(end - start + 1, sections, True),
                float(outline[:, 0].max()),
            )
        )
        start = end
    return join(*parts)


def cylinder(radius: float, height: float, sections: int = 36, spacing: float = SPACING) -> Mesh:
    return lathe([(0, 0), (radius, 0), (radius, height), (0, height)], sections, spacing)


def cone(radius: float, height: float, top: float = 0.0, sections: int = 36, spacing: float = SPACING) -> Mesh:
    return lathe([(0, 0), (radius, 0), (top, height)] + ([(0, height)] if top else []), sections, spacing)


def prism(radius: float, height: float, sides: int, top: float | None = None) -> Mesh:
    """A polygonal column, or a pyramid with `top` 0, of flat sides."""
    top = radius if top is None else top
    mesh = faceted(lathe([(0, 0), (radius, 0), (top, height)] + ([(0, height)] if top else []), sides))
    return replace(mesh, wrap=0.0)


def sphere(radius: float, sections: int = 36, rows: int = 20) -> Mesh:
    angle = np.pi * (np.arange(rows + 1) / rows - 0.5)
    outline = np.stack([radius * np.cos(angle), radius * (1 + np.sin(angle))], 1)
    outline[[0, -1], 0] = 0
    return lathe(outline, sections)


def capsule(radius: float, height: float, sections: int = 36) -> Mesh:
    """A cylinder with half spheres for ends; `height` over all."""
    angle = np.pi / 2 * np.arange(9) / 8
    low = np.stack([radius * np.sin(angle), radius * (1 - np.cos(angle))], 1)
    outline = np.concatenate([low, [[0, height]] + [[1, -1]] * low[::-1]])
    outline[[0, -1], 0] = 0
    return lathe(outline, sections)


def vessel(profile: np.ndarray, wall: float, sections: int = 36, spacing: float = SPACING) -> Mesh:
    """A hollow lathed pot: `profile` (P, 2) is its outside from the foot up, `wall` its thickness in metres."""
    profile = np.asarray(profile, float)
    inside = profile[::-1] - (wall, 0)
    inside = inside[inside[:, 1] > profile[0, 1] + wall]
    floor = [(inside[-1, 0], profile[0, 1] + wall), (0, profile[0, 1] + wall)]
    return lathe(np.concatenate([[(0, profile[0, 1])], profile, inside, floor]), sections, spacing)


def superquadric(x: float, y: float, z: float, e1: float, e2: float) -> Mesh:
    """Half axes x, y, z; between box (exponents near 0), ellipsoid (1) and octahedron (2)  (Barr 1981)."""
    ball = sphere(1.0, 48, 28)
    latitude = np.arcsin(np.clip(ball.vertices[:, 2] - 1, -1, 1))
    longitude = np.arctan2(ball.vertices[:, 1], ball.vertices[:, 0])

    def power(value: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    cl, sl, co, so = np.cos(latitude), np.sin(latitude), np.cos(longitude), np.sin(longitude)
    vertices = np.stack([x * power(cl, e1) * power(co, e2), y * power(cl, e1) * power(so, e2), z * power(sl, e1)], 1)
    normals = np.stack(
        [power(cl, 2 - e1) * power(co, 2 - e2) / x, power(cl, 2 - e1) * power(so, 2 - e2) / y, power(sl, 2 - e1) / z], 1
    )
    normals = unit(normals)
    return solid(vertices, normals, ball.faces).moved(z=z)


def box(x: float, y: float, z: float, spacing: float = SPACING) -> Mesh:
    return rounded_box(x, y, z, 0.0, spacing)


def rounded_box(x: float, y: float, z: float, radius: float, spacing: float = SPACING) -> Mesh:
    """A box of outer size x, y, z whose edges are rounded with `radius` metres, at most half the shortest side."""
    half = np.array([x, y, z]) / 2
    radius = min(radius, 0.999 * half.min())
    inner = half - radius
    bend = radius * np.tan(np.linspace(-np.pi / 4, np.pi / 4, 5))

    lines = []
    for side in inner:
        flat = np.linspace(-side, side, max(1, int(np.ceil(2 * side / spacing))) + 1)
        lines.append(np.concatenate([-side - bend[:2:-1], flat, side + bend[3:]]) if radius else flat)

    parts = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        faces = grid_faces(len(lines[u]), len(lines[v]))
        for side in (-1, 1):
            grid = np.empty((len(lines[u]), len(lines[v]), 3))
            grid[..., axis] = side * half[axis]
            grid[..., u], grid[..., v] = lines[u][:, None], lines[v]
            points = grid.reshape(-1, 3)
            if radius > 0:
                core = np.clip(points, -inner, inner)
                normals = unit(points - core)
                points = core + radius * normals
            else:
                normals = np.broadcast_to(side * np.eye(3)[axis], points.shape)
            parts.append(Mesh(points, normals, faces[:, ::-1] if side > 0 else faces))
    return join(*parts).moved(z=half[2])


def panel(width: float, depth: float, spacing: float = 0.15, dense: bool = False) -> Mesh:
    """A sheet on z = 0 that faces up, seen from that side only; with `dense`, vertices gather around the origin."""
    lines = []
    for side in (width, depth):
        t = np.linspace(-1, 1, 2 * int(np.ceil(side / spacing / 2)) + 1)
        lines.append(side / 2 * ((0.3 * t + 0.7 * t**3) if dense else t))
    y, x = np.meshgrid(lines[1], lines[0], indexing="ij")
    points = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    return Mesh(points, np.tile([0.0, 0.0, 1.0], (len(points), 1)), grid_faces(len(lines[1]), len(lines[0])))


def ring(radius: float, thickness: float, sections: int = 40) -> Mesh:
    """A torus lying on the ground: `radius` to the middle of the tube, `thickness` the tube's own radius."""
    angle = 2 * np.pi * np.arange(17) / 16
    outline = np.stack([radius - thickness * np.sin(angle), thickness * (1 - np.cos(angle))], 1)
    mesh = lathe(np.concatenate([outline[:-1], outline[:1]])[::-1], sections)
    return replace(mesh, wrap=0.0)


def tube(path: np.ndarray, radius: float | np.ndarray, sections: int = 12, closed: bool = False) -> Mesh:
    """A round tube along a path (P, 3), its frame carried along without twist; open ends are capped."""
    path = np.asarray(path, float)
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not closed:
        ahead[0], ahead[-1] = path[1] - path[0], path[-1] - path[-2]
    ahead = unit(ahead)
    side = np.cross(ahead[0], np.eye(3)[np.argmin(np.abs(ahead[0]))])
    sides = []
    for direction in ahead:
        side = side - direction * products(side, direction)
        sides.append(side := unit(side))
    sides = np.stack(sides)
    other = np.cross(ahead, sides)
    angles = np.broadcast_to(2 * np.pi * np.arange(sections) / sections, (len(path), sections))
    if closed:  # what the frame has turned by after one round is spread over the path
        back = side - ahead[0] * products(side, ahead[0])
        twist = np.arctan2(products(back, other[0]), products(back, sides[0]))
        angles = angles - twist * (np.arange(len(path)) / len(path))[:, None]
    normals = np.cos(angles)[..., None] * sides[:, None] + np.sin(angles)[..., None] * other[:, None]
    points = path[:, None] + np.broadcast_to(radius, len(path))[:, None, None] * normals
    if closed:
        points, normals = np.concatenate([points, points[:1]]), np.concatenate([normals, normals[:1]])
    body = Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), grid_faces(len(points), sections, True))
    if closed:
        return body
    caps = []
    for end, outward, order in ((0, -ahead[0], slice(None, None, -1)), (-1, ahead[-1], slice(None))):
        rim = np.concatenate([points[end], path[end][None]])
        number = np.arange(sections)
        faces = np.stack([number, (number + 1) % sections, np.full(sections, sections)], 1)[:, order]
        caps.append(Mesh(rim, np.broadcast_to(outward, rim.shape).copy(), faces))
    return join(body, *caps)


def extruded(outline: np.ndarray, height: float) -> Mesh:
    """An upright prism over a counter-clockwise, star-shaped outline (P, 2) around the origin."""
    outline = np.asarray(outline, float)
    count = len(outline)
    middle = np.arange(count)
    floor = np.concatenate([np.c_[outline, np.zeros(count)], [[0, 0, 0]]])
    fan = np.stack([middle, (middle + 1) % count, np.full(count, count)], 1)
    levels = np.linspace(0, height, max(2, int(np.ceil(height / SPACING)) + 1))
    wall = np.concatenate([np.c_[outline, np.full(count, level)] for level in levels])
    return faceted(
        join(
            Mesh(floor, floor, fan[:, ::-1]),
            Mesh(wall, wall, grid_faces(len(levels), count, True)),
            Mesh(floor + (0, 0, height), floor, fan),
        )
    )


def drape(width: float, height: float, waves: int, depth: float) -> Mesh:
    """A hanging cloth in the xz plane with vertical folds of `depth` metres."""
    sheet = box(width, 0.02, height, 0.035)
    phase = 2 * np.pi * waves * sheet.vertices[:, 0] / width
    offset = depth * np.sin(phase)[:, None] * (0, 1, 0)
    slope = depth * 2 * np.pi * waves / width * np.cos(phase)
    normals = sheet.normals.copy()
    normals[:, 0] -= slope * normals[:, 1]
    return replace(sheet, vertices=sheet.vertices + offset, normals=unit(normals))
