"""Furniture and what belongs to walls, built from pieces that stand on z = 0 and face +y; sizes in metres."""

import numpy as np

from src.procedural.materials import Style
from src.procedural.meshes import box, cone, cylinder, drape, lathe, rounded_box, sphere, tube
from src.procedural.things import SMALL_THINGS, Piece, Pieces, thing
from src.procedural.world import Material

COARSE = 0.12  # metres between vertices of large pieces
TOPS = ("marble", "tiles", "plaster", "terrazzo", "planks", "mosaic", "checker")


def table(style: Style, x: float, y: float, height: float) -> Pieces:
    top = style.wood() if style.rng.random() < 0.6 else style.of(TOPS, 0.25)
    leg = style.rng.choice([0.04, 0.05, 0.07])
    legs = style.wood() if style.rng.random() < 0.5 else style.paint()
    pieces = [
        Piece(box(x, y, 0.035, 0.06), top, (0, 0, height - 0.035)),
        Piece(box(x - 0.12, y - 0.12, 0.06, COARSE), legs, (0, 0, height - 0.095)),
    ]
    for sx in (-1, 1):
        for sy in (-1, 1):
            pieces.append(Piece(box(leg, leg, height - 0.035), legs, (sx * (x / 2 - 0.07), sy * (y / 2 - 0.07), 0)))
    return pieces


def round_table(style: Style, radius: float, height: float) -> Pieces:
    top = style.wood() if style.rng.random() < 0.5 else style.of(TOPS, 0.22)
    foot = style.paint()
    return [
        Piece(cylinder(radius, 0.04, 56), top, (0, 0, height - 0.04)),
        Piece(cylinder(0.05, height - 0.06, 20), foot, (0, 0, 0.02)),
        Piece(lathe([(0, 0), (0.45 * radius, 0), (0.42 * radius, 0.03), (0.07, 0.06), (0, 0.06)]), foot),
    ]


def chair(style: Style) -> Pieces:
    wood, seat = (style.wood() if style.rng.random() < 0.6 else style.paint()), style.cloth(0.15)
    back = style.rng.uniform(0.38, 0.5)
    pieces = [Piece(rounded_box(0.44, 0.44, 0.06, 0.02), seat, (0, 0, 0.42))]
    for sx in (-1, 1):
        pieces += [
            Piece(box(0.04, 0.04, 0.42), wood, (sx * 0.19, 0.19, 0)),
            Piece(box(0.04, 0.04, 0.46 + back), wood, (sx * 0.19, -0.19, 0)),
        ]
    if style.rng.random() < 0.5:
        pieces.append(Piece(rounded_box(0.4, 0.05, 0.6 * back, 0.02), seat, (0, -0.19, 0.46 + 0.35 * back)))
    else:
        pieces += [Piece(box(0.36, 0.025, 0.06), wood, (0, -0.19, 0.46 + share * back)) for share in (0.25, 0.55, 0.85)]
    return pieces


def stool(style: Style) -> Pieces:
    height = style.rng.uniform(0.38, 0.5)
    return [Piece(rounded_box(0.5, 0.5, height, 0.12), style.cloth(0.16))]


def sofa(style: Style) -> Pieces:
    wide, cloth = style.rng.uniform(1.4, 2.0), style.cloth(0.2)
    pieces = [
        Piece(box(wide, 0.6, 0.12, COARSE), style.wood()),
        Piece(rounded_box(wide, 0.8, 0.3, 0.06, COARSE), cloth, (0, 0, 0.1)),
        Piece(rounded_box(wide, 0.24, 0.8, 0.09, COARSE), cloth, (0, -0.32, 0.05)),
    ]
    pieces += [
        Piece(rounded_box(0.2, 0.84, 0.56, 0.08, COARSE), cloth, (side * (wide / 2 + 0.06), 0, 0.05))
        for side in (-1, 1)
    ]
    seats = 2 if wide < 1.7 else 3
    for number in range(seats):
        x = (number - (seats - 1) / 2) * (wide - 0.1) / seats
        pieces.append(Piece(rounded_box((wide - 0.14) / seats, 0.58, 0.16, 0.06, COARSE), cloth, (x, 0.1, 0.37)))
        if style.rng.random() < 0.6:
            pieces.append(Piece(rounded_box(0.4, 0.14, 0.38, 0.065), style.cloth(0.13), (x, -0.08, 0.53), 0, 0.25))
    return pieces


