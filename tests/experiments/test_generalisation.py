import numpy as np
import pytest

from src.experiments.comparisons import merge_seeds
from src.experiments.generalisation import generalisation
from src.experiments.result import read_folder
from tests.helpers.publishing import publish


def published(folder, name, *arguments, **options):
    publish(folder, *arguments, **options)
    return read_folder(folder / "reports", name)


def test_an_arm_is_tabled_over_its_training_scenes_however_many_seeds_each_choice_had(tmp_path):
    everything = [published(tmp_path, f"clip-{seed}", "clip", 0.0, seed=seed) for seed in (0, 1)]
    rooms = published(tmp_path, "rooms", "clip", 1.0, trained=("procedural", "rooms"))
    matrix = generalisation(merge_seeds([*everything, rooms]), 0.95)["clip"]
    assert set(matrix) == {"all", "rooms"}
    cell = matrix["rooms"]["rooms"]
    means = [
        np.mean([row["psnr_masked"] for key, row in rooms.scores().items() if key[0] == f"s{s}"]) for s in range(8)
    ]
    assert cell["mean"] == pytest.approx(np.mean(means)) and (cell["n"], cell["scenes"]) == (24, 8)
    assert cell["low"] < cell["mean"] < cell["high"]


def test_arms_of_one_label_are_tabled_apart(tmp_path):
    found = [
        published(tmp_path, f"{recipe}-{category}", "clip", gain, recipe=recipe, trained=("procedural", category))
        for recipe, gain in (("concat", 0.0), ("gated", 1.0))
        for category in ("all", "rooms")
    ]
    tables = generalisation(found, 0.95)
    assert list(tables) == ["clip · concat-all", "clip · gated-all"]
    assert all(set(trained) == {"all", "rooms"} for trained in tables.values())
    gains = [trained["rooms"]["rooms"]["mean"] for trained in tables.values()]
    assert gains[1] - gains[0] == pytest.approx(1.0)
    assert list(generalisation(found[:3], 0.95)) == ["clip"]  # the second is on one choice of scenes alone


def test_datasets_are_tabled_against_each_other_by_name(tmp_path):
    procedural = {"dataset": "procedural", "scenes": "a" * 16}
    co3d = {"dataset": "co3d", "scenes": "b" * 16, "episodes": "e" * 64}
    found = [
        published(tmp_path, "pp", "clip", 3.0, trained=("procedural", "all"), **procedural),
        published(tmp_path, "pc", "clip", 1.0, trained=("procedural", "all"), category="apple", **co3d),
        published(tmp_path, "cp", "clip", 2.0, trained=("co3d", "all"), **procedural),
        published(tmp_path, "other steps", "clip", 9.0, trained=("co3d", "all"), opt={"steps": 9}, **co3d),
    ]
    matrix = generalisation(found, 0.95)["clip"]
    assert {trained: set(cells) for trained, cells in matrix.items()} == {
        "procedural": {"procedural rooms", "co3d apple"},
        "co3d": {"procedural rooms"},
    }
    means = [matrix["procedural"]["procedural rooms"], matrix["procedural"]["co3d apple"]]
    assert means[0]["mean"] - means[1]["mean"] == pytest.approx(2.0)
    assert generalisation(found[:1], 0.95) == {}
