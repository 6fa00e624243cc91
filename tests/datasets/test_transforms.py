import io
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData, PlyElement
from scipy.ndimage import map_coordinates

from src.config import load_config
from src.datasets.photographs import ListedPhotograph, read_depth
from src.datasets.usable import Tally
from src.episodes.episodes import read_episodes
from tests.helpers.miniatures import (
    CENTRE,
    DEPTH_SCALE,
    FISHEYE,
    NONE,
    OPENCV,
    RENDERED,
    ROOT,
    SIZE,
    check_geometry,
    crop_offset,
    depth_taken,
    leaving,
    opengl,
    pinhole_of,
    rendered,
    save,
    scenes_of,
    snapshot,
    stages,
    taken,
    write,
)

KEY = "datasets.transforms.source"
MISSING = (3, 7)  # numbers listed without an image, as in instant-ngp's own example
MODELS = {"opencv": "OPENCV", "fisheye": "OPENCV_FISHEYE"}


def camera_of(frame, lens):
    """The top-level entries of nerfstudio for a photograph taken out of a render."""
    K = pinhole_of(frame)
    names = ("k1", "k2", "p1", "p2") if lens[0] == "opencv" else ("k1", "k2", "k3", "k4")
    return {
        "w": SIZE[0],
        "h": SIZE[1],
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": CENTRE[0],
        "cy": CENTRE[1],
        **dict(zip(names, lens[1])),
    }


def instant_ngp(folder, lens=OPENCV):
    """As colmap2nerf writes it: sizes as floats, angles beside focal lengths, sharpness, frames in no order and listed
    although their image is gone."""
    first = rendered()[0]
    top = camera_of(first, lens)
    top |= {
        "w": float(SIZE[0]),
        "h": float(SIZE[1]),
        "aabb_scale": 16,
        "is_fisheye": False,
        "camera_angle_x": 2 * np.arctan(SIZE[0] / top["fl_x"] / 2),
        "camera_angle_y": 2 * np.arctan(SIZE[1] / top["fl_y"] / 2),
    }
    frames = []
    for number, frame in enumerate(rendered()):
        frames.append(
            {
                "file_path": f"./images/{number + 1}.jpg",
                "sharpness": 20.0 + number,
                "transform_matrix": opengl(frame.c2w),
            }
        )
        save(folder / f"images/{number + 1}.jpg", taken(frame, lens))
    for number in MISSING:
        frames.append({"file_path": f"./images/0{number}.jpg", "sharpness": 9.0, "transform_matrix": opengl(np.eye(4))})
    write(folder / "transforms.json", top | {"frames": frames[::-1]})


def nerfstudio(folder, lens=OPENCV, depth=True, colours=(2, 0, 1)):
    """As ns-process-data writes it: millimetre depth, sparse points, no extension missing."""
    top = camera_of(rendered()[0], lens) | {"camera_model": MODELS[lens[0]]}
    frames = []
    for number, frame in enumerate(rendered(), 1):
        name = f"frame_{number:05d}.png"
        frames.append({"file_path": f"images/{name}", "transform_matrix": opengl(frame.c2w), "colmap_im_id": number})
        save(folder / "images" / name, taken(frame, lens, colours))
        if depth:
            frames[-1]["depth_file_path"] = f"depths/{name}"
            save(folder / "depths" / name, depth_taken(frame, lens))
    write(folder / "transforms.json", top | {"frames": frames})


def blender(folder):
    """camera_angle_x alone, images without extension, transparent background, one list per part."""
    cut = slice(18, 102), slice(24, 136)  # 112 x 84 around the render's own centre
    numbered = iter(rendered())
    for part, count in (("train", 7), ("val", 2), ("test", 3)):
        frames = []
        for number in range(count):
            frame = next(numbered)
            frames.append(
                {"file_path": f"./{part}/r_{number}", "rotation": 0.012, "transform_matrix": opengl(frame.c2w)}
            )
            alpha = np.where(frame.depth[cut] * DEPTH_SCALE < 2, 255, 0).astype(np.uint8)
            save(folder / part / f"r_{number}.png", np.dstack([frame.image[cut], alpha]))
        angle = 2 * np.arctan(SIZE[0] / 2 / frame.K[0, 0])
        write(folder / f"transforms_{part}.json", {"camera_angle_x": angle, "frames": frames})


def run(monkeypatch, tmp_path, *overrides):
    return stages(monkeypatch, tmp_path / "run", "transforms", f"{KEY}.root={tmp_path}/captures", *overrides)


def edited(folder, change):
    """transforms.json of a capture after `change` was done to its content."""
    content = json.loads((folder / "transforms.json").read_text())
    change(content)
    write(folder / "transforms.json", content)


