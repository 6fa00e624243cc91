import filecmp

import numpy as np
import pytest
import torch

from src.datasets.conversion import shrunk
from src.datasets.splits import LeakError
from src.episodes.episodes import TrainingEpisodes, read_episodes
from src.prepare import CATALOGUES, read_manifest, rendered_scenes
from src.reproducible.files import write_json
from src.scenes.crop import fit_published
from src.scenes.scene import Frame, Scene, read_index, write_scene
from tests.helpers.catalogues import SIZE, VIEWS, built, catalogue, wall
from tests.helpers.episodes import selection
from tests.helpers.frames import camera, changed, make_frames


def test_scenes_episodes_and_report_fit_together(tmp_path):
    report = built(tmp_path / "scenes", catalogue())
    records = read_index(tmp_path / "scenes")
    assert [record.id for record in records] == [f"walls__{i}" for i in range(6)]
    assert [record.split for record in records] == ["train"] * 4 + ["val", "test"]
    assert {(record.units, record.depth_fraction, record.n_frames) for record in records} == {("metre", 1.0, VIEWS)}
    for record in records:
        scene = Scene.open(tmp_path / "scenes" / record.file, record.sha256)
        assert scene.metadata["image_encoding"] == ("jpeg_q95_444" if record.split == "train" else "png")
        assert scene.metadata["frames"][1]["sharpness"] == 3.5 and scene.metadata["license"] == "none"
        assert (scene.metadata["listed"], scene.metadata["kept"], scene.metadata["skipped"]) == (VIEWS, VIEWS, {})
    test = Scene.open(tmp_path / "scenes/scenes/walls__5.safetensors")
    assert all(np.array_equal(test.frame(i).image, frame.image) for i, frame in enumerate(wall(5)))
    for split in ("train", "val", "test"):
        episodes = read_episodes(tmp_path / "scenes", split)
        counted = report["episodes"][split]
        assert sum(row["episodes"] for row in counted.values()) == len(episodes)
        assert list(counted) == sorted(["close", "medium", "wide", "very_wide"]) and counted["medium"]["episodes"] > 0
        for episode in episodes:
            gap = abs(int(episode.contexts[0][5:]) - int(episode.contexts[1][5:]))
            assert episode.overlap == pytest.approx(1 - 4 * gap / 48, abs=0.02)
    assert TrainingEpisodes(tmp_path / "scenes", selection(), "walls", 0)(7).scene.startswith("walls__")
    assert report["listed"] == report["kept"] == 6 and report["skipped"] == {}


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    for workers in (1, 2):
        built(tmp_path / str(workers), catalogue(), workers=workers)
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(files) == 6 + 6 + 4 + 2
    same, different, missing = filecmp.cmpfiles(tmp_path / "1", tmp_path / "2", files, shallow=False)
    assert len(same) == len(files) and not different and not missing


def test_bad_photographs_are_left_out_and_all_named(tmp_path):
    frames = wall(2, 14)
    frames[3] = changed(frames[3], c2w=frames[3].c2w * np.nan)
    frames[6], frames[9] = "missing_image", changed(frames[8], name="twin", frame_number=9)
    report = built(tmp_path / "scenes", catalogue({2: frames}))
    scene = report["scenes"]["walls__2"]
    assert scene["skipped"] == {
        "nonfinite_pose": ["frame003"],
        "missing_image": ["listed6"],
        "duplicate_image": ["twin"],
    }
    assert scene["listed"] == 14 and scene["kept"] == 11
    found = Scene.open(tmp_path / "scenes/scenes/walls__2.safetensors")
    assert len(found) == 11 and found.metadata["skipped"] == scene["skipped"]
    with pytest.raises(ValueError, match="frame003 is unusable .nonfinite_pose"):
        built(tmp_path / "scenes", catalogue({2: frames}, on_bad_frame="error"))


