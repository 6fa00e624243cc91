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
BROWN, RATIONAL, FISHEYE = (
    ("k1", "k2", "p1", "p2", "k3"),
    ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    ("k1", "k2", "k3", "k4"),
)
CAMERA_MODELS = {  # COLMAP's names and OpenSfM's, and the coefficients that a lens of that kind has
    **dict.fromkeys(("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE", "BROWN"), BROWN),
    "FULL_OPENCV": RATIONAL,
    **dict.fromkeys(
        ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "FISHEYE", "FISHEYE_OPENCV"), FISHEYE
    ),
}
LISTED = ("k1", "k2", "k3", "k4", "p1", "p2")  # nerfstudio's order of distortion_params
UNSUPPORTED = re.compile(
    r"transform_matrix_(start|end)|rolling_shutter|ftheta_\w+|latlong|equirectangular|orthographic"
    r"|k[7-9]"
)
INTRINSICS = re.compile(
    r"w|h|c[xy]|fl_[xy]|camera_angle_[xy]|[xy]_fov|k[1-6]|p[12]|distortion_params|camera_model|is_fisheye"
)
# what other exporters call a lens's numbers: a key like these that is not read must be said
INTRINSICS_LIKE = re.compile(
    r"(k|p|b|s|tau)\d+|skew\w*|\w*(focal|distort|fov|intrinsic|lens)\w*|(fl|f|c|pp|camera_angle)(_?[xyuv])?|principal\w*"
)
LAST_ROW = 1e-6  # by which the last row of a pose may miss 0, 0, 0, 1: single precision
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

    def coefficient(self, key: str) -> float:
        """Of the lens; 0 where nothing says it. The frame's own key, its list, then the top's."""
        for node in (self.frame, self.top):
            if (single := node.get(key)) is not None:
                return single.number()
            if (several := node.get("distortion_params")) is not None and key in LISTED:
                numbers = [number.number() for number in several.items()]
                if len(numbers) != len(LISTED):
                    raise several.fault(f"found {len(numbers)} numbers, wanted {len(LISTED)}: {', '.join(LISTED)}")
                return numbers[LISTED.index(key)]
        return 0.0

    def unread(self) -> set[str]:
        """Keys that look as if they said something of the camera, and are not known here."""
        return {
            key
            for node in (self.top, self.frame)
            for key in node.value
            if INTRINSICS_LIKE.fullmatch(key.lower()) and not INTRINSICS.fullmatch(key)
        }

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
    """raises    ValueError for an unknown camera_model or coefficients of another one; BadFrame when not finite"""
    model, flag = entry.get("camera_model"), entry.get("is_fisheye")
    name = "OPENCV" if model is None else re.sub("[- ]", "_", model.text().upper())
    if name not in CAMERA_MODELS:
        raise model.fault(f"found camera_model {model.value}, wanted one of {', '.join(CAMERA_MODELS)}")
    if flag is not None and flag.typed(bool, int) and CAMERA_MODELS[name] is not FISHEYE:
        if model is not None:
            raise model.fault(f"found camera_model {model.value} beside is_fisheye true; remove the wrong one")
        name = "OPENCV_FISHEYE"
    own = CAMERA_MODELS[name]
    for key in sorted({*RATIONAL, *FISHEYE} - set(own)):
        if value := entry.coefficient(key):
            raise (entry.get(key) or entry.get("distortion_params")).fault(
                f"{key} is {value}, but {'an' if name[0] in 'AEIO' else 'a'} {name} lens has {', '.join(own)} only; "
                f"correct camera_model (the rational one is FULL_OPENCV) or remove {key}"
            )
    coefficients = [entry.coefficient(key) for key in own]
    while own is not FISHEYE and len(coefficients) > 4 and not coefficients[-1]:
        coefficients.pop()
    if len(coefficients) > 5:
        coefficients += [0.0] * (len(RATIONAL) - len(coefficients))  # OpenCV takes 4, 5 or 8
    lens = Lens(own is FISHEYE, tuple(coefficients))
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
        if not np.allclose(last, [0, 0, 0, 1], rtol=0, atol=LAST_ROW):
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
