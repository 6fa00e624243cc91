import json

import numpy as np
import pytest

from src.datasets.json_node import Node
from src.datasets.lenses import resampling
from src.datasets.transforms_json import FrameEntry, camera, natural, read_transforms
from src.datasets.usable import BadFrame, Tally
from tests.conftest import fixture_path

POSE = [[1.0, 0, 0, 4], [0, 1, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1]]


def parsed(top=None, frame=None, size=(400, 300), tally=None):
    """The camera of the one frame of a file."""
    content = {"fl_x": 300.0, "w": 400, "h": 300} | (top or {})
    content = {key: value for key, value in content.items() if value is not None}
    content["frames"] = [{"file_path": "a.png", "transform_matrix": POSE} | (frame or {})]
    file = read_transforms(json.dumps(content).encode(), "room/transforms.json")
    return camera(FrameEntry(file, file["frames"].items()[0]), size, Tally() if tally is None else tally)


def entry_of(top, frame):
    """One frame of a file, unchecked."""
    file = Node("room/transforms.json", "", top)
    return FrameEntry(file, Node("room/transforms.json", "/frames/0", frame))


ELSEWHERE = ("co3d_", "depth_float16_in_uint16", "crop_resize", "coverage_")  # test_co3d, _codec, _crop, _overlap


def test_each_case_of_the_fixture_has_its_test():
    cases = json.loads(fixture_path("datasets/conversions.json").read_text())["cases"]
    assert [name for name in cases if not name.startswith(("transforms_json_", *ELSEWHERE))] == []
    transforms = [case for name, case in cases.items() if name.startswith("transforms_json_")]
    assert len(transforms) >= 2
    for case in transforms:
        agrees(case)


def agrees(case):
    top = read_transforms(json.dumps(case["input"]["transforms"]).encode(), "transforms.json")
    point = np.append(case["input"]["point_world"], 1)
    for frame, wanted in zip(top["frames"].items(), case["expected"]["frames"], strict=True):
        found = camera(FrameEntry(top, frame), None, Tally())
        assert found.size == (wanted["width"], wanted["height"])
        np.testing.assert_allclose(found.K, wanted["K"], atol=1e-6)
        np.testing.assert_allclose(found.c2w, wanted["c2w"], atol=1e-6)
        assert not found.lens.fisheye and list(found.lens.coefficients) == wanted["distortion_k1k2p1p2"]
        q = np.linalg.inv(found.c2w) @ point
        uv = (found.K @ q[:3] / q[2])[:2]
        np.testing.assert_allclose(uv, wanted["uv_pinhole"], atol=1e-4)
        pinhole = found.K + [[0, 0, 7.5 - uv[0]], [0, 0, 9.5 - uv[1]], [0, 0, 0]]  # the point falls on a pixel's centre
        places = resampling(found.K, found.lens, found.size, pinhole)
        np.testing.assert_allclose([places.x[9, 7] + 0.5, places.y[9, 7] + 0.5], wanted["uv_distorted"], atol=1e-4)


@pytest.mark.parametrize(
    ("top", "frame", "fx", "fy"),
    [
        ({}, {}, 300, 300),  # the other axis is copied
        ({"fl_x": None, "fl_y": 310.0}, {}, 310, 310),
        ({"fl_y": 310.0}, {}, 300, 310),
        ({"fl_y": 310.0}, {"fl_x": 280.0}, 280, 310),  # the frame wins, axis by axis
        ({"fl_x": None, "camera_angle_x": 2 * np.arctan(0.5)}, {}, 400, 400),
        ({"fl_x": None, "camera_angle_x": 2 * np.arctan(0.5), "camera_angle_y": 2 * np.arctan(0.25)}, {}, 400, 600),
        ({"fl_x": None, "x_fov": 90.0}, {}, 200, 200),
        ({"x_fov": 90.0}, {}, 200, 200),  # field of view before fl
        ({"x_fov": 90.0}, {"fl_x": 250.0}, 250, 250),  # but any of the frame before the top
        ({"camera_angle_x": 0.5}, {}, 300, 300),  # fl before the angle
        ({"fl_x": 300.0}, {"camera_angle_x": 2 * np.arctan(0.5)}, 400, 400),
    ],
)
def test_focal_lengths_follow_the_order_of_precedence(top, frame, fx, fy):
    np.testing.assert_allclose(parsed(top, frame).K, [[fx, 0, 200], [0, fy, 150], [0, 0, 1]], rtol=1e-12)


