import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src.check_scenes import findings, main
from src.episodes.overlap import read_overlap, write_overlap
from src.scenes.scene import Scene, read_index, write_index, write_scene
from tests.helpers.catalogues import built, catalogue
from tests.helpers.frames import changed, damaged
from tests.helpers.miniatures import write
from tests.helpers.peer_lists import SHARP, coverage
from tests.helpers.repository import ROOT

TRAIN, TEST = "walls__0", "walls__5"
MORE = "..."  # further faults follow from the one injected


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "scenes"
    built(folder, catalogue())
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "scenes"))


def faults(path, beside=None) -> list[str]:
    return [finding.text for finding in findings(path, beside) if finding.fault]


def notes(path, beside=None) -> list[str]:
    return [finding.text for finding in findings(path, beside) if not finding.fault]


def path_of(folder, id):
    return folder / f"scenes/{id}.safetensors"


def rewritten(folder, id, edit):
    """Another scene under a known name, and index, overlaps and episodes that all agree with it."""
    scene, path = Scene.open(path_of(folder, id)), folder / f"overlaps/{id}.safetensors"
    old = next(record.sha256 for record in read_index(folder) if record.id == id)
    overlap = read_overlap(path, scene.names, old)
    overlap = replace(overlap, seen=overlap.seen[:])
    frames = edit([scene.frame(number) for number in range(len(scene))])
    digest = write_scene(
        path_of(folder, id),
        frames,
        {key: value for key, value in scene.metadata.items() if key != "frames"},
        scene.metadata["image_encoding"] == "png",
    )
    write_overlap(path, overlap, digest)
    for file in [folder / "index.jsonl", *folder.glob("episodes_*.jsonl")]:
        file.write_text(file.read_text().replace(old, digest))


def frame(number, **changes):
    return lambda frames: [changed(each, **changes) if index == number else each for index, each in enumerate(frames)]


def with_lines(file, edit):
    """Changes the first line of a list, as a dict."""

    def damage(folder):
        first, *rest = (folder / file).read_text().splitlines()
        entry = json.loads(first)
        edit(entry)
        (folder / file).write_text("\n".join([json.dumps(entry), *rest]) + "\n")

    return damage


def test_a_sound_folder_has_no_fault(sound, capsys):
    assert faults(sound) == []
    assert main(str(sound)) is False
    assert capsys.readouterr().out.splitlines() == [
        f"note: {sound}: 72 images in 6 scenes, of these 4 train, 1 val, 1 test",
        "0 faults",
    ]


def scene(id, edit):
    return lambda folder: rewritten(folder, id, edit)


def leak(folder):
    image = Scene.open(path_of(folder, TEST)).frame(3).image
    rewritten(folder, TRAIN, frame(2, image=image))


def leak_as_stored(folder):
    """The test set holds a training photograph in the pixels that JPEG made of it: the hash when taken differs."""
    image = Scene.open(path_of(folder, TRAIN)).frame(2).image
    rewritten(folder, TEST, frame(3, image=image))


def report(edit):
    def damage(folder):
        content = json.loads((folder / "report.json").read_text())
        edit(content)
        write(folder / "report.json", content)

    return damage


def listed_in_two_splits(folder):
    records = read_index(folder)
    write_index(folder, [*records, replace(records[0], split="test")])


def other_pixels(folder):
    """A scene file whose recorded content hashes are another's."""
    rewritten(folder, TEST, lambda frames: frames)
    data = path_of(folder, TEST).read_bytes()
    content = Scene.open(path_of(folder, TEST)).content[7]
    path_of(folder, TEST).write_bytes(data.replace(content.encode(), b"f" * 64))


def mirrored(frames):
    return [*frames[:4], changed(frames[4], c2w=frames[4].c2w * [1, 1, -1, 1]), *frames[5:]]


def episode(edit):
    return with_lines("episodes_test.jsonl", edit)


