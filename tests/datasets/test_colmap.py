import shutil

import numpy as np
import pytest

from src.episodes.episodes import read_episodes
from tests.helpers.captures import camera_of, capture, name_of
from tests.helpers.colmap import pose, write_model
from tests.helpers.miniatures import (
    FISHEYE,
    NONE,
    OPENCV,
    check_geometry,
    leaving,
    pinhole_of,
    rendered,
    scenes_of,
    snapshot,
    stages,
)

KEY = "datasets.colmap.source"


def run(monkeypatch, tmp_path, *overrides):
    return stages(monkeypatch, tmp_path / "run", "colmap", f"{KEY}.root={tmp_path}/captures", *overrides)


@pytest.mark.parametrize(("binary", "lens", "model"), [(True, OPENCV, "sparse/0"), (False, FISHEYE, "sparse")])
def test_a_capture_of_two_cameras_becomes_a_scene_of_straight_images(monkeypatch, tmp_path, binary, lens, model):
    capture(tmp_path / "captures/my room", binary, lens, model)
    report = run(monkeypatch, tmp_path)
    (scene,) = scenes_of(tmp_path / "run").values()
    assert scene.id == "my_room" and scene.units == "scene" and report["scenes"]["my_room"]["kept"] == 12
    order = [2, 4, 6, 8, 10, 12]
    assert scene.names == [name_of(number - 1) for number in order] + [name_of(number) for number in order]
    for number, frame in enumerate(rendered(), 1):
        check_geometry(scene, name_of(number), frame, pinhole_of(frame))
    assert {item.overlap_source for item in read_episodes(tmp_path / "run/data/scenes", "test")} == {"sparse"}


def test_both_forms_and_a_second_run_give_the_same_bytes(monkeypatch, tmp_path):
    capture(tmp_path / "captures/room", True)
    run(monkeypatch, tmp_path)
    first = snapshot(tmp_path / "run/data")
    assert not any(str(tmp_path).encode() in data for data in first.values())
    run(monkeypatch, tmp_path)
    assert snapshot(tmp_path / "run/data") == first
    known = scenes_of(tmp_path / "run")["room"]
    pixels = [known.frame(number).image.tobytes() for number in range(12)]
    shutil.rmtree(tmp_path / "captures/room/sparse")
    capture(tmp_path / "captures/room", False)
    run(monkeypatch, tmp_path)
    again = scenes_of(tmp_path / "run")["room"]
    assert again.c2w.tobytes() == known.c2w.tobytes()
    assert [again.frame(number).image.tobytes() for number in range(12)] == pixels


def test_dense_depth_is_used_where_images_are_straight(monkeypatch, tmp_path):
    folder = tmp_path / "captures"  # the root itself is the capture
    capture(folder, lens=OPENCV, depth=True)
    (folder / f"stereo/depth_maps/{name_of(3)}.geometric.bin").write_bytes(b"112&84&1&short")
    (folder / f"stereo/depth_maps/{name_of(5)}.geometric.bin").unlink()
    about = run(monkeypatch, tmp_path)["scenes"]["captures"]
    assert about["kept"] == 12 and about["overlap_source"] == "depth"
    assert about["counts"]["depth_unusable"] == 7 and about["counts"]["depth_missing"] == 8
    scene = scenes_of(tmp_path / "run")["captures"]
    for number, frame in enumerate(rendered(), 1):
        stored = scene.frame(name_of(number))
        assert (stored.depth is None) == (number % 2 == 0 or number in (3, 5))
        check_geometry(scene, name_of(number), frame, pinhole_of(frame))


def test_images_that_cannot_be_used_are_named_with_their_reason(monkeypatch, tmp_path):
    room = tmp_path / "captures/room"
    capture(room, False)
    (room / "images" / name_of(1)).unlink()
    text = (room / "sparse/0/images.txt").read_text()
    wrong = [line for line in text.split("\n") if line.endswith(name_of(2))]
    words = wrong[0].split(maxsplit=8)
    text = text.replace(wrong[0], " ".join([words[0], *["nan"] * 4, *words[5:]]))
    (room / "sparse/0/images.txt").write_text(text)
    about = run(monkeypatch, tmp_path)["scenes"]["room"]
    assert about["kept"] == 10 and about["listed"] == 12
    assert about["skipped"] == {"nonfinite_pose": [name_of(2)], "missing_image": [name_of(1)]}


FAULTS = {
    "sparse/0 holds no COLMAP model": lambda room: (room / "sparse/0/points3D.bin").unlink(),
    "images.bin is no whole file of a COLMAP model": lambda room: (room / "sparse/0/images.bin").write_bytes(b"\1"),
    "is a COLMAP model without images": lambda room: write_model(room / "sparse/0", {}, {}, [], True),
    "leads out of the dataset's folder": lambda room: leaving(room / "images" / name_of(1), room.parent),
    "'../left.png'; a path must be relative": lambda room: write_model(
        room / "sparse/0", {1: camera_of(NONE)}, {1: ("../left.png", 1, *pose(np.eye(4)))}, [], True
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_capture_that_cannot_be_used_is_left_out_in_a_sentence(monkeypatch, tmp_path, capsys, message):
    capture(tmp_path / "captures/e")
    for name in "abcd":
        shutil.copytree(tmp_path / "captures/e", tmp_path / "captures" / name)
    FAULTS[message](tmp_path / "captures/c")
    report = run(monkeypatch, tmp_path)
    assert report["skipped"] == {"broken_list": ["c"]} and report["kept"] == 4
    assert message in capsys.readouterr().err


def test_folders_whose_names_become_equal_are_both_named(monkeypatch, tmp_path):
    for name in ("my room", "my_room"):
        capture(tmp_path / "captures" / name)
    with pytest.raises(ValueError, match="folders 'my room' and 'my_room', which would both be called my_room"):
        run(monkeypatch, tmp_path)
