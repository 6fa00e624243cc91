import hashlib
import itertools
import json
import shutil

import numpy as np
import pytest

from src.datasets.colmap_model import read_points
from src.episodes.episodes import read_episodes
from tests.helpers.miniatures import (
    DEPTH_SCALE,
    FISHEYE,
    SIZE,
    bent,
    check_geometry,
    depth_taken,
    leaving,
    opengl,
    pinhole_of,
    pixels_of,
    rendered,
    save,
    scenes_of,
    snapshot,
    stages,
    surface,
    taken,
    write,
)

KEY = "datasets.scannetpp.source"
A = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])  # COLMAP's world to transforms.json's
CUT = slice(18, 102), slice(24, 136)  # 112 x 84 around the render's own centre
CENTRED = 56, 42
LEFT = 47.0


def scene_name(validates):
    """A name of 10 hexadecimal digits whose key falls, or does not fall, into the validation share."""
    for number in itertools.count():
        name = f"{number:010x}"
        share = int(hashlib.sha256(f"scannetpp/indoor/{name}".encode()).hexdigest()[:8], 16) / 2**32
        if (share < 0.05) == validates:
            return name


TRAIN, VAL, TEST = scene_name(False), scene_name(True), "ffffffffff"
COLOURS = {TRAIN: (0, 1, 2), VAL: (1, 2, 0), TEST: (2, 0, 1)}


def names():
    return [f"DSC{number + 3:05d}.JPG" for number in range(len(rendered()))]


def listing(names, camera, **more):
    frames = [
        {
            "file_path": name,
            "mask_path": name.replace("JPG", "png"),
            "is_bad": False,
            "transform_matrix": (A @ opengl(frame.c2w)).tolist(),
        }
        for name, frame in zip(names, rendered())
    ]
    return {"w": SIZE[0], "h": SIZE[1], **camera, "has_mask": True, "frames": frames, "test_frames": [], **more}


def colmap(folder):
    """A text model in COLMAP's world: known surface points, each seen by the photographs of even or odd number."""
    points, _ = surface(rendered()[0], 60)
    images = ["# Image list with two lines of data per image:"]
    for number, name in enumerate(names(), 1):
        images += [f"{number} 1 0 0 0 0 0 0 1 {name}", ""]
    rows = ["# 3D point list"]
    for number, point in enumerate(points):
        track = " ".join(f"{image} 0" for image in range(1 + number % 2, len(names()) + 1, 2))
        rows.append(f"{number + 7} {' '.join(map(repr, map(float, point)))} 10 20 30 0.5 {track}")
    write(folder / "images.txt", "\n".join(images) + "\n")
    write(folder / "points3D.txt", "\n".join(rows) + "\n")
    return points


def downloaded(dslr, scene):
    """What ScanNet++ ships of one scene: the fisheye photographs and their cameras."""
    K = pinhole_of(rendered()[0])
    fisheye = {
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2],
        "cy": K[1, 2],
        "camera_model": "OPENCV_FISHEYE",
        **dict(zip(("k1", "k2", "k3", "k4"), FISHEYE[1])),
    }
    write(dslr / "nerfstudio/transforms.json", listing(names(), fisheye))
    write(dslr / "train_test_lists.json", {"train": names(), "test": ["DSC09999.JPG"], "has_masks": True})
    for name, frame in zip(names(), rendered()):
        save(dslr / "resized_images" / name, taken(frame, FISHEYE, COLOURS[scene]))


def undistorted(dslr, scene):
    """What the toolkit derives: a pinhole of the same size, its principal point in the centre; depth in millimetres."""
    first = rendered()[0]
    camera = {
        "fl_x": first.K[0, 0],
        "fl_y": first.K[1, 1],
        "cx": 56.0,
        "cy": 42.0,
        "camera_model": "PINHOLE",
        "k1": 0,
        "k2": 0,
        "k3": 0,
        "k4": 0,
    }
    write(dslr / "nerfstudio/transforms_undistorted.json", listing(names(), camera))
    for name, frame in zip(names(), rendered()):
        save(dslr / "undistorted_images" / name, np.ascontiguousarray(frame.image[CUT][..., COLOURS[scene]]))
        millimetres = np.rint(frame.depth[CUT] * DEPTH_SCALE * 1000).astype(np.uint16)
        save(dslr / "undistorted_depths" / name.replace("JPG", "png"), millimetres)


def splits(folder):
    write(folder / "splits/nvs_sem_train.txt", f"{TRAIN}\n{VAL}\n")
    write(folder / "splits/nvs_sem_val.txt", f"{TEST}\n")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Splatt3R's raw and processed trees."""
    root = tmp_path_factory.mktemp("sound") / "scannetpp"
    splits(root / "raw")
    for scene in COLOURS:
        downloaded(root / f"raw/data/{scene}/dslr", scene)
        undistorted(root / f"processed/{scene}/dslr", scene)
    return root


@pytest.fixture
def root(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "scannetpp")


