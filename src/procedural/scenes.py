"""Procedural scenes with exact cameras and depth: ray-cast, solid textures, soft light and sharp shadows, no noise.

Two families: `objects`, an orbit around a cluster of things, and `rooms`, a walk through a furnished room. A scene is
decided by its family, seed, number of views and size alone; metres throughout.
"""

import numpy as np

from src.procedural import layouts
from src.procedural.cameras import cameras, ray_directions
from src.procedural.lighting import radiance, stored_light
from src.procedural.world import World
from src.scenes.scene import Frame

LAYOUTS = {"objects": layouts.objects, "rooms": layouts.rooms}
DEPTH_SCALE = 0.0002  # metres per stored unit; depth reaches 13.1 m
BRIGHTNESS = 0.21  # geometric mean of a scene's linear values after exposure
KNEE = 0.65  # linear value above which highlights are compressed


def subpixels(samples: int) -> np.ndarray:
    """Positions (samples, 2) within a pixel, one in each row and column of a grid, their mean the pixel's centre."""
    number = np.arange(samples)
    rows = np.argsort(np.argsort((0.5 + number * 0.6180339887498949) % 1))
    return (np.stack([number, rows], 1) + 0.5) / samples


def exposure(world: World, light: np.ndarray, K: np.ndarray, poses: list[np.ndarray], size: tuple[int, int]) -> float:
    """One factor for all images of a scene, from a few rays of each."""
    grid = (np.stack(np.meshgrid(np.arange(10), np.arange(10)), -1).reshape(-1, 2) + 0.5) * np.array(size) / 10
    values = [
        radiance(world, light, c2w[:3, 3], ray_directions(K, c2w, grid), max(size) / 10 / K[0, 0], 0, 1)
        for c2w in poses
    ]
    return BRIGHTNESS / float(np.exp(np.log(np.concatenate(values).mean(1) + 0.01).mean()))


def developed(linear: np.ndarray) -> np.ndarray:
    """Linear light to [0, 1]: straight up to KNEE, then ever slower towards 1."""
    over = np.maximum(linear - KNEE, 0)
    return np.minimum(linear, KNEE) + (1 - KNEE) * (1 - np.exp(-over / (1 - KNEE)))


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear [0, 1] to 8-bit sRGB (IEC 61966-2-1)."""
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return np.rint(255 * np.clip(curve, 0, 1)).astype(np.uint8)


def depth_of(world: World, K: np.ndarray, c2w: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth (H, W) uint16 in units of DEPTH_SCALE along the ray through each pixel's centre; 0 = out of reach."""
    hits = world.trace(c2w[:3, 3], ray_directions(K, c2w, pixel_corners(size) + 0.5))
    stored = np.where(hits["primID"] >= 0, np.rint(hits["tfar"].astype(np.float64) / DEPTH_SCALE), 0)
    stored[stored > 65535] = 0
    return stored.astype(np.uint16).reshape(size[1], size[0])


def pixel_corners(size: tuple[int, int]) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), -1).reshape(-1, 2)


def antialiased(
    world: World, light: np.ndarray, factor: float, K: np.ndarray, c2w: np.ndarray, size: tuple[int, int], samples: int
) -> np.ndarray:
    """Image (H, W, 3) uint8 sRGB: the mean over `samples` rays per pixel, each developed on its own."""
    angle = 1 / K[0, 0] / np.sqrt(samples)
    total = np.zeros((size[0] * size[1], 3))
    for number, offset in enumerate(subpixels(samples)):
        directions = ray_directions(K, c2w, pixel_corners(size) + offset)
        total += developed(factor * radiance(world, light, c2w[:3, 3], directions, angle, number, samples))
    return encode_srgb(total / samples).reshape(size[1], size[0], 3)


def generate(
    family: str, seed: int, num_views: int, size: tuple[int, int], samples: int = 4, bounces: int = 32
) -> list[Frame]:
    """Images of one scene, in the order of the camera's path.

    family     objects | rooms
    size       (W, H) in pixels
    samples    rays per pixel, at fixed positions
    bounces    rays per vertex by which reflected light is gathered
    returns    frames with depth in metres times 1 / depth_scale (0.1 mm off at most), K, c2w
    raises     ValueError for an unknown family, fewer than 2 views, an empty image, no sample or no bounce
    """
    if family not in LAYOUTS:
        raise ValueError(f"There is no procedural family {family!r}; choose from {', '.join(LAYOUTS)}.")
    if num_views < 2 or min(*size, samples, bounces) < 1:
        raise ValueError(
            f"A procedural scene needs at least 2 views, 1 pixel, 1 sample and 1 bounce; got {num_views} views "
            f"of {size[0]}x{size[1]} pixels with {samples} samples and {bounces} bounces."
        )
    rng = np.random.default_rng([list(LAYOUTS).index(family), seed])
    path = None
    while path is None:  # a room so full that no path is free is followed by the generator's next
        world = World(LAYOUTS[family](rng))
        path = cameras(family, world, rng, num_views, size)
    K, poses = path
    light = stored_light(world, bounces)
    factor = exposure(world, light, K, poses, size)
    return [
        Frame(
            f"frame{number:03d}",
            antialiased(world, light, factor, K, c2w, size, samples),
            depth_of(world, K, c2w, size),
            DEPTH_SCALE,
            None,
            None,
            K,
            c2w,
            number,
        )
        for number, c2w in enumerate(poses)
    ]
