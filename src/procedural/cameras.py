"""Paths of a hand-held camera through a world: an orbit around a cluster, a walk through a room."""

import numpy as np

from src.procedural.lighting import disc
from src.procedural.vectors import unit
from src.procedural.world import World

NEAREST = 0.3  # metres; no camera comes closer to a surface
TRIES = 60  # paths before another layout is drawn
FIELD = 48, 62  # degrees, along the longer side: what phones' main cameras keep in a square cut

Stop = tuple[np.ndarray, np.ndarray]  # where a camera stands, what it looks at


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Camera-to-world (4, 4), OpenCV axes, in a world whose z points up; upright but for `roll` radians."""
    forward = unit(target - position)
    right = unit(np.cross(forward, [0, 0, 1.0]))
    down = np.cross(forward, right)
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack(
        [np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, forward], 1
    )
    c2w[:3, 3] = position
    return c2w


def drawn_intrinsics(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """K of a random field of view, principal point in the centre."""
    focal = 0.5 * max(size) / np.tan(np.radians(rng.uniform(*FIELD)) / 2)
    return np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])


def progress(rng: np.random.Generator, num_views: int) -> np.ndarray:
    """Places (num_views,) along a path, from 0 to 1 where views are many: steps of uneven length, so that a scene has
    neighbours that hardly differ and others that hardly overlap."""
    steps = rng.choice([0.1, 0.35, 1.0, 1.6], num_views - 1) * rng.uniform(0.8, 1.2, num_views - 1)
    places = np.concatenate([[0], np.cumsum(steps)])
    return places / places[-1] * min(1.0, (num_views - 1) / 8)


def orbit(rng: np.random.Generator, num_views: int, tangent: float, world: World) -> list[Stop]:
    """An arc around the cluster in the middle, 1.2 to 3 m away: closer where the field of view is wide."""
    sweep = np.radians(rng.uniform(80, 190)) * rng.choice([-1, 1])
    start, wave, swell = rng.uniform(0, 2 * np.pi, 3)
    radius = np.clip(rng.uniform(0.55, 0.95) / tangent, 1.25, 2.7)
    elevation = np.radians(rng.uniform(14, 42))
    centre = np.array([*rng.uniform(-0.12, 0.12, 2), world.layout.focus + rng.uniform(0.05, 0.2)])
    stops = []
    for place in progress(rng, num_views):
        angle = start + sweep * place
        tilt = elevation + np.radians(8) * np.sin(wave + 7 * place) + np.radians(rng.uniform(-0.7, 0.7))
        distance = radius * (1 + 0.11 * np.sin(swell + 6 * place))
        direction = np.array([np.cos(angle) * np.cos(tilt), np.sin(angle) * np.cos(tilt), np.sin(tilt)])
        target = centre + 0.08 * np.sin(np.array([wave, swell, start]) + 5 * place) + rng.uniform(-0.015, 0.015, 3)
        stops.append((target + distance * direction, target))
    return stops


def stroll(rng: np.random.Generator, num_views: int, tangent: float, world: World) -> list[Stop]:
    """A curve along one side of the room, looking across it at a slowly moving point."""
    half = world.layout.room[:2] / 2
    start, wave, swell = rng.uniform(0, 2 * np.pi, 3)
    sweep = np.radians(rng.uniform(45, 125)) * rng.choice([-1, 1])
    reach, height = rng.uniform(0.5, 0.82), rng.uniform(1.15, 1.75)
    centre = np.array([*(rng.uniform(-0.3, 0.3, 2) * half), rng.uniform(0.5, 0.95)])
    drift = np.array([*rng.uniform(-0.8, 0.8, 2), 0])
    stops = []
    for place in progress(rng, num_views):
        angle = start + sweep * place
        near = reach * (1 + 0.12 * np.sin(wave + 6 * place)) * half
        position = np.array(
            [near[0] * np.cos(angle), near[1] * np.sin(angle), height + 0.18 * np.sin(swell + 8 * place)]
        )
        stops.append((position, centre + (place - 0.5) * drift + rng.uniform(-0.03, 0.03, 3)))
    return stops


def directions_around(count: int) -> np.ndarray:
    """Directions (count, 3) all around, in even steps (spherical spiral)."""
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    return np.concatenate([unit(disc(count)) * np.sqrt(1 - height**2)[:, None], height[:, None]], 1)


def free(world: World, positions: np.ndarray) -> bool:
    """Whether no surface lies within NEAREST metres of any position (V, 3), and none is inside a solid."""
    around = directions_around(96)
    origins = np.repeat(positions, len(around), axis=0)
    directions = np.tile(around, (len(positions), 1))
    hits = world.trace(origins, directions)
    behind = (world.flat[hits["primID"]] * directions).sum(1) > 0
    return bool((hits["primID"] >= 0).all() and hits["tfar"].min() > NEAREST and not behind.any())


def open_view(world: World, K: np.ndarray, poses: list[np.ndarray], size: tuple[int, int]) -> bool:
    """Whether each image looks into the distance: nothing very near, and no thing fills most of it."""
    grid = (np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2) + 0.5) * np.array(size) / 12
    for c2w in poses:
        hits = world.trace(c2w[:3, 3], ray_directions(K, c2w, grid))
        shares = np.bincount(world.part_of_face[hits["primID"]], minlength=len(world.gloss)) / len(grid)
        far = hits["tfar"].min() >= NEAREST and np.quantile(hits["tfar"], 0.25) >= 0.8
        if not far or shares[world.layout.shell :].max() > 0.4:
            return False
    return True


def ray_directions(K: np.ndarray, c2w: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """World directions (N, 3) through pixels (N, 2), of length 1 along the optical axis: tfar is z-depth."""
    x, y = (pixels[:, 0] - K[0, 2]) / K[0, 0], (pixels[:, 1] - K[1, 2]) / K[1, 1]
    return x[:, None] * c2w[:3, 0] + y[:, None] * c2w[:3, 1] + c2w[:3, 2]


PATHS = {"objects": orbit, "rooms": stroll}


def cameras(
    family: str, world: World, rng: np.random.Generator, num_views: int, size: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """K and the camera-to-world matrices of a scene's images, all standing free; None where no path was found."""
    for _ in range(TRIES):
        K = drawn_intrinsics(rng, size)
        stops = PATHS[family](rng, num_views, min(size) / 2 / K[0, 0], world)
        rolls = np.radians(rng.normal(0, 2) + rng.normal(0, 1, num_views))
        if not free(world, np.stack([position for position, _ in stops])):
            continue
        poses = [look_at(*stop, roll) for stop, roll in zip(stops, rolls)]
        if open_view(world, K, poses, size):
            return K, poses
    return None
