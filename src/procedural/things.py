"""Small things that stand on a table, a shelf or the floor. Each is built from pieces in one frame, standing on z = 0.

A maker takes the scene's style and the size in metres of the thing's larger extent, and returns its pieces.
"""

from dataclasses import dataclass

import numpy as np

from src.procedural.materials import Style
from src.procedural.meshes import (
    Mesh,
    box,
    capsule,
    cone,
    cylinder,
    extruded,
    lathe,
    prism,
    ring,
    rounded_box,
    sphere,
    superquadric,
    tube,
    vessel,
)
from src.procedural.world import Material


@dataclass(frozen=True, eq=False)
class Piece:
    """A mesh and its material, at `offset` metres and turned by `yaw` and `tilt` (about x, first) radians."""

    mesh: Mesh
    material: Material
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    tilt: float = 0.0


Pieces = list[Piece]


def curve(rng: np.random.Generator, radius: float, height: float, low: float = 0.35) -> np.ndarray:
    """A vase's outline (24, 2) with two or three swellings, its largest radius as asked."""
    t = np.linspace(0, 1, 24)
    widths = 1 + sum(rng.uniform(-0.4, 0.4) * np.sin(np.pi * k * t + rng.uniform(0, 6)) for k in (1, 2, 3))
    widths = np.maximum(widths, low * widths.max())
    return np.stack([radius * widths / widths.max(), t * height], 1)


def primitive(style: Style, size: float) -> Pieces:
    """One of the plain solids, upright or lying."""
    rng = style.rng
    a, b, c = size * rng.uniform(0.3, 0.5, 3)
    meshes = (
        lambda: rounded_box(2 * a, 2 * b, 2 * c, 0.12 * size * rng.random()),
        lambda: cylinder(a, 2 * c),
        lambda: cylinder(0.7 * a, 2 * c).turned("x", np.pi / 2).grounded(),
        lambda: cone(a, 2 * c),
        lambda: cone(a, 2 * c, rng.uniform(0.3, 0.8) * a),
        lambda: sphere(a),
        lambda: capsule(0.6 * a, 2 * c),
        lambda: ring(a, a * rng.uniform(0.25, 0.45)),
        lambda: ring(a, a * rng.uniform(0.2, 0.4)).turned("x", np.pi / 2).grounded(),
        lambda: superquadric(a, b, c, *rng.uniform(0.25, 1.5, 2)),
        lambda: prism(a, 2 * c, int(rng.integers(3, 8))),
        lambda: prism(1.2 * a, 1.6 * c, int(rng.integers(3, 6)), 0),
    )
    return [Piece(meshes[rng.integers(len(meshes))](), style.toy(size))]


def vase(style: Style, size: float) -> Pieces:
    profile = curve(style.rng, size * style.rng.uniform(0.25, 0.42), size)
    pieces = [Piece(vessel(profile, 0.06 * size), style.toy(size))]
    if style.rng.random() < 0.5:
        for _ in range(5):
            lean, yaw = style.rng.uniform(0.05, 0.2), style.rng.uniform(0, 6.3)
            pieces.append(
                Piece(capsule(0.012 * size + 0.002, 0.6 * size, 8), style.leaf(), (0, 0, 0.75 * size), yaw, lean)
            )
            tip = 0.75 * size + 0.58 * size * np.cos(lean)
            x, y = 0.58 * size * np.sin(lean) * np.sin(yaw), -0.58 * size * np.sin(lean) * np.cos(yaw)
            pieces.append(
                Piece(
                    sphere(0.09 * size, 16, 10), style.paint(int(style.rng.integers(3, 6))), (x, y, tip - 0.05 * size)
                )
            )
    return pieces


def mug(style: Style, size: float) -> Pieces:
    radius, material = 0.38 * size, style.label(0.9 * size) if style.rng.random() < 0.4 else style.toy(size)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 14)
    handle = np.stack(
        [0.93 * radius + 0.27 * size * np.cos(angle), np.zeros(14), 0.45 * size + 0.25 * size * np.sin(angle)], 1
    )
    return [
        Piece(vessel([(0.85 * radius, 0), (radius, 0.08 * size), (radius, 0.9 * size)], 0.05 * size), material),
        Piece(tube(handle, 0.055 * size), style.paint()),
    ]