def falsified(change):
    """The overlap file of the test scene, changed, for the same scene."""

    def damage(folder):
        path, record = folder / f"overlaps/{TEST}.safetensors", next(r for r in read_index(folder) if r.id == TEST)
        overlap = read_overlap(path, Scene.open(folder / record.file).names, record.sha256)
        overlap = replace(overlap, seen=overlap.seen[:])
        write_overlap(path, replace(overlap, **change(overlap)), record.sha256)

    return damage


def more_coverage(overlap):
    coverage = overlap.coverage.copy()
    coverage[0, 11] += np.float16(0.25)
    return {"coverage": coverage}


def more_samples(overlap):
    """The last view is said to see all of the first, in samples and in coverage alike."""
    seen, coverage = overlap.seen.copy(), overlap.coverage.copy()
    seen[11, 0] = seen[0, 0]
    coverage[0, 11] = coverage[0, 0]
    return {"seen": seen, "coverage": coverage}


def other_bin(e):
    e.update(bin="close" if e["bin"] != "close" else "wide")


SIDE = np.full((48, 48, 3), 90, np.uint8)
FAULTS = {
    "target in contexts": (
        episode(lambda e: e.update(targets=[*e["targets"][:2], e["contexts"][1]])),
        ["of episodes_test.jsonl repeats a frame"],
    ),
    "unknown frame": (episode(lambda e: e.update(targets=["nobody"])), ["frames its scene has not: nobody"]),
    "stale episode": (episode(lambda e: e.update(scene_sha256="0" * 64)), ["was chosen on another version of scene"]),
    "episode of a training scene": (
        episode(lambda e: e.update(scene=TRAIN)),
        ["belongs to split train, not test", "was chosen on another version"],
    ),
    "episode of no scene": (episode(lambda e: e.update(scene="x")), ["names scene x, which is not in index.jsonl"]),
    "no episode": (
        lambda folder: write(folder / "episodes_test.jsonl", "{}\n"),
        ["episodes_test.jsonl, line 1, is no episode", "split test has 1 scenes and no episode"],
    ),
    "episode twice": (
        lambda folder: write(
            folder / "episodes_val.jsonl",
            2 * (folder / "episodes_val.jsonl").read_text().splitlines()[0].join(["", "\n"]),
        ),
        ["occurs 2 times in episodes_val"],
    ),
    "episodes missing": (
        lambda folder: (folder / "episodes_train.jsonl").unlink(),
        ["episodes_train.jsonl is missing"],
    ),
    "photograph in two splits": (leak, ["walls__5 frame003 (test) and walls__0 frame002 (train) are the same"]),
    "stored photograph in two splits": (
        leak_as_stored,
        ["walls__5 frame003 (test) and walls__0 frame002 (train) are the same"],
    ),
    "scene in two splits": (
        listed_in_two_splits,
        [
            "scene walls__0 is listed 2 times",
            "scene walls__0 (test) and scene walls__0 (train) are the same",
            "walls__0 frame000 (test) and walls__0 frame000 (train)",
            "belongs to split test, not train",
            MORE,
        ],
    ),
    "black frame": (scene(TEST, frame(4, image=0 * SIDE)), ["frame frame004: the image is black everywhere"]),
    "constant frame": (scene(TRAIN, frame(4, image=SIDE)), ["frame frame004: the image is one colour everywhere"]),
    "duplicated frame": (
        scene(TEST, lambda frames: [*frames[:7], changed(frames[7], image=frames[1].image), *frames[8:]]),
        ["scene walls__5: frames frame001 and frame007 show the same pixels"],
    ),
    "bad pose": (scene(TEST, mirrored), ["frame frame004: the pose is no rotation"]),
    "listed is not kept and skipped": (
        report(lambda r: r.update(listed=7)),
        ["7 scenes were listed, but 6 kept and 0"],
    ),
    "photograph lost": (
        report(lambda r: r["scenes"][TEST].update(listed=14, skipped={"blurry": ["a"]})),
        ["14 images of scene walls__5 were listed, but 12 kept and 1 skipped"],
    ),
    "scene lost": (
        report(lambda r: r["scenes"].pop(TEST) and None),
        ["scene walls__5 keeps None images, but index.jsonl says 12", "6 scenes were kept, but it descr"],
    ),
    "no report": (lambda folder: (folder / "report.json").unlink(), ["report.json is missing"]),
    "report of something else": (lambda folder: write(folder / "report.json", [1]), ["is not an account of scenes"]),
    "changed scene": (
        lambda folder: damaged(path_of(folder, TEST), depth_scale=lambda x: 1.001 * x),
        ["scenes/walls__5.safetensors has SHA-256"],
    ),
    "index of another scene": (
        with_lines("index.jsonl", lambda line: line.update(n_frames=11, units="scene")),
        [
            "units is metre, but index.jsonl says scene",
            "n_frames is 12, but index.jsonl says 11",
            "scene walls__0 keeps 12 images, but index.jsonl says 11",
        ],
    ),
    "scene missing": (lambda folder: path_of(folder, TEST).unlink(), ["scene file", MORE]),
    "overlap of another scene": (
        lambda folder: shutil.copy(folder / f"overlaps/{TRAIN}.safetensors", folder / f"overlaps/{TEST}.safetensors"),
        ["was measured on another version", MORE],
    ),
    "falsified bin": (episode(other_bin), ["but its contexts overlap by"]),
    "falsified overlap": (
        episode(lambda e: e.update(overlap=e["overlap"] + 0.02)),
        ["says its contexts overlap by"],
    ),
    "falsified source": (
        episode(lambda e: e.update(overlap_source="sparse")),
        ["says its overlap was measured by sparse, not by depth"],
    ),
    "overlap left out": (episode(lambda e: e.update(overlap=None)), ["but says nothing of its overlap"]),
    "falsified coverage": (falsified(more_coverage), ["its coverage is not that of its samples", MORE]),
    "falsified samples": (falsified(more_samples), ["it says that frame011 shows"]),
    "foreign file": (
        lambda folder: shutil.copy(path_of(folder, TEST), path_of(folder, "walls__9")),
        ["scenes/walls__9.safetensors belongs to no scene"],
    ),
    "no index": (lambda folder: (folder / "index.jsonl").unlink(), ["index.jsonl is missing; run dvc repro prepare"]),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_found_and_nothing_else(folder, kind):
    damage, wanted = FAULTS[kind]
    damage(folder)
    left = faults(folder)
    for words in wanted:
        if words != MORE:
            left.remove(next((text for text in left if words in text), words))
    assert (wanted[-1] == MORE) == bool(left), left
    if kind in ("scene missing", "overlap of another scene"):
        assert all("cannot be checked against its scene" in text for text in left)


def test_recorded_hashes_are_compared_with_the_pixels(folder):
    other_pixels(folder)
    found = faults(folder)
    assert any("frame frame007: its pixels are not those whose hash was recorded" in text for text in found)
    assert any("has SHA-256" in text for text in found)


def test_all_faults_are_told_at_once_and_the_status_is_1(folder):
    for kind in ("black frame", "foreign file", "listed is not kept and skipped", "target in contexts"):
        FAULTS[kind][0](folder)
    done = subprocess.run([sys.executable, "-m", "src.check_scenes", folder], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and lines[-1] == "4 faults"
    assert sum(line.startswith("fault: ") for line in lines) == 4
    empty = subprocess.run(
        [sys.executable, "-m", "src.check_scenes", folder / "report.json"], cwd=ROOT, capture_output=True, text=True
    )
    assert empty.returncode == 1 and "Traceback" not in empty.stderr


def test_scenes_without_a_split_are_noted(folder):
    kept = [record for record in read_index(folder) if record.split != "val"]
    path_of(folder, "walls__4").unlink()
    (folder / "overlaps/walls__4.safetensors").unlink()
    (folder / "episodes_val.jsonl").write_text("")
    write_index(folder, kept)
    report(lambda r: (r["scenes"].pop("walls__4"), r.update(listed=5, kept=5)))(folder)
    assert faults(folder) == [] and "split val has no scenes" in notes(folder)


def test_without_a_scene_to_score_there_is_a_fault(folder):
    write_index(folder, [record for record in read_index(folder) if record.split != "test"])
    (folder / "episodes_test.jsonl").write_text("")
    assert "no scene is of test or dev, so there is nothing to score" in " ".join(faults(folder))


INDEX = {
    "a": {"context": [0, 40], "target": [10, 20, 45]},
    "b": None,
    "c": {"context": [3, 9], "target": [3, 6, 6]},
    "d": {"context": [5], "target": []},
    "e": {"context": [1, 1], "target": [-1, 70]},
    "f": {"context": [1, "2"], "target": [3]},
}


def test_an_evaluation_index_is_read_to_its_end(tmp_path):
    write(tmp_path / "index_re10k.json", INDEX)
    assert faults(tmp_path / "index_re10k.json") == [
        "index_re10k.json: scene c: targets [3] are contexts",
        "index_re10k.json: scene c: targets [3, 6, 6] repeat a view",
        "index_re10k.json: scene d: 1 contexts, two are needed",
        "index_re10k.json: scene d: no target",
        "index_re10k.json: scene e: contexts [1, 1] repeat a view",
        "index_re10k.json: scene e: views [-1] are not among the scene's images",
        "index_re10k.json at /f/context/1: found str, wanted int; repair the file.",
    ]
    assert notes(tmp_path / "index_re10k.json") == [
        "index_re10k.json: 1 scenes are null and not scored: b",
        "index_re10k.json: 4 scenes with 8 targets, 4 of them not between their contexts",
        "index_re10k.json: contexts lie 0 to 40 positions apart, median 6",
    ]


def test_positions_of_an_evaluation_index_are_compared_with_the_scenes(tmp_path, sound):
    write(
        tmp_path / "index.json",
        {TEST: {"context": [0, 11], "target": [5, 12]}, "z": None, "y": {"context": [0, 1], "target": [2]}},
    )
    wanted = [
        f"index.json: scene {TEST}: views [12] are not among the scene's 12 images",
        "index.json: scene y is not in ",
    ]
    assert [text[: len(start)] for text, start in zip(faults(tmp_path / "index.json", sound), wanted)] == wanted
    chunks = tmp_path / "re10k"
    write(chunks / "index.json", {TEST: "000000.torch", "x": "000000.torch"})
    images = [torch.zeros(9, dtype=torch.uint8) for _ in range(12)]
    torch.save([{"key": TEST, "images": images, "cameras": torch.zeros(12, 18)}], chunks / "000000.torch")
    assert [text[: len(start)] for text, start in zip(faults(tmp_path / "index.json", chunks), wanted)] == wanted
    with pytest.raises(FileNotFoundError, match="holds neither index.jsonl nor index.json"):
        faults(tmp_path / "index.json", chunks.parent / "nothing")


def test_the_test_sets_of_splatt3r_are_read_to_their_end(root, tmp_path):  # noqa: F811
    coverage(tmp_path / "sets", 5)
    rows = [["a0", 0, 1, 2]] * 200 + [["a0", 4, 4, 2], ["b", 0, 1, 2], ["a0", 0, 3, 5]]
    write(tmp_path / "sets/test_set_0.5_0.5.json", rows)
    assert faults(tmp_path / "sets", root) == [
        "test_set_0.5_0.5.json at /rows/200: found images [4, 4, 2], wanted three different ones of 0 to 4; repair "
        "the file.",
        "test_set_0.5_0.5.json at /rows/201: scene b has no coverage file; repair the file.",
        "test_set_0.5_0.5.json at /rows/202: found images [0, 3, 5], wanted three different ones of 0 to 4; repair "
        "the file.",
    ]
    assert len(SHARP) == 5 and notes(tmp_path / "sets", root) == [
        "a0.json: positions count without the 1 blurred images",
        "test_set_0.5_0.5.json: 203 rows, 3 of them scored, 3 not readable, in 1 scenes",
        "test_set_0.9_0.9.json: 201 rows, 3 of them scored, 0 not readable, in 1 scenes",
    ]
    coverage(tmp_path / "sets", 4)
    assert "covers 4 images, but the scene lists 6, 5 of them not blurred" in faults(tmp_path / "sets", root)[0]
    with pytest.raises(ValueError, match="the second argument is empty"):
        faults(tmp_path / "sets")
