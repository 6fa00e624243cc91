"""Where everything stands: a cluster of things in a hall or before painted scenery, and a furnished room."""

import numpy as np
from scipy.spatial.transform import Rotation

from src.procedural import furniture
from src.procedural.furniture import moved
from src.procedural.materials import Style
from src.procedural.meshes import Mesh, box, cylinder, lathe, panel
from src.procedural.things import Piece, Pieces, primitive, thing
from src.procedural.world import Lamp, Layout, Material, Part

WARM, WHITE, COOL = np.array([1.0, 0.84, 0.66]), np.array([1.0, 0.95, 0.88]), np.array([0.75, 0.88, 1.0])

SUNK = 1e-4  # metres by which what belongs to the room reaches into its floor and walls: no two surfaces in one plane


class Stage:
    """A layout that is being filled, with the style and the generator of its scene."""

    def __init__(self, rng: np.random.Generator, room: np.ndarray):
        self.rng, self.style, self.layout = rng, Style(rng), Layout(np.asarray(room, float))

    def add(self, pieces: Pieces) -> None:
        for piece in pieces:
            rotation = Rotation.from_euler("xz", [piece.tilt, piece.yaw]).as_matrix()
            self.layout.parts.append(
                Part(
                    piece.mesh, piece.material, np.array(piece.offset, float), rotation, int(self.rng.integers(1 << 30))
                )
            )

    def put(
        self, mesh: Mesh, material: Material, x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0
    ) -> None:
        self.add([Piece(mesh, material, (x, y, z), yaw)])

    def walls(self, floor: Material, ceiling: Material, sides: list[Material], skirting: Material | None) -> None:
        """Floor, ceiling and four walls around the origin; walls 0 to 3 stand at -y, +x, +y, -x and face inwards."""
        x, y, z = self.layout.room
        self.put(panel(x, y, 0.14, dense=True), floor)
        self.put(panel(x, y, 0.3).turned("x", np.pi), ceiling, 0, 0, z)
        for side in range(4):
            wide, away = (x, y) if side % 2 == 0 else (y, x)
            sheet = panel(wide, z, 0.2).turned("x", -np.pi / 2).moved(y=-away / 2, z=z / 2)
            self.put(sheet, sides[side], yaw=side * np.pi / 2)
            if skirting is not None:
                board = box(wide + 2 * SUNK, 0.02, 0.1 + side * SUNK, 0.3).moved(y=0.01 - away / 2 - SUNK, z=-SUNK)
                self.put(board, skirting, yaw=side * np.pi / 2)

    def against(self, side: int, along: float, gap: float) -> tuple[float, float, float]:
        """x, y, yaw of a piece whose back stands `gap` metres before wall `side`, `along` metres from its middle."""
        away = self.layout.room[1 if side % 2 == 0 else 0] / 2 - gap
        turn = side * np.pi / 2
        return -np.sin(turn) * -away + np.cos(turn) * along, np.cos(turn) * -away + np.sin(turn) * along, turn