def bottle(style: Style, size: float) -> Pieces:
    radius, neck = size * style.rng.uniform(0.14, 0.2), size * style.rng.uniform(0.04, 0.06)
    shoulder = style.rng.uniform(0.5, 0.66)
    body = lathe(
        [
            (0, 0),
            (radius, 0),
            (radius, shoulder * size),
            (0.8 * radius, (shoulder + 0.07) * size),
            (neck, (shoulder + 0.14) * size),
            (neck, 0.93 * size),
            (0, 0.93 * size),
        ]
    )
    return [
        Piece(body, style.label(shoulder * size)),
        Piece(cylinder(1.3 * neck, 0.09 * size, 20), style.paint(), (0, 0, 0.91 * size)),
    ]


def tin(style: Style, size: float) -> Pieces:
    radius = size * style.rng.uniform(0.28, 0.42)
    return [
        Piece(cylinder(radius, 0.95 * size), style.label(0.95 * size)),
        Piece(ring(0.95 * radius, 0.03 * size, 32), style.metal(), (0, 0, 0.92 * size)),
    ]


def bowl(style: Style, size: float) -> Pieces:
    """A bowl of fruit."""
    angle = np.linspace(0.25, 1.35, 10)
    radius = 0.5 * size
    profile = np.stack([radius * np.sin(angle) / np.sin(1.35), radius * (np.cos(0.25) - np.cos(angle))], 1)
    pieces = [Piece(vessel(profile, 0.05 * size), style.toy(size))]
    for number in range(int(style.rng.integers(0, 5))):
        turn = 2 * np.pi * number / 4 + style.rng.random()
        fruit = sphere(style.rng.uniform(0.13, 0.17) * size, 24, 14)
        pieces.append(
            Piece(
                fruit,
                style.paint(int(style.rng.integers(3, 6))),
                (0.2 * size * np.cos(turn), 0.2 * size * np.sin(turn), 0.12 * size),
            )
        )
    return pieces


def books(style: Style, size: float) -> Pieces:
    """A pile of books with a thing on top now and then."""
    pieces, z = [], 0.0
    for _ in range(int(style.rng.integers(2, 6))):
        thick = size * style.rng.uniform(0.08, 0.18)
        x, y = size * style.rng.uniform(0.7, 0.95), size * style.rng.uniform(0.5, 0.7)
        yaw = style.rng.uniform(-0.3, 0.3)
        cover = style.of(("label", "print", "dots", "stripes", "plaster", "mosaic"), 0.5 * size)
        pieces += [Piece(box(x, y, thick), cover, (0, 0, z), yaw)]
        z += thick
    return pieces


def house(style: Style, size: float) -> Pieces:
    wide, deep, tall = size * style.rng.uniform(0.5, 0.8), size * style.rng.uniform(0.45, 0.6), 0.5 * size
    outline = np.array([(-0.6 * wide, -0.06 * size), (0.6 * wide, -0.06 * size), (0, 0.4 * size)])
    roof = extruded(outline - outline.mean(0), 1.1 * deep).turned("x", np.pi / 2).grounded().moved(y=0.55 * deep)
    pieces = [
        Piece(box(wide, deep, tall), style.of(("bricks", "stones", "planks", "plaster"), 0.15 * size + 0.02)),
        Piece(roof, style.of(("tiles", "checker", "bricks", "stripes"), 0.16 * size), (0, 0, tall - 0.005)),
        Piece(
            box(0.1 * size, 0.1 * size, 0.35 * size), style.of("bricks", 0.1 * size), (0.25 * wide, 0.1 * deep, tall)
        ),
    ]
    for side in (-1, 1):
        for x in (-0.25, 0.25):
            pieces.append(
                Piece(
                    box(0.17 * wide, 0.03 * size, 0.18 * size), style.paint(2), (x * wide, side * deep / 2, 0.18 * size)
                )
            )
    pieces.append(Piece(box(0.03 * size, 0.2 * deep, 0.3 * size), style.wood(), (wide / 2, 0, 0)))
    return pieces