def test_disagreements_are_counted():
    tally = Tally()
    angle = 2 * np.arctan(400 / 2 / 300)
    parsed({"camera_angle_x": angle * 1.002}, {}, tally=tally)
    parsed({}, {"fl_x": 300.0, "sharpness": 3.0}, tally=tally)
    assert tally.counts == {}
    parsed({"camera_angle_x": angle * 1.05}, {}, tally=tally)
    parsed({}, {"fl_x": 301.0, "cx": 7.0, "sharpness": 3.0}, tally=tally)
    assert tally.counts == {"intrinsics_conflict": 1, "intrinsics_override": 1}


def test_size_and_principal_point_come_from_the_list_or_the_image():
    found = parsed({"w": None, "h": None, "cx": 190.5}, {}, size=(320, 200))
    assert found.size == (320, 200) and found.K[:2, 2].tolist() == [190.5, 100]
    found = parsed({"w": 1080.0, "h": 1920.0}, {"cy": 900.0})
    assert found.size == (1080, 1920) and found.K[:2, 2].tolist() == [540, 900]


@pytest.mark.parametrize(
    ("top", "fisheye", "coefficients"),
    [
        ({"k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4, "k3": 0.0}, False, (0.1, 0.2, 0.3, 0.4)),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.1}, False, (0.1, 0, 0, 0)),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k2": 0.2, "k3": 0.3, "k4": 0.4}, True, (0.1, 0.2, 0.3, 0.4)),
        ({"is_fisheye": True, "k1": 0.1, "k4": 0.4}, True, (0.1, 0, 0, 0.4)),
        ({"is_fisheye": False, "camera_model": "PINHOLE"}, False, (0, 0, 0, 0)),
        ({"camera_model": "OPENCV", "k1": 0.1, "k3": 0.3}, False, (0.1, 0, 0, 0, 0.3)),
        ({"k3": 0.3}, False, (0, 0, 0, 0, 0.3)),
        ({"camera_model": "FULL_OPENCV", "k1": 0.1, "k5": 0.5}, False, (0.1, 0, 0, 0, 0, 0, 0.5, 0)),
        ({"camera_model": "full-opencv", "k1": 0.1, "k3": 0.3}, False, (0.1, 0, 0, 0, 0.3)),
        ({"camera_model": "opencv_fisheye", "k1": 0.1}, True, (0.1, 0, 0, 0)),
        ({"camera_model": "Simple_Radial_Fisheye", "k1": 0.1}, True, (0.1, 0, 0, 0)),
        ({"camera_model": "brown", "k3": 0.3}, False, (0, 0, 0, 0, 0.3)),
        ({"distortion_params": [0.1, 0.2, 0.5, 0, 0.3, 0.4]}, False, (0.1, 0.2, 0.3, 0.4, 0.5)),
        (
            {"camera_model": "OPENCV_FISHEYE", "distortion_params": [0.1, 0.2, 0.3, 0.4, 0, 0]},
            True,
            (0.1, 0.2, 0.3, 0.4),
        ),
    ],
)
def test_lens_coefficients_are_read_in_their_models_order(top, fisheye, coefficients):
    lens = parsed(top).lens
    assert (lens.fisheye, lens.coefficients) == (fisheye, coefficients)


def test_a_frames_own_coefficients_win_over_the_tops_however_they_are_written():
    several = [0.1, 0.2, 0, 0, 0.3, 0.4]
    assert parsed({"k1": 9.0}, {"distortion_params": several}).lens.coefficients == (0.1, 0.2, 0.3, 0.4)
    assert parsed({"distortion_params": several}, {"k1": 9.0}).lens.coefficients == (9.0, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    "key", ["b1", "s2", "skew", "fov", "focal_length", "distortion", "lens_model", "fx", "camera_angle"]
)
def test_keys_of_a_camera_that_are_not_known_are_found(key):
    assert entry_of({key: 0.1}, {}).unread() == {key} == entry_of({}, {key: 0.1}).unread()


def test_keys_that_are_known_or_say_nothing_of_a_camera_are_not_found():
    known = {"k1": 0, "p2": 0, "cx": 1, "fl_x": 1, "distortion_params": [0] * 6, "camera_model": "OPENCV", "k6": 0}
    others = {"aabb_scale": 16, "scale": 1, "offset": 0, "frames": [], "sharpness": 3, "colmap_im_id": 4, "up": 1}
    assert entry_of(known | others, {"file_path": "a", "transform_matrix": POSE}).unread() == set()


def test_poses_are_kept_but_for_the_axes():
    hints = {
        "aabb_scale": 16,
        "scale": 3.0,
        "offset": [1, 1, 1],
        "up": [0, 1, 0],
        "applied_scale": 0.5,
        "applied_transform": [[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]],
        "orientation_override": "none",
    }
    wanted = [[1, 0, 0, 4], [0, -1, 0, 5], [0, 0, -1, 6], [0, 0, 0, 1]]
    assert parsed(hints).c2w.tolist() == wanted == parsed({}, {"transform_matrix": POSE[:3]}).c2w.tolist()