def bed(style: Style) -> Pieces:
    wood, cover = style.wood(), style.cloth(0.3)
    pieces = [
        Piece(box(1.5, 2.0, 0.28, COARSE), wood),
        Piece(rounded_box(1.46, 1.94, 0.26, 0.1, COARSE), style.paint(0, 0), (0, 0, 0.26)),
        Piece(rounded_box(1.52, 1.3, 0.28, 0.1, COARSE), cover, (0, 0.34, 0.27)),
        Piece(box(1.56, 0.06, 0.95, COARSE), wood, (0, -1.0, 0)),
    ]
    return pieces + [
        Piece(rounded_box(0.6, 0.4, 0.16, 0.07), style.cloth(0.15), (side * 0.36, -0.7, 0.5), 0, 0.15)
        for side in (-1, 1)
    ]


def shelf(style: Style) -> Pieces:
    """A bookcase: rows of books, and small things between."""
    wide, tall, deep = style.rng.uniform(0.8, 1.3), style.rng.uniform(1.1, 2.0), 0.3
    wood, back = (style.wood() if style.rng.random() < 0.7 else style.paint()), style.paint()
    levels = int(round(tall / 0.36))
    gap = tall / levels
    pieces = [Piece(box(0.03, deep, tall, COARSE), wood, (side * wide / 2, 0, 0)) for side in (-1, 1)]
    pieces.append(Piece(box(wide, 0.015, tall, COARSE), back, (0, 0.015 - deep / 2, 0)))
    pieces += [Piece(box(wide, deep, 0.025, COARSE), wood, (0, 0, level * gap)) for level in range(levels + 1)]
    for level in range(levels):
        z, x, end = level * gap + 0.025, 0.03 - wide / 2, wide / 2 - 0.03
        while x < end - 0.05:
            if style.rng.random() < 0.72:
                until = min(end, x + style.rng.uniform(0.2, 0.5))
                while x < until - 0.02:
                    thick, high = style.rng.uniform(0.02, 0.055), gap * style.rng.uniform(0.55, 0.88)
                    cover = style.label(high) if style.rng.random() < 0.5 else style.paint()
                    pieces.append(Piece(box(thick, 0.19, high, 1.0), cover, (x + thick / 2, 0.02, z)))
                    x += thick + 0.002
            else:
                size = style.rng.uniform(0.12, min(0.25, 0.8 * gap))
                pieces += (
                    moved(thing(style, size, SMALL_THINGS), x + size / 2 + 0.03, 0.02, z) if x + size < end else []
                )
                x += size + 0.08
    return pieces


def cabinet(style: Style) -> Pieces:
    """A chest of drawers with things on it."""
    wide, tall, deep = style.rng.uniform(0.8, 1.5), style.rng.uniform(0.6, 1.0), 0.42
    body = style.wood() if style.rng.random() < 0.6 else style.paint()
    front = style.wood() if style.rng.random() < 0.5 else style.paint()
    pieces = [
        Piece(box(wide, deep, tall - 0.08, COARSE), body, (0, 0, 0.08)),
        Piece(box(wide - 0.1, deep - 0.1, 0.1), style.paint(2)),
    ]
    rows, columns = int(style.rng.integers(2, 4)), int(style.rng.integers(1, 4))
    x, z = wide / columns, (tall - 0.1) / rows
    for row in range(rows):
        for column in range(columns):
            place = ((column + 0.5) * x - wide / 2, deep / 2, 0.09 + row * z)
            pieces += [
                Piece(box(x - 0.03, 0.03, z - 0.025, COARSE), front, place),
                Piece(sphere(0.018, 12, 8), style.metal(), (place[0], deep / 2 + 0.025, place[2] + 0.42 * z)),
            ]
    return pieces + row_of(style, wide - 0.15, tall, (0.15, 0.4))


def wardrobe(style: Style) -> Pieces:
    wide, body = style.rng.uniform(0.9, 1.4), style.wood()
    front = style.wood() if style.rng.random() < 0.6 else style.paint()
    pieces = [Piece(box(wide, 0.55, 2.0, 0.2), body)]
    for side in (-1, 1):
        pieces += [
            Piece(box(wide / 2 - 0.03, 0.03, 1.86, 0.2), front, (side * wide / 4, 0.275, 0.08)),
            Piece(cylinder(0.012, 0.18, 10), style.metal(), (side * 0.05, 0.31, 0.95)),
        ]
    return pieces


def floor_lamp(style: Style) -> Pieces:
    high = style.rng.uniform(1.3, 1.7)
    shade = lathe([(0.14, 0.32), (0.13, 0.32), (0.21, 0), (0.22, 0), (0.14, 0.32)])
    return [
        Piece(lathe([(0, 0), (0.17, 0), (0.15, 0.03), (0.03, 0.05), (0, 0.05)]), style.metal()),
        Piece(cylinder(0.018, high, 12), style.metal()),
        Piece(shade, style.cloth(0.12), (0, 0, high - 0.2)),
        Piece(sphere(0.07, 20, 12), style.paint(0), (0, 0, high - 0.13)),
    ]


def oddment(style: Style) -> Pieces:
    """Something large to stand on the floor."""
    return thing(style, style.rng.uniform(0.35, 0.7))