def point_between(rng: np.random.Generator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    share = rng.random()
    return (1 - share) * first + share * second


def scattered(
    rng: np.random.Generator, count: int, reach: float, sizes: tuple[float, float]
) -> list[tuple[float, float, float]]:
    """Up to `count` places (x, y, size) within `reach` metres, clear of each other, the largest inmost."""
    places: list[tuple[float, float, float]] = []
    for size in sorted(rng.uniform(*sizes, count), reverse=True):
        for _ in range(30):
            angle = rng.uniform(0, 2 * np.pi)
            radius = reach * (np.sqrt(rng.random()) if places else 0.25 * rng.random())
            x, y = radius * np.cos(angle), radius * np.sin(angle)
            if all(np.hypot(x - px, y - py) > 0.52 * (size + other) for px, py, other in places):
                places.append((x, y, float(size)))
                break
    return places


def hall(stage: Stage) -> None:
    """Four walls far away."""
    style, rng = stage.style, stage.rng
    common = style.wall()
    sides = [common if rng.random() < 0.4 else style.wall() for _ in range(4)]
    stage.walls(style.floor(), style.paint(0, 0), sides, style.paint())


def hang_pictures(stage: Stage) -> None:
    """One on each of four walls."""
    for side in range(4):
        x, y, yaw = stage.against(side, stage.rng.uniform(-1.5, 1.5), 0.001)
        stage.add(moved(furniture.picture(stage.style), x, y, stage.rng.uniform(1.3, 2.0), yaw))


def scenery(stage: Stage) -> None:
    """A round wall painted with clouds and hills around a meadow or a paved square."""
    style, rng = stage.style, stage.rng
    radius, height = stage.layout.room[0] / 2, stage.layout.room[2]
    blue = np.array([0.25, 0.45, 0.8]) * rng.uniform(0.7, 1.2)
    dusk = rng.random() < 0.35
    low = np.array([0.9, 0.6, 0.35]) if dusk else np.array([0.85, 0.9, 0.92])
    green = style.shifted(np.array([[0.2, 0.32, 0.16], [0.1, 0.2, 0.07]]), 0.3)
    colours = np.stack([0.5 * blue + 0.5 * low * dusk, low, *green])
    wall = Material("scenery", rng.uniform(0.7, 1.1), colours, 0.25, 0.0, 0.25)
    grass = np.array([[0.2, 0.33, 0.1], [0.15, 0.26, 0.07], [0.3, 0.3, 0.12], [0.1, 0.2, 0.05]])
    ground = style.floor() if rng.random() < 0.6 else Material("blotches", 0.5, style.shifted(grass, 0.2), 0.5)
    stage.put(panel(2 * radius + 0.2, 2 * radius + 0.2, 0.14, dense=True), ground)
    inner, outer, low_end, high_end = radius, radius + 0.1, -SUNK, height + SUNK
    outline = [(inner, low_end), (outer, low_end), (outer, high_end), (inner, high_end), (inner, low_end)]
    stage.put(lathe(outline, 72, 0.4), wall)
    above = np.stack([colours[0], 0.6 * colours[0] + 0.3 * low, colours[0], colours[0]])
    sky = Material("scenery", 1.0, above, 0.1, 0.0, 0.4)
    stage.put(panel(2 * radius + 0.2, 2 * radius + 0.2, 0.5).turned("x", np.pi), sky, 0, 0, height)


def objects(rng: np.random.Generator) -> Layout:
    """A cluster of things, some stacked, on a table, a plinth or the ground."""
    outdoors = rng.random() < 0.35
    stage = Stage(rng, (9.0, 9.0, 4.0) if outdoors else (*rng.uniform(7.4, 9.0, 2), rng.uniform(3.2, 4.0)))
    style = stage.style
    scenery(stage) if outdoors else hall(stage)
    stage.layout.shell = len(stage.layout.parts)
    if not outdoors:
        hang_pictures(stage)
    for number in range(int(rng.integers(3, 7))):  # far props, outside every orbit
        angle, size = 2 * np.pi * (number + 0.6 * rng.random()) / 6 + 0.3, rng.uniform(0.6, 1.2)
        stage.add(moved(thing(style, size), 3.35 * np.cos(angle), 3.35 * np.sin(angle), 0, rng.uniform(0, 6.3)))
    base, reach, choice = 0.0, 0.62, rng.random()
    if choice < 0.35:
        base, reach = rng.uniform(0.45, 0.75), rng.uniform(0.5, 0.65)
        stage.add(furniture.round_table(style, reach + 0.25, base))
    elif choice < 0.65:
        base, reach = rng.uniform(0.45, 0.75), rng.uniform(0.45, 0.55)
        pieces = furniture.table(style, 2 * reach + rng.uniform(0.2, 0.7), 2 * reach + 0.25, base)
        stage.add(moved(pieces, 0, 0, 0, rng.uniform(0, 6.3)))
    elif choice < 0.85:
        base = rng.uniform(0.05, 0.25)
        stage.put(cylinder(reach + 0.3, base, 64), style.floor(), yaw=rng.uniform(0, 6.3))
    else:
        stage.put(box(1.9, 1.9, 0.012, 0.05), style.cloth(0.35), yaw=rng.uniform(0, 6.3))
        base = 0.012
    for x, y, size in scattered(rng, int(rng.integers(5, 11)), reach, (0.16, 0.46)):
        pieces = thing(style, size)
        stage.add(moved(pieces, x, y, base, rng.uniform(0, 6.3)))
    for _ in range(int(rng.integers(2, 6))):  # crumbs
        angle, radius = rng.uniform(0, 6.3), reach * rng.uniform(0.6, 1.1)
        pieces = primitive(style, rng.uniform(0.06, 0.12))
        stage.add(moved(pieces, radius * np.cos(angle), radius * np.sin(angle), base))
    stage.layout.focus = base
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.65, 1.15)
    direction = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    other = np.array([np.cos(azimuth + 2.4), np.sin(azimuth + 2.4), 0.7])
    key = point_between(rng, WARM, WHITE)
    stage.layout.lamps = [
        Lamp(3.0 * direction + (0, 0, base), rng.uniform(9, 13) * key, 0.1),
        Lamp(3.0 * other + (0, 0, base), rng.uniform(1.5, 3.5) * point_between(rng, WHITE, COOL), 0.5, sharp=False),
    ]
    stage.layout.ambient = rng.uniform(0.22, 0.36) * point_between(rng, WHITE, COOL)
    return stage.layout


