"""What stands in a procedural scene: meshes with solid textures, and lamps. World axes: z up, metres."""

from dataclasses import dataclass, field

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from src.datasets.textures import KINDS

SMOOTH_ANGLE = 0.6  # radians between faces that still share a normal


@dataclass
class Part:
    """One mesh in its own frame, its place in the world, and its surface."""

    mesh: trimesh.Trimesh
    pose: np.ndarray          # (4, 4) part to world
    kind: int                 # number of the texture in KINDS
    scale: float              # metres per texture unit
    colours: np.ndarray       # (3, 3) linear RGB
    seed: int
    grain: float = 0.25       # strength of the fine noise over everything
    gloss: float = 0.0        # share of the highlight


@dataclass
class Lamp:
    position: np.ndarray
    colour: np.ndarray        # linear RGB, at 1 m for point lamps
    radius: float             # metres; shadows soften with it
    distant: bool = False     # a direction instead of a place: no fall-off


@dataclass
class Layout:
    parts: list[Part] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    ambient: np.ndarray = field(default_factory=lambda: np.full(3, 0.3))


def colour(rng: np.random.Generator, low: float = 0.08, high: float = 0.9, saturation: float = 0.75) -> np.ndarray:
    """A random linear RGB reflectance of varied hue."""
    hue, value = rng.random(), rng.uniform(low, high)
    rgb = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return value * (1 - rng.uniform(0.1, saturation) * (1 - rgb))


def palette(rng: np.random.Generator, **limits: float) -> np.ndarray:
    """Three colours that differ enough in brightness to show a pattern."""
    colours = np.stack([colour(rng, **limits) for _ in range(3)])
    if abs(colours[0].mean() - colours[1].mean()) < 0.15:
        colours[1] *= 0.35 if colours[1].mean() > 0.3 else 2.2
    return np.clip(colours, 0.02, 0.95)


def part(rng: np.random.Generator, mesh: trimesh.Trimesh, position=(0, 0, 0), rotation: Rotation | None = None,
         kinds: tuple[str, ...] = KINDS, size: float = 0.3, **limits: float) -> Part:
    """`mesh` with a random texture of one of `kinds`, at a scale that fits an object of `size` metres."""
    pose = np.eye(4)
    if rotation is not None:
        pose[:3, :3] = rotation.as_matrix()
    pose[:3, 3] = position
    return Part(mesh, pose, KINDS.index(str(rng.choice(kinds))), size * rng.uniform(0.18, 0.5), palette(rng, **limits),
                int(rng.integers(1 << 30)), rng.uniform(0.15, 0.45), float(rng.choice([0, 0.05, 0.15, 0.3])))


def box(x: float, y: float, z: float) -> trimesh.Trimesh:
    """A box standing on z = 0."""
    return trimesh.creation.box((x, y, z), transform=trimesh.transformations.translation_matrix((0, 0, z / 2)))


def cylinder(radius: float, height: float, sections: int = 40) -> trimesh.Trimesh:
    mesh = trimesh.creation.cylinder(radius, height, sections=sections)
    mesh.apply_translation((0, 0, height / 2))
    return smooth(mesh)


