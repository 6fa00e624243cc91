"""The file transforms.json of instant-ngp, nerfstudio, Blender and ScanNet++: one camera per listed photograph.

An entry of a frame wins over the same entry at the top. Poses are kept as written: nothing is centred, turned or
scaled, and rendering hints (aabb_scale, scale, offset, up, ...) are never looked at.
"""

import re
from dataclasses import dataclass

import numpy as np

from src.datasets.json_node import Node
from src.datasets.lenses import Lens
from src.datasets.usable import BadFrame, Tally

FROM_OPENGL = np.array([1.0, -1.0, -1.0, 1.0])  # per column: its cameras look along -z with y up
CAMERA_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
UNSUPPORTED = re.compile(
    r"transform_matrix_(start|end)|rolling_shutter|ftheta_\w+|latlong|equirectangular|orthographic"
    r"|k[5-9]"
)
INTRINSICS = re.compile(r"w|h|c[xy]|fl_[xy]|camera_angle_[xy]|[xy]_fov|k[1-4]|p[12]|camera_model|is_fisheye")
SAME_FOCAL = 0.01  # share by which fl_x and camera_angle_x may disagree


@dataclass(frozen=True, eq=False)
class Camera:
    """What took one photograph of `size` (W, H): K (3, 3) pixels, corner origin, of the straight part; lens; c2w (4, 4)
    OpenCV axes. float64."""

    size: tuple[int, int]
    K: np.ndarray
    lens: Lens
    c2w: np.ndarray


def read_transforms(data: bytes, file: str) -> Node:
    """The checked file: it lists frames, and nothing in it needs a camera that is not supported.

    raises    ValueError with file and JSON pointer
    """
    top = Node.read(data, file)
    if not top["frames"].items():
        raise top["frames"].fault("the list of frames is empty")
    for node in (top, *top["frames"].items()):
        for key, value in node.typed(dict).items():
            if UNSUPPORTED.fullmatch(key) and np.any(np.array(value, dtype=object)):
                raise node.fault(f"{key} is not supported")
    return top