def tree(style: Style, size: float) -> Pieces:
    pieces = [Piece(cylinder(0.06 * size, 0.4 * size, 16), style.wood(0.03))]
    if style.rng.random() < 0.5:
        for level in range(3):
            pieces.append(
                Piece(
                    cone((0.36 - 0.08 * level) * size, 0.36 * size), style.leaf(), (0, 0, (0.25 + 0.2 * level) * size)
                )
            )
    else:
        leaf = style.leaf()
        for _ in range(5):
            x, y = style.rng.uniform(-0.17, 0.17, 2) * size
            pieces.append(
                Piece(
                    sphere(style.rng.uniform(0.17, 0.26) * size, 24, 14),
                    leaf,
                    (x, y, style.rng.uniform(0.3, 0.5) * size),
                )
            )
    return pieces


def plant(style: Style, size: float) -> Pieces:
    """Leaves that bend out of a pot."""
    pot = 0.17 * size
    pieces = [
        Piece(vessel([(0.7 * pot, 0), (pot, 0.28 * size)], 0.02 * size), style.toy(0.3 * size)),
        Piece(cylinder(0.85 * pot, 0.22 * size, 24), style.wood(0.05)),
    ]
    leaf = style.leaf()
    for number in range(int(style.rng.integers(8, 14))):
        t = np.linspace(0, 1, 9)
        reach, rise = style.rng.uniform(0.15, 0.42) * size, style.rng.uniform(0.4, 0.75) * size
        path = np.stack([reach * t**2, np.zeros(9), 0.2 * size + rise * np.sin(1.8 * t)], 1)
        blade = tube(path, 0.055 * size * np.sin(np.pi * (0.1 + 0.88 * t)), 8)
        pieces.append(Piece(blade, leaf, (0, 0, 0), 2.4 * number + style.rng.uniform(-0.3, 0.3)))
    return pieces


def cactus(style: Style, size: float) -> Pieces:
    pot, green = 0.2 * size, style.leaf()
    pieces = [
        Piece(vessel([(0.75 * pot, 0), (pot, 0.25 * size)], 0.02 * size), style.toy(0.3 * size)),
        Piece(cylinder(0.9 * pot, 0.2 * size, 24), style.of("terrazzo", 0.05)),
        Piece(capsule(0.1 * size, 0.75 * size, 24), green, (0, 0, 0.18 * size)),
    ]
    for side in (-1, 1):
        low = style.rng.uniform(0.4, 0.6) * size
        path = np.array([(0, 0, low), (side * 0.14, 0, low), (side * 0.2, 0, low + 0.05), (side * 0.21, 0, low + 0.25)])
        path[:, 0] *= size
        path[2:, 2] = low + np.array([0.05, 0.25]) * size
        pieces.append(Piece(tube(path, 0.05 * size, 14), green))
    return pieces


def snowman(style: Style, size: float) -> Pieces:
    pieces, z = [], 0.0
    for radius in (0.26, 0.19, 0.13):
        pieces.append(Piece(sphere(radius * size), style.toy(size), (0, 0, z)))
        z += 1.7 * radius * size
    return pieces + [
        Piece(cylinder(0.17 * size, 0.025 * size), style.paint(2), (0, 0, z + 0.02 * size)),
        Piece(cylinder(0.1 * size, 0.15 * size), style.paint(), (0, 0, z + 0.02 * size)),
    ]