def row_of(style: Style, wide: float, z: float, sizes: tuple[float, float]) -> Pieces:
    """Things side by side along x on a surface at height z."""
    pieces, x = [], -wide / 2
    while True:
        size = style.rng.uniform(*sizes)
        x += style.rng.uniform(0, 0.25)
        if x + size > wide / 2:
            return pieces
        pieces += moved(thing(style, size), x + size / 2, style.rng.uniform(-0.04, 0.04), z)
        x += size + 0.04


def moved(pieces: Pieces, x: float, y: float, z: float, yaw: float = 0.0) -> Pieces:
    """Pieces turned by yaw about the z axis, then moved."""
    cos, sin = np.cos(yaw), np.sin(yaw)

    def place(offset: tuple[float, float, float]) -> tuple[float, float, float]:
        return x + cos * offset[0] - sin * offset[1], y + sin * offset[0] + cos * offset[1], z + offset[2]

    return [Piece(piece.mesh, piece.material, place(piece.offset), piece.yaw + yaw, piece.tilt) for piece in pieces]


def picture(style: Style) -> Pieces:
    """A framed picture around the origin, hanging flat against a wall behind it."""
    wide, high = style.rng.uniform(0.35, 1.0, 2)
    rim = style.wood() if style.rng.random() < 0.5 else style.paint()
    canvas = box(wide, 0.02, high, COARSE).moved(z=-high / 2)
    pieces = [Piece(canvas, style.painting(max(wide, high)), (0, 0.012, 0))]
    for side in (-1, 1):
        pieces += [
            Piece(box(0.035, 0.05, high + 0.06), rim, (side * (wide / 2 + 0.015), 0.025, -high / 2 - 0.03)),
            Piece(box(wide, 0.05, 0.035), rim, (0, 0.025, side * (high / 2 + 0.015) - 0.0175)),
        ]
    return pieces


def window(style: Style, wide: float, high: float) -> Pieces:
    """A bright view in a white frame between curtains; the origin is the middle of the sill."""
    colours = np.array([[0.35, 0.55, 0.85], [0.95, 0.95, 0.95], [0.25, 0.4, 0.22], [0.12, 0.24, 0.08]])
    pane = Material("scenery", high * 0.5, colours, 0.2, 0.0, 1.6)
    frame, cloth = style.paint(0, 0), style.cloth(0.18)
    pieces = [
        Piece(box(wide, 0.01, high, 0.3), pane, (0, 0.006, 0)),
        Piece(box(wide + 0.2, 0.12, 0.04), frame, (0, 0.06, -0.04)),
    ]
    for share in (-0.5, 0, 0.5):
        pieces += [
            Piece(box(0.05, 0.05, high), frame, (share * wide, 0.025, 0)),
            Piece(box(wide, 0.05, 0.05), frame, (0, 0.025, (share + 0.5) * high - 0.025)),
        ]
    for side in (-1, 1):
        hang = drape(0.45, high + 0.35, int(style.rng.integers(3, 6)), 0.03)
        pieces.append(Piece(hang, cloth, (side * (wide / 2 + 0.2), 0.12, -0.2)))
    rod = tube(np.array([(-wide / 2 - 0.5, 0, 0), (0, 0, 0), (wide / 2 + 0.5, 0, 0)]), 0.015, 10)
    return pieces + [Piece(rod, style.metal(), (0, 0.12, high + 0.16))]


def door(style: Style) -> Pieces:
    leaf, frame = (style.wood() if style.rng.random() < 0.5 else style.paint()), style.paint(0, 0)
    pieces = [
        Piece(box(0.84, 0.03, 2.0, 0.2), leaf, (0, 0.015, 0)),
        Piece(sphere(0.03, 14, 8), style.metal(), (0.34, 0.06, 1.0)),
    ]
    pieces += [Piece(box(0.6, 0.02, 0.75, 0.2), leaf, (0, 0.035, z)) for z in (0.15, 1.05)]
    pieces += [Piece(box(0.08, 0.06, 2.08), frame, (side * 0.46, 0.03, 0)) for side in (-1, 1)]
    return pieces + [Piece(box(1.0, 0.06, 0.08), frame, (0, 0.03, 2.0))]


def pendant(style: Style, cord: float) -> Pieces:
    """A lamp's shade hanging on a cord from a ceiling at z = 0; its light comes from 0.02 m below -cord."""
    shade = lathe([(0.05, 0.2), (0.04, 0.2), (0.2, 0), (0.215, 0), (0.05, 0.2)])
    return [
        Piece(shade, style.paint(), (0, 0, -cord)),
        Piece(cylinder(0.008, cord, 8), style.metal(), (0, 0, -cord)),
        Piece(cone(0.09, 0.05, 0.06, 20), style.paint(2), (0, 0, -0.05)),
    ]
