import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from src.config import load_config
from src.datasets.chunks import chunk_camera, load_chunk, unchanged_chunk
from src.datasets.usable import BadFrame
from src.episodes.episodes import read_episodes
from tests.helpers.chunks import jpeg, scene, write_chunks, write_root
from tests.helpers.miniatures import RENDERED, ROOT, check_geometry, rendered, scenes_of, snapshot, stages

KEY = "datasets.chunks.source"
OPTIONS = (
    f"{KEY}.image_size=[160,120]",
    "datasets.chunks.episodes.temporal_gap_min=3",
    "datasets.chunks.episodes.temporal_gap_max=5",
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "root"
    write_root(root)
    return root


@pytest.fixture
def root(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "root")


def run(monkeypatch, tmp_path, *overrides):
    return stages(monkeypatch, tmp_path / "run", "chunks", f"{KEY}.root={tmp_path}/root", *OPTIONS, *overrides)


def indexed(monkeypatch, tmp_path, entries, *overrides):
    (tmp_path / "index of views.json").write_text(json.dumps(entries))
    words = f"{KEY}.evaluation_index='{tmp_path}/index of views.json'", "datasets.chunks.episodes.view_selection=index"
    return run(monkeypatch, tmp_path, *words, *overrides)


def test_scenes_become_those_of_the_format_and_the_same_bytes_again(monkeypatch, tmp_path, root):
    report = run(monkeypatch, tmp_path)
    scenes = scenes_of(tmp_path / "run")
    assert sorted(scenes) == ["aa", "bb", "cc", "dd", "ee"] and report["skipped"] == {}
    splits = {id: about["split"] for id, about in report["scenes"].items()}
    assert sorted(splits.values()) == ["test", "test", "train", "train", "val"] and splits["dd"] == "test"
    for id in ("aa", "ee"):
        assert scenes[id].units == "scene" and scenes[id].names == [f"{number:06d}" for number in range(12)]
        for name, frame in zip(scenes[id].names, rendered(), strict=True):
            check_geometry(scenes[id], name, frame, frame.K, size=RENDERED)
    assert scenes["dd"].metadata["frames"][2]["timestamp"] == 66732
    assert {item.bin for item in read_episodes(tmp_path / "run/data/scenes", "test")} == {"gap"}
    first = snapshot(tmp_path / "run/data")
    assert not any(str(tmp_path).encode() in data for data in first.values())
    run(monkeypatch, tmp_path)
    assert snapshot(tmp_path / "run/data") == first


def test_an_evaluation_index_decides_what_is_scored(monkeypatch, tmp_path, root):
    write_chunks(
        root / "test",
        {
            "0.torch": [scene("dd", 3), scene("ee", 4)],
            "1.torch": [scene("ff", 5, 8), scene("gg", 5, 9), scene("hh", 1, 3)],
        },
    )
    entries = {
        "dd": {"context": [9, 2], "target": [4, 9, 6], "overlap": "small"},  # 9 is a context too
        "ee": {"context": [0, 5], "target": [3]},
        "ff": None,
        "hh": {"context": [0, 5], "target": [3]},
        "zz": {"context": [0, 5], "target": [3]},
        "yy": None,
    }
    report = indexed(monkeypatch, tmp_path, entries, f"{KEY}.max_dropped=0.5")
    episodes = {item.scene: item for item in read_episodes(tmp_path / "run/data/scenes", "test")}
    assert set(episodes) == {"dd", "ee"}
    assert episodes["dd"].contexts == ("000009", "000002") and episodes["dd"].targets == ("000004", "000006")
    assert episodes["dd"].repeated == ("000009",) and episodes["ee"].repeated == ()
    assert (episodes["dd"].bin, episodes["ee"].bin) == ("index_small", "index")
    scenes = scenes_of(tmp_path / "run")
    assert scenes["dd"].names == ["000002", "000004", "000006", "000009"]  # nothing else is stored
    check_geometry(scenes["dd"], "000006", rendered()[6], rendered()[6].K, size=RENDERED)
    assert report["excluded"] == {"null_in_index": ["ff"], "not_in_index": ["gg"]}
    assert report["skipped"] == {"views_beyond": ["hh (3 photographs, the index asks for number 5)"]}
    assert report["index"] == {"entries": 6, "absent": ["zz"], "refused": {}, "leaked_targets": 1}
    assert {item.bin for item in read_episodes(tmp_path / "run/data/scenes", "val")} == {"gap"}


def test_listed_episodes_that_cannot_be_scored_are_named(monkeypatch, tmp_path, root):
    still = scene("ff", 5)
    still["cameras"][1] = still["cameras"][0]
    still["cameras"][1, 9] += 5e-4  # a baseline too short to score
    blind = scene("gg", 4)
    blind["images"][0] = blind["images"][0][:200]
    write_chunks(root / "test", {"0.torch": [scene("dd", 3), still, blind]})
    entries = {
        "dd": {"context": [0, 5], "target": [3, 2]},
        "ff": {"context": [0, 1], "target": [2]},
        "gg": {"context": [0, 5], "target": [3, 4, 2]},
    }
    report = indexed(monkeypatch, tmp_path, entries)
    assert report["index"]["refused"] == {"short_baseline": ["ff"], "context_unusable": ["gg"]}
    assert report["scenes"]["gg"]["skipped"] == {"bad_image": ["000000"]}


def without(name):
    return lambda root: (root / name).unlink()


def cut(root):
    data = (root / "train/000001.torch").read_bytes()
    (root / "train/000001.torch").write_bytes(data[: len(data) // 2])


def rewritten(edit):
    """The chunk of scene cc after a change of its scene."""

    def change(root):
        item = scene("cc", 2)
        edit(item)
        torch.save([item], root / "train/000001.torch")

    return change


def narrow(item):
    item["cameras"] = item["cameras"][:, :17]


def small(item):
    item["images"] = [jpeg(frame.image[:100]) for frame in rendered()]


def wide(item):
    item["cameras"][3, 0] = 0.4


def fewer(item):
    item["images"] = item["images"][:-1]


def other_key(item):
    item["key"] = "xx"


SKIPPED = {  # reason -> what is done to scene cc or its chunk, and how it is named
    "missing_chunk": (without("train/000001.torch"), "cc (train/000001.torch is missing)"),
    "bad_chunk": (cut, "cc (train/000001.torch cannot be loaded as a chunk"),
    "bad_cameras": (rewritten(narrow), "cc (its cameras have 17 numbers each, not 18)"),
    "bad_scene": (rewritten(fewer), "cc (it has 11 images and 12 cameras)"),
    "not_in_chunk": (rewritten(other_key), "cc (train/000001.torch lacks it)"),
    "bad_shape": (rewritten(small), "cc"),
    "wide_view": (rewritten(wide), "cc"),
}


@pytest.mark.parametrize("reason", SKIPPED)
def test_a_scene_that_cannot_be_used_is_counted_and_named(monkeypatch, tmp_path, root, reason):
    change, name = SKIPPED[reason]
    change(root)
    report = run(monkeypatch, tmp_path, f"{KEY}.max_dropped=0.3")
    assert list(report["skipped"]) == [reason] and report["skipped"][reason][0].startswith(name)
    assert (report["listed"], report["kept"]) == (5, 4)


def test_images_and_poses_that_cannot_be_used_are_named(monkeypatch, tmp_path, root):
    item = scene("ee", 4)
    item["cameras"][2, 8] = torch.nan
    item["images"][5] = item["images"][5][:300]
    write_chunks(root / "test", {"000000.torch": [scene("dd", 3), item]})
    about = run(monkeypatch, tmp_path)["scenes"]["ee"]
    assert about["skipped"] == {"nonfinite_pose": ["000002"], "bad_image": ["000005"]} and about["kept"] == 10


def test_of_two_scenes_with_one_key_the_indexed_is_read(monkeypatch, tmp_path, root):
    torch.save([scene("dd", 5), scene("dd", 0)], root / "test/000001.torch")
    (root / "test/index.json").write_text(json.dumps({"dd": "000000.torch", "ee": "000000.torch"}))
    chunk = [scene("dd", 3), scene("dd", 5), scene("ee", 4)]
    torch.save(chunk, root / "test/000000.torch")
    report = run(monkeypatch, tmp_path)
    assert report["excluded"] == {"repeated_key": ["dd (test/000000.torch)"]} and report["kept"] == 5


def both(root):
    write_chunks(root / "test", {"000000.torch": [scene("aa", 3)]})


FATAL = {
    "test/index.json is missing in datasets.chunks.source.root": without("test/index.json"),
    "train/index.json is missing": without("train/index.json"),
    "test/index.json is not JSON": lambda root: (root / "test/index.json").write_text("{"),
    "'../x.torch'; a path must be relative": lambda root: (root / "test/index.json").write_text('{"a": "../x.torch"}'),
    "scene aa is in train and in test": both,
}


@pytest.mark.parametrize("message", FATAL)
def test_what_no_dataset_may_have_stops_with_a_sentence(monkeypatch, tmp_path, root, message):
    FATAL[message](root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(monkeypatch, tmp_path)
    assert not (tmp_path / "run/data/raw").exists()


def test_an_index_of_another_dataset_and_one_that_is_missing_are_refused(monkeypatch, tmp_path, root):
    with pytest.raises(ValueError, match="knows none of the 2 scenes"):
        indexed(monkeypatch, tmp_path, {"zz": {"context": [0, 1], "target": [2]}})
    words = f"{KEY}.evaluation_index=nowhere.json", "datasets.chunks.episodes.view_selection=index"
    with pytest.raises(FileNotFoundError, match="no such file"):
        run(monkeypatch, tmp_path, *words)
    with pytest.raises(ValueError, match="belong together"):
        load_config(["datasets.chunks.episodes.view_selection=index"], ROOT)
    with pytest.raises(ValueError, match="only datasets.chunks has index files"):
        load_config(["datasets.co3d.episodes.view_selection=index"], ROOT)


def test_the_number_of_training_scenes_can_be_limited(monkeypatch, tmp_path, root):
    report = run(monkeypatch, tmp_path, f"{KEY}.train_scenes=2")
    assert sorted(about["split"] for about in report["scenes"].values()) == ["test", "test", "train", "val"]


def test_one_chunk_is_held_at_a_time_and_its_images_stay_on_disk(root):
    scenes = load_chunk(root / "test/000000.torch", "x")
    assert [item["key"] for item in scenes] == ["dd", "ee"] and unchanged_chunk.cache_info().maxsize == 1
    mapped = Path("/proc/self/maps")
    assert not mapped.exists() or str(root / "test/000000.torch") in mapped.read_text()


def test_a_chunk_that_changed_is_refused(root):
    with pytest.raises(ValueError, match="test/000000.torch changed after it was listed"):
        unchanged_chunk(root, "test/000000.torch", 1, "0" * 64)


def test_a_flat_pose_is_refused():
    with pytest.raises(BadFrame, match="no rotation"):
        chunk_camera(np.zeros(18), (10, 10))