def figure(style: Style, size: float) -> Pieces:
    """A lathed game piece, or a robot of boxes."""
    if style.rng.random() < 0.5:
        r = 0.24 * size
        outline = [
            (0, 0),
            (r, 0),
            (r, 0.08 * size),
            (0.75 * r, 0.13 * size),
            (0.42 * r, 0.3 * size),
            (0.33 * r, 0.55 * size),
            (0.62 * r, 0.6 * size),
            (0.62 * r, 0.64 * size),
            (0, 0.64 * size),
        ]
        return [
            Piece(lathe(outline), style.toy(size)),
            Piece(sphere(0.16 * size), style.toy(size), (0, 0, 0.62 * size)),
        ]
    body, limb = style.toy(size), style.paint()
    pieces = [
        Piece(rounded_box(0.36 * size, 0.24 * size, 0.36 * size, 0.03 * size), body, (0, 0, 0.28 * size)),
        Piece(rounded_box(0.26 * size, 0.22 * size, 0.22 * size, 0.04 * size), style.toy(size), (0, 0, 0.68 * size)),
        Piece(cylinder(0.05 * size, 0.06 * size, 16), limb, (0, 0, 0.63 * size)),
        Piece(capsule(0.015 * size, 0.14 * size, 8), style.metal(), (0, 0, 0.88 * size)),
    ]
    for side in (-1, 1):
        pieces += [
            Piece(rounded_box(0.12 * size, 0.16 * size, 0.3 * size, 0.02 * size), limb, (side * 0.1 * size, 0, 0)),
            Piece(capsule(0.05 * size, 0.34 * size, 14), limb, (side * 0.24 * size, 0, 0.3 * size)),
            Piece(sphere(0.035 * size, 14, 8), style.paint(0), (side * 0.06 * size, -0.11 * size, 0.76 * size)),
        ]
    return pieces


def truck(style: Style, size: float) -> Pieces:
    body, wheel = style.paint(int(style.rng.integers(3, 6))), style.paint(2)
    pieces = [
        Piece(rounded_box(0.9 * size, 0.38 * size, 0.1 * size, 0.02 * size), style.metal(), (0, 0, 0.1 * size)),
        Piece(rounded_box(0.26 * size, 0.36 * size, 0.34 * size, 0.04 * size), body, (0.3 * size, 0, 0.18 * size)),
        Piece(box(0.04 * size, 0.28 * size, 0.12 * size), style.paint(0), (0.425 * size, 0, 0.33 * size)),
        Piece(
            box(0.55 * size, 0.38 * size, style.rng.uniform(0.2, 0.4) * size),
            style.toy(size),
            (-0.16 * size, 0, 0.2 * size),
        ),
    ]
    for x in (-0.28, 0.28):
        for side in (-1, 1):
            pieces.append(
                Piece(
                    cylinder(0.11 * size, 0.08 * size, 24).turned("x", np.pi / 2).grounded(),
                    wheel,
                    (x * size, side * 0.19 * size + 0.04 * size, 0),
                )
            )
    return pieces


def blocks(style: Style, size: float) -> Pieces:
    """A tower of turned cubes."""
    pieces, z, side = [], 0.0, 0.42 * size
    for _ in range(int(style.rng.integers(2, 5))):
        pieces.append(
            Piece(
                rounded_box(side, side, side, 0.05 * side),
                style.toy(side),
                (*style.rng.uniform(-0.04, 0.04, 2) * size, z),
                style.rng.uniform(0, 1.6),
            )
        )
        z += side
        side *= style.rng.uniform(0.65, 0.95)
    return pieces


def arch(style: Style, size: float) -> Pieces:
    turn = np.linspace(0, np.pi, 22)
    path = np.stack([0.36 * size * np.cos(turn), np.zeros(22), 0.35 * size + 0.36 * size * np.sin(turn)], 1)
    path = np.concatenate([[[0.36 * size, 0, 0]], path, [[-0.36 * size, 0, 0]]])
    return [Piece(tube(path, size * style.rng.uniform(0.07, 0.13), 16), style.toy(size))]


def knot(style: Style, size: float) -> Pieces:
    t = 2 * np.pi * np.arange(96) / 96
    p, q = ((2, 3), (3, 2), (2, 5))[style.rng.integers(3)]
    path = np.stack([(2 + np.cos(q * t)) * np.cos(p * t), (2 + np.cos(q * t)) * np.sin(p * t), np.sin(q * t)], 1)
    mesh = tube(0.135 * size * path, 0.065 * size, 12, closed=True)
    if style.rng.random() < 0.6:
        mesh = mesh.turned("x", np.pi / 2)
    return [Piece(mesh.grounded(), style.toy(size))]