def smooth(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.graph.smooth_shade(mesh, angle=SMOOTH_ANGLE)


def superquadric(radii: np.ndarray, e1: float, e2: float) -> trimesh.Trimesh:
    """Barr 1981: between box (exponents near 0), ellipsoid (1) and octahedron (2)."""
    mesh = trimesh.creation.icosphere(subdivisions=4)
    x, y, z = mesh.vertices.T
    latitude, longitude = np.arcsin(np.clip(z, -1, 1)), np.arctan2(y, x)

    def power(value: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    mesh.vertices = radii * np.stack([power(np.cos(latitude), e1) * power(np.cos(longitude), e2),
                                      power(np.cos(latitude), e1) * power(np.sin(longitude), e2),
                                      power(np.sin(latitude), e1)], 1)
    return mesh


def vase(rng: np.random.Generator, radius: float, height: float) -> trimesh.Trimesh:
    """A lathed profile with two or three swellings."""
    t = np.linspace(0, 1, 24)
    waves = sum(rng.uniform(-0.3, 0.3) * np.sin(np.pi * k * t + rng.uniform(0, 6)) for k in (1, 2, 3))
    profile = radius * np.clip(0.75 + waves, 0.25, 1.3)
    outline = np.stack([np.r_[0, profile, 0], np.r_[0, t * height, height]], 1)
    return smooth(trimesh.creation.revolve(outline, sections=40))


def solid(rng: np.random.Generator, size: float) -> tuple[trimesh.Trimesh, float]:
    """A random solid about `size` metres large that stands on z = 0, and its height."""
    choice = rng.integers(8)
    a, b, c = size * rng.uniform(0.35, 0.6, 3)
    if choice == 0:
        mesh = box(2 * a, 2 * b, 2 * c)
    elif choice == 1:
        mesh = cylinder(a, 2 * c)
    elif choice == 2:
        mesh = smooth(trimesh.creation.cone(a, 2 * c, sections=40))
    elif choice == 3:
        mesh = trimesh.creation.icosphere(subdivisions=4, radius=a)
    elif choice == 4:
        mesh = smooth(trimesh.creation.torus(a, a * rng.uniform(0.25, 0.45)))
        if rng.random() < 0.5:
            mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    elif choice == 5:
        mesh = smooth(trimesh.creation.capsule(2 * c, 0.6 * a, count=(24, 32)))
    elif choice == 6:
        mesh = superquadric(np.array([a, b, c]), *rng.uniform(0.15, 1.6, 2))
    else:
        mesh = vase(rng, a, 2 * c)
    mesh.apply_translation((0, 0, -mesh.bounds[0, 2]))
    return mesh, float(mesh.bounds[1, 2])


def turned(rng: np.random.Generator) -> Rotation:
    return Rotation.from_euler("z", rng.uniform(0, 2 * np.pi))


def walls(rng: np.random.Generator, width: float, depth: float, height: float, kinds: tuple[str, ...]) -> list[Part]:
    """Floor, ceiling and four walls of a room around the origin, thin boxes facing inwards."""
    thin = 0.05
    sides = [((width, depth, thin), (0, 0, -thin)), ((width, depth, thin), (0, 0, height)),
             ((thin, depth, height), (-(width + thin) / 2, 0, 0)), ((thin, depth, height), ((width + thin) / 2, 0, 0)),
             ((width, thin, height), (0, -(depth + thin) / 2, 0)), ((width, thin, height), (0, (depth + thin) / 2, 0))]
    common = part(rng, box(1, 1, 1), kinds=kinds, size=1.6, low=0.35, high=0.85, saturation=0.4)
    parts = []
    for number, (extents, position) in enumerate(sides):
        own = number < 2 or rng.random() < 0.6
        side = part(rng, box(*extents), position, kinds=kinds, size=2.0 if number else 1.2, low=0.3, high=0.85,
                    saturation=0.5)
        if not own:
            side.kind, side.colours, side.scale = common.kind, common.colours, common.scale
        parts.append(side)
    return parts


def objects(rng: np.random.Generator) -> Layout:
    """A cluster of solids, some stacked, on a table or the floor of a hall with patterned walls."""
    layout = Layout()
    layout.parts += walls(rng, *rng.uniform(6, 8, 2), 3.5, ("bricks", "cells", "blotches", "stripes", "marble", "checker"))
    base = 0.0
    if rng.random() < 0.7:
        base = rng.uniform(0.3, 0.7)
        top = cylinder(rng.uniform(0.8, 1.1), 0.06) if rng.random() < 0.5 else box(*rng.uniform(1.3, 1.9, 2), 0.06)
        layout.parts.append(part(rng, top, (0, 0, base - 0.06), turned(rng), ("wood", "marble", "checker", "cells", "plain"), 0.8))
        layout.parts.append(part(rng, cylinder(0.1, base - 0.06), kinds=("plain", "wood"), size=0.4))
    placed: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(4, 9))):
        size = rng.uniform(0.14, 0.42)
        for _ in range(20):
            angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.55)
            x, y = radius * np.cos(angle), radius * np.sin(angle)
            if all(np.hypot(x - px, y - py) > 0.55 * (size + ps) for px, py, ps in placed):
                break
        else:
            continue
        placed.append((x, y, size))
        mesh, height = solid(rng, size)
        layout.parts.append(part(rng, mesh, (x, y, base), turned(rng), size=size))
        if rng.random() < 0.35:
            small, _ = solid(rng, 0.55 * size)
            layout.parts.append(part(rng, small, (x, y, base + height - 0.01), turned(rng), size=0.6 * size))
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.2)
    direction = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    layout.lamps.append(Lamp(np.array([0, 0, base]) + 2.6 * direction, rng.uniform(4.8, 6.6) * tint(rng), 0.25))
    layout.lamps.append(Lamp(np.array([*rng.uniform(-2.5, 2.5, 2), 3.2]), rng.uniform(2.0, 3.5) * tint(rng), 0.2))
    layout.ambient = rng.uniform(0.3, 0.42) * tint(rng)
    return layout