def test_unusable_scenes_are_named_and_too_many_are_an_error_that_destroys_nothing(tmp_path):
    few = wall(1, 9)
    report = built(tmp_path / "scenes", catalogue({1: few}, min_frames=10))
    assert report["skipped"] == {"too_few_frames": ["walls__1"]} and (report["listed"], report["kept"]) == (6, 5)
    assert report["scenes"]["walls__1"]["dropped"] == "too_few_frames"
    before = (tmp_path / "scenes/index.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"2 of 6 listed scenes .*too_few_frames: walls__1, walls__2"):
        built(tmp_path / "scenes", catalogue({1: few, 2: wall(2, 9)}, min_frames=10))
    with pytest.raises(ValueError, match="2 of 7 listed scenes .*quality_low: walls__9; too_few_frames: walls__1"):
        built(tmp_path / "scenes", catalogue({1: few}, min_frames=10, skipped={"quality_low": ["walls__9"]}))
    assert (tmp_path / "scenes/index.jsonl").read_bytes() == before


def test_one_photograph_in_two_splits_stops_the_stage(tmp_path):
    leaked = wall(5)
    leaked[4] = changed(leaked[4], image=wall(0)[2].image)
    with pytest.raises(LeakError, match=r"walls__5 frame004 .test. and walls__0 frame002 .train."):
        built(tmp_path / "scenes", catalogue({5: leaked}))
    assert not (tmp_path / "scenes").exists()


def test_a_scene_listed_twice_stops_the_stage(tmp_path):
    source = catalogue()
    source.recordings.append(source.recordings[2])
    with pytest.raises(ValueError, match="scene walls__2 is listed more than once"):
        built(tmp_path / "scenes", source)


def test_splits_without_episodes_and_scenes_without_draws_stop_the_stage(tmp_path):
    with pytest.raises(ValueError, match="num_targets 11"):
        built(tmp_path / "scenes", catalogue(), num_targets=11)
    with pytest.raises(ValueError, match="0 val scenes offer no episode"):
        built(tmp_path / "scenes", catalogue(splits=("train", "test")))
    with pytest.raises(ValueError, match="temporal_gap_min"):
        built(tmp_path / "scenes", catalogue(), view_selection="gap", temporal_gap_min=20, temporal_gap_max=30)


def test_gap_selection_needs_no_overlap(tmp_path):
    report = built(tmp_path / "scenes", catalogue(), view_selection="gap")
    assert report["episodes"]["test"]["gap"] == {"pairs": 8 + 7 + 6, "episodes": 2}
    assert {episode.bin for episode in read_episodes(tmp_path / "scenes", "test")} == {"gap"}


def test_scenes_without_depth_are_measured_by_their_cameras(tmp_path):
    def blind(seed):
        return [changed(frame, depth=None) for frame in wall(seed)]

    report = built(tmp_path / "scenes", catalogue({i: blind(i) for i in range(6)}))
    assert {scene["overlap_source"] for scene in report["scenes"].values()} == {"gap"}  # all axes are parallel
    assert report["scenes"]["walls__0"]["counts"] == {"depth_missing": VIEWS}
    assert {record.depth_fraction for record in read_index(tmp_path / "scenes")} == {0.0}


def test_upscaled_photographs_are_counted(tmp_path):
    report = built(tmp_path / "scenes", catalogue(), resolution=(64, 64))
    assert report["scenes"]["walls__3"]["counts"] == {"upscaled": VIEWS} and report["resolution"] == [64, 64]


def test_frames_are_stored_small_and_centred():
    rng = np.random.default_rng(0)
    size = 700, 1100
    frame = Frame(
        "a",
        rng.integers(0, 256, (*size, 3), np.uint8),
        rng.integers(0, 9, size).astype(np.float16),
        1.0,
        rng.integers(0, 256, size, np.uint8),
        rng.integers(0, 4, size, np.uint8),
        camera(900, 900, 540.0, 352.0),
        np.eye(4),
        0,
    )
    found = shrunk(frame, "central", SIZE)
    assert found.image.shape == (512, 794, 3) and found.depth.shape == found.fg.shape == found.flags.shape == (512, 794)
    np.testing.assert_allclose(found.K[:2, 2], [397, 256], atol=0.5)
    assert set(np.unique(found.depth)) == set(range(9)) and found.depth.dtype == np.float16
    small = make_frames(1)[0]
    assert all(
        np.array_equal(getattr(shrunk(small, "central", SIZE), key), value) for key, value in vars(small).items()
    )


def test_rendered_scenes_become_recordings_that_check_their_files(tmp_path):
    digest = write_scene(
        tmp_path / "scenes/walls__0.safetensors",
        wall(0),
        {"id": "walls__0", "category": "walls", "units": "metre"},
        lossless=True,
    )
    scene = {
        "id": "walls__0",
        "category": "walls",
        "split": "val",
        "seed": 3,
        "file": "scenes/walls__0.safetensors",
        "sha256": digest,
    }
    write_json(tmp_path / "manifest.json", {"dataset": "procedural", "views": VIEWS, "scenes": [scene]})
    found = CATALOGUES["procedural"](None, tmp_path, read_manifest(tmp_path, "procedural"))
    (recording,) = found.recordings
    assert (recording.id, recording.split, recording.listed, found.min_frames) == ("walls__0", "val", VIEWS, VIEWS)
    assert [frame.name for frame in recording.frames(None)] == [frame.name for frame in wall(0)]
    damaged = rendered_scenes(None, tmp_path, {"views": VIEWS, "scenes": [scene | {"sha256": "0" * 64}]}).recordings[0]
    with pytest.raises(ValueError, match="changed afterwards"):
        next(damaged.frames(None))
    with pytest.raises(ValueError, match="data.dataset is co3d"):
        read_manifest(tmp_path, "co3d")
    with pytest.raises(FileNotFoundError, match="dvc repro download"):
        read_manifest(tmp_path / "absent", "procedural")


def test_the_published_crop_is_stored_as_it_will_be_used(tmp_path):
    built(tmp_path / "scenes", catalogue(crop="splatt3r"), resolution=(32, 32))
    (record, *_) = read_index(tmp_path / "scenes")
    scene, photograph = Scene.open(tmp_path / "scenes" / record.file), wall(0)[1]
    expected = fit_published(photograph.K, photograph.size, (32, 32))
    assert scene.frame("frame001").size == (32, 32)
    assert torch.equal(scene.view("frame001", (32, 32)).K, torch.tensor(expected.K).float())
    frame = shrunk(photograph, "splatt3r", (32, 32))
    assert np.array_equal(frame.image, expected.image(photograph.image))
    assert np.array_equal(frame.depth, expected.nearest(photograph.depth))
