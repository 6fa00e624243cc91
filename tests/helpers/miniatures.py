"""Miniature datasets in official layouts, made of procedural photographs whose cameras and depth are known.

Lenses are simulated by this file's own formulas: every pixel of a distorted photograph looks up where its ray passes
through a straight one.
"""

import functools
import json
import shutil
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import map_coordinates, maximum_filter, minimum_filter

from src import download, prepare
from src.config import load_config
from src.procedural.scenes import DEPTH_SCALE, generate
from src.scenes.scene import Scene, read_index
from tests.helpers.repository import ROOT

RENDERED, SIZE = (160, 120), (112, 84)  # the straight photograph is wider than the distorted one taken out of it
CENTRE = 54.25, 43.5
OPENCV = ("opencv", (0.09, -0.06, 0.004, -0.003))
FISHEYE = ("fisheye", (-0.03, 0.01, -0.002, 0.001))
NONE = ("opencv", (0.0, 0.0, 0.0, 0.0))


@functools.cache
def rendered():
    return generate("objects", 1, 12, RENDERED, 1)


def bent(x, y, lens):
    """Where a ray through (x, y, 1) meets the image plane at focal length 1."""
    kind, (a, b, c, d) = lens
    r = np.hypot(x, y)
    if kind == "opencv":
        radial = 1 + a * r**2 + b * r**4
        return (x * radial + 2 * c * x * y + d * (r**2 + 2 * x**2), y * radial + c * (r**2 + 2 * y**2) + 2 * d * x * y)
    angle = np.arctan(r)
    stretch = np.where(
        r > 0, angle * (1 + a * angle**2 + b * angle**4 + c * angle**6 + d * angle**8) / np.where(r > 0, r, 1), 1
    )
    return x * stretch, y * stretch


def straightened(u, v, lens):
    """The inverse of `bent`, by repeated correction: of the point, or of a fisheye's angle."""
    kind, (a, b, c, d) = lens
    x, y = u, v
    angle = bent_angle = np.hypot(u, v)
    for _ in range(200):
        du, dv = bent(x, y, lens)
        x, y = x + u - du, y + v - dv
        angle = bent_angle / (1 + a * angle**2 + b * angle**4 + c * angle**6 + d * angle**8)
        if kind == "fisheye":
            x, y = u * np.tan(angle) / bent_angle, v * np.tan(angle) / bent_angle
    assert np.abs(np.array(bent(x, y, lens)) - (u, v)).max() < 1e-9
    return x, y


def pinhole_of(frame, size=SIZE, centre=CENTRE):
    """K of a photograph with the render's focal length, another size and principal point."""
    return np.array([[frame.K[0, 0], 0, centre[0]], [0, frame.K[1, 1], centre[1]], [0, 0, 1]])


def places(frame, lens):
    """(x, y) in the render, first pixel's centre at 0.5, of every pixel of the distorted photograph."""
    K = pinhole_of(frame)
    u, v = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    x, y = straightened((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], lens)
    x, y = x * frame.K[0, 0] + frame.K[0, 2], y * frame.K[1, 1] + frame.K[1, 2]
    assert x.min() > 0 and y.min() > 0 and x.max() < RENDERED[0] and y.max() < RENDERED[1]
    return x, y


def taken(frame, lens, colours=(0, 1, 2)):
    """Image (84, 112, 3) uint8 of a render as seen through a lens, its colours permuted."""
    x, y = places(frame, lens)
    channels = [
        map_coordinates(frame.image[..., channel].astype(float), (y - 0.5, x - 0.5), order=1, mode="nearest")
        for channel in colours
    ]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


def depth_taken(frame, lens):
    """Depth (84, 112) uint16 in millimetres, as seen through a lens."""
    x, y = places(frame, lens)
    metres = frame.depth[y.astype(int), x.astype(int)] * DEPTH_SCALE
    return np.rint(metres * 1000).astype(np.uint16)


