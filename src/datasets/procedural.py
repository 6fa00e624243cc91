"""Procedural scenes with exact cameras and depth: ray-cast, solid textures, Lambert and a little gloss, soft shadows.

Two families: `objects`, an orbit around a cluster on a table, and `rooms`, a walk inside a furnished room. A scene is
decided by its family and seed alone.
"""

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from src.datasets import layouts
from src.datasets.layouts import Lamp, Layout
from src.datasets.textures import albedo
from src.scene import Frame

FAMILIES = {"objects": layouts.objects, "rooms": layouts.rooms}
DEPTH_SCALE = 0.0002  # metres per stored unit; depth reaches 13.1 m
NEAREST = 0.3         # metres; no camera comes closer to a surface
OFFSET = 1e-3         # metres by which shadow rays start above their surface
TRIES = 200           # camera placements before another layout is drawn


@dataclass
class World:
    """A layout ready for rays: all meshes in one embree scene, and their tables."""

    layout: Layout
    scene: EmbreeScene
    faces: np.ndarray          # (F, 3) vertex numbers
    normals: np.ndarray        # (V, 3) world
    part_of_face: np.ndarray   # (F,)


def build(layout: Layout) -> World:
    vertices, faces, normals, owner, count = [], [], [], [], 0
    for number, part in enumerate(layout.parts):
        rotation, centre = part.pose[:3, :3], part.pose[:3, 3]
        mesh = part.mesh
        points, triangles, vectors = mesh.vertices, mesh.faces, mesh.vertex_normals
        if len(triangles) <= 12:  # boxes: every face has its own normals
            points, vectors = mesh.triangles.reshape(-1, 3), np.repeat(mesh.face_normals, 3, axis=0)
            triangles = np.arange(len(points)).reshape(-1, 3)
        vertices.append(points @ rotation.T + centre)
        normals.append(vectors @ rotation.T)
        faces.append(triangles + count)
        owner.append(np.full(len(triangles), number))
        count += len(points)
    scene = EmbreeScene()
    faces = np.concatenate(faces)
    TriangleMesh(scene, np.concatenate(vertices).astype(np.float32), faces.astype(np.int32))
    return World(layout, scene, faces, np.concatenate(normals), np.concatenate(owner))


