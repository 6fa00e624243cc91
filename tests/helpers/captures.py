"""Captures as COLMAP leaves them, made of procedural images with known cameras."""

import numpy as np

from tests.helpers.colmap import pose, write_depth_map, write_model
from tests.helpers.miniatures import (
    CENTRE,
    NONE,
    OPENCV,
    SIZE,
    depth_taken,
    pinhole_of,
    pixels_of,
    rendered,
    save,
    surface,
    taken,
)

KINDS = {"opencv": "OPENCV", "fisheye": "OPENCV_FISHEYE"}


def name_of(number):
    """Of two cameras' folders; 2 comes before 10."""
    return f"{'left' if number % 2 else 'right'}/view {number}.png"


def camera_of(lens):
    K = pinhole_of(rendered()[0])
    return (KINDS[lens[0]], *SIZE, (K[0, 0], K[1, 1], *CENTRE, *lens[1]))


def points_of():
    """Known points, and which images (by number) see them inside the frame."""
    xyz = np.concatenate([surface(frame, 20)[0] for frame in rendered()])
    seen = []
    for frame in rendered():
        pixels = pixels_of(xyz, pinhole_of(frame), frame.c2w)
        seen.append(((pixels > 0) & (pixels < SIZE)).all(1))
    return [(place, tuple(np.flatnonzero(row) + 1)) for place, row in zip(xyz, np.array(seen).T)]


def capture(folder, binary=True, lens=OPENCV, model="sparse/0", colours=(0, 1, 2), depth=False):
    """A capture of two cameras; the odd images were taken without distortion."""
    cameras = {1: camera_of(NONE) if not depth else ("PINHOLE", *SIZE, camera_of(NONE)[3][:4]), 2: camera_of(lens)}
    images = {}
    for number, frame in enumerate(rendered(), 1):
        own = NONE if number % 2 else lens
        images[number] = (name_of(number), 1 if number % 2 else 2, *pose(frame.c2w))
        save(folder / "images" / name_of(number), taken(frame, own, colours))
        if depth:
            path = folder / f"stereo/depth_maps/{name_of(number)}.geometric.bin"
            write_depth_map(path, depth_taken(frame, own) / 1000)
    write_model(folder / model, cameras, images, points_of(), binary)