def test_natural_order():
    names = ["images/10.jpg", "images/2.jpg", "b/1.png", "images/2b.jpg", "images/002.jpg"]
    assert sorted(names, key=natural) == ["b/1.png", "images/2.jpg", "images/002.jpg", "images/2b.jpg", "images/10.jpg"]


@pytest.mark.parametrize(
    ("top", "frame", "words"),
    [
        ({}, {"transform_matrix": [[1, 0], [0, 1]]}, "/frames/0/transform_matrix: .*wanted a 4x4 or 3x4"),
        ({}, {"transform_matrix": POSE[:3] + [[0, 0, 0.5, 1]]}, "/frames/0/transform_matrix: found last row"),
        ({}, {"transform_matrix": "eye"}, "/frames/0/transform_matrix: found str, wanted list"),
        ({}, {"transform_matrix": None}, "/frames/0: the entry transform_matrix is missing"),
        ({"camera_model": "FTHETA"}, {}, "/camera_model: found camera_model FTHETA, wanted one of PINHOLE"),
        ({"camera_model": "OPENCV", "is_fisheye": True}, {}, "/camera_model: .*is_fisheye"),
        ({"rolling_shutter": [0, 0, 0, 0.1]}, {}, "at /: rolling_shutter is not supported"),
        ({}, {"transform_matrix_start": POSE}, "/frames/0: transform_matrix_start is not supported"),
        ({"ftheta_p0": 0.1}, {}, "ftheta_p0"),
        ({"equirectangular": True}, {}, "equirectangular"),
        ({"k4": 0.1}, {}, "/k4: k4 is 0.1.*correct camera_model.*FULL_OPENCV"),
        ({"distortion_params": [0, 0, 0, 0.1, 0, 0]}, {}, "/distortion_params: k4 is 0.1, but an OPENCV lens"),
        ({}, {"distortion_params": [0.1, 0.2]}, "/frames/0/distortion_params: found 2 numbers, wanted 6: k1, k2"),
        ({"is_fisheye": True, "p1": 0.1}, {}, "/p1: .*OPENCV_FISHEYE lens has k1, k2, k3, k4"),
        ({"w": 400.5}, {}, "/w: found 400.5"),
        ({"h": 0}, {}, "/h: "),
        ({"w": "400"}, {}, "/w: found str, wanted int"),
        ({"fl_x": None}, {}, "/frames/0: there is no focal length"),
        ({"fl_x": True}, {}, "/fl_x: found bool"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_file_and_place(top, frame, words):
    with pytest.raises(ValueError, match=f"room/transforms.json at .*{words.removeprefix('at ')}") as error:
        parsed(top, frame)
    assert not isinstance(error.value, BadFrame) and "\n" not in str(error.value)


def test_switched_off_keys_are_no_error():
    assert parsed({"rolling_shutter": [0, 0, 0, 0], "latlong": False, "k5": 0.0}).lens.straight


@pytest.mark.parametrize(
    ("top", "frame"),
    [({"fl_x": float("nan")}, {}), ({"cx": float("inf")}, {}), ({"camera_angle_x": float("nan"), "fl_x": None}, {})],
)
def test_numbers_that_are_not_finite_reach_the_checks(top, frame):
    assert not np.isfinite(parsed(top, frame).K).all()


def test_lenses_and_sizes_that_are_not_finite_are_refused():
    for top in ({"k1": float("nan")}, {"w": float("nan")}):
        with pytest.raises(BadFrame) as error:
            parsed(top)
        assert error.value.reason == "nonfinite_intrinsics"
    assert np.isnan(parsed({}, {"transform_matrix": POSE[:3] + [[0, 0, 0, float("nan")]]}).c2w).any()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"frames": [', "room/transforms.json is not JSON"),
        (b"[]", "at /: found list, wanted dict"),
        (b"{}", "at /: the entry frames is missing"),
        (b'{"frames": []}', "at /frames: the list of frames is empty"),
        (b'{"frames": {}}', "at /frames: found dict, wanted list"),
        (b'{"frames": [3]}', "at /frames/0: found int"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_broken_files_are_errors(data, words):
    with pytest.raises(ValueError, match=words):
        read_transforms(data, "room/transforms.json")


def test_comments_and_byte_order_marks_are_read():
    text = '\ufeff{ // a comment\n "frames": [{"file_path": "http://x/*.png"} /* another */ ], "path": "a\\\\" }'
    top = read_transforms(text.encode(), "t.json")
    assert top["frames"].items()[0]["file_path"].value == "http://x/*.png" and top.value["path"] == "a\\"
