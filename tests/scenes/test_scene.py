import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from src.scenes.pixels import content_hash
from src.scenes.scene import Frame, Scene, SceneError, SceneRecord, read_index, write_index, write_scene
from tests.helpers.frames import damaged, make_frames

ABOUT = {"id": "objects__7", "category": "objects", "units": "metre", "license": "none", "dataset": "procedural"}


@pytest.mark.parametrize("depth", [np.uint16, np.float16, None])
def test_lossless_scene_round_trips_exactly(path, depth):
    frames = make_frames(depth=depth)
    digest = write_scene(path, frames, ABOUT, lossless=True)
    scene = Scene.open(path, digest)
    assert scene.names == ["frame000", "frame001", "frame002"] and len(scene) == 3
    assert (scene.id, scene.category, scene.units) == ("objects__7", "objects", "metre")
    for number, frame in enumerate(frames):
        for found in (scene.frame(number), scene.frame(frame.name)):
            for key, value in vars(frame).items():
                assert np.array_equal(getattr(found, key), value), key
                assert getattr(getattr(found, key), "dtype", None) == getattr(value, "dtype", None), key
    assert scene.content == [content_hash(frame.image) for frame in frames]


def test_absent_planes_stay_absent_frame_by_frame(path):
    frames = [make_frames(2)[0], make_frames(2, depth=None, fg=False)[1]]
    write_scene(path, frames, ABOUT, lossless=True)
    scene = Scene.open(path)
    assert scene.frame(0).depth is not None and scene.frame(0).fg is not None
    assert scene.depth_fraction == 0.5
    assert scene.frame(1).depth is None and scene.frame(1).fg is None and scene.frame(1).flags is None
    view = scene.view(1, (40, 32))
    assert view.fg is None and view.valid.all() and not view.depth.any()


def test_train_scenes_are_jpegs_close_to_the_photograph(path):
    image = np.indices((32, 40)).sum(0).astype(np.uint8)[..., None].repeat(3, -1) * 2
    frame = make_frames(1)[0]
    write_scene(path, [Frame(**vars(frame) | {"image": image})], ABOUT, lossless=False)
    found = Scene.open(path).frame(0)
    assert np.abs(found.image.astype(int) - image).max() < 6
    with safe_open(path, framework="numpy") as file:
        assert file.get_tensor("image_bytes")[:2].tolist() == [0xFF, 0xD8]
    assert np.array_equal(found.depth, frame.depth)


def test_writing_again_gives_the_same_bytes_in_another_process(path, tmp_path):
    digest = write_scene(path, make_frames(), ABOUT, lossless=False)
    other = tmp_path / "again.safetensors"
    code = (
        "import sys; from tests.scenes.test_scene import *; "
        "write_scene(sys.argv[1], make_frames(), dict(reversed(ABOUT.items())), lossless=False)"
    )
    subprocess.run([sys.executable, "-c", code, str(other)], check=True, env=os.environ | {"PYTHONHASHSEED": "5"})
    assert other.read_bytes() == path.read_bytes()
    with safe_open(path, framework="numpy") as file:
        assert list(file.metadata()) == ["scene"]
    assert Scene.open(path, digest).metadata["pixel_origin"] == "corner"


def test_view_at_the_stored_size_is_the_stored_picture(path):
    frame = make_frames()[1]
    write_scene(path, make_frames(), ABOUT, lossless=True)
    view = Scene.open(path).view("frame001", (40, 32))
    assert torch.equal(view.image, torch.from_numpy(frame.image.astype(np.float32) / np.float32(255)).permute(2, 0, 1))
    reliable = (frame.flags & 2) > 0
    np.testing.assert_allclose(view.depth, np.where(reliable, frame.depth * 0.0002, 0), rtol=1e-6)
    assert np.array_equal(view.valid, (frame.flags & 1) > 0)
    np.testing.assert_allclose(view.fg, frame.fg / 255, rtol=1e-6)
    assert np.array_equal(view.K, frame.K.astype(np.float32))
    assert np.array_equal(view.c2w[:3, :3], frame.c2w[:3, :3].astype(np.float32))
    assert {view.image.dtype, view.depth.dtype, view.K.dtype, view.c2w.dtype} == {torch.float32}
    assert view.valid.dtype == torch.bool


def test_cameras_of_a_view_stand_around_the_origin_however_far_off_the_scene_is(path):
    frames = make_frames()
    for frame in frames:
        frame.c2w[:3, 3] += [9e4, -5e4, 100]
    write_scene(path, frames, ABOUT, lossless=True)
    scene = Scene.open(path)
    found = np.stack([scene.view(frame.name, (40, 32)).c2w.double().numpy() for frame in frames])
    stored = np.stack([frame.c2w for frame in frames])
    np.testing.assert_allclose(found[:, :3, 3].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.inv(found[0]) @ found, np.linalg.inv(stored[0]) @ stored, atol=1e-6)