def run(monkeypatch, tmp_path, *overrides):
    return stages(monkeypatch, tmp_path / "run", "scannetpp", f"{KEY}.root={tmp_path}/scannetpp", *overrides)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    write(path, content)


def test_raw_and_processed_trees(monkeypatch, tmp_path, root):
    mask = np.full(SIZE[::-1], 255, np.uint8)
    mask[50:60, 20:40] = 254
    save(root / f"processed/{TEST}/dslr/undistorted_anon_masks/{names()[2].replace('JPG', 'png')}", mask)

    def blur(content):
        content["frames"][4]["is_bad"] = True
        content["cx"] = LEFT  # so that the toolkit's photographs look past the left edge

    edited(root / f"raw/data/{TEST}/dslr/nerfstudio/transforms.json", blur)
    edited(
        root / f"raw/data/{TEST}/dslr/train_test_lists.json", lambda content: content["train"].append("DSC00099.JPG")
    )
    report = run(monkeypatch, tmp_path)
    assert {id: scene["split"] for id, scene in report["scenes"].items()} == {TRAIN: "train", VAL: "val", TEST: "test"}
    assert report["scenes"][TEST]["skipped"] == {"blurry": [names()[4]], "orphan_entry": ["DSC00099.JPG"]}
    assert (report["scenes"][TEST]["listed"], report["scenes"][TEST]["kept"]) == (13, 11)
    assert {scene["overlap_source"] for scene in report["scenes"].values()} == {"depth"}
    scenes = scenes_of(tmp_path / "run")
    for scene in scenes.values():
        assert scene.units == "metre" and scene.category == "indoor" and set(scene.depth_scale) == {0.001}
        for name, frame in zip(names(), rendered()):
            if name in scene.names:
                check_geometry(scene, name, frame, pinhole_of(frame, centre=CENTRED), A)
    assert scenes[TEST].frame_number.tolist() == [0, 1, 2, 3, *range(5, 12)]
    fringe = outside_fisheye()
    assert 0.002 < fringe.mean() < 0.3
    found, masked = scenes[TEST].frame(0), scenes[TEST].frame(2)
    assert ((found.flags & 1 == 0) != fringe).mean() < 0.003  # but for pixels on the very border
    assert np.array_equal((masked.flags & 1 > 0), (found.flags & 1 > 0) & (mask == 255))
    assert read_episodes(tmp_path / "run/data/scenes", "test")


def outside_fisheye():
    """Pixels of the toolkit's photographs whose rays left the fisheye photograph, one by one."""
    K, pinhole = pinhole_of(rendered()[0], centre=(LEFT, 43.5)), pinhole_of(rendered()[0], centre=CENTRED)
    outside = np.zeros(SIZE[::-1], bool)
    for row, column in np.ndindex(outside.shape):
        x, y = (column + 0.5 - pinhole[0, 2]) / pinhole[0, 0], (row + 0.5 - pinhole[1, 2]) / pinhole[1, 1]
        u, v = bent(np.array(x), np.array(y), FISHEYE)
        u, v = u * K[0, 0] + K[0, 2], v * K[1, 1] + K[1, 2]
        outside[row, column] = not (0 <= u <= SIZE[0] and 0 <= v <= SIZE[1])
    return outside


def test_one_tree_whose_fisheye_photographs_are_undistorted_here(monkeypatch, tmp_path):
    root = tmp_path / "scannetpp"
    splits(root)
    for scene in COLOURS:
        downloaded(root / f"data/{scene}/dslr", scene)
        for name, frame in zip(names(), rendered()):
            save(root / f"data/{scene}/dslr/render_depth" / name.replace("JPG", "png"), depth_taken(frame, FISHEYE))
    with pytest.raises(
        ValueError,
        match=f"3 of 3 listed .*incomplete_scene: {TRAIN} .data/{TRAIN}/dslr/nerfstudio/"
        "transforms_undistorted.json is missing",
    ):
        run(monkeypatch, tmp_path)
    run(monkeypatch, tmp_path, f"{KEY}.images=fisheye")
    scene = scenes_of(tmp_path / "run")[TEST]
    for name, frame in zip(names(), rendered(), strict=True):
        stored = scene.frame(name)
        assert stored.size == SIZE and stored.K[:2, 2].tolist() == list(CENTRED)
        np.testing.assert_allclose(stored.c2w, A @ frame.c2w, atol=1e-12)
        check_geometry(scene, name, frame, stored.K, A)
    frame, stored = rendered()[3], scene.frame(3)
    points, _ = surface(frame, 400)
    places, before = (pixels_of(points, K, frame.c2w) for K in (stored.K, frame.K))
    inside = ((places > 1) & (places < np.array(SIZE) - 1)).all(1)
    seen = stored.image[tuple(places[inside].astype(int).T[::-1])].astype(int)
    wanted = frame.image[tuple(before[inside].astype(int).T[::-1])][:, COLOURS[TEST]].astype(int)
    assert inside.sum() > 100 and np.median(np.abs(seen - wanted)) < 6