def wide_of(pieces: Pieces) -> float:
    """Extent along x of pieces that stand unturned."""
    ends = [piece.offset[0] + piece.mesh.vertices[:, 0] for piece in pieces]
    return max(end.max() for end in ends) - min(end.min() for end in ends)


def furnish_wall(stage: Stage, side: int, opening: tuple[float, Pieces] | None, makers: list) -> None:
    """Furniture along a wall from left to right while there is room, pictures over what is low, and what the wall
    itself holds: `opening`, its height above the floor and pieces, in the middle, with nothing tall before it."""
    rng, style = stage.rng, stage.style
    length = stage.layout.room[side % 2]
    if opening is not None:
        stage.add(moved(opening[1], *stage.against(side, 0.0, 0.0)[:2], opening[0], stage.against(side, 0, 0)[2]))
    cursor = -length / 2 + rng.uniform(0.1, 0.5)
    while makers:
        pieces = makers.pop()(style)
        wide, tall = wide_of(pieces), max(piece.offset[2] + piece.mesh.height for piece in pieces)
        middle = cursor + wide / 2
        if opening is not None and abs(middle) < wide / 2 + 0.75 and tall > opening[0]:
            cursor = middle = 0.75 + wide / 2
        if middle + wide / 2 > length / 2 - 0.15:
            break
        deep = max(-(piece.offset[1] + piece.mesh.vertices[:, 1].min()) for piece in pieces)
        x, y, yaw = stage.against(side, middle, deep + 0.03)
        stage.add(moved(pieces, x, y, 0, yaw))
        if tall < 1.2 and opening is None and rng.random() < 0.85:
            x, y, yaw = stage.against(side, middle, 0.001)
            stage.add(moved(furniture.picture(style), x, y, max(tall + 0.55, rng.uniform(1.45, 1.7)), yaw))
        cursor = middle + wide / 2 + rng.uniform(0.15, 0.7)