def star(style: Style, size: float) -> Pieces:
    """A star, a flower or a cog, standing on a foot."""
    count, sharp = int(style.rng.integers(4, 9)), style.rng.uniform(0.15, 0.35)
    angle = 2 * np.pi * np.arange(12 * count) / (12 * count)
    radius = 0.34 * size * (1 + sharp * np.cos(count * angle))
    mesh = extruded(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), 0.16 * size)
    mesh = mesh.turned("x", np.pi / 2).grounded()
    return [
        Piece(mesh, style.toy(size), (0, 0.08 * size, 0.06 * size)),
        Piece(cylinder(0.24 * size, 0.09 * size), style.toy(0.4 * size)),
    ]


def mushroom(style: Style, size: float) -> Pieces:
    stem = lathe([(0, 0), (0.17 * size, 0), (0.13 * size, 0.2 * size), (0.1 * size, 0.6 * size), (0, 0.6 * size)])
    angle = np.linspace(0, np.pi / 2, 12)
    cap = np.stack([0.42 * size * np.cos(angle), 0.4 * size * np.sin(angle)], 1)
    cap[-1, 0] = 0
    return [
        Piece(stem, style.paint(0)),
        Piece(lathe(np.concatenate([[(0, 0.06 * size)], cap])), style.of("dots", 0.2 * size), (0, 0, 0.52 * size)),
    ]


def gift(style: Style, size: float) -> Pieces:
    x, y, z = size * style.rng.uniform(0.5, 0.9, 3)
    ribbon, width = style.paint(int(style.rng.integers(3, 6)), 0.3), 0.14 * min(x, y)
    knobs = [
        Piece(ring(0.1 * size, 0.025 * size, 24).turned("x", np.pi / 2).grounded(), ribbon, (0, 0, z), yaw)
        for yaw in (0.6, 2.2)
    ]
    return [
        Piece(box(x, y, z), style.toy(size)),
        Piece(box(x + 0.01, width, z + 0.005), ribbon),
        Piece(box(width, y + 0.01, z + 0.005), ribbon),
        *knobs,
    ]


def lantern(style: Style, size: float) -> Pieces:
    foot, stem, shade = 0.2 * size, 0.025 * size, 0.3 * size
    mesh = lathe(
        [
            (0.6 * shade, 0.38 * size),
            (shade, 0),
            (0.94 * shade, 0),
            (0.54 * shade, 0.38 * size),
            (0.6 * shade, 0.38 * size),
        ][::-1]
    )
    return [
        Piece(
            lathe([(0, 0), (foot, 0), (0.9 * foot, 0.04 * size), (1.2 * stem, 0.08 * size), (0, 0.08 * size)]),
            style.wood(),
        ),
        Piece(cylinder(stem, 0.8 * size, 14), style.metal()),
        Piece(mesh, style.cloth(0.12 * size + 0.02), (0, 0, 0.58 * size)),
        Piece(sphere(0.1 * size, 20, 12), style.paint(0), (0, 0, 0.68 * size)),
    ]


def chest(style: Style, size: float) -> Pieces:
    """A parcel or crate, printed or planked."""
    x, y, z = size * style.rng.uniform(0.45, 1.0, 3)
    cover = style.of("print", 0.6 * size) if style.rng.random() < 0.5 else style.of("planks", 0.12 * size)
    return [Piece(box(x, y, z), cover), Piece(box(x * 1.02, y * 1.02, 0.12 * z), style.paint(), (0, 0, 0.9 * z))]


THINGS = (
    primitive,
    primitive,
    primitive,
    primitive,
    vase,
    mug,
    bottle,
    tin,
    bowl,
    books,
    house,
    tree,
    plant,
    cactus,
    snowman,
    figure,
    truck,
    blocks,
    arch,
    knot,
    star,
    mushroom,
    gift,
    lantern,
    chest,
)
SMALL_THINGS = (
    primitive,
    primitive,
    vase,
    mug,
    bottle,
    tin,
    bowl,
    books,
    figure,
    blocks,
    cactus,
    truck,
    lantern,
    chest,
    star,
)


def thing(style: Style, size: float, makers: tuple = THINGS) -> Pieces:
    """A random thing of about `size` metres."""
    return makers[style.rng.integers(len(makers))](style, size)