def check_pixels(scene, name, frame, colours=(0, 1, 2), tolerance=4.0):
    """A straightened photograph is the straight render, and would not be if half a pixel were lost."""
    stored = scene.frame(name)
    left, top = crop_offset(pinhole_of(frame), SIZE)
    places_x = np.arange(stored.size[0]) + 0.5 - CENTRE[0] + left + RENDERED[0] / 2
    places_y = np.arange(stored.size[1]) + 0.5 - CENTRE[1] + top + RENDERED[1] / 2

    def error(shift):
        grid = np.meshgrid(places_y - 0.5 + shift, places_x - 0.5 + shift, indexing="ij")
        wanted = np.stack([map_coordinates(frame.image[..., c].astype(float), grid, order=1) for c in colours], -1)
        valid = stored.flags > 0 if stored.flags is not None else np.ones(stored.size[::-1], bool)
        return np.abs(stored.image - wanted)[valid].mean()

    assert error(0) < tolerance and error(0) < 0.7 * error(0.5) and error(0) < 0.7 * error(-0.5)


def test_the_instant_ngp_dialect(monkeypatch, tmp_path):
    instant_ngp(tmp_path / "captures/my capture")
    report = run(monkeypatch, tmp_path)
    (scene,) = scenes_of(tmp_path / "run").values()
    assert scene.id == "my_capture" and scene.units == "scene" and scene.category == "captures"
    assert scene.names == [f"images/{number}.jpg" for number in range(1, 13)]  # 2 before 10
    assert report["scenes"]["my_capture"] == {
        "split": "test",
        "category": "captures",
        "listed": 14,
        "kept": 12,
        "dropped": None,
        "skipped": {"missing_image": ["images/03.jpg", "images/07.jpg"]},
        "counts": {"depth_missing": 12, "reordered": 1},
        "overlap_source": "frustum",
        "examples": {"missing_image": "images/03.jpg: there is no file my capture/images/03.jpg"},
    }
    assert scene.metadata["frames"][3]["sharpness"] == 23.0
    for name, frame in zip(scene.names, rendered(), strict=True):
        check_geometry(scene, name, frame, pinhole_of(frame))
    for number in (0, 5):
        check_pixels(scene, scene.names[number], rendered()[number])
    assert scene.frame(0).image.shape == (80, 108, 3) and scene.frame(0).flags is not None
    assert {item.overlap_source for item in read_episodes(tmp_path / "run/data/scenes", "test")} == {"frustum"}
    assert report["episodes"]["train"] == {bin: {"pairs": 0, "episodes": 0} for bin in report["episodes"]["val"]}


@pytest.mark.parametrize("lens", [OPENCV, FISHEYE, NONE])
def test_the_nerfstudio_dialect(monkeypatch, tmp_path, lens):
    nerfstudio(tmp_path / "captures/room", lens)
    report = run(monkeypatch, tmp_path)
    scene = scenes_of(tmp_path / "run")["room"]
    assert report["scenes"]["room"]["overlap_source"] == "depth" and report["scenes"]["room"]["kept"] == 12
    for name, frame in zip(scene.names, rendered(), strict=True):
        check_geometry(scene, name, frame, pinhole_of(frame))
    check_pixels(scene, scene.names[4], rendered()[4], (2, 0, 1))
    assert (scene.frame(4).flags is not None) == (lens is OPENCV)  # this fisheye lens looks further than a pinhole


def test_the_blender_dialect(monkeypatch, tmp_path):
    blender(tmp_path / "captures")
    report = run(monkeypatch, tmp_path)
    scene = scenes_of(tmp_path / "run")["captures"]
    assert scene.names[:2] == ["train/r_0", "train/r_1"] and scene.names[-1] == "test/r_2" and len(scene) == 12
    assert report["scenes"]["captures"]["skipped"] == {}
    for name, frame in zip(scene.names, rendered(), strict=True):
        check_geometry(scene, name, frame, pinhole_of(frame, centre=(56, 42)))
    stored, frame = scene.frame("val/r_1"), rendered()[8]
    cut = slice(18, 102), slice(24, 136)
    near = frame.depth[cut] * DEPTH_SCALE < 2
    assert np.array_equal(stored.fg, near * np.uint8(255)) and 0.1 < near.mean() < 0.9
    assert np.array_equal(stored.image, np.where(near[..., None], frame.image[cut], 255))  # on white