def rooms(rng: np.random.Generator) -> Layout:
    """A furnished room with a window, a door, and a table in its middle."""
    room = np.array([rng.uniform(3.6, 5.6), rng.uniform(3.6, 5.6), rng.uniform(2.4, 2.9)])
    stage = Stage(rng, room)
    style, common = stage.style, stage.style.wall()
    sides = [common if rng.random() < 0.6 else style.wall() for _ in range(4)]
    ceiling = style.of("planks", 0.16) if rng.random() < 0.3 else style.paint(0, 0)
    stage.walls(style.floor(), ceiling, sides, style.paint(0 if rng.random() < 0.6 else 2))
    stage.layout.shell = len(stage.layout.parts)
    if rng.random() < 0.85:
        rug, yaw = box(*rng.uniform(1.4, 2.4, 2), 0.012, 0.08), rng.choice([0, np.pi / 2, rng.uniform(0, 3)])
        if rng.random() < 0.35:
            rug = cylinder(rng.uniform(0.8, 1.2), 0.012, 56)
        stage.put(rug, style.cloth(rng.uniform(0.2, 0.45)), *rng.uniform(-0.3, 0.3, 2), 0, yaw)
    middle_group(stage)
    large = [
        furniture.shelf,
        furniture.shelf,
        furniture.cabinet,
        furniture.cabinet,
        furniture.sofa,
        furniture.wardrobe,
        furniture.bed if rng.random() < 0.4 else furniture.sofa,
        furniture.floor_lamp,
        furniture.stool,
        furniture.oddment,
        furniture.oddment,
        furniture.oddment,
    ]
    queue = [large[number] for number in rng.permutation(len(large))]
    first = int(rng.integers(4))
    sill = rng.uniform(0.8, 1.0)
    high = min(rng.uniform(1.1, 1.4), room[2] - sill - 0.35)
    view = (sill, furniture.window(style, rng.uniform(0.9, 1.5), high))
    for number in range(4):
        side = (first + number) % 4
        opening = (view, None, (0.0, furniture.door(style)), None)[number]
        furnish_wall(stage, side, opening, [queue.pop() for _ in range(3)])
    cord = room[2] - rng.uniform(1.75, 2.0)
    hang = rng.uniform(-0.3, 0.3, 2)
    stage.add(moved(furniture.pendant(style, cord), *hang, room[2]))
    bright = rng.uniform(3.5, 5.5) * point_between(rng, WARM, WHITE)
    stage.layout.lamps.append(Lamp(np.array([*hang, room[2] - cord - 0.02]), bright, 0.06))
    x, y, _ = stage.against(first, 0.0, 0.3)
    stage.layout.lamps.append(
        Lamp(np.array([x, y, sill + high / 2]), rng.uniform(2.5, 5) * point_between(rng, WHITE, COOL), 0.5, False)
    )
    stage.layout.ambient = rng.uniform(0.26, 0.4) * WHITE
    return stage.layout


def middle_group(stage: Stage) -> None:
    """A table with things on it, chairs around, and something on the floor."""
    rng, style = stage.rng, stage.style
    x, y, yaw = *rng.uniform(-0.45, 0.45, 2), rng.choice([0, np.pi / 2, rng.uniform(0, 3)])
    height = rng.choice([0.42, 0.72]) + rng.uniform(-0.03, 0.03)
    if rng.random() < 0.4:
        reach = rng.uniform(0.4, 0.6)
        pieces, half = furniture.round_table(style, reach, height), np.array([0.6, 0.6]) * reach
    else:
        half = np.array([rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.45)])
        pieces = furniture.table(style, *(2 * half), height)
    for tx, ty, size in scattered(rng, int(rng.integers(3, 8)), 1.0, (0.14, 0.36)):
        pieces = pieces + moved(
            thing(style, size), 0.75 * tx * half[0], 0.75 * ty * half[1], height, rng.uniform(0, 6.3)
        )
    stage.add(moved(pieces, x, y, 0.012, yaw))
    for number in range(int(rng.integers(1, 5))):
        around = yaw + number * np.pi / 2 + rng.uniform(-0.3, 0.3)
        away = (half[0] if number % 2 == 0 else half[1]) + rng.uniform(0.25, 0.5)
        seat = furniture.chair(style) if height > 0.6 else furniture.stool(style)
        stage.add(moved(seat, x + away * np.cos(around), y + away * np.sin(around), 0.012, around + np.pi / 2))
