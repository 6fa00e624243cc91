import base64
import json
import os
import shutil
from collections import Counter
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.config import load_config
from src.datasets.co3d.annotations import AnnotationError, Packed, read_category
from src.datasets.co3d.download import fetch_co3d
from src.datasets.co3d.scenes import (
    ListedSequence,
    camera_to_world,
    co3d_scenes,
    intrinsics,
    listed_sequences,
    recording,
    splits,
)
from src.datasets.recording import Catalogue
from src.datasets.splits import share_of
from src.datasets.usable import SceneDropped, Tally, check_scene, usable_frames
from src.episodes.episodes import read_episodes
from src.prepare import prepare
from src.reproducible.files import fresh_folder
from src.scenes.pixels import decode_depth, depth_metres
from src.scenes.scene import RELIABLE, VALID, Scene, read_index
from tests.conftest import fixture_path
from tests.helpers.archives import contents
from tests.helpers.co3d_miniature import (
    CUT,
    FACTOR,
    SEQUENCES,
    VIEWS,
    read_jgz,
    rendered,
    truth,
    write_dataset,
    write_jgz,
)
from tests.helpers.episodes import selection
from tests.helpers.repository import ROOT

SEQUENCE, HIDDEN = "110_13051_23361", "12_90_489"
FRAMES = "apple/frame_annotations.jgz"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("co3d"))


@pytest.fixture
def copy(tree, tmp_path) -> Path:
    """The miniature, to be damaged."""
    shutil.copytree(tree, tmp_path / "co3d")
    return tmp_path / "co3d"


def block(root: Path, *options: str):
    return load_config(
        [
            "data.dataset=co3d",
            f"datasets.co3d.source.root={root}",
            *(f"datasets.co3d.source.{option}" for option in options),
        ],
        ROOT,
    ).dataset


def catalogue(root: Path, *options: str) -> Catalogue:
    about = block(root, *options)
    return co3d_scenes(about, root, fetch_co3d(about, root, 1))


def built(root: Path, folder: Path, *options: str, workers: int = 1) -> dict:
    """What the stages `download` and `prepare` do; the report."""
    source = catalogue(root, *options)
    with fresh_folder(folder) as new:
        prepare(source, new, (48, 48), selection(per_bin=2), workers, folder.with_name("scratch"))
    return json.loads((folder / "report.json").read_text())


def read_sequence(root: Path, name: str = SEQUENCE, on_bad_frame: str = "skip"):
    """The usable frames of one sequence of apples, and the tally."""
    (listed,) = (each for each in listed_sequences(read_category(root, "apple", {})) if each.name == name)
    tally, one = Tally(on_bad_frame), recording(root, listed, "test", {})
    frames = list(usable_frames(one.frames(tally), tally))
    assert len(frames) + tally.total_skipped == one.listed
    return check_scene(frames, tally, 10), tally


