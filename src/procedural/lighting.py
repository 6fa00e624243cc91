"""Light in a world: what is reflected once is stored at the vertices, what comes straight from a lamp is traced.

Everything diffuse is independent of the view, so images of one scene agree with each other.
"""

import math

import numba
import numpy as np

from src.procedural.vectors import unit
from src.procedural.world import Lamp, World

RISE = 2e-3  # metres by which rays start above their surface
# Metres by which a vertex's own rays start beside it: on the symmetric outline of a round thing they would hit an edge
# exactly, and the processor's rounding would decide between what lies before and behind it.
ASIDE = np.array([1.7e-5, -1.1e-5, 1.3e-5])
SOFT_SAMPLES = 8  # points of a lamp whose shadows are stored
LIGHT_STEPS = 4096  # to which stored light is rounded: the few rays that a processor decides do not reach the picture
LAMP_SOFTENING = 0.35  # metres squared added to the squared distance of a lamp: no glare beside it

jit = numba.njit(cache=True)


@jit
def _look_around(normals: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    """Direction (x, y, z) of a frame around each normal (Duff et al. 2017, Orthonormal Basis, Revisited)."""
    out = np.empty_like(normals)
    for n in range(len(normals)):
        nx, ny, nz = normals[n]
        sign = 1.0 if nz >= 0 else -1.0
        a = -1 / (sign + nz)
        b = nx * ny * a
        out[n, 0] = x * (1 + sign * nx * nx * a) + y * b + z * nx
        out[n, 1] = x * sign * b + y * (sign + ny * ny * a) + z * ny
        out[n, 2] = -x * sign * nx - y * ny + z * nz
    return out


@jit
def _gather(
    prim: np.ndarray,
    us: np.ndarray,
    vs: np.ndarray,
    directions: np.ndarray,
    faces: np.ndarray,
    flat: np.ndarray,
    part: np.ndarray,
    mean: np.ndarray,
    direct: np.ndarray,
    ambient: np.ndarray,
    light: np.ndarray,
    inside: np.ndarray,
) -> None:
    """Add what one ray per vertex brings back; rays that hit a surface from behind bring nothing and are counted. Light is
    interpolated, so that it is the same on an edge whichever triangle the ray is said to hit."""
    for n in range(len(prim)):
        f = prim[n]
        if f < 0:
            for c in range(3):
                light[n, c] += ambient[c]
        elif directions[n, 0] * flat[f, 0] + directions[n, 1] * flat[f, 1] + directions[n, 2] * flat[f, 2] > 0:
            inside[n] += 1
        else:
            u, v = us[n], vs[n]
            for c in range(3):
                there = (1 - u - v) * direct[faces[f, 0], c] + u * direct[faces[f, 1], c] + v * direct[faces[f, 2], c]
                light[n, c] += mean[part[f], c] * there + 0.55 * (0.4 + mean[part[f], c]) * ambient[c]


@jit
def _fill(light: np.ndarray, unknown: np.ndarray, faces: np.ndarray) -> None:
    """Vertices within a solid take the mean of their neighbours that are not, ring by ring."""
    for _ in range(3):
        total, count = np.zeros_like(light), np.zeros(len(light))
        for f in range(len(faces)):
            for a in range(3):
                for b in range(3):
                    if unknown[faces[f, a]] and not unknown[faces[f, b]]:
                        count[faces[f, a]] += 1
                        for c in range(3):
                            total[faces[f, a], c] += light[faces[f, b], c]
        for n in range(len(light)):
            if count[n] > 0:
                unknown[n] = False
                for c in range(3):
                    light[n, c] = total[n, c] / count[n]


def disc(count: int) -> np.ndarray:
    """Points (count, 2) spread evenly over the unit disc (Vogel 1979, sunflower)."""
    number = np.arange(count) + 0.5
    radius, angle = np.sqrt(number / count), number * math.pi * (3 - math.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def spots(lamp: Lamp, count: int) -> np.ndarray:
    """Points (count, 3) on a lamp's disc, which faces the origin."""
    towards = unit(lamp.position)
    side = unit(np.cross(towards, [0.0, 0, 1]) if abs(towards[2]) < 0.9 else np.cross(towards, [1.0, 0, 0]))
    plane = lamp.radius * disc(count)
    return lamp.position + plane[:, :1] * side + plane[:, 1:] * np.cross(towards, side)


@jit
def _ways(points: np.ndarray, normals: np.ndarray, spot: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Ways (N, 3) from points to a spot of a lamp, and the share of its light (N,) that a surface there would get."""
    ways, share = np.empty_like(points), np.empty(len(points))
    for n in range(len(points)):
        squared, cosine = 0.0, 0.0
        for c in range(3):
            ways[n, c] = spot[c] - points[n, c]
            squared += ways[n, c] * ways[n, c]
            cosine += ways[n, c] * normals[n, c]
        share[n] = max(0.0, cosine / math.sqrt(squared)) / (squared + near)
    return ways, share


def received(world: World, lamp: Lamp, points: np.ndarray, normals: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Share (N,) of a lamp's light that reaches surface points, the mean over `places` (S, 3) on the lamp."""
    total = np.zeros(len(points))
    for place in places:
        ways, share = _ways(points, normals, place, LAMP_SOFTENING)
        lit = np.flatnonzero(share > 0)
        total[lit] += share[lit] * world.reaches(points[lit], ways[lit])
    return total / len(places)


def stored_light(world: World, bounces: int = 32) -> np.ndarray:
    """Light (V, 3) at every vertex but that of the sharp lamps: soft lamps, one reflection, and the ambient.

    bounces   rays by which a vertex looks around
    """
    starts = world.vertices + RISE * world.normals
    soft, direct = np.zeros_like(starts), np.zeros_like(starts)
    for lamp in world.layout.lamps:
        share = received(world, lamp, starts, world.normals, spots(lamp, 2 if lamp.sharp else SOFT_SAMPLES))
        direct += share[:, None] * lamp.colour
        if not lamp.sharp:
            soft += share[:, None] * lamp.colour
    light, inside = np.zeros_like(starts), np.zeros(len(starts))
    starts += ASIDE
    for x, y in disc(bounces):
        directions = _look_around(world.normals, x, y, math.sqrt(1 - x * x - y * y))
        hits = world.trace(starts, directions)
        _gather(
            hits["primID"],
            hits["u"],
            hits["v"],
            directions,
            world.faces,
            world.flat,
            world.part_of_face,
            world.mean,
            direct,
            world.layout.ambient,
            light,
            inside,
        )
    light = light / bounces + soft
    _fill(light, inside > 0.5 * bounces, world.faces)
    return np.rint(light * LIGHT_STEPS) / LIGHT_STEPS


@jit
def _locate(
    prim: np.ndarray,
    us: np.ndarray,
    vs: np.ndarray,
    ts: np.ndarray,
    directions: np.ndarray,
    angle: float,
    faces: np.ndarray,
    vertices: np.ndarray,
    normals: np.ndarray,
    flat: np.ndarray,
    stored: np.ndarray,
    part_of_face: np.ndarray,
    rotations: np.ndarray,
    positions: np.ndarray,
) -> tuple:
    """What rays hit: start (N, 3) of shadow rays, smooth normal, stored light, view direction; place and normal in the
    part's own frame; footprint (N,), part (N,). Normals are turned towards the camera; misses keep zeros, and a footprint
    by which can be divided."""
    count = len(prim)
    start, normal, light, view = np.zeros((count, 3)), np.zeros((count, 3)), np.zeros((count, 3)), np.zeros((count, 3))
    place, own, footprint, part = np.zeros((count, 3)), np.zeros((count, 3)), np.ones(count), np.zeros(count, np.int64)
    for n in range(count):
        f = prim[n]
        if f < 0:
            continue
        p, t, u, v = part_of_face[f], ts[n], us[n], vs[n]
        w = 1 - u - v
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        length, facing, size = 0.0, 0.0, 0.0
        for k in range(3):
            length += directions[n, k] * directions[n, k]
            facing -= directions[n, k] * flat[f, k]
            normal[n, k] = w * normals[a, k] + u * normals[b, k] + v * normals[c, k]
            size += normal[n, k] * normal[n, k]
            light[n, k] = w * stored[a, k] + u * stored[b, k] + v * stored[c, k]
        length, size = math.sqrt(length), math.sqrt(size)
        side = 1.0 if facing >= 0 else -1.0
        for k in range(3):
            normal[n, k] *= side / size
            view[n, k] = -directions[n, k] / length
            # the exact plane of the triangle, where the ray's own end is rounded
            place[n, k] = w * vertices[a, k] + u * vertices[b, k] + v * vertices[c, k]
            start[n, k] = place[n, k] + RISE * side * flat[f, k]
        footprint[n] = t * length * angle / math.sqrt(max(abs(facing) / length, 0.12))
        part[n] = p
        dx, dy, dz = place[n, 0] - positions[p, 0], place[n, 1] - positions[p, 1], place[n, 2] - positions[p, 2]
        for k in range(3):
            place[n, k] = rotations[p, 0, k] * dx + rotations[p, 1, k] * dy + rotations[p, 2, k] * dz
            own[n, k] = (
                rotations[p, 0, k] * normal[n, 0]
                + rotations[p, 1, k] * normal[n, 1]
                + rotations[p, 2, k] * normal[n, 2]
            )
    return start, normal, light, view, place, own, footprint, part


@jit
def _shine(
    light: np.ndarray,
    shine: np.ndarray,
    share: np.ndarray,
    colour: np.ndarray,
    start: np.ndarray,
    normal: np.ndarray,
    view: np.ndarray,
    spot: np.ndarray,
    gloss: np.ndarray,
    part: np.ndarray,
) -> None:
    """Add one lamp's share to the light on surfaces, and its highlight on glossy ones (Blinn 1977)."""
    for n in range(len(share)):
        if share[n] <= 0:
            continue
        half, size, cosine = np.empty(3), 0.0, 0.0
        away = 0.0
        for k in range(3):
            half[k] = spot[k] - start[n, k]
            away += half[k] * half[k]
        for k in range(3):
            half[k] = half[k] / math.sqrt(away) + view[n, k]
            size += half[k] * half[k]
            cosine += half[k] * normal[n, k]
        highlight = gloss[part[n]] * max(0.0, cosine / math.sqrt(max(size, 1e-12))) ** 40
        for k in range(3):
            light[n, k] += share[n] * colour[k]
            shine[n, k] += share[n] * highlight * colour[k]


def radiance(
    world: World,
    stored: np.ndarray,
    origin: np.ndarray,
    directions: np.ndarray,
    angle: float,
    sample: int,
    samples: int,
) -> np.ndarray:
    """Linear RGB (N, 3) seen along rays from one origin.

    stored (V, 3) of `stored_light` · angle  radians between neighbouring samples, at which textures are cut off
    sample, samples  which part of the lamps this image's shadow rays aim at
    """
    hits = world.trace(origin, directions)
    start, normal, light, view, place, own, footprint, part = _locate(
        hits["primID"],
        hits["u"],
        hits["v"],
        hits["tfar"],
        directions,
        angle,
        world.faces,
        world.vertices,
        world.normals,
        world.flat,
        stored,
        world.part_of_face,
        world.rotations,
        world.positions,
    )
    reflectance = world.colours(place, own, part, footprint)
    shine = np.zeros_like(light)
    for lamp in world.layout.lamps:
        if lamp.sharp:
            places = spots(lamp, 3 * samples)[sample::samples]
            share = received(world, lamp, start, normal, places)
            _shine(light, shine, share, lamp.colour, start, normal, view, lamp.position, world.gloss, part)
    seen = reflectance * (light + world.glow[part][:, None]) + shine
    return np.where((hits["primID"] >= 0)[:, None], seen, sky(directions))


def sky(directions: np.ndarray) -> np.ndarray:
    """A pale gradient (N, 3) where a ray leaves the world."""
    up = unit(directions)[:, 2:]
    return 0.8 - 0.4 * np.clip(up, 0, 1) * np.array([1.0, 0.6, 0.2])
