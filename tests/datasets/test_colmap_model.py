import struct

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from src.datasets.colmap_model import ImageEntry, LensEntry, camera_of, decode_depth_map, read_images, read_points
from src.datasets.usable import BadFrame
from src.scenes.pixels import BadPixels
from tests.helpers.colmap import write_depth_map, write_model

CAMERAS = {
    3: ("OPENCV", 100, 80, (90.0, 91.0, 50.5, 40.25, 0.1, -0.05, 0.001, 0.002)),
    7: ("SIMPLE_RADIAL", 64, 48, (70.0, 32.0, 24.0, 0.03)),
}
IMAGES = {
    1: ("left/im 10.jpg", 3, (0.5, 0.5, -0.5, 0.5), (1.0, 2.0, 3.0)),
    4: ("left/im 2.jpg", 7, (2.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    9: ("right/1.png", 3, (1.0, 0.0, 0.0, 0.0), (0.1, 0.2, 0.3)),
}
POINTS = [((0.5, -1.25, 3.0), (1, 9)), ((1e-3, 2.0, 4.0), (9, 9, 4))]


@pytest.mark.parametrize("binary", [True, False])
def test_both_forms_are_read_number_by_number(tmp_path, binary):
    write_model(tmp_path, CAMERAS, IMAGES, POINTS, binary)
    ending = ".bin" if binary else ".txt"
    pairs = read_images(ending, lambda name: (tmp_path / name).read_bytes())
    assert [image.name for _, image in pairs] == ["left/im 2.jpg", "left/im 10.jpg", "right/1.png"]
    for lens, image in pairs:
        number = next(number for number, about in IMAGES.items() if about[0] == image.name)
        assert (image.name, image.camera, image.quaternion, image.translation) == IMAGES[number]
        kind, width, height, parameters = CAMERAS[image.camera]
        assert lens == LensEntry(kind, (width, height), parameters)
    points = read_points(ending, lambda name: (tmp_path / name).read_bytes())
    assert points.xyz.tolist() == [list(xyz) for xyz, _ in POINTS]
    seen = {name: numbers.tolist() for name, numbers in points.observed.items()}
    assert seen == {"left/im 10.jpg": [0], "left/im 2.jpg": [1], "right/1.png": [0, 1]}


def brown(x, y, k1, k2=0.0, p1=0.0, p2=0.0, k3=0.0, k4=0.0, k5=0.0, k6=0.0):
    r = x * x + y * y
    radial = (1 + k1 * r + k2 * r**2 + k3 * r**3) / (1 + k4 * r + k5 * r**2 + k6 * r**3)
    return x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x), y * radial + 2 * p2 * x * y + p1 * (r + 2 * y * y)


def fisheye(x, y, k1, k2=0.0, k3=0.0, k4=0.0):
    r = np.hypot(x, y)
    angle = np.arctan(r)
    bent = angle * (1 + k1 * angle**2 + k2 * angle**4 + k3 * angle**6 + k4 * angle**8)
    return x / r * bent, y / r * bent


LENSES = {  # COLMAP's models: parameters, and the formulas of its documentation
    "SIMPLE_PINHOLE": ((80.0, 50.0, 40.0), lambda x, y: (x, y)),
    "PINHOLE": ((80.0, 82.0, 50.0, 40.0), lambda x, y: (x, y)),
    "SIMPLE_RADIAL": ((80.0, 50.0, 40.0, 0.1), brown),
    "RADIAL": ((80.0, 50.0, 40.0, 0.1, -0.02), brown),
    "OPENCV": ((80.0, 82.0, 50.0, 40.0, 0.1, -0.02, 0.003, -0.004), brown),
    "FULL_OPENCV": ((80.0, 82.0, 50.0, 40.0, 0.1, -0.02, 0.003, -0.004, 0.01, 0.2, 0.03, -0.01), brown),
    "OPENCV_FISHEYE": ((80.0, 82.0, 50.0, 40.0, 0.1, -0.02, 0.003, -0.004), fisheye),
    "SIMPLE_RADIAL_FISHEYE": ((80.0, 50.0, 40.0, 0.1), fisheye),
    "RADIAL_FISHEYE": ((80.0, 50.0, 40.0, 0.1, -0.02), fisheye),
}


@pytest.mark.parametrize("kind", LENSES)
def test_each_lens_puts_points_where_colmap_s_formulas_do(kind):
    parameters, bend = LENSES[kind]
    image = ImageEntry("a", 1, (0.9, 0.1, -0.3, 0.2), (0.3, -0.2, 1.0))
    camera = camera_of(LensEntry(kind, (100, 80), parameters), image)
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3)) + (0, 0, 3)
    rotation = Rotation.from_quat((0.1, -0.3, 0.2, 0.9)).as_matrix()
    seen = points @ rotation.T + image.translation
    focal = (parameters[0], parameters[1] if len(parameters) in (4, 8, 12) and parameters[1] > 60 else parameters[0])
    centre = parameters[2:4] if parameters[1] > 60 else parameters[1:3]
    rest = parameters[4:] if parameters[1] > 60 else parameters[3:]
    x, y = bend(seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2], *rest)
    wanted = np.stack([focal[0] * x + centre[0], focal[1] * y + centre[1]], -1)
    there = (np.linalg.inv(camera.c2w) @ np.c_[points, np.ones(50)].T).T[:, None, :3]
    zero, coefficients = np.zeros(3), np.array(camera.lens.coefficients)
    project = cv2.fisheye.projectPoints if camera.lens.fisheye else cv2.projectPoints
    found = project(there, zero, zero, camera.K, coefficients)[0][:, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert camera.lens.straight == (kind in ("SIMPLE_PINHOLE", "PINHOLE")) and camera.size == (100, 80)


@pytest.mark.parametrize("file", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("change", ["cut", "grown", "empty"])
def test_a_binary_file_that_is_not_whole_is_named(tmp_path, file, change):
    write_model(tmp_path, CAMERAS, IMAGES, POINTS, True)
    data = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes({"cut": data[:-3], "grown": data + b"abc", "empty": b""}[change])
    with pytest.raises(ValueError, match=f"{file} is no whole file of a COLMAP model"):
        read_images(".bin", lambda name: (tmp_path / name).read_bytes())
        read_points(".bin", lambda name: (tmp_path / name).read_bytes())


def test_an_image_of_no_camera_and_a_camera_of_an_unknown_kind_are_refused(tmp_path):
    write_model(tmp_path, {3: CAMERAS[3]}, IMAGES, POINTS, True)
    with pytest.raises(ValueError, match="images.bin is no whole file"):
        read_images(".bin", lambda name: (tmp_path / name).read_bytes())
    (tmp_path / "cameras.bin").write_bytes(struct.pack("<QiiQQ", 1, 3, 99, 10, 10))
    with pytest.raises(ValueError, match="unknown kind 99"):
        read_images(".bin", lambda name: (tmp_path / name).read_bytes())


@pytest.mark.parametrize(
    ("reason", "kind", "parameters", "quaternion"),
    [
        ("unknown_lens", "FOV", (80.0, 80.0, 50.0, 40.0, 0.9), (1.0, 0, 0, 0)),
        ("nonfinite_intrinsics", "PINHOLE", (np.nan, 80.0, 50.0, 40.0), (1.0, 0, 0, 0)),
        ("nonfinite_pose", "PINHOLE", (80.0, 80.0, 50.0, 40.0), (np.inf, 0, 0, 0)),
        ("bad_rotation", "PINHOLE", (80.0, 80.0, 50.0, 40.0), (0.0, 0, 0, 0)),
    ],
)
def test_cameras_that_cannot_be_used_have_a_reason(reason, kind, parameters, quaternion):
    with pytest.raises(BadFrame) as error:
        camera_of(LensEntry(kind, (100, 80), parameters), ImageEntry("a", 1, quaternion, (0.0, 0, 0)))
    assert error.value.reason == reason


def test_depth_maps_are_read_and_broken_ones_refused(tmp_path):
    depth = np.random.default_rng(0).random((3, 5), np.float32)
    write_depth_map(tmp_path / "a.bin", depth)
    data = (tmp_path / "a.bin").read_bytes()
    np.testing.assert_array_equal(decode_depth_map(data), depth)
    for broken in (data[:-1], data[:-4], b"5&3&", data.replace(b"&1&", b"&3&"), b""):
        with pytest.raises(BadPixels, match="no whole file of COLMAP"):
            decode_depth_map(broken)
