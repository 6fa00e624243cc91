"""COLMAP models written as its documentation says, number by number, binary and text."""

import struct

import numpy as np
from scipy.spatial.transform import Rotation

NUMBERS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5}
NUMBERS |= {"FULL_OPENCV": 6, "FOV": 7, "SIMPLE_RADIAL_FISHEYE": 8, "RADIAL_FISHEYE": 9}


def pose(c2w):
    """Quaternion (w, x, y, z) and translation of the inverse."""
    w2c = np.linalg.inv(c2w)
    x, y, z, w = Rotation.from_matrix(w2c[:3, :3]).as_quat()
    return [w, x, y, z], w2c[:3, 3].tolist()


def write_model(folder, cameras, images, points, binary):
    """cameras: number -> (kind, width, height, parameters); images: number -> (name, camera, quaternion, translation);
    points: list of (xyz, numbers of the images that observed it)."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = {number: [] for number in images}
    tracks = []
    for number, (_, observers) in enumerate(points, 1):
        tracks.append([(image, len(seen[image])) for image in observers])
        for image in observers:
            seen[image] += [(1.5, 2.5, number), (3.5, 4.5, -1)]
    tracks = [[(image, 2 * place) for image, place in track] for track in tracks]
    (binary_files if binary else text_files)(folder, cameras, images, seen, points, tracks)


def text_files(folder, cameras, images, seen, points, tracks):
    def lines(name, rows):
        text = ["# a comment", *(" ".join(map(str, row)) for row in rows)]
        (folder / f"{name}.txt").write_text("\n".join(text) + "\n")

    lines("cameras", ([number, *about[:3], *about[3]] for number, about in cameras.items()))
    rows = []
    for number, (name, camera, quaternion, translation) in images.items():
        rows += [
            [number, *quaternion, *translation, camera, name],
            [value for place in seen[number] for value in place],
        ]
    lines("images", rows)
    lines(
        "points3D",
        (
            [number, *map(float, xyz), 1, 2, 3, 0.5, *(value for place in track for value in place)]
            for number, ((xyz, _), track) in enumerate(zip(points, tracks), 1)
        ),
    )


def binary_files(folder, cameras, images, seen, points, tracks):
    data = struct.pack("<Q", len(cameras))
    for number, (kind, width, height, parameters) in cameras.items():
        data += struct.pack(f"<iiQQ{len(parameters)}d", number, NUMBERS[kind], width, height, *parameters)
    (folder / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", len(images))
    for number, (name, camera, quaternion, translation) in images.items():
        data += struct.pack("<I7dI", number, *quaternion, *translation, camera) + name.encode() + b"\0"
        data += struct.pack("<Q", len(seen[number])) + b"".join(struct.pack("<ddq", *place) for place in seen[number])
    (folder / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(points))
    for number, ((xyz, _), track) in enumerate(zip(points, tracks), 1):
        data += struct.pack("<QdddBBBdQ", number, *xyz, 1, 2, 3, 0.5, len(track))
        data += b"".join(struct.pack("<II", *place) for place in track)
    (folder / "points3D.bin").write_bytes(data)


def write_depth_map(path, depth):
    """As COLMAP's own Mat<float> writes it, a number at a time: the column runs fastest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    values = [float(depth[row, column]) for row in range(height) for column in range(width)]
    path.write_bytes(f"{width}&{height}&1&".encode() + struct.pack(f"<{len(values)}f", *values))