def opengl(c2w):
    """Camera-to-world with y up and z backward, as nested lists."""
    matrix = np.array(c2w)
    matrix[:3, 1:3] *= -1
    return matrix.tolist()


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=97, subsampling=0) if path.suffix.lower() == ".jpg" else Image.fromarray(
        pixels
    ).save(path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def leaving(path, root):
    """Put a link in a file's place, to the file beside its dataset's root."""
    outside = root.parent / f"outside{path.suffix}"
    shutil.move(path, outside)
    path.symlink_to(outside)


@contextmanager
def computing_as_before():
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)


def stages(monkeypatch, folder, dataset, *overrides):
    """Run `download` and `prepare` in `folder`; the report."""
    folder.mkdir(exist_ok=True)
    block = f"datasets.{dataset}"
    config = load_config(
        [
            f"data.dataset={dataset}",
            "threads=1",
            f"{block}.resolution=[64,48]",
            f"{block}.episodes.num_targets=2",
            f"{block}.episodes.per_bin=1",
            *overrides,
        ],
        ROOT,
    )
    monkeypatch.chdir(folder)
    with computing_as_before():
        download.main(config)
        prepare.main(config)
    return json.loads((folder / "data/scenes/report.json").read_text())


def scenes_of(folder):
    """Every prepared scene by id."""
    return {
        record.id: Scene.open(folder / "data/scenes" / record.file, record.sha256)
        for record in read_index(folder / "data/scenes")
    }


def snapshot(folder):
    """Path and bytes of every file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def surface(frame, count=200):
    """Known points of the world (count, 3) and their z, from the render's own depth, away from its edges."""
    smooth = minimum_filter(frame.depth, 5) > 0.95 * maximum_filter(frame.depth, 5)
    rows, columns = np.nonzero(smooth & (frame.depth > 0))
    chosen = np.random.default_rng(0).choice(len(rows), count, replace=False)
    z = frame.depth[rows[chosen], columns[chosen]] * DEPTH_SCALE
    rays = np.linalg.solve(frame.K, np.stack([columns[chosen] + 0.5, rows[chosen] + 0.5, np.ones(count)]))
    return (frame.c2w[:3, :3] @ (rays * z) + frame.c2w[:3, 3:]).T, z


def pixels_of(points, K, c2w):
    """Where points (P, 3) of the world are seen, one by one."""
    seen = []
    for point in points:
        q = np.linalg.inv(c2w) @ np.append(point, 1)
        seen.append([K[0, 0] * q[0] / q[2] + K[0, 2], K[1, 1] * q[1] / q[2] + K[1, 2]])
    return np.array(seen)


def crop_offset(K, size):
    """Left and top of the largest box with the principal point in its middle."""
    return [
        int(np.floor(centre + 0.5)) - int(np.floor(min(centre, side - centre) + 1e-3))
        for centre, side in zip(K[:2, 2], size)
    ]


def check_geometry(scene, name, frame, K, world=np.eye(4), size=SIZE, tolerance=0.01):
    """A prepared photograph's camera puts known points where the pinhole camera K, cropped, puts them, and its depth
    is theirs. `world` maps the render's world to the dataset's."""
    stored = scene.frame(name)
    points, z = surface(frame)
    there = points @ world[:3, :3].T + world[:3, 3]
    left, top = crop_offset(K, size)
    found, wanted = pixels_of(there, stored.K, stored.c2w), pixels_of(points, K, frame.c2w) - (left, top)
    assert np.abs(found - wanted).max() <= tolerance
    if stored.depth is None:
        return
    column, row = np.floor(wanted).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < stored.size[0]) & (row < stored.size[1])
    depth = stored.depth[row[inside], column[inside]] * stored.depth_scale
    seen = depth > 0
    assert seen.mean() > 0.9 and inside.sum() > 50
    off = np.abs(depth - z[inside])[seen] / z[inside][seen]
    assert np.median(off) < 0.004 and (off < 0.03).mean() > 0.97