def test_points_measure_overlap_where_no_depth_was_rendered(monkeypatch, tmp_path, root):
    for scene in COLOURS:
        shutil.rmtree(root / f"processed/{scene}/dslr/undistorted_depths")
        points = colmap(root / f"raw/data/{scene}/dslr/colmap")
    report = run(monkeypatch, tmp_path, "datasets.scannetpp.episodes.alpha=0")
    assert {scene["overlap_source"] for scene in report["scenes"].values()} == {"sparse"}
    folder = root / f"raw/data/{TEST}/dslr/colmap"
    found = read_points(".txt", lambda name: (folder / name).read_bytes())
    np.testing.assert_array_equal(found.xyz, points)
    observed = {name.rpartition("/")[2]: seen for name, seen in found.observed.items()}
    assert observed[names()[0]].tolist() == list(range(0, 60, 2)) and len(observed) == 12
    with pytest.raises(ValueError, match="images.txt is no whole file of a COLMAP model"):
        read_points(".txt", lambda name: b"1 2 3" if name == "images.txt" else b"7 0 0 0 1 2 3 0.5 9 9")


def gone(path):
    return lambda root: (root / path).unlink()


def appended(path, line):
    return lambda root: (root / path).write_text((root / path).read_text() + line)


FATAL = {
    "raw/splits/nvs_sem_val.txt is missing in datasets.scannetpp.source.root": gone("raw/splits/nvs_sem_val.txt"),
    f"scene {TRAIN} is listed twice": appended("raw/splits/nvs_sem_val.txt", f"{TRAIN}\n"),
    "lists '../x', which is no scene": appended("raw/splits/nvs_sem_val.txt", "../x\n"),
    f"1 of 3 .*incomplete_scene: {TEST} .raw/data/{TEST}/dslr/train_test_lists.json is missing": gone(
        f"raw/data/{TEST}/dslr/train_test_lists.json"
    ),
    f"1 of 3 .*incomplete_scene: {VAL} .processed/{VAL}/dslr/nerfstudio/transforms_undistorted.json is missing": gone(
        f"processed/{VAL}/dslr/nerfstudio/transforms_undistorted.json"
    ),
    f"1 of 3 .*incomplete_scene: {VAL} .processed/{VAL}/dslr/undistorted_images is missing": lambda root: shutil.rmtree(
        root / f"processed/{VAL}/dslr/undistorted_images"
    ),
    "train_test_lists.json at /train/12: found '../a.JPG', wanted the bare name": lambda root: edited(
        root / f"raw/data/{TEST}/dslr/train_test_lists.json", lambda content: content["train"].append("../a.JPG")
    ),
    "train_test_lists.json at /: the entry train is missing": lambda root: edited(
        root / f"raw/data/{TEST}/dslr/train_test_lists.json", lambda content: content.pop("train") and None
    ),
    f"{names()[0]} is a link that leads out of the dataset's folder undistorted_images": lambda root: leaving(
        root / f"processed/{TEST}/dslr/undistorted_images/{names()[0]}", root
    ),
    "transforms_undistorted.json is not JSON": lambda root: (
        root / f"processed/{TEST}/dslr/nerfstudio/transforms_undistorted.json"
    ).write_text("{"),
}


@pytest.mark.parametrize("words", FATAL)
def test_a_broken_tree_stops_everything_and_destroys_nothing(monkeypatch, tmp_path, root, words):
    write(tmp_path / "run/data/scenes/index.jsonl", "the scenes of an earlier run")
    FATAL[words](root)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        run(monkeypatch, tmp_path)
    assert snapshot(tmp_path / "run/data/scenes") == {"index.jsonl": b"the scenes of an earlier run"}


def test_the_root_is_asked_for_and_nothing_is_downloaded(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=f"{KEY}.root is empty; .*processed/<scene>/dslr/.*application at https"):
        stages(monkeypatch, tmp_path / "run", "scannetpp")
    with pytest.raises(FileNotFoundError, match=f"{KEY}.root is .*no such folder"):
        stages(monkeypatch, tmp_path / "run", "scannetpp", f"{KEY}.root=nowhere")


def test_damaged_and_repeated_photographs_are_left_out_and_named(monkeypatch, tmp_path, root):
    (root / f"processed/{TEST}/dslr/undistorted_images/{names()[1]}").unlink()
    (root / f"processed/{TEST}/dslr/undistorted_depths/{names()[2].replace('JPG', 'png')}").unlink()
    edited(root / f"raw/data/{TEST}/dslr/train_test_lists.json", lambda content: content["train"].append(names()[3]))
    scene = run(monkeypatch, tmp_path)["scenes"][TEST]
    assert scene["skipped"] == {"missing_image": [names()[1]], "duplicate_record": [names()[3]]}
    assert (scene["listed"], scene["kept"]) == (13, 11)
    assert scene["counts"] == {"depth_missing": 1, "no_valid_depth": 1}
