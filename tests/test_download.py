from types import SimpleNamespace

import pytest

from src.download import FIRST_SEED, render_scenes, scenes_to_render
from src.procedural.scenes import generate
from src.scenes.scene import Scene

BLOCK = SimpleNamespace(
    source=SimpleNamespace(
        families=["objects"], scenes=SimpleNamespace(train=1, val=1, dev=1, test=1), views=5, samples=1
    ),
    resolution=[32, 16],
)


def test_every_scene_is_listed_with_seeds_that_never_meet():
    listed = scenes_to_render(["objects", "rooms"], {"train": 3, "val": 1, "test": 2})
    assert len({scene["id"] for scene in listed}) == 12
    for family in ("objects", "rooms"):
        seeds = {
            split: {s["seed"] for s in listed if s["category"] == family and s["split"] == split}
            for split in ("train", "val", "test")
        }
        assert {split: len(values) for split, values in seeds.items()} == {"train": 3, "val": 1, "test": 2}
        assert len(set.union(*seeds.values())) == 6
    more = scenes_to_render(["objects", "rooms"], {"train": 4, "val": 1, "test": 2})
    assert all(scene in more for scene in listed)  # asking for more leaves the others as they were
    with pytest.raises(ValueError, match="datasets.procedural.source.scenes"):
        scenes_to_render(["objects"], {"train": 1, "val": 100_001, "test": 1})


def test_a_run_that_makes_a_choice_never_renders_a_test_scene(tmp_path, monkeypatch):
    monkeypatch.setattr("src.download.in_processes", lambda render, listed, workers, words: listed)
    kept = {scored: render_scenes(BLOCK, tmp_path / scored, 1, scored)["scenes"] for scored in ("test", "dev")}
    assert [[scene["split"] for scene in scenes] for scenes in kept.values()] == [
        ["train", "val", "test"],
        ["train", "val", "dev"],
    ]
    assert kept["test"][:2] == kept["dev"][:2] and kept["dev"][2]["seed"] == 200_000


def test_seeds_stay_clear_of_the_bundled_networks():
    bundled = 900_000  # held_out_seed of data/bundled/params.yaml, the lowest there
    assert max(FIRST_SEED.values()) + 100_000 < bundled


def test_rendered_scenes_hold_what_was_generated_and_repeat_themselves(tmp_path):
    manifests = [render_scenes(BLOCK, tmp_path / str(workers), workers) for workers in (1, 2)]
    assert manifests[0] == manifests[1]
    assert [scene["id"] for scene in manifests[0]["scenes"]] == [f"objects__{seed}00000" for seed in (0, 1, 3)]
    listed = manifests[0]["scenes"][1]
    scene = Scene.open(tmp_path / "2" / listed["file"], listed["sha256"])
    assert (tmp_path / "1" / listed["file"]).read_bytes() == scene.path.read_bytes()
    assert scene.category == "objects" and scene.units == "metre" and len(scene) == 5
    for index, frame in enumerate(generate("objects", listed["seed"], 5, (32, 16), 1)):
        found = scene.frame(index)
        assert (found.image == frame.image).all() and (found.depth == frame.depth).all()
        assert (found.c2w == frame.c2w).all() and (found.K == frame.K).all()
