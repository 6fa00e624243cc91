"""COLMAP's reconstructions and depth maps, as its documentation lays them out (https://colmap.github.io/format.html).

A model is cameras, images and points3D, all three binary (.bin) or all three text (.txt). Its pixels have their origin
at the image's corner, its poses are world-to-camera. Files of rigs and frames, which newer versions add, say nothing more
about single images.

pycolmap is not used: it takes a file that is cut short, and fills what is missing with zeros.
"""

import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterator

import numpy as np

from src.datasets.lenses import Lens
from src.datasets.transforms_json import Camera, natural
from src.datasets.usable import BadFrame
from src.scenes.pixels import BadPixels
from src.scenes.reconstruction import Points

MODEL_FILES = ("cameras", "images", "points3D")
CAMERA_KINDS = {  # by number, as in binary files: name, and how many parameters there are
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
}
ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
STRAIGHTENED = (*ONE_FOCAL, "PINHOLE", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV")  # whose lenses OpenCV knows
BROKEN = (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, struct.error)


@dataclass(frozen=True)
class LensEntry:
    """A camera of a model: its kind, (W, H), and its parameters in COLMAP's order."""

    model: str
    size: tuple[int, int]
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ImageEntry:
    """An image of a model: its path below images/, its camera, world-to-camera as quaternion (w, x, y, z) and
    translation."""

    name: str
    camera: int
    quaternion: tuple[float, ...]
    translation: tuple[float, ...]


class Bytes:
    """The numbers of a binary file, in order; one that ends too early raises struct.error."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0

    def take(self, layout: str) -> tuple:
        numbers = struct.unpack_from(f"<{layout}", self.data, self.place)
        self.place += struct.calcsize(f"<{layout}")
        return numbers

    def text(self) -> str:
        end = self.data.index(b"\0", self.place)
        found = self.data[self.place : end].decode("utf8")
        self.place = end + 1
        return found

    def skip(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise struct.error("the file is cut short")

    def done(self) -> None:
        if self.place != len(self.data):
            raise ValueError(f"{len(self.data) - self.place} bytes follow the last entry")


def rows_of_words(data: bytes, most: int = -1) -> list[list[str]]:
    """The words of every line that is no comment, the last one with all that follows the `most`-th blank."""
    return [line.split(maxsplit=most) for line in data.decode("utf8").split("\n") if not line.startswith("#")]


def binary_cameras(data: bytes) -> dict[int, LensEntry]:
    file, cameras = Bytes(data), {}
    for _ in range(file.take("Q")[0]):
        number, kind, width, height = file.take("iiQQ")
        if kind not in CAMERA_KINDS:
            raise ValueError(f"camera {number} is of the unknown kind {kind}")
        model, count = CAMERA_KINDS[kind]
        cameras[number] = LensEntry(model, (width, height), file.take(f"{count}d"))
    file.done()
    return cameras


def text_cameras(data: bytes) -> dict[int, LensEntry]:
    cameras, counts = {}, dict(CAMERA_KINDS.values())
    for row in filter(None, rows_of_words(data)):
        parameters = tuple(map(float, row[4:]))
        if len(parameters) != counts.get(row[1], len(parameters)):
            raise ValueError(f"camera {row[0]} has {len(parameters)} parameters, a {row[1]} has {counts[row[1]]}")
        cameras[int(row[0])] = LensEntry(row[1], (int(row[2]), int(row[3])), parameters)
    return cameras


def binary_images(data: bytes) -> dict[int, ImageEntry]:
    file, images = Bytes(data), {}
    for _ in range(file.take("Q")[0]):
        number, *pose, camera = file.take("I7dI")
        images[number] = ImageEntry(file.text(), camera, tuple(pose[:4]), tuple(pose[4:]))
        file.skip(24 * file.take("Q")[0])  # where the points are seen: points3D tells which they are
    file.done()
    return images


def text_images(data: bytes) -> dict[int, ImageEntry]:
    """An image without points has an empty line after its own."""
    images = {}
    for row in filter(None, rows_of_words(data, 9)[::2]):
        pose = tuple(map(float, row[1:8]))
        images[int(row[0])] = ImageEntry(row[9].strip(), int(row[8]), pose[:4], pose[4:])
    return images


def binary_points(data: bytes) -> Iterator[tuple[tuple[float, ...], tuple[int, ...]]]:
    """xyz and the numbers of the images that observed it, of every point."""
    file = Bytes(data)
    for _ in range(file.take("Q")[0]):
        _, *xyz, _, _, _, _, length = file.take("Q3dBBBdQ")
        yield tuple(xyz), file.take(f"{2 * length}I")[::2]
    file.done()


def text_points(data: bytes) -> Iterator[tuple[tuple[float, ...], tuple[int, ...]]]:
    for row in filter(None, rows_of_words(data)):
        yield tuple(map(float, row[1:4])), tuple(map(int, row[8::2]))


READERS: dict[str, dict[str, Callable]] = {
    ".bin": {"cameras": binary_cameras, "images": binary_images, "points3D": binary_points},
    ".txt": {"cameras": text_cameras, "images": text_images, "points3D": text_points},
}


@contextmanager
def whole(file: str) -> Iterator[None]:
    """raises ValueError naming the file when it is not COLMAP's or not whole"""
    try:
        yield
    except BROKEN as error:
        raise ValueError(
            f"{file} is no whole file of a COLMAP model ({error!r}); write the model again, for example with colmap "
            "model_converter."
        ) from error


def read_images(ending: str, read: Callable[[str], bytes]) -> list[tuple[LensEntry, ImageEntry]]:
    """Every image of a model and its camera, sorted as their names are; `read` gives a file's bytes by its name.

    raises    ValueError naming the file that is not COLMAP's or not whole
    """
    with whole(f"cameras{ending}"):
        cameras = READERS[ending]["cameras"](read(f"cameras{ending}"))
    with whole(f"images{ending}"):
        images = READERS[ending]["images"](read(f"images{ending}")).values()
        pairs = [(cameras[image.camera], image) for image in images]
    return sorted(pairs, key=lambda pair: natural(pair[1].name))


def read_points(ending: str, read: Callable[[str], bytes]) -> Points:
    """World coordinates of all points of a model, and which of them each image, by name, observed.

    raises    ValueError naming the file that is not COLMAP's or not whole
    """
    with whole(f"images{ending}"):
        images = READERS[ending]["images"](read(f"images{ending}"))
    observed: dict[str, list[int]] = {image.name: [] for image in images.values()}
    xyz = []
    with whole(f"points3D{ending}"):
        for number, (place, track) in enumerate(READERS[ending]["points3D"](read(f"points3D{ending}"))):
            xyz.append(place)
            for image in dict.fromkeys(track):
                observed[images[image].name].append(number)
    return Points(
        np.array(xyz, np.float64).reshape(-1, 3),
        {name: np.array(numbers, np.int64) for name, numbers in observed.items()},
    )


def camera_of(lens: LensEntry, image: ImageEntry) -> Camera:
    """raises BadFrame `unknown_lens`, `nonfinite_intrinsics`, `nonfinite_pose` or `bad_rotation`"""
    if lens.model not in STRAIGHTENED:
        raise BadFrame(
            "unknown_lens",
            f"its camera is a {lens.model}, but only {', '.join(STRAIGHTENED)} are straightened: undistort the images with "
            "colmap image_undistorter.",
        )
    if not np.isfinite(lens.parameters).all():
        raise BadFrame("nonfinite_intrinsics", f"the camera's parameters are {list(lens.parameters)}.")
    count = 1 if lens.model in ONE_FOCAL else 2
    fx, fy = lens.parameters[0], lens.parameters[count - 1]
    cx, cy, *bend = lens.parameters[count:]
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    straight = Lens(lens.model.endswith("FISHEYE"), tuple(bend + [0.0] * (4 - len(bend))))
    return Camera(lens.size, K, straight, pose_of_image(image))


def pose_of_image(image: ImageEntry) -> np.ndarray:
    """c2w (4, 4), the inverse of the image's world-to-camera."""
    w, x, y, z = quaternion = np.array(image.quaternion)
    if not np.isfinite([*image.quaternion, *image.translation]).all():
        raise BadFrame("nonfinite_pose", "the pose holds NaN or infinity.")
    if not (length := quaternion @ quaternion):
        raise BadFrame("bad_rotation", "the pose's quaternion is 0.")
    # the transpose of the rotation of a quaternion w + xi + yj + zk
    rotation = np.eye(3) - 2 / length * np.array(
        [
            [y * y + z * z, -x * y - w * z, w * y - x * z],
            [w * z - x * y, x * x + z * z, -y * z - w * x],
            [-x * z - w * y, w * x - y * z, x * x + y * y],
        ]
    )
    c2w = np.eye(4)
    c2w[:3, :3] = rotation
    c2w[:3, 3] = -rotation @ np.array(image.translation)
    return c2w


def decode_depth_map(data: bytes) -> np.ndarray:
    """z-depth (H, W) float32 in the model's units, 0 = none, of a file of stereo/depth_maps: "W&H&1&" and its rows.

    raises    BadPixels `bad_depth`
    """
    try:
        width, height, channels, rows = data.split(b"&", 3)
        depth = np.frombuffer(rows, "<f4")
        if int(channels) != 1:
            raise ValueError(f"{int(channels)} channels")
        return depth.reshape(int(height), int(width))
    except ValueError as error:
        raise BadPixels("bad_depth", f"the depth map is no whole file of COLMAP ({error}).") from error