def test_sparse_points_measure_overlap_where_there_is_no_depth(monkeypatch, tmp_path):
    folder = tmp_path / "captures/room"
    nerfstudio(folder, NONE, depth=False)
    points = np.random.default_rng(0).normal(0, 0.5, (500, 3))
    vertices = np.array([tuple(point) for point in points], [(axis, "f4") for axis in "xyz"])
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(folder / "sparse_pc.ply"))
    edited(
        folder, lambda content: content.update(ply_file_path="sparse_pc.ply", applied_transform=np.eye(4)[:3].tolist())
    )
    assert run(monkeypatch, tmp_path)["scenes"]["room"]["overlap_source"] == "sparse"
    edited(folder, lambda content: content.pop("applied_transform"))  # then nobody knows whose coordinates they are in
    assert run(monkeypatch, tmp_path)["scenes"]["room"]["overlap_source"] == "frustum"
    edited(folder, lambda content: content.update(applied_transform=np.eye(4)[:3].tolist()))
    PlyData([PlyElement.describe(vertices[:0], "vertex")]).write(str(folder / "sparse_pc.ply"))
    assert run(monkeypatch, tmp_path)["scenes"]["room"]["overlap_source"] == "frustum"  # a file without a point
    (folder / "sparse_pc.ply").write_text("no points")
    with pytest.raises(ValueError, match="sparse_pc.ply is no PLY file"):
        run(monkeypatch, tmp_path)


def test_masks_of_both_polarities_and_depth_of_instant_ngp(monkeypatch, tmp_path):
    folder = tmp_path / "captures/room"
    nerfstudio(folder, NONE)
    mask = np.full(SIZE[::-1], 255, np.uint8)
    mask[10:30, 20:60] = 0
    save(folder / "masks/a.png", mask)  # nerfstudio: black = ignore
    save(folder / "images/dynamic_mask_frame_00003.png", 255 - mask)  # instant-ngp: non-zero = ignore
    save(folder / "masks/empty.png", np.zeros_like(mask))
    frame = rendered()[3]
    save(folder / "depths/4.png", (depth_taken(frame, NONE) * 2))

    def change(content):
        frames = content["frames"]
        frames[1]["mask_path"], frames[4]["mask_path"], frames[5]["mask_path"] = (
            "masks/a.png",
            "masks/none.png",
            "masks/empty.png",
        )
        frames[3]["depth_path"] = frames[3].pop("depth_file_path").replace("frame_00004.png", "4")
        content["integer_depth_scale"] = 0.0005

    edited(folder, change)
    report = run(monkeypatch, tmp_path)
    scene = scenes_of(tmp_path / "run")["room"]
    left, top = crop_offset(pinhole_of(frame), SIZE)
    for number in (1, 2):
        valid = scene.frame(number).flags > 0
        assert np.array_equal(valid, mask[top : top + 80, left : left + 108] > 0)
    assert report["scenes"]["room"]["counts"] == {
        "mask_missing": 1,
        "mask_empty": 1,
        "depth_all_zero": 1,
        "no_valid_depth": 1,
    }
    check_geometry(scene, scene.names[3], frame, pinhole_of(frame))
    assert scene.frame(3).depth_scale == 0.0005


def test_depth_arrays_and_units(monkeypatch, tmp_path):
    folder = tmp_path / "captures/room"
    nerfstudio(folder, NONE)
    for number, frame in enumerate(rendered()):
        np.save(folder / f"depths/{number}.npy", (depth_taken(frame, NONE) * 5.0).astype(np.float32)[..., None])
    wild = depth_taken(rendered()[3], NONE) * 5.0
    wild[40, 40:44] = np.nan, np.inf, -1, 1e6
    Image.fromarray(wild.astype(np.float32)).save(folder / "depths/3.tiff")
    np.save(folder / "depths/4.npy", np.array([{}]), allow_pickle=True)

    def change(content):
        for number, frame in enumerate(content["frames"]):
            frame["depth_file_path"] = f"depths/{number}.{'tiff' if number == 3 else 'npy'}"

    edited(folder, change)
    report = run(monkeypatch, tmp_path, f"{KEY}.depth_unit=0.0002")
    scene = scenes_of(tmp_path / "run")["room"]
    check_geometry(scene, scene.names[2], rendered()[2], pinhole_of(rendered()[2]))
    assert report["scenes"]["room"]["counts"]["depth_pixels_zeroed"] == 4
    counts = report["scenes"]["room"]["counts"]
    assert (counts["depth_unusable"], counts["depth_missing"]) == (1, 1) and report["scenes"]["room"]["kept"] == 12


