from pathlib import Path

import numpy as np
import pytest
import torch

from src.page.pictures import Chosen, choose, panels
from src.page.strip import coloured, depth_panel, error_panel, strip
from src.scenes.scene import Scene, read_index
from tests.helpers.fabricated import write_results


def row(episode: str, family: str, score: float | None, target: str = "001") -> dict:
    return {
        "episode": episode,
        "scene": f"{family}__0",
        "category": family,
        "bin": "wide",
        "target": target,
        "method": "render",
        "alignment": "aligned",
        "psnr_masked": score,
    }


def copied(episode: str, family: str, score: float | None) -> dict:
    """The row of the same target as the nearest context shows it."""
    return row(episode, family, score) | {"method": "copy_nearest", "alignment": "raw"}


def test_the_same_targets_are_chosen_whatever_the_renders_score():
    easy = {"c": 20.0, "a": 18.0, "b": 30.0, "d": 25.0, "e": 40.0}
    base = [copied(name, "rooms", score) for name, score in easy.items()] + [copied("f", "objects", 9.0)]
    base += [row("e", "rooms", None), row("f", "objects", 9.0)]
    found = []
    for scores in ((1.0, 2.0, 3.0, 4.0), (4.0, 1.0, 3.0, 2.0)):
        rows = base + [row(name, "rooms", score) for name, score in zip("abcd", scores)]
        found.append({each.name: each.row["episode"] for each in choose(rows)})
        assert choose(rows[::-1]) == choose(rows)
    assert (
        found[0]
        == found[1]
        == {
            "objects_first": "f",
            "objects_easiest": "f",
            "objects_median": "f",
            "objects_hardest": "f",
            "rooms_first": "a",
            "rooms_easiest": "b",
            "rooms_median": "c",
            "rooms_hardest": "a",
        }
    )
    assert choose([]) == []


def test_many_families_are_shown_as_one():
    assert {
        each.family for each in choose([make("a", f"family{i}", 20.0) for i in range(7) for make in (row, copied)])
    } == {"all"}


def test_the_error_map_shows_the_error_and_where_nothing_was_seen():
    photo = torch.full((3, 4, 4), 0.5)
    render = photo.clone()
    render[:, 0] = 3.0  # shown as 1: an error of 0.5, the brightest colour
    mask = np.ones((4, 4), bool)
    mask[3] = False
    panel = error_panel(render, photo, mask)
    brightest, none = coloured(np.array([[1.0, 0.0]]), 0, 1, "inferno")[0]
    assert (panel[0] == brightest).all() and (panel[1:3] == none).all() and (panel[3] == 96).all()


def test_depth_is_brightest_nearby_and_black_where_nothing_was_rendered():
    truth = np.linspace(1, 3, 16).reshape(4, 4)
    panel = depth_panel(np.where(truth > 2.9, 0, truth), truth).sum(-1)
    assert panel[0, 0] > panel[1, 0] > panel[2, 0] and panel[3, 3] == 0
    assert depth_panel(np.zeros((4, 4)), np.zeros((4, 4))).sum() == 0


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, scenes_per_family=1)
    return folder


def test_panels_are_the_images_and_the_render(results):
    index = {record.id: record for record in read_index(results / "data/scenes")}
    chosen = Chosen("rooms", "easiest", row("rooms__0__wide", "rooms", 20.0, "002"))
    pictures = panels(chosen, index, results / "data/scenes", results / "data/renders")
    scene = Scene.open(results / "data/scenes/scenes/rooms__0.safetensors")
    for name, frame in (("context 1", "000"), ("context 2", "004"), ("target image", "002")):
        assert np.array_equal(pictures[name], scene.frame(frame).image)
    assert list(pictures) == ["context 1", "context 2", "target image", "render", "error", "depth"]
    assert np.abs(pictures["render"].astype(int) - pictures["target image"]).mean() < 25
    assert (pictures["error"][:, :5] == 96).all()  # outside the mask


def test_a_strip_holds_every_panel_unchanged_and_words_around_them():
    rng = np.random.default_rng(0)
    pictures = {name: rng.integers(0, 256, (32, 40, 3), np.uint8) for name in ("one", "two")}
    sheet = np.asarray(strip(pictures, "title", "note"))
    assert sheet.shape == (4 * 32 + 3 * 18 + 2 * 6, 2 * (4 * 40 + 6) + 6, 3)
    for number, picture in enumerate(pictures.values()):
        left = 6 + number * 166
        assert np.array_equal(sheet[42 : 42 + 128, left : left + 160], picture.repeat(4, 0).repeat(4, 1))
    assert (sheet[:18] < 100).any() and (sheet[-20:] < 200).any()
    assert np.array_equal(sheet, np.asarray(strip(pictures, "title", "note")))