@pytest.mark.parametrize("format", ["isotropic", "norm_image_bounds"])
def test_reference_cameras(format):
    case = json.loads(fixture_path("datasets/conversions.json").read_text())["cases"][f"co3d_ndc_{format}"]
    given, expected = case["input"], case["expected"]
    K = intrinsics(given["image_size_hw"], given["focal_length"], given["principal_point"], given["intrinsics_format"])
    c2w = camera_to_world(given["R"], given["T"])
    np.testing.assert_allclose(K, expected["K"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(c2w, expected["c2w"], atol=1e-6, rtol=0)
    point = np.linalg.solve(c2w, [*given["point_world"], 1])[:3]
    np.testing.assert_allclose(point, expected["point_camera_opencv"], atol=1e-6, rtol=0)
    np.testing.assert_allclose((K @ point)[:2] / point[2], expected["uv"], atol=1e-4, rtol=0)


def test_reference_depth_bits():
    case = json.loads(fixture_path("datasets/conversions.json").read_text())["cases"]["depth_float16_in_uint16"]
    samples = decode_depth(base64.b64decode(case["input"]["png16_base64"]), (4, 3), "f16")
    assert samples.view(np.uint16).tolist() == case["input"]["uint16_pixels"]
    found = depth_metres(samples, case["input"]["scale_adjustment"])
    np.testing.assert_allclose(found, case["expected"]["depth"], atol=1e-6, rtol=0)
    assert int((~np.isfinite(samples)).sum()) == case["expected"]["n_nonfinite"]


def world_points(scene: int, view: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on what a view shows, and the pixels (corner origin) they must fall on: computed from the rendering's own
    camera, before mirrors and units."""
    frame, rng = rendered()[view], np.random.default_rng(view)
    x, y = rng.uniform(CUT[1].start + 1, CUT[1].stop - 1, 50), rng.uniform(CUT[0].start + 1, CUT[0].stop - 1, 50)
    rays = np.stack([(x - frame.K[0, 2]) / frame.K[0, 0], (y - frame.K[1, 2]) / frame.K[1, 1], np.ones(50)], 1)
    world = (rays * rng.uniform(0.5, 4, (50, 1))) @ frame.c2w[:3, :3].T + frame.c2w[:3, 3]
    pixels = np.stack([x - CUT[1].start, y - CUT[0].start], 1)
    sides = CUT[1].stop - CUT[1].start, CUT[0].stop - CUT[0].start
    for axis in range(2):
        if scene >> axis & 1:
            world[:, axis] *= -1
            pixels[:, axis] = sides[axis] - pixels[:, axis]
    return world * FACTOR, pixels


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "scenes"
    built(tree, folder, workers=2)
    return folder


def scenes(folder: Path) -> dict[int, Scene]:
    """By number of the miniature's scene."""
    numbers = {
        f"{category}__{name}": number
        for category, members in SEQUENCES.items()
        for name, (number, _) in members.items()
    }
    return {numbers[record.id]: Scene.open(folder / record.file, record.sha256) for record in read_index(folder)}


def test_known_points_fall_on_the_right_pixels(prepared):
    found = scenes(prepared)
    assert len(found) == 5
    for number, scene in found.items():
        for view, name in enumerate(scene.names):
            original = int(name.removeprefix("frame")) - 1
            points, pixels = world_points(number, original)
            camera = (points - scene.c2w[view, :3, 3]) @ scene.c2w[view, :3, :3]
            shown = camera @ scene.K[view].T
            left, top = shift(truth(number)[original]["K"])  # stored photographs are cut around the principal point
            np.testing.assert_allclose(shown[:, :2] / shown[:, 2:] + [left, top], pixels, atol=0.01, rtol=0)


def shift(K: np.ndarray) -> tuple[int, int]:
    """Columns and rows that the symmetric cut around the principal point takes away at the left and at the top."""
    sides = CUT[1].stop - CUT[1].start, CUT[0].stop - CUT[0].start
    return tuple(
        int(np.floor(K[axis, 2] + 0.5) - np.floor(min(K[axis, 2], side - K[axis, 2]) + 1e-3))
        for axis, side in enumerate(sides)
    )


def test_depth_masks_and_photographs_are_those_that_were_published(prepared):
    for number, scene in scenes(prepared).items():
        for view, name in enumerate(scene.names):
            frame, original = scene.frame(view), truth(number)[int(name.removeprefix("frame")) - 1]
            left, top = shift(original["K"])
            height, width = frame.image.shape[:2]
            cut = slice(top, top + height), slice(left, left + width)
            error = np.abs(frame.image.astype(int) - original["image"][cut]).mean()
            assert error < 6  # JPEG of a small picture full of edges
            assert set(np.unique(frame.fg)) <= {230, 25}
            rows = np.arange(top, top + height)[:, None]
            wanted = original["depth"][cut]
            assert ((frame.flags & RELIABLE > 0) == ((rows >= 4) & (wanted > 0))).all() and (frame.flags & VALID).all()
            if SEQUENCES["apple"].get(HIDDEN)[0] == number:
                assert frame.depth is None
            else:
                np.testing.assert_allclose(frame.depth * frame.depth_scale, wanted, rtol=1e-3)


def test_scenes_are_split_and_described(prepared, tree):
    records = {record.id: record for record in read_index(prepared)}
    hidden = records.pop(f"apple__{HIDDEN}")
    assert (hidden.split, hidden.units, hidden.depth_fraction, hidden.n_frames) == ("train", "scene", 0.0, 10)
    for category in SEQUENCES:
        first, second = sorted(
            (name for name, (_, kind) in SEQUENCES[category].items() if kind == "dev"),
            key=lambda name: share_of("co3d", category, name),
        )
        assert records[f"{category}__{first}"].split == "test"
        assert records[f"{category}__{second}"].split in ("train", "val")
    assert Counter(record.split for record in records.values()) == {"test": 2, "train": 1, "val": 1}
    assert {(each.units, each.depth_fraction, each.n_frames) for each in records.values()} == {("scene", 1, VIEWS)}
    scene = Scene.open(prepared / records[f"apple__{SEQUENCE}"].file)
    assert scene.metadata["license"].startswith("CC BY-NC 4.0") and scene.metadata["depth_encoding"] == "f16"
    assert scene.metadata["quality"] == {"viewpoint": 1.4, "pointcloud": 0.9} and scene.metadata["set"] == "dev"
    assert scene.metadata["frames"][3]["source"] == f"apple/{SEQUENCE}/images/frame000004.jpg"
    assert [entry["seen"] for entry in scene.metadata["frames"][:6]] == ["known"] * 5 + ["unseen"]
    assert str(tree) not in json.dumps(scene.metadata) and scene.timestamp[2] == pytest.approx(2 / 30)
    assert read_episodes(prepared, "test") and read_episodes(prepared, "val")
    report = json.loads((prepared / "report.json").read_text())
    assert report["scenes"][f"apple__{HIDDEN}"]["skipped"] == {"redacted": ["frame000006", "frame000012"]}
    assert report["scenes"][f"apple__{HIDDEN}"]["overlap_source"] == "frustum"
    assert report["scenes"][f"apple__{SEQUENCE}"]["overlap_source"] == "depth"
    assert report["listed"] == report["kept"] == 5 and report["excluded"] == {}


def test_a_second_conversion_gives_the_same_bytes(prepared, tree, tmp_path):
    built(tree, tmp_path / "scenes")
    assert contents(tmp_path / "scenes") == contents(prepared)


# --- faults of single photographs: (what to do to the tree, or to frame number 5's annotation) -> what is reported


def pixels(plane: str, edit):
    """Rewrites a file of frame number 5: image, depth, depth_mask or mask."""

    def damage(root: Path, entry: dict) -> None:
        file = {
            "image": lambda: entry["image"]["path"],
            "depth": lambda: entry["depth"]["path"],
            "depth_mask": lambda: entry["depth"]["mask_path"],
            "mask": lambda: entry["mask"]["path"],
        }[plane]()
        path = root / file
        data = edit(path.read_bytes())
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return damage


def entry(edit):
    """Changes frame number 5's annotation."""
    return lambda root, entry: edit(entry)


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def rotated(data: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(opened(data), "JPEG", exif=exif)


def samples(edit):
    """Edits the float16 samples of a depth PNG."""

    def change(data: bytes) -> bytes:
        depth = np.array(opened(data)).astype(np.uint16).view(np.float16)
        edit(depth)
        return saved(Image.fromarray(depth.view(np.uint16)), "PNG")

    return change


def viewpoint(key: str, edit):
    return entry(lambda frame: frame["viewpoint"].update({key: edit(np.array(frame["viewpoint"][key])).tolist()}))


def damaged(root: Path, damage) -> None:
    frames = read_jgz(root / FRAMES)
    (one,) = (frame for frame in frames if frame["sequence_name"] == SEQUENCE and frame["frame_number"] == 5)
    damage(root, one)
    write_jgz(root / FRAMES, frames)


def some(depth: np.ndarray) -> None:
    depth[20, :4] = np.nan, np.inf, -np.inf, -1


FRAME_FAULTS = {
    "truncated": (pixels("image", lambda data: data[: len(data) // 2]), "bad_image"),
    "zero bytes": (pixels("image", lambda data: b""), "bad_image"),
    "web page": (pixels("image", lambda data: b"<html>404</html>"), "bad_image"),
    "missing": (pixels("image", lambda data: None), "missing_image"),
    "other size": (pixels("image", lambda data: saved(opened(data).resize((36, 28)), "JPEG")), "size_mismatch"),
    "other size in the annotation": (entry(lambda frame: frame["image"].update(size=[72, 56])), "size_mismatch"),
    "rotated": (pixels("image", rotated), "exif_rotated"),
    "CMYK": (pixels("image", lambda data: saved(opened(data).convert("CMYK"), "JPEG")), "bad_mode"),
    "16 bit": (pixels("image", lambda data: saved(Image.new("I;16", (72, 56), 9), "PNG")), "bad_mode"),
    "16 bit colours": (
        pixels("image", lambda data: cv2.imencode(".png", np.full((56, 72, 3), 9, np.uint16))[1].data),
        "bad_mode",
    ),
    "black": (pixels("image", lambda data: saved(Image.new("RGB", (72, 56)), "JPEG")), "redacted"),
    "NaN rotation": (viewpoint("R", lambda R: R * np.nan), "nonfinite_pose"),
    "infinite translation": (viewpoint("T", lambda T: T * np.inf), "nonfinite_pose"),
    "NaN focal length": (viewpoint("focal_length", lambda f: f * np.nan), "nonfinite_intrinsics"),
    "NaN principal point": (viewpoint("principal_point", lambda p: p * np.nan), "nonfinite_intrinsics"),
    "scaled rotation": (viewpoint("R", lambda R: R * 1.01), "bad_rotation"),
    "reflection": (viewpoint("R", lambda R: R * [1, 1, -1]), "bad_rotation"),
    "no focal length": (viewpoint("focal_length", lambda f: f * 0), "bad_focal"),
    "negative focal length": (viewpoint("focal_length", lambda f: f * [1, -1]), "bad_focal"),
    "telescope": (viewpoint("focal_length", lambda f: f * 100), "bad_focal"),
    "off centre": (viewpoint("principal_point", lambda p: p + [0.9, 0]), "pp_off_centre"),
    "far away": (viewpoint("T", lambda T: T + 1e6), "pose_outlier"),
    "no camera": (entry(lambda frame: frame.update(viewpoint=None)), "missing_viewpoint"),
    "mask of another size": (pixels("mask", lambda data: saved(Image.new("L", (36, 28), 9), "PNG")), "mask_size"),
}


@pytest.mark.parametrize("fault", FRAME_FAULTS)
def test_an_unusable_photograph_is_left_out_and_named(copy, fault):
    damage, reason = FRAME_FAULTS[fault]
    damaged(copy, damage)
    frames, tally = read_sequence(copy)
    assert tally.skipped == {reason: ["frame000006"]} and len(frames) == VIEWS - 1
    assert "frame000006" not in [frame.name for frame in frames]
    with pytest.raises(ValueError, match=rf"frame000006 is unusable .{reason}"):
        read_sequence(copy, on_bad_frame="error")


NO_DEPTH = {"depth_unusable": 1, "depth_missing": 1}
COUNTED = {
    "depth truncated": (pixels("depth", lambda data: data[:-40]), NO_DEPTH, "depth", None),
    "depth of 8 bits": (
        pixels("depth", lambda data: saved(Image.new("L", (72, 56), 9), "PNG")),
        NO_DEPTH,
        "depth",
        None,
    ),
    "depth of another size": (
        pixels("depth", lambda data: saved(Image.new("I;16", (36, 28), 9), "PNG")),
        NO_DEPTH,
        "depth",
        None,
    ),
    "depth without a unit": (entry(lambda frame: frame["depth"].update(scale_adjustment=0.0)), NO_DEPTH, "depth", None),
    "depth mask of another size": (
        pixels("depth_mask", lambda data: saved(Image.new("1", (36, 28), 1), "PNG")),
        NO_DEPTH,
        "depth",
        None,
    ),
    "no depth file": (pixels("depth", lambda data: None), {"depth_missing": 1}, "depth", None),
    "no depth": (entry(lambda frame: frame.update(depth=None)), {"depth_missing": 1}, "depth", None),
    "depth zero": (pixels("depth", samples(lambda depth: depth.fill(0))), {"depth_all_zero": 1}, "depth", None),
    "depth masked away": (
        pixels("depth_mask", lambda data: saved(Image.new("1", (72, 56)), "PNG")),
        {"depth_all_zero": 1},
        "depth",
        None,
    ),
    "bad depth pixels": (pixels("depth", samples(some)), {"depth_pixels_zeroed": 4}, None, None),
    "no mask file": (pixels("mask", lambda data: None), {}, "fg", None),
    "no mask": (entry(lambda frame: frame.update(mask=None)), {}, "fg", None),
    "empty mask": (pixels("mask", lambda data: saved(Image.new("L", (72, 56)), "PNG")), {"mask_empty": 1}, None, None),
    "no depth mask": (pixels("depth_mask", lambda data: None), {}, "flags", None),
    "a little sheared": (
        viewpoint("R", lambda R: R + [[3e-4, 0, 0], [0, 0, 0], [0, 0, 0]]),
        {"rotation_fixed": 1},
        None,
        None,
    ),
    "grey": (pixels("image", lambda data: saved(opened(data).convert("L"), "JPEG")), {}, None, None),
}


@pytest.mark.parametrize("fault", COUNTED)
def test_a_photograph_with_a_lesser_fault_is_kept_and_the_fault_counted(copy, fault):
    damage, counts, plane, value = COUNTED[fault]
    damaged(copy, damage)
    frames, tally = read_sequence(copy)
    frame = frames[5]
    assert frame.name == "frame000006" and tally.skipped == {} and tally.counts == counts
    if plane:
        assert getattr(frame, plane) is value
    if fault == "bad depth pixels":
        assert (frame.depth[20, :4] == 0).all() and frame.depth[20, 4] > 0
    if fault == "grey":
        assert (frame.image == frame.image[..., :1]).all()
    if fault == "a little sheared":
        np.testing.assert_allclose(frame.c2w[:3, :3] @ frame.c2w[:3, :3].T, np.eye(3), atol=1e-12)


def test_depth_is_multiplied_by_its_scale_adjustment(copy):
    before = read_sequence(copy)[0][5]
    damaged(copy, entry(lambda frame: frame["depth"].update(scale_adjustment=1.5)))
    after = read_sequence(copy)[0][5]
    np.testing.assert_allclose(
        depth_metres(after.depth, after.depth_scale), 1.5 * depth_metres(before.depth, before.depth_scale), rtol=1e-6
    )


def with_frames(root: Path, edit) -> None:
    """Edits the list of frame annotations."""
    frames = read_jgz(root / FRAMES)
    write_jgz(root / FRAMES, edit(frames))


def test_what_is_listed_twice_is_kept_once(copy):
    with_frames(copy, lambda frames: frames + [frames[5]])
    frames, tally = read_sequence(copy)
    assert tally.skipped == {"duplicate_record": ["frame000006"]} and len(frames) == VIEWS
    with_frames(copy, lambda frames: frames[:-1] + [frames[5] | {"frame_number": 40}])
    assert read_sequence(copy)[1].skipped == {"duplicate_record": ["frame000006"]}
    path = copy / f"apple/{SEQUENCE}/images"
    shutil.copy(path / "frame000006.jpg", path / "frame000007.jpg")
    with_frames(copy, lambda frames: frames[:-1])
    assert read_sequence(copy)[1].skipped == {"duplicate_image": ["frame000007"]}


def test_two_pictures_under_one_number_stop_everything(copy, tmp_path):
    intact(
        copy,
        tmp_path,
        lambda: with_frames(copy, lambda frames: frames + [frames[6] | {"frame_number": 5}]),
        "frame number 5. is listed twice with different pictures",
    )


def test_frames_out_of_order_are_sorted(copy):
    before = [frame.name for frame in read_sequence(copy)[0]]
    with_frames(copy, lambda frames: frames[::-1])
    frames, tally = read_sequence(copy)
    assert [frame.name for frame in frames] == before and tally.counts == {"reordered": 1}


def test_frames_without_annotation_are_named(copy):
    with_frames(
        copy,
        lambda frames: [frame for frame in frames if (frame["sequence_name"], frame["frame_number"]) != (SEQUENCE, 5)],
    )
    frames, tally = read_sequence(copy)
    assert tally.skipped == {"orphan_entry": ["frame000006"]} and len(frames) == VIEWS - 1


def test_many_stray_cameras_condemn_the_scene(copy):
    def stray(frames):
        for frame in frames[2:4]:
            frame["viewpoint"]["T"] = [1e6, 0, 0]
        return frames

    with_frames(copy, stray)
    with pytest.raises(SceneDropped) as caught:
        read_sequence(copy)
    assert caught.value.reason == "pose_outlier"


def test_a_dropped_scene_accounts_for_all_its_photographs(copy, tmp_path):
    def stray(frames):
        for frame in [frame for frame in frames if frame["sequence_name"] == HIDDEN][2:4]:
            frame["viewpoint"]["T"] = [1e6, 0, 0]
        return frames

    with_frames(copy, stray)
    report = built(copy, tmp_path / "scenes")
    scene = report["scenes"][f"apple__{HIDDEN}"]
    assert report["skipped"] == {"pose_outlier": [f"apple__{HIDDEN}"]} and scene["dropped"] == "pose_outlier"
    assert (scene["listed"], scene["kept"]) == (VIEWS, 0)
    assert scene["skipped"]["redacted"] == ["frame000006", "frame000012"]
    assert sorted(name for names in scene["skipped"].values() for name in names) == [
        f"frame{number:06d}" for number in range(1, VIEWS + 1)
    ]


def test_hidden_frames_are_known_from_the_lists_where_the_annotations_are_silent(copy):
    with_frames(copy, lambda frames: [frame | {"meta": None} for frame in frames])
    frames, tally = read_sequence(copy, HIDDEN)
    assert tally.skipped == {"redacted": ["frame000006", "frame000012"]}
    assert len(read_sequence(copy)[0]) == VIEWS  # unseen frames of a development sequence are published


# --- faults of whole scenes and files


def intact(root: Path, tmp_path: Path, damage, words: str, *options: str) -> None:
    """Build, damage, build again: the second must fail with these words and leave what the first made."""
    built(root, tmp_path / "scenes", *options)
    before = contents(tmp_path / "scenes")
    damage()
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        built(root, tmp_path / "scenes", *options)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "scenes") == before and [path.name for path in tmp_path.glob(".scenes*")] == []


def with_sequences(root: Path, category: str, edit) -> None:
    path = root / category / "sequence_annotations.jgz"
    sequences = read_jgz(path)
    edit(sequences)
    write_jgz(path, sequences)


@pytest.mark.parametrize(
    ("quality", "reason"),
    [(0.5, "quality_low"), (-1, "quality_low"), (None, "quality_missing"), (float("nan"), "quality_missing")],
)
def test_sequences_with_doubtful_cameras_are_dropped_and_named(copy, quality, reason):
    with_sequences(copy, "apple", lambda all: all[2].update(viewpoint_quality_score=quality))
    found = catalogue(copy)
    assert found.skipped == {reason: [f"apple__{HIDDEN}"]} and len(found.recordings) == 4
    assert len(catalogue(copy, "min_quality=0.4").recordings) == (5 if quality == 0.5 else 4)


def test_too_many_dropped_sequences_stop_the_stage_unless_allowed(copy, tmp_path):
    def damage():
        for index in (1, 2):
            with_sequences(copy, "apple", lambda all: all[index].update(viewpoint_quality_score=0.1))

    intact(copy, tmp_path, damage, f"2 of 5 listed scenes .*at most 20% may.*quality_low: apple__{HIDDEN}, apple__189")
    assert catalogue(copy, "max_dropped=0.4").max_dropped == 0.4


def test_on_bad_frame_error_stops_the_stage(tree, tmp_path):
    shown = {
        category: {name: about for name, about in members.items() if name != HIDDEN}
        for category, members in SEQUENCES.items()
    }
    root = write_dataset(tmp_path / "co3d", shown)
    intact(
        root,
        tmp_path,
        lambda: damaged(root, FRAME_FAULTS["truncated"][0]),
        "frame000006 is unusable .bad_image",
        "on_bad_frame=error",
    )
    with pytest.raises(ValueError, match="unusable .redacted"):  # hidden photographs are listed photographs
        built(tree, tmp_path / "scenes", "on_bad_frame=error")


def test_a_sequence_with_too_few_photographs_is_dropped(copy, tmp_path):
    with_frames(
        copy,
        lambda frames: [frame for frame in frames if frame["sequence_name"] != HIDDEN or frame["frame_number"] < 9],
    )
    report = built(copy, tmp_path / "scenes")
    assert report["skipped"] == {"too_few_frames": [f"apple__{HIDDEN}"]}


def cut_file(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def outside(root: Path) -> None:
    """Links out of the dataset."""
    folder = root / f"apple/{SEQUENCE}/images"
    shutil.move(folder, root.parent / "elsewhere")
    os.symlink(root.parent / "elsewhere", folder)


def edited(edit):
    return lambda root: with_frames(
        root, lambda frames: [edit(frame) or frame if index == 3 else frame for index, frame in enumerate(frames)]
    )


FATAL = {
    "broken gzip": (lambda root: cut_file(root / FRAMES, 500), "apple/frame_annotations.jgz at /: it is broken"),
    "no gzip": (lambda root: (root / FRAMES).write_bytes(b"[]"), "apple/frame_annotations.jgz at /: it is broken"),
    "broken JSON": (
        lambda root: cut_file(root / "vase/set_lists/set_lists_manyview_dev_0.json", 40),
        "vase/set_lists/set_lists_manyview_dev_0.json at /: it is broken",
    ),
    "missing file": (
        lambda root: (root / "vase/sequence_annotations.jgz").unlink(),
        "vase/sequence_annotations.jgz is missing",
    ),
    "missing key": (
        edited(lambda frame: frame["image"].clear()),
        "apple/frame_annotations.jgz at /3/image: the entry path is missing",
    ),
    "wrong type": (
        edited(lambda frame: frame.update(frame_number="3")),
        "apple/frame_annotations.jgz at /3/frame_number: found str, wanted int",
    ),
    "true is no number": (
        edited(lambda frame: frame["depth"].update(scale_adjustment=True)),
        "apple/frame_annotations.jgz at /3/depth/scale_adjustment: found bool",
    ),
    "wrong shape": (
        edited(lambda frame: frame["viewpoint"].update(T=[1, 2])),
        "apple/frame_annotations.jgz at /3/viewpoint/T: found 2 entries, wanted 3",
    ),
    "wrong size": (edited(lambda frame: frame["image"].update(size=[1, 2, 3])), "at /3/image/size: found 3 entries"),
    "no matrix": (edited(lambda frame: frame["viewpoint"].update(R=[[1, 0, 0]])), "at /3/viewpoint/R: .*3x3"),
    "unknown format": (
        edited(lambda frame: frame["viewpoint"].update(intrinsics_format="pixels")),
        "at /3/viewpoint/intrinsics_format: found 'pixels', wanted ndc_isotropic or ndc_norm",
    ),
    "absolute path": (
        edited(lambda frame: frame["image"].update(path="/etc/passwd")),
        "at /3/image/path: found '/etc/passwd', wanted a path below",
    ),
    "climbing path": (edited(lambda frame: frame["mask"].update(path="apple/../../x.png")), "at /3/mask/path: found"),
    "link outside": (outside, "frame000001.jpg', which lies outside datasets.co3d.source.root"),
    "short entry": (
        lambda root: (root / "vase/set_lists/set_lists_manyview_dev_0.json").write_text('{"train": [["a", 1]]}'),
        "manyview_dev_0.json at /train/0: found 2 entries, wanted sequence, frame number and image path",
    ),
    "two qualities": (
        lambda root: with_sequences(root, "vase", lambda all: all.append(all[0] | {"viewpoint_quality_score": 9.0})),
        "vase/sequence_annotations.jgz at /2: .*listed twice",
    ),
}


@pytest.mark.parametrize("fault", FATAL)
def test_fatal_faults_are_one_sentence_and_leave_what_was_there(tree, copy, prepared, tmp_path, fault):
    damage, words = FATAL[fault]
    shutil.copytree(prepared, tmp_path / "scenes")
    damage(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        built(copy, tmp_path / "scenes")
    assert "\n" not in str(caught.value) and contents(tmp_path / "scenes") == contents(prepared)
    assert not list(tmp_path.glob(".scenes*"))


def test_annotations_that_changed_after_they_were_listed_stop_the_stage(copy, tmp_path):
    about = block(copy)
    manifest = fetch_co3d(about, tmp_path, 1)
    with_sequences(copy, "vase", lambda all: all[0].update(viewpoint_quality_score=1.3))
    with pytest.raises(AnnotationError, match="vase/sequence_annotations.jgz has changed .*dvc repro -f download"):
        co3d_scenes(about, tmp_path, manifest)


def test_nullable_fields_may_be_null_and_unknown_ones_are_ignored(copy):
    with_sequences(copy, "apple", lambda all: all[0].update(point_cloud=None, video=None, camera_name="x"))
    with_sequences(copy, "vase", lambda all: all[0]["point_cloud"].update(quality_score=float("nan")))
    assert {each.metadata["quality"]["pointcloud"] for each in catalogue(copy).recordings} == {None, 0.9}
    damaged(
        copy,
        entry(
            lambda frame: (
                frame.update(meta=None, frame_timestamp=None, extra={"a": 1})
                or frame["depth"].update(mask_path=None)
                or frame["mask"].update(mass=None)
            )
        ),
    )
    frames, tally = read_sequence(copy)
    assert len(frames) == VIEWS and np.isnan(frames[5].timestamp) and frames[5].flags is None


# --- splits


def named(category: str, name: str, kind: str) -> ListedSequence:
    return ListedSequence(category, name, kind, Packed(), [], {"viewpoint": 1.0, "pointcloud": None})


def test_the_official_subset_gives_the_stated_numbers():
    dev = [named(f"category{number // 2}", f"{number}_1_2", "dev") for number in range(40)]
    hidden = [named(f"category{number}", f"{number}_9_9", "test") for number in range(48)]
    found = splits(dev + hidden, "singlesequence")
    assert Counter(found[each.id] for each in dev) == {"test": 20, "train": 16, "val": 4}
    assert {found[each.id] for each in hidden} == {"train"}
    assert splits((dev + hidden)[::-1], "singlesequence") == found
    for number in range(20):
        pair = sorted(dev[2 * number : 2 * number + 2], key=lambda each: each.share)
        assert found[pair[0].id] == "test" and found[pair[1].id] != "test"


def test_the_full_set_is_split_by_name_alone():
    everyone = [named("apple", f"{number}_1_2", "train") for number in range(2000)]
    found = splits(everyone, "full")
    counts = Counter(found.values())
    assert abs(counts["train"] - 1600) < 60 and abs(counts["val"] - 200) < 45
    assert splits(everyone[:5], "full") == {each.id: found[each.id] for each in everyone[:5]}


def test_the_full_set_leaves_the_publishers_test_sequences_alone(copy):
    with_sequences(copy, "vase", lambda all: all[0].update(viewpoint_quality_score=0.1))  # a split may then be empty
    found = catalogue(copy, "subset=full")
    assert found.excluded == {"test_set": [f"apple__{HIDDEN}"]}
    assert {each.id for each in found.recordings} == {
        f"apple__{SEQUENCE}",
        "apple__189_20393_38136",
        "vase__380_44863_89631",
    }


def with_list(root: Path, category: str, subset: str, entries: dict) -> None:
    (root / category / f"set_lists/set_lists_{subset}.json").write_text(json.dumps(entries))


def sets(root: Path) -> dict[str, str | None]:
    """By sequence of apples."""
    return {each.name: each.set for each in listed_sequences(read_category(root, "apple", {}))}


def test_frames_say_to_which_set_they_belong_whatever_list_names_them(copy):
    with_frames(
        copy,
        lambda frames: [
            frame | {"meta": {"frame_type": "train_known"}} if frame["sequence_name"] == SEQUENCE else frame
            for frame in frames
        ],
    )
    entry = [SEQUENCE, 0, f"apple/{SEQUENCE}/images/frame000001.jpg"]
    with_list(copy, "apple", "fewview_test", {part: [entry] for part in ("train", "val", "test")})
    assert sets(copy) == {SEQUENCE: "train", "189_20393_38136": "dev", HIDDEN: "test"}
    with_sequences(copy, "vase", lambda all: all[0].update(viewpoint_quality_score=0.1))  # a split may then be empty
    assert catalogue(copy, "subset=full").excluded == {"test_set": [f"apple__{HIDDEN}"]}


@pytest.mark.parametrize(
    ("lists", "found"),
    [
        ({"fewview_test": "train"}, "train"),
        ({"fewview_dev": "train"}, "train"),
        ({"fewview_test": "test"}, "test"),
        ({"fewview_test": "val"}, "test"),
        ({"fewview_train": "test"}, "train"),
        ({"manyview_dev_0": "train"}, "dev"),
        ({"manyview_test_0": "train"}, "test"),
        ({"fewview_test": "train", "fewview_dev": "test"}, "dev"),
        ({"fewview_dev": "train", "fewview_test": "test"}, "test"),
        ({"other": "test"}, None),
        ({}, None),
    ],
)
def test_lists_say_it_where_no_frame_does(copy, lists, found):
    with_frames(copy, lambda frames: [frame | {"meta": None} for frame in frames])
    shutil.rmtree(copy / "apple/set_lists")
    (copy / "apple/set_lists").mkdir()
    for subset, part in lists.items():
        with_list(copy, "apple", subset, {part: [[SEQUENCE, 0, f"apple/{SEQUENCE}/images/frame000001.jpg"]]})
    assert sets(copy) == {SEQUENCE: found, "189_20393_38136": None, HIDDEN: None}


def test_sequences_that_nothing_lists_are_left_out_and_named(copy):
    shutil.rmtree(copy / "apple/set_lists")
    with_frames(
        copy, lambda frames: [frame | {"meta": None} if frame["sequence_name"] == HIDDEN else frame for frame in frames]
    )
    found = catalogue(copy)
    assert found.excluded == {"in_no_set": [f"apple__{HIDDEN}"]} and len(found.recordings) == 4


def test_categories_too_few_for_three_splits_are_an_error(tree):
    with pytest.raises(
        ValueError,
        match="2 usable sequences of vase leave no scene for train; name more in datasets.co3d.source.categories",
    ):
        catalogue(tree, "categories=[vase]")