def test_depth_in_metres_keeps_its_millimetres(monkeypatch, tmp_path):
    folder = tmp_path / "captures/room"
    nerfstudio(folder, NONE)
    for number, frame in enumerate(rendered()):
        np.save(folder / f"depths/{number}.npy", (depth_taken(frame, NONE) / 1000).astype(np.float32))
    edited(
        folder,
        lambda content: [
            frame.update(depth_file_path=f"depths/{number}.npy") for number, frame in enumerate(content["frames"])
        ],
    )
    run(monkeypatch, tmp_path, f"{KEY}.depth_unit=1.0")
    scene, (left, top) = scenes_of(tmp_path / "run")["room"], crop_offset(pinhole_of(rendered()[2]), SIZE)
    check_geometry(scene, scene.names[2], rendered()[2], pinhole_of(rendered()[2]))
    stored, metres = scene.frame(2), depth_taken(rendered()[2], NONE)[top : top + 80, left : left + 108] / 1000
    assert np.abs(stored.depth * stored.depth_scale - metres).max() < 1e-3 < metres.max()


def stored_depth(samples):
    """What `read_depth` makes of a .npy array: depth in its unit, and how many pixels were zeroed."""

    class Files(dict):
        read = dict.__getitem__

    buffer, tally = io.BytesIO(), Tally("skip")
    np.save(buffer, samples)
    found, unit = read_depth(
        Files({"d.npy": buffer.getvalue()}), ListedPhotograph("a", 0, "a.png", "d.npy", 1.0), samples.shape[::-1], tally
    )
    return found * unit, tally.counts.get("depth_pixels_zeroed", 0)


def room_depth():
    """A map in metres, of rays that leave a room's middle: 2 to 6 m."""
    return np.random.default_rng(0).uniform(2, 6, SIZE[::-1]).astype(np.float32)


@pytest.mark.parametrize(("far", "pixels"), [(65504, 1), (1000, 90), (65504, 2000), (np.inf, 1)])
def test_outliers_of_a_depth_map_are_dropped_and_cost_no_precision(far, pixels):
    """65504 is the largest float16: a background of any size."""
    samples = room_depth()
    clean, zeroed = stored_depth(samples)
    assert zeroed == 0 and np.abs(clean - samples).max() <= 2.0**-14
    samples.flat[:pixels] = far
    found, zeroed = stored_depth(samples)
    assert zeroed == pixels and (found.flat[:pixels] == 0).all()
    assert np.abs(found - samples).flat[pixels:].max() < 2.0**-11


def test_depth_that_is_no_outlier_is_kept_however_far():
    samples = room_depth()
    samples[:20], samples[20, :9] = 250.25, 900.5
    found, zeroed = stored_depth(samples)
    assert zeroed == 0 and (found[:20] == 250.25).all() and (found[20, :9] == 900.5).all()
    whole = np.array([[1, 2, 3, 4, 65504.0]] * 2)
    assert np.array_equal(stored_depth(whole)[0], whole)


def other_size(folder):
    save(folder / "images/frame_00002.png", taken(rendered()[1], NONE)[:-1])