def tint(rng: np.random.Generator) -> np.ndarray:
    """Warm to cool white."""
    warm = rng.uniform(-0.12, 0.12)
    return np.array([1 + warm, 1.0, 1 - warm])


def table(rng: np.random.Generator, x: float, y: float, z: float) -> list[tuple[trimesh.Trimesh, tuple]]:
    legs = [(box(0.05, 0.05, z - 0.05), (sx * (x / 2 - 0.05), sy * (y / 2 - 0.05), 0)) for sx in (-1, 1) for sy in (-1, 1)]
    return [(box(x, y, 0.05), (0, 0, z - 0.05)), *legs]


def chair(rng: np.random.Generator) -> list[tuple[trimesh.Trimesh, tuple]]:
    return table(rng, 0.45, 0.45, 0.45) + [(box(0.45, 0.05, rng.uniform(0.35, 0.55)), (0, -0.2, 0.45))]


def shelf(rng: np.random.Generator, height: float) -> list[tuple[trimesh.Trimesh, tuple]]:
    width, depth = rng.uniform(0.7, 1.1), 0.3
    boards = [(box(width, depth, 0.03), (0, 0, z)) for z in np.arange(0, height, 0.38)]
    return [(box(0.03, depth, height), (sx * width / 2, 0, 0)) for sx in (-1, 1)] + boards


def sofa(rng: np.random.Generator) -> list[tuple[trimesh.Trimesh, tuple]]:
    width = rng.uniform(1.3, 1.9)
    return [(box(width, 0.8, 0.42), (0, 0, 0)), (box(width, 0.2, 0.8), (0, -0.4, 0)),
            (box(0.18, 0.8, 0.6), (-width / 2, 0, 0)), (box(0.18, 0.8, 0.6), (width / 2, 0, 0))]


def furnish(rng: np.random.Generator, layout: Layout, pieces: list, position: np.ndarray, yaw: float,
            kinds: tuple[str, ...], size: float) -> None:
    """Add the boxes of one piece of furniture, all in one texture, at a place on the floor."""
    turn = Rotation.from_euler("z", yaw)
    look = part(rng, pieces[0][0], kinds=kinds, size=size)
    for mesh, offset in pieces:
        placed = part(rng, mesh, position + turn.apply(offset), turn)
        placed.kind, placed.scale, placed.colours, placed.grain = look.kind, look.scale, look.colours, look.grain
        layout.parts.append(placed)


def clutter(rng: np.random.Generator, layout: Layout, centre: np.ndarray, spread: tuple[float, float], count: int,
            sizes: tuple[float, float]) -> None:
    """Small solids on a surface around `centre`."""
    for _ in range(count):
        size = rng.uniform(*sizes)
        mesh, _ = solid(rng, size)
        x, y = (rng.uniform(-half, half) for half in spread)
        layout.parts.append(part(rng, mesh, centre + (x, y, 0), turned(rng), size=size))