def natural(text: str) -> list:
    """A sort key in which 2.jpg precedes 10.jpg."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


@dataclass(frozen=True)
class FrameEntry:
    """One listed photograph: its own entries, and the top of its file."""

    top: Node
    frame: Node

    def get(self, key: str) -> Node | None:
        own = self.frame.get(key)
        return self.top.get(key) if own is None else own

    def number(self, key: str, otherwise: float) -> float:
        node = self.get(key)
        return otherwise if node is None else node.number()

    def overrides(self) -> bool:
        """Whether the frame says something else than the top about its camera."""
        shared = filter(INTRINSICS.fullmatch, self.top.value.keys() & self.frame.value.keys())
        return any(self.top.value[key] != self.frame.value[key] for key in shared)


def listed_size(entry: FrameEntry, image_size: tuple[int, int] | None) -> tuple[int, int]:
    """(W, H) as w and h say; one that is absent is the image's.

    raises    ValueError with file and JSON pointer; BadFrame when not finite
    """
    size = []
    for axis, key in enumerate("wh"):
        node = entry.get(key)
        if node is None and image_size is None:
            raise entry.frame.fault(f"{key} is missing, and there is no image to take it from")
        if node is not None and not np.isfinite(node.number()):
            raise BadFrame("nonfinite_intrinsics", f"{key} is {node.value}.")
        if node is not None and (node.number() <= 0 or not node.number().is_integer()):
            raise node.fault(f"found {node.value} for {key}, wanted a whole number of pixels")
        size.append(image_size[axis] if node is None else int(node.number()))
    return tuple(size)


def focal_length(entry: FrameEntry, axis: str, side: int, tally: Tally) -> float | None:
    """Pixels along `axis` (x | y), on which the image has `side`: from the frame, else from the top; None when neither
    says. A field of view is believed before fl, and fl before camera_angle."""
    for node in (entry.frame, entry.top):
        fov, fl, angle = (
            found and found.number()
            for found in (node.get(f"{axis}_fov"), node.get(f"fl_{axis}"), node.get(f"camera_angle_{axis}"))
        )
        by_angle = None if angle is None else _from_angle(side, angle)
        if fl is not None and by_angle is not None and not abs(fl - by_angle) <= SAME_FOCAL * abs(fl):
            tally.count("intrinsics_conflict", int(np.isfinite([fl, by_angle]).all()))
        if fov is not None:
            return _from_angle(side, np.radians(fov))
        if fl is not None or by_angle is not None:
            return by_angle if fl is None else fl
    return None


def _from_angle(side: int, angle: float) -> float:
    """Focal length of a field of view in radians; 0, which no camera has, for an impossible one."""
    return 0.5 * side / np.tan(0.5 * angle) if angle > 0 else angle * 0.0


def camera_matrix(entry: FrameEntry, size: tuple[int, int], tally: Tally) -> np.ndarray:
    """K (3, 3); a principal point that is not given is the image's centre, a missing focal length the other axis's."""
    focal = [focal_length(entry, axis, side, tally) for axis, side in zip("xy", size)]
    if focal == [None, None]:
        raise entry.frame.fault("there is no focal length, neither here nor at the top: give fl_x or camera_angle_x")
    fx, fy = (other if own is None else own for own, other in (focal, focal[::-1]))
    cx, cy = (entry.number(key, side / 2) for key, side in zip(("cx", "cy"), size))
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def lens_of(entry: FrameEntry) -> Lens:
    """raises    ValueError for an unknown camera_model or coefficients of the other model; BadFrame when not finite"""
    model, flag = entry.get("camera_model"), entry.get("is_fisheye")
    if model is not None and model.text() not in CAMERA_MODELS:
        raise model.fault(f"found camera_model {model.value}, wanted one of {', '.join(CAMERA_MODELS)}")
    fisheye = flag is not None and bool(flag.typed(bool, int))
    if model is not None and fisheye and model.value != "OPENCV_FISHEYE":
        raise model.fault(f"found camera_model {model.value} beside is_fisheye true; remove the wrong one")
    fisheye |= model is not None and model.value == "OPENCV_FISHEYE"
    own, other = (("k1", "k2", "k3", "k4"), ("p1", "p2")) if fisheye else (("k1", "k2", "p1", "p2"), ("k3", "k4"))
    for key in other:
        if entry.number(key, 0.0):
            raise entry.get(key).fault(
                f"{key} is {entry.number(key, 0.0)}, but an OPENCV{'_FISHEYE' * fisheye} lens "
                f"has {', '.join(own)} only; correct camera_model or remove {key}"
            )
    lens = Lens(fisheye, tuple(entry.number(key, 0.0) for key in own))
    if not np.isfinite(lens.coefficients).all():
        raise BadFrame("nonfinite_intrinsics", f"the lens coefficients are {lens.coefficients}.")
    return lens


def pose_of(frame: Node) -> np.ndarray:
    """c2w (4, 4), OpenCV axes, of a 4x4 or 3x4 matrix with OpenGL axes.

    raises    ValueError for another shape or a last row that is not 0, 0, 0, 1
    """
    node = frame["transform_matrix"]
    matrix = node.matrix((4, 4), (3, 4))
    last = matrix[3] if len(matrix) == 4 else np.array([0.0, 0, 0, 1])
    if np.isfinite(last).all():
        if not np.allclose(last, [0, 0, 0, 1], rtol=0, atol=1e-9):
            raise node.fault(f"found last row {last.tolist()}, wanted 0, 0, 0, 1")
        last = np.array([0.0, 0, 0, 1])
    return np.vstack([matrix[:3], last]) * FROM_OPENGL


def camera(entry: FrameEntry, image_size: tuple[int, int] | None, tally: Tally) -> Camera:
    """The camera of one listed photograph; image_size (W, H) of the picture itself, where it has been read.

    raises    ValueError with file and JSON pointer; BadFrame
    """
    size = listed_size(entry, image_size)
    tally.count("intrinsics_override", int(entry.overrides()))
    return Camera(size, camera_matrix(entry, size, tally), lens_of(entry), pose_of(entry.frame))