def rotated(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(taken(rendered()[1], NONE)).save(folder / "images/frame_00002.png", exif=exif)


def picture(path, mode):
    def inject(folder):
        (folder / path).parent.mkdir(exist_ok=True)
        Image.new(mode, SIZE, 3).save(folder / path)

    return inject


def content(path, data):
    return lambda folder: (folder / path).write_bytes(data)


def entry(**values):
    """The second photograph's entries changed; the key None removes."""
    return lambda folder: edited(folder, lambda content: content["frames"][1].update(values))


def pose(row, column, value):
    def change(content):
        content["frames"][1]["transform_matrix"][row][column] = value

    return lambda folder: edited(folder, change)


def sixteen_bits(channels):
    def inject(folder):
        pixels = np.random.default_rng(0).integers(0, 65536, (*SIZE[::-1], channels), np.uint16)
        assert cv2.imwrite(str(folder / "images/frame_00002.png"), pixels)

    return inject


def truncated(folder):
    path = folder / "images/frame_00002.png"
    path.write_bytes(path.read_bytes()[:-400])


def depth_lost(folder):
    (folder / "depths/frame_00002.png").unlink()


def depth_zero(folder):
    save(folder / "depths/frame_00002.png", np.zeros(SIZE[::-1], np.uint16))


def masked(size, value):
    def inject(folder):
        save(folder / "masks/m.png", np.full(size[::-1], value, np.uint8))
        entry(mask_path="masks/m.png")(folder)

    return inject


def twin(folder):
    shutil.copy(folder / "images/frame_00001.png", folder / "images/frame_00002.png")


def two_poses(folder):
    edited(
        folder,
        lambda content: content["frames"].append(
            content["frames"][2] | {"file_path": content["frames"][1]["file_path"]}
        ),
    )


def still(folder):
    def change(content):
        content["frames"][1]["transform_matrix"] = content["frames"][0]["transform_matrix"]

    edited(folder, change)


SKIPPED = {
    "bad_image": [
        truncated,
        content("images/frame_00002.png", b""),
        content("images/frame_00002.png", b"<html>404</html>"),
    ],
    "missing_image": [entry(file_path="images/none.png")],
    "size_mismatch": [other_size, entry(w=120)],
    "exif_rotated": [rotated],
    "bad_mode": [
        picture("images/frame_00002.png", "I;16"),
        picture("images/frame_00002.png", "P"),
        picture("images/frame_00002.png", "LA"),
        sixteen_bits(3),
        sixteen_bits(4),
    ],
    "redacted": [content("images/frame_00002.png", b"")],
    "nonfinite_pose": [pose(0, 3, float("nan")), pose(3, 3, float("inf"))],
    "nonfinite_intrinsics": [entry(fl_x=float("nan")), entry(k1=float("inf"), camera_model="OPENCV")],
    "bad_rotation": [pose(0, 0, 3.0)],
    "bad_focal": [entry(fl_x=0), entry(fl_x=-90.0), entry(fl_x=2000.0), entry(camera_angle_x=3.1, fl_x=None)],
    "pose_outlier": [pose(1, 3, 2e5)],
    "mask_size": [masked((50, 50), 255)],
    "duplicate_image": [twin],
    "pp_off_centre": [entry(cx=9.0)],
}
UNUSABLE_DEPTH = [
    picture("depths/frame_00002.png", "L"),
    content("depths/frame_00002.png", b"\x89PNG"),
    lambda folder: save(folder / "depths/frame_00002.png", np.ones((5, 5), np.uint16)),
    lambda folder: save(folder / "depths/frame_00002.png", np.ones((2 * SIZE[1], 2 * SIZE[0]), np.uint16)),
]
COUNTED = {
    "depth_missing": depth_lost,
    "depth_all_zero": depth_zero,
    "mask_empty": masked(SIZE, 0),
    "identical_poses": still,
    "rotation_fixed": pose(0, 0, None),
    "intrinsics_override": entry(fl_x=150.0),
}
FATAL = {
    "/frames/1/transform_matrix: found last row": pose(3, 0, 0.5),
    "/frames/1/transform_matrix: found rows of": entry(transform_matrix=[[1.0]]),
    "the list of frames is empty": lambda folder: edited(folder, lambda content: content.update(frames=[])),
    "the entry frames is missing": lambda folder: edited(folder, lambda content: content.pop("frames") and None),
    "found camera_model FISHEYE_624": lambda folder: edited(folder, lambda c: c.update(camera_model="FISHEYE_624")),
    "latlong is not supported": lambda folder: edited(folder, lambda content: content.update(latlong=True)),
    "is not JSON": content("transforms.json", b'{"frames": '),
    "the entry file_path is missing": entry(file_path=None),
    "/frames/1/file_path: found int": entry(file_path=7),
    "names '/etc/passwd'": entry(file_path="/etc/passwd"),
    "names '../room/images/frame_00001.png'": entry(file_path="../room/images/frame_00001.png"),
    r"names 'C:\\\\a.png'": entry(file_path="C:\\a.png"),
    "names 'depths/../../x.png'": entry(depth_file_path="depths/../../x.png"),
    "images/frame_00002.png is a link that leads out": lambda folder: leaving(
        folder / "images/frame_00002.png", folder
    ),
    "is listed twice with different entries": two_poses,
    "found n_frames nan, wanted a whole number": lambda folder: edited(folder, lambda c: c.update(n_frames=np.nan)),
    "found n_frames -1.0, wanted a whole number": lambda folder: edited(folder, lambda c: c.update(n_frames=-1)),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A straight nerfstudio capture of 12 photographs."""
    folder = tmp_path_factory.mktemp("sound") / "room"
    nerfstudio(folder, NONE)
    return folder


@pytest.fixture
def room(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "captures/room")


@pytest.mark.parametrize(
    ("reason", "number"), [(reason, number) for reason, faults in SKIPPED.items() for number in range(len(faults))]
)
def test_a_faulty_photograph_is_left_out_and_named(monkeypatch, tmp_path, room, reason, number):
    SKIPPED[reason][number](room)
    if reason == "redacted":
        save(room / "images/frame_00002.png", np.zeros((*SIZE[::-1], 3), np.uint8))
    scene = run(monkeypatch, tmp_path)["scenes"]["room"]
    name = "images/none.png" if reason == "missing_image" else "images/frame_00002.png"
    assert scene["skipped"] == {reason: [name]} and (scene["listed"], scene["kept"]) == (12, 11)


@pytest.mark.parametrize("word", COUNTED)
def test_a_peculiar_photograph_is_kept_and_counted(monkeypatch, tmp_path, room, word):
    if word == "rotation_fixed":
        value = json.loads((room / "transforms.json").read_text())["frames"][1]["transform_matrix"][0][0]
        pose(0, 0, value + 2e-4)(room)
    else:
        COUNTED[word](room)
    scene = run(monkeypatch, tmp_path)["scenes"]["room"]
    extra = {
        "depth_missing": {"no_valid_depth": 1},
        "depth_all_zero": {"no_valid_depth": 1},
        "mask_empty": {"no_valid_depth": 1, "depth_all_zero": 1},
    }
    assert scene["counts"] == {word: 1} | extra.get(word, {}) and scene["kept"] == 12 and scene["skipped"] == {}


@pytest.mark.parametrize("damage", UNUSABLE_DEPTH)
def test_an_unusable_depth_map_costs_its_depth_and_not_its_photograph(monkeypatch, tmp_path, room, damage):
    damage(room)
    scene = run(monkeypatch, tmp_path)["scenes"]["room"]
    assert scene["kept"] == 12 and scene["skipped"] == {}
    assert scene["counts"] == {"depth_unusable": 1, "depth_missing": 1, "no_valid_depth": 1}
    with pytest.raises(ValueError, match="photograph images/frame_00002.png: .*on_bad_frame"):
        run(monkeypatch, tmp_path, f"{KEY}.on_bad_frame=error")


def test_a_smaller_depth_map_of_the_images_shape_is_enlarged_without_mixing(monkeypatch, tmp_path, room):
    small = np.arange(SIZE[0] * SIZE[1] // 4, dtype=np.uint16).reshape(SIZE[1] // 2, SIZE[0] // 2) + 900
    save(room / "depths/frame_00002.png", small)
    assert run(monkeypatch, tmp_path)["scenes"]["room"]["counts"] == {"depth_enlarged": 1}
    frame = scenes_of(tmp_path / "run")["room"].frame(1)
    wanted = np.kron(small, np.ones((2, 2), np.uint16))
    left, top = ((side - own) // 2 for side, own in zip(wanted.shape[::-1], frame.depth.shape[::-1]))
    assert set(np.unique(frame.depth)) <= set(np.unique(small))
    windows = np.lib.stride_tricks.sliding_window_view(wanted, frame.depth.shape)
    assert (windows == frame.depth).all((-1, -2)).any(), (left, top)


def test_one_broken_capture_is_left_out_and_the_others_are_kept(monkeypatch, tmp_path, sound, capsys):
    for name in ("a", "b", "c", "d", "e"):
        shutil.copytree(sound, tmp_path / "captures" / name)
    edited(tmp_path / "captures/c", lambda content: content.update(camera_model="FISHEYE_624"))
    report = run(monkeypatch, tmp_path)
    assert report["skipped"] == {"broken_list": ["c"]} and (report["listed"], report["kept"]) == (5, 4)
    assert "a capture is left out: c/transforms.json at /camera_model: found camera_model" in capsys.readouterr().err
    with pytest.raises(ValueError, match="found camera_model FISHEYE_624"):
        run(monkeypatch, tmp_path, f"{KEY}.on_bad_frame=error")


def test_frames_spelled_in_several_ways_keep_their_order(monkeypatch, tmp_path, room):
    def change(content):
        for number, frame in enumerate(content["frames"]):
            frame["file_path"] = ("./" if number % 2 else "") + frame["file_path"]

    edited(room, change)
    scene = run(monkeypatch, tmp_path)["scenes"]["room"]
    assert scene["counts"] == {} and scenes_of(tmp_path / "run")["room"].names == [
        f"images/frame_{number:05d}.png" for number in range(1, 13)
    ]


def test_unknown_keys_of_a_camera_are_said(monkeypatch, tmp_path, room, capsys):
    edited(room, lambda content: content.update(b1=0.3) or content["frames"][0].update(lens_model="x"))
    assert run(monkeypatch, tmp_path)["scenes"]["room"]["counts"] == {"unread_intrinsics": 2}
    assert "room: b1, lens_model are not known here and change no camera" in capsys.readouterr().out


LOST = {
    "missing_image": (lambda name: f"images/{name}.gone", "there is no file room/images/frame_00001.png.gone"),
    "other_case": (
        lambda name: f"images/{name.upper()}",
        "there is no file room/images/FRAME_00001.PNG, but frame_00001.png",
    ),
}


@pytest.mark.parametrize("kind", LOST)
def test_why_every_photograph_was_lost_is_said_and_kept(monkeypatch, tmp_path, room, kind):
    rename, words = LOST[kind]

    def change(content):
        for frame in content["frames"]:
            frame["file_path"] = rename(frame["file_path"].rpartition("/")[2])

    edited(room, change)
    with pytest.raises(ValueError) as error:
        run(monkeypatch, tmp_path)
    said = str(error.value)
    assert "too_few_frames: room" in said and "12 missing_image, such as room, images/" in said and words in said
    assert "dvc repro --force download" in said and "scratch/prepare/report.json" in said
    report = json.loads((tmp_path / "run/scratch/prepare/report.json").read_text())
    assert len(report["scenes"]["room"]["skipped"]["missing_image"]) == 12


def test_cameras_that_all_stand_in_one_place_are_said_to(monkeypatch, tmp_path, room):
    def change(content):
        for frame in content["frames"]:
            for row in range(3):
                frame["transform_matrix"][row][3] = 1.0

    edited(room, change)
    with pytest.raises(
        ValueError, match="one_place: room.*12 one_place, such as room, all 12 cameras stand in one place"
    ):
        run(monkeypatch, tmp_path)


@pytest.mark.parametrize("words", FATAL)
def test_a_broken_list_stops_everything_and_destroys_nothing(monkeypatch, tmp_path, room, words):
    write(tmp_path / "run/data/scenes/index.jsonl", "the scenes of an earlier run")
    FATAL[words](room)
    with pytest.raises(ValueError, match=words) as error:
        run(monkeypatch, tmp_path)
    assert "\n" not in str(error.value) and re.search("room/|frame_0", str(error.value))
    assert snapshot(tmp_path / "run/data/scenes") == {"index.jsonl": b"the scenes of an earlier run"}
    assert not list((tmp_path / "run/data").glob(".*"))


def test_skipping_may_be_forbidden(monkeypatch, tmp_path, room):
    write(tmp_path / "run/data/scenes/index.jsonl", "the scenes of an earlier run")
    truncated(room)
    with pytest.raises(ValueError, match="photograph images/frame_00002.png is unusable .bad_image.*on_bad_frame"):
        run(monkeypatch, tmp_path, f"{KEY}.on_bad_frame=error")
    assert snapshot(tmp_path / "run/data/scenes") == {"index.jsonl": b"the scenes of an earlier run"}


@pytest.mark.parametrize("spelling", ["images/frame_00002.png", "./images/frame_00002.png", "frame_00002.png"])
def test_records_listed_twice_are_kept_once(monkeypatch, tmp_path, room, spelling):
    edited(room, lambda content: content["frames"].append(content["frames"][1] | {"file_path": spelling}))
    scene = run(monkeypatch, tmp_path)["scenes"]["room"]
    ((reason, names),) = scene["skipped"].items()
    assert reason == "duplicate_record" and len(names) == 1 and names[0].endswith("frame_00002.png")
    assert (scene["listed"], scene["kept"]) == (13, 12) and scene["counts"].get("reordered") == 1


def test_scenes_without_usable_photographs_are_named(monkeypatch, tmp_path, room):
    edited(room, lambda content: content.update(fl_x=-1.0))
    with pytest.raises(ValueError, match="1 of 1 listed scenes cannot be used.*bad_focal: room"):
        run(monkeypatch, tmp_path)
    for word in ("NaN", "-Infinity", "1" + 400 * "0"):  # an integer of 401 digits is larger than any float
        edited(room, lambda content: content.update(fl_x="@"))
        write(room / "transforms.json", (room / "transforms.json").read_text().replace('"@"', word))
        with pytest.raises(ValueError, match="too_few_frames: room"):
            run(monkeypatch, tmp_path)
    edited(room, lambda content: content.update(fl_x=150.0, n_frames=9))
    with pytest.raises(ValueError, match="too_few_frames: room"):
        run(monkeypatch, tmp_path)

    def far(content):
        for frame in content["frames"][:2]:
            frame["transform_matrix"][0][3] = 1e6
        content.pop("n_frames")

    edited(room, far)
    with pytest.raises(ValueError, match="pose_outlier: room"):
        run(monkeypatch, tmp_path)


def test_instant_ngps_own_filters(monkeypatch, tmp_path, room):
    def change(content):
        for number, frame in enumerate(content["frames"]):
            frame["sharpness"] = 2.0 if number == 5 else 10.0
        content |= {"sharpness_discard_threshold": 0.5, "n_frames": 11}
        edited_content.update(content)

    edited_content = {}
    edited(room, change)
    write(room / "transforms.json", edited_content)
    scene = run(monkeypatch, tmp_path)["scenes"]["room"]
    assert scene["skipped"] == {"blurry": ["images/frame_00006.png"], "beyond_n_frames": ["images/frame_00012.png"]}


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("images\\frame_00002.png", None),
        ("./images/frame_00002", None),
        ("frame_00002.png", None),
        ("images/frame_00002", "images/frame_00002.JPG"),
        ("images/frame.0002", "images/frame.0002.jpeg"),
        ("images/sub/../frame_00002.png", "error"),
    ],
)
def test_image_paths_are_found_as_written_in_the_wild(monkeypatch, tmp_path, room, written, stored):
    if stored == "error":
        entry(file_path=written)(room)
        with pytest.raises(ValueError, match="stay inside"):
            run(monkeypatch, tmp_path)
        return
    if stored:
        save(room / stored, taken(rendered()[1], NONE))
        (room / "images/frame_00002.png").unlink()
    entry(file_path=written)(room)
    scene = run(monkeypatch, tmp_path)["scenes"]["room"]
    assert scene["kept"] == 12 and scene["skipped"] == {}
    path = [frame["path"] for frame in scenes_of(tmp_path / "run")["room"].metadata["frames"]]
    assert f"room/{stored or 'images/frame_00002.png'}" in path


def test_roots_are_asked_for_and_checked(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=f"{KEY}.root is empty; set it in params.yaml"):
        stages(monkeypatch, tmp_path / "run", "transforms")
    with pytest.raises(FileNotFoundError, match=f"{KEY}.root is .*no such folder"):
        stages(monkeypatch, tmp_path / "run", "transforms", f"{KEY}.root=nowhere")
    (tmp_path / "captures/empty").mkdir(parents=True)
    with pytest.raises(ValueError, match="where no capture was found"):
        run(monkeypatch, tmp_path)
    assert not (tmp_path / "run/data/raw").exists() and not (tmp_path / "run/data/scenes").exists()


def test_files_that_change_after_listing_are_refused(monkeypatch, tmp_path, room):
    run(monkeypatch, tmp_path)
    before = snapshot(tmp_path / "run/data")
    monkeypatch.setattr("src.download.main", lambda config: None)
    save(room / "images/frame_00002.png", taken(rendered()[1], NONE, (1, 1, 1)))
    with pytest.raises(ValueError, match="room/images/frame_00002.png changed after it was listed"):
        run(monkeypatch, tmp_path)
    (room / "images/frame_00002.png").unlink()
    with pytest.raises(ValueError, match="room/images/frame_00002.png cannot be read any more"):
        run(monkeypatch, tmp_path)
    assert snapshot(tmp_path / "run/data") == before


def test_captures_are_split_as_the_parameters_say_and_give_the_same_bytes_again(monkeypatch, tmp_path):
    for name, colours in (("a", (0, 1, 2)), ("b", (1, 2, 0)), ("c", (2, 1, 0))):
        nerfstudio(tmp_path / "captures" / name, NONE, colours=colours)
    lists = f"{KEY}.train=[a]", f"{KEY}.val=[c]"
    report = run(monkeypatch, tmp_path, *lists)
    assert {id: scene["split"] for id, scene in report["scenes"].items()} == {"a": "train", "b": "test", "c": "val"}
    before = snapshot(tmp_path / "run/data")
    assert not any(str(tmp_path).encode() in data for data in before.values())
    run(monkeypatch, tmp_path, *lists)
    assert snapshot(tmp_path / "run/data") == before
    with pytest.raises(ValueError, match=f"{KEY}.train names z, but the captures are a, b, c"):
        run(monkeypatch, tmp_path, f"{KEY}.train=[z]", f"{KEY}.val=[c]")
    with pytest.raises(ValueError, match="training needs both"):
        load_config([f"{KEY}.train=[a]"], ROOT)
    with pytest.raises(ValueError, match="both name a"):
        load_config([f"{KEY}.train=[a]", f"{KEY}.val=[a]"], ROOT)


def test_one_photograph_in_two_splits_stops_everything(monkeypatch, tmp_path):
    for name, colours in (("a", (0, 1, 2)), ("b", (1, 2, 0)), ("c", (0, 1, 2))):
        nerfstudio(tmp_path / "captures" / name, NONE, colours=colours)
    with pytest.raises(ValueError, match="are the same, but no photograph may occur in two splits"):
        run(monkeypatch, tmp_path, f"{KEY}.train=[a]", f"{KEY}.val=[c]")