def ray_directions(K: np.ndarray, c2w: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """World directions (N, 3) through pixels (N, 2), of length 1 along the optical axis: ray parameters are z-depths."""
    camera = np.concatenate([(pixels - K[:2, 2]) / [K[0, 0], K[1, 1]], np.ones((len(pixels), 1))], 1)
    return camera @ c2w[:3, :3].T


def trace(world: World, origin: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
    origins = np.broadcast_to(origin, directions.shape).astype(np.float32)
    return world.scene.run(np.ascontiguousarray(origins), directions.astype(np.float32), query="INTERSECT", output=True)


def shade(world: World, origin: np.ndarray, directions: np.ndarray, pixel_angle: float, jitter: np.ndarray) -> np.ndarray:
    """Linear RGB (N, 3) seen along rays; jitter (N, 3) in [-1, 1] moves the lamps within their radii."""
    hits = trace(world, origin, directions)
    seen = np.flatnonzero(hits["primID"] >= 0)
    colours = np.zeros((len(directions), 3))
    if len(seen) == 0:
        return colours
    triangle, distance = hits["primID"][seen], hits["tfar"][seen].astype(np.float64)
    points = origin + distance[:, None] * directions[seen]
    u, v = hits["u"][seen, None].astype(np.float64), hits["v"][seen, None].astype(np.float64)
    corners = world.normals[world.faces[triangle]]
    normals = (1 - u - v) * corners[:, 0] + u * corners[:, 1] + v * corners[:, 2]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    lengths = np.linalg.norm(directions[seen], axis=1)
    towards = -directions[seen] / lengths[:, None]
    facing = (normals * towards).sum(1)
    normals[facing < 0] *= -1
    part = world.part_of_face[triangle]
    reflectance = surface_colour(world.layout, points, normals, part, distance * lengths * pixel_angle, np.abs(facing))
    gloss = np.array([p.gloss for p in world.layout.parts])[part]
    upward = 0.75 + 0.25 * normals[:, 2:3]
    colours[seen] = reflectance * world.layout.ambient * upward
    for lamp in world.layout.lamps:
        colours[seen] += lit(world, lamp, points, normals, towards, reflectance, gloss, jitter[seen])
    return colours


def surface_colour(layout: Layout, points: np.ndarray, normals: np.ndarray, part: np.ndarray, footprint: np.ndarray,
                   facing: np.ndarray) -> np.ndarray:
    """Reflectance of world points; the pixel's footprint widens where the surface is seen at a slant."""
    poses = np.stack([p.pose for p in layout.parts])[part]
    local = np.einsum("nji,nj->ni", poses[:, :3, :3], points - poses[:, :3, 3])
    turned = np.einsum("nji,nj->ni", poses[:, :3, :3], normals)
    table = layout.parts
    return albedo(local, turned, part, footprint / np.sqrt(np.maximum(facing, 0.1)),
                  np.array([p.kind for p in table]), np.array([p.scale for p in table]),
                  np.array([p.seed for p in table]), np.stack([p.colours for p in table]),
                  np.array([p.grain for p in table]))


def lit(world: World, lamp: Lamp, points: np.ndarray, normals: np.ndarray, towards: np.ndarray, reflectance: np.ndarray,
        gloss: np.ndarray, jitter: np.ndarray) -> np.ndarray:
    """Light of one lamp that surface points send to the camera: Lambert plus a Blinn highlight, behind shadow rays."""
    start = points + OFFSET * normals
    to_lamp = lamp.position + lamp.radius * jitter - start
    distance = np.linalg.norm(to_lamp, axis=1, keepdims=True)
    direction = to_lamp / distance
    cosine = np.maximum(0, (normals * direction).sum(1, keepdims=True))
    blocked = world.scene.run(start.astype(np.float32), direction.astype(np.float32),
                              distance[:, 0].astype(np.float32), query="OCCLUDED") >= 0
    half = direction + towards
    half /= np.maximum(1e-9, np.linalg.norm(half, axis=1, keepdims=True))
    highlight = gloss[:, None] * np.maximum(0, (normals * half).sum(1, keepdims=True)) ** 40
    light = lamp.colour / (1 + distance**2)
    return light * (reflectance * cosine + highlight * (cosine > 0)) * ~blocked[:, None]


def subpixels(samples: int) -> np.ndarray:
    """Positions (samples, 2) within a pixel, one in each row and column of a grid, their mean the pixel's centre."""
    number = np.arange(samples)
    rows = np.argsort(np.argsort((0.5 + number * 0.6180339887498949) % 1))
    return (np.stack([number, rows], 1) + 0.5) / samples


def photograph(world: World, K: np.ndarray, c2w: np.ndarray, size: tuple[int, int], samples: int
               ) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 sRGB and depth (H, W) uint16, of the ray through each pixel's centre."""
    width, height = size
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    pixel_angle = 1 / K[0, 0]
    turns = np.random.default_rng(0)  # the same lamp positions in every photograph: no view has noise of its own
    total = np.zeros((width * height, 3))
    for offset in subpixels(samples):
        directions = ray_directions(K, c2w, grid + offset)
        jitter = np.broadcast_to(turns.uniform(-1, 1, 3), directions.shape)
        total += np.clip(shade(world, c2w[:3, 3], directions, pixel_angle, jitter), 0, 1)
    hits = trace(world, c2w[:3, 3], ray_directions(K, c2w, grid + 0.5))
    depth = np.where(hits["primID"] >= 0, hits["tfar"], 0).astype(np.float64)
    stored = np.rint(depth / DEPTH_SCALE)
    stored[stored > 65535] = 0
    return encode_srgb(total / samples).reshape(height, width, 3), stored.astype(np.uint16).reshape(height, width)


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear [0, 1] to 8-bit sRGB (IEC 61966-2-1)."""
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return np.rint(255 * np.clip(curve, 0, 1)).astype(np.uint8)


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Camera-to-world (4, 4), OpenCV axes, upright in a world whose z points up."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    c2w[:3, 3] = position
    return c2w


def intrinsics(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """K of a random field of view, 45 to 70 degrees along the longer side, principal point in the centre."""
    focal = 0.5 * max(size) / np.tan(np.radians(rng.uniform(45, 70)) / 2)
    return np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])


def orbit(rng: np.random.Generator, num_views: int, tangent: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions and targets on an arc around a cluster; far enough for the field of view to hold it."""
    start, step = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(6, 14)) * rng.choice([-1, 1])
    radius = rng.uniform(0.75, 1.0) / tangent
    base, elevation, wave = rng.uniform(0.45, 0.75), np.radians(rng.uniform(18, 40)), rng.uniform(0, 2 * np.pi)
    stops = []
    for view in range(num_views):
        angle = start + step * (view + rng.uniform(-0.25, 0.25))
        tilt = elevation + np.radians(6) * np.sin(wave + 0.6 * view) + np.radians(rng.uniform(-2, 2))
        distance = radius * rng.uniform(0.92, 1.08)
        direction = np.array([np.cos(angle) * np.cos(tilt), np.sin(angle) * np.cos(tilt), np.sin(tilt)])
        stops.append((np.array([0, 0, base]) + distance * direction, np.array([*rng.uniform(-0.08, 0.08, 2), base])))
    return stops


def walk(rng: np.random.Generator, num_views: int, half: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions and targets along a curve near one side of a room, looking across it."""
    start, sweep = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(60, 130)) * rng.choice([-1, 1])
    reach, height = rng.uniform(0.6, 0.78), rng.uniform(1.2, 1.7)
    target = np.array([*(rng.uniform(-0.3, 0.3, 2) * half), rng.uniform(0.6, 1.0)])
    stops = []
    for view in range(num_views):
        angle = start + sweep * (view + rng.uniform(-0.25, 0.25)) / (num_views - 1)
        position = np.array([reach * half[0] * np.cos(angle), reach * half[1] * np.sin(angle), height + rng.uniform(-0.12, 0.12)])
        stops.append((position, target + rng.uniform(-0.2, 0.2, 3)))
    return stops


def clear(world: World, K: np.ndarray, c2w: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a camera stands free: nothing nearer than NEAREST, and no surface seen from its back."""
    grid = np.stack(np.meshgrid(np.linspace(0, size[0], 24), np.linspace(0, size[1], 24)), -1).reshape(-1, 2)
    directions = ray_directions(K, c2w, grid)
    hits = trace(world, c2w[:3, 3], directions)
    if (hits["primID"] < 0).any() or hits["tfar"].min() < NEAREST:
        return False
    return np.mean((hits["Ng"] * directions).sum(1) * orientation(world) > 0) < 0.01


def orientation(world: World) -> float:
    """Sign that makes embree's geometric normals point out of solids, from one ray onto the floor's upper side."""
    down = trace(world, np.array([0.0, 0, -1.0]), np.array([[0.0, 0, 1.0]]))
    return -1.0 if down["Ng"][0, 2] > 0 else 1.0


def cameras(family: str, world: World, rng: np.random.Generator, num_views: int, size: tuple[int, int]
            ) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """K and the camera-to-world matrices of a scene's photographs, all standing free; None where no path was found."""
    half = world.layout.parts[0].mesh.extents[:2] / 2
    for _ in range(TRIES):
        K = intrinsics(rng, size)
        tangent = min(size) / 2 / K[0, 0]
        stops = orbit(rng, num_views, tangent) if family == "objects" else walk(rng, num_views, half)
        poses = [look_at(*stop) for stop in stops]
        if all(clear(world, K, c2w, size) for c2w in poses):
            return K, poses
    return None


def generate(family: str, seed: int, num_views: int, size: tuple[int, int], samples: int = 4) -> list[Frame]:
    """Photographs of one scene, in the order of the camera's path.

    family     objects | rooms
    size       (W, H) in pixels
    samples    rays per pixel, at fixed positions
    returns    frames with depth in metres times 1 / depth_scale (0.1 mm off at most), K, c2w
    raises     ValueError for an unknown family, fewer than 2 views, an empty image or no sample
    """
    if family not in FAMILIES:
        raise ValueError(f"There is no procedural family {family!r}; choose from {', '.join(FAMILIES)}.")
    if num_views < 2 or min(size) < 1 or samples < 1:
        raise ValueError(f"A procedural scene needs at least 2 views, 1 pixel and 1 sample; got {num_views} views of "
                         f"{size[0]}x{size[1]} pixels with {samples} samples.")
    rng = np.random.default_rng([list(FAMILIES).index(family), seed])
    path = None
    while path is None:  # a room so full that no path is free is followed by the generator's next
        world = build(FAMILIES[family](rng))
        path = cameras(family, world, rng, num_views, size)
    K, poses = path
    frames = []
    for number, c2w in enumerate(poses):
        image, depth = photograph(world, K, c2w, size, samples)
        frames.append(Frame(f"frame{number:03d}", image, depth, DEPTH_SCALE, None, None, K, c2w, number))
    return frames