@pytest.mark.parametrize("resolution", [(40, 32), (32, 32), (16, 24)])
def test_depth_and_camera_alone_are_the_views(path, resolution):
    write_scene(path, make_frames(depth=np.float16), ABOUT, lossless=True)
    scene = Scene.open(path)
    view = scene.view(2, resolution)
    assert torch.equal(scene.depth("frame002", resolution), view.depth) and view.depth.any()
    assert np.array_equal(scene.camera(2, resolution).astype(np.float32), view.K) and scene.depth_fraction == 1


def test_view_at_another_size_keeps_cameras_and_pixels_together(path):
    write_scene(path, make_frames(), ABOUT, lossless=True)
    view = Scene.open(path).view(0, (16, 16))
    assert view.image.shape == (3, 16, 16) and view.depth.shape == view.valid.shape == view.fg.shape == (16, 16)
    np.testing.assert_allclose(view.K, [[25, 0, 8], [0, 25.5, 8], [0, 0, 1]], atol=0.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f[:1] + f[:1], "distinct names"),
        (lambda f: f[::-1], "increasing"),
        (lambda f: [], "needs frames"),
        (lambda f: f[:2] + make_frames(depth=np.float16)[2:], "one type"),
    ],
)
def test_impossible_scenes_are_not_written(path, change, words):
    with pytest.raises(ValueError, match=words):
        write_scene(path, change(make_frames()), ABOUT, lossless=True)
    assert not path.exists()


@pytest.mark.parametrize("about", [ABOUT | {"id": "../x"}, ABOUT | {"units": "mm"}, ABOUT | {"quality": float("nan")}])
def test_bad_metadata_is_not_written(path, about):
    with pytest.raises(ValueError):
        write_scene(path, make_frames(), about, lossless=True)
    assert not path.exists()


def test_frames_check_their_shapes():
    frame = vars(make_frames()[0])
    for change in (
        {"K": np.eye(4)},
        {"depth": np.zeros((4, 4), np.uint16)},
        {"depth": np.zeros((32, 40))},
        {"c2w": np.eye(4, dtype=np.float32)},
    ):
        with pytest.raises(ValueError, match=f"frame000: {next(iter(change))} must be"):
            Frame(**frame | change)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("image_offsets", lambda x: x[[0, 2, 1, 3]], "image_offsets"),
        ("depth_offsets", lambda x: x[:-1], "depth_offsets"),
        ("fg_offsets", lambda x: x + 1, "fg_offsets"),
        ("K", lambda x: x[:2], "K has 2 entries for 3 frames"),
    ],
)
def test_inconsistent_files_are_refused_on_opening(path, name, change, words):
    write_scene(path, make_frames(), ABOUT, lossless=True)
    with pytest.raises(SceneError, match=words):
        Scene.open(damaged(path, **{name: change}))


@pytest.mark.parametrize(
    ("name", "change"),
    [("image_bytes", np.zeros_like), ("depth_bytes", np.zeros_like), ("size_wh", lambda x: x[:, ::-1].copy())],
)
def test_undecodable_entries_name_file_and_frame(path, name, change):
    write_scene(path, make_frames(), ABOUT, lossless=True)
    with pytest.raises(SceneError, match=r"objects__7\.safetensors, frame frame002.*run dvc repro|Run dvc repro"):
        Scene.open(damaged(path, **{name: change})).frame(2)


def test_changed_missing_and_foreign_files_are_refused(path, tmp_path):
    digest = write_scene(path, make_frames(), ABOUT, lossless=True)
    with pytest.raises(SceneError, match="changed afterwards"):
        Scene.open(path, "0" * 64)
    write_scene(path, make_frames(seed=1), ABOUT, lossless=True)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SceneError, match="changed afterwards"):
        Scene.open(path, digest)
    with pytest.raises(FileNotFoundError, match="run dvc repro"):
        Scene.open(tmp_path / "absent.safetensors")
    for name, content in (("text", b"not a scene"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SceneError, match="not a scene file"):
            Scene.open(tmp_path / name)
    save_file({"x": np.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(SceneError, match="not a scene file"):
        Scene.open(tmp_path / "foreign")


def test_unknown_frames_are_refused(path):
    write_scene(path, make_frames(), ABOUT, lossless=True)
    with pytest.raises(SceneError, match="no frame 'x'"):
        Scene.open(path).view("x", (40, 32))


def test_index_round_trips_sorted(tmp_path):
    records = [
        SceneRecord(name, f"scenes/{name}.safetensors", "0" * 64, 12, "test", "metre", 1.0, "rooms") for name in "ba"
    ]
    write_index(tmp_path, records)
    assert read_index(tmp_path) == records[::-1]
    assert list(json.loads((tmp_path / "index.jsonl").read_text().splitlines()[0])) == sorted(vars(records[0]))
    (tmp_path / "index.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(SceneError, match="index.jsonl is not an index"):
        read_index(tmp_path)
    with pytest.raises(FileNotFoundError, match="dvc repro prepare"):
        read_index(tmp_path / "absent")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scenes" / "objects__7.safetensors"