def rooms(rng: np.random.Generator) -> Layout:
    """A furnished room; `parts[0]` is its floor, whose extents tell where a camera may walk."""
    layout = Layout()
    width, depth, height = rng.uniform(3.4, 5.2), rng.uniform(3.4, 5.2), rng.uniform(2.4, 2.9)
    layout.parts += walls(rng, width, depth, height, ("bricks", "stripes", "blotches", "marble", "cells", "dots", "checker"))
    layout.parts[0].kind = KINDS.index(str(rng.choice(["wood", "checker", "bricks", "cells"])))
    half = np.array([width, depth]) / 2

    def against_wall(gap: float) -> tuple[np.ndarray, float]:
        side, along = rng.integers(4), rng.uniform(-0.7, 0.7)
        x, y = [(along * half[0], half[1] - gap), (along * half[0], gap - half[1]),
                (half[0] - gap, along * half[1]), (gap - half[0], along * half[1])][side]
        return np.array([x, y, 0.0]), [np.pi, 0, np.pi / 2, -np.pi / 2][side]

    if rng.random() < 0.8:
        rug = box(*rng.uniform(1.2, 2.2, 2), 0.012)
        layout.parts.append(part(rng, rug, (*rng.uniform(-0.4, 0.4, 2), 0), turned(rng), ("checker", "stripes", "dots", "cells", "blotches"), 0.8))
    top = rng.uniform(0.4, 0.78)
    size = rng.uniform(0.8, 1.5), rng.uniform(0.6, 0.9)
    middle = np.array([*rng.uniform(-0.5, 0.5, 2), 0.0])
    yaw = rng.uniform(0, np.pi)
    furnish(rng, layout, table(rng, *size, top), middle, yaw, ("wood", "marble", "plain"), 0.7)
    clutter(rng, layout, middle + (0, 0, top), (0.25, 0.25), int(rng.integers(2, 5)), (0.12, 0.3))
    for _ in range(int(rng.integers(1, 4))):
        around = rng.uniform(0, 2 * np.pi)
        place = middle + 0.95 * np.array([np.cos(around), np.sin(around), 0])
        furnish(rng, layout, chair(rng), place, around + np.pi / 2, ("wood", "plain", "stripes", "checker"), 0.4)
    for _ in range(int(rng.integers(2, 4))):
        place, facing = against_wall(0.25)
        tall = rng.uniform(1.0, 2.0)
        furnish(rng, layout, shelf(rng, tall), place, facing, ("wood", "plain"), 0.5)
        for level in np.arange(0.03, tall - 0.3, 0.38):
            clutter(rng, layout, place + (0, 0, level), (0.25, 0.05) if facing in (0, np.pi) else (0.05, 0.25),
                    int(rng.integers(1, 4)), (0.12, 0.26))
    place, facing = against_wall(0.55)
    furnish(rng, layout, sofa(rng), place, facing, ("plain", "stripes", "checker", "blotches", "dots"), 0.7)
    for _ in range(int(rng.integers(4, 8))):
        side, along, z = rng.integers(4), rng.uniform(-0.8, 0.8), rng.uniform(1.1, 1.9)
        x, y = [(along * half[0], half[1]), (along * half[0], -half[1]), (half[0], along * half[1]), (-half[0], along * half[1])][side]
        wide, tall = rng.uniform(0.35, 0.9, 2)
        frame = box(wide, 0.05, tall) if side < 2 else box(0.05, wide, tall)
        layout.parts.append(part(rng, frame, (x, y, z - tall / 2), size=0.5))
    clutter(rng, layout, np.zeros(3), (0.75 * half[0], 0.75 * half[1]), int(rng.integers(3, 7)), (0.2, 0.5))
    layout.lamps.append(Lamp(np.array([*rng.uniform(-0.6, 0.6, 2), height - 0.35]), rng.uniform(2.8, 4.2) * tint(rng), 0.2))
    layout.lamps.append(Lamp(np.array([*(rng.uniform(-0.6, 0.6, 2) * half), rng.uniform(1.5, height - 0.3)]),
                             rng.uniform(0.9, 1.8) * tint(rng), 0.15))
    layout.ambient = rng.uniform(0.26, 0.36) * tint(rng)
    return layout
