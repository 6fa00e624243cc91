import json
import math

import pytest

from src.results.tables import (
    BINS,
    column,
    groups,
    images,
    mean_and_spread,
    metrics_of,
    read_rows,
    scene_weighted,
    select_rows,
    summarise,
    summarise_scenes,
    write_rows,
)
from tests.helpers.repository import ROOT

ROWS = [
    {"episode": "a", "scene": "s", "bin": "wide", "method": "render", "psnr": 20.0, "ssim": None},
    {"episode": "b", "scene": "s", "bin": "close", "method": "render", "psnr": 23.0, "ssim": 0.5},
    {"episode": "c", "scene": "t", "bin": "odd", "method": "points", "psnr": 1 / 3, "ssim": None},
]


def test_tables_round_trip_to_six_decimals(tmp_path):
    write_rows(tmp_path / "new/rows.csv", ROWS)
    text = (tmp_path / "new/rows.csv").read_text()
    assert text.splitlines()[:2] == ["episode,scene,bin,method,psnr,ssim", "a,s,wide,render,20.000000,"]
    rows = read_rows(text)
    assert rows[:2] == ROWS[:2] and rows[2]["psnr"] == 0.333333


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_and_nothing_written(tmp_path, value):
    with pytest.raises(ValueError, match="psnr came out as"):
        write_rows(tmp_path / "rows.csv", [{"psnr": value}])
    assert list(tmp_path.iterdir()) == []


def test_absent_scores_are_left_out_of_means():
    assert metrics_of(ROWS) == ["psnr", "ssim"]
    assert column(ROWS, "ssim") == ([0.5], ["s"]) and column(ROWS, "lpips") == ([], [])
    assert summarise(select_rows(ROWS, method="render")) == {
        "psnr": {"mean": 21.5, "std": pytest.approx(4.5**0.5), "n": 2},
        "ssim": {"mean": 0.5, "n": 1},
    }
    assert summarise(select_rows(ROWS, method="points")) == {"psnr": {"mean": 1 / 3, "n": 1}}
    assert summarise([]) == {}


def test_a_mean_has_the_spread_of_its_formula():
    values = [1.0, 4.0, 7.5]
    mean = sum(values) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert mean_and_spread(values) == {"mean": pytest.approx(mean), "std": pytest.approx(deviation), "n": 3}
    assert mean_and_spread([2.0]) == {"mean": 2.0, "n": 1}
    with pytest.raises(ValueError, match="no values"):
        mean_and_spread([])


def test_scenes_weigh_the_same_however_many_rows_they_have():
    scores = {"s": [20.0, 22.0, 24.0], "t": [30.0]}
    rows = [{"scene": scene, "psnr": value} for scene, values in scores.items() for value in values]
    assert summarise_scenes(rows)["psnr"] == {"mean": 26.0, "std": pytest.approx(32**0.5), "n": 4, "scenes": 2}
    assert scene_weighted(rows, "psnr") == 26 and summarise(rows)["psnr"]["mean"] == 24
    assert scene_weighted(rows, "ssim") is None and summarise_scenes([]) == {}


def test_an_image_that_several_episodes_hold_out_counts_once():
    shown = [("a", "s", "1"), ("b", "s", "1"), ("b", "s", "2"), ("c", "t", "1")]
    assert images([{"episode": episode, "scene": scene, "target": target} for episode, scene, target in shown]) == 3


def test_bins_run_from_close_to_wide():
    kinds = [{"bin": word} for word in ("index", "wide_depth", "very_wide_depth", "close_depth", "wide")]
    assert groups(kinds, "bin") == ["close_depth", "wide", "wide_depth", "very_wide_depth", "index"]
    assert groups(ROWS, "bin") == ["close", "wide", "odd"] and groups(ROWS, "scene") == ["s", "t"]


def test_the_plot_of_bins_has_them_in_the_tables_order():
    template = json.loads((ROOT / ".dvc/plots/bins.json").read_text())
    order = template["encoding"]["x"]["sort"]
    assert order[: len(BINS)] == list(BINS)
    for kind in ("depth", "sparse", "frustum"):
        assert [word for word in order if word.endswith(f"_{kind}")] == [f"{bin}_{kind}" for bin in BINS]
