import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from src.experiments.comparisons import ranks
from src.experiments.result import ExperimentResult
from src.page.page import (
    CHART_NAMES,
    Findings,
    brackets,
    cloud_table,
    curve_of,
    data_uri,
    group_table,
    limits,
    page_charts,
    plus_minus,
    score_table,
    unbroken,
)
from src.page.verdict import rank_words
from src.results.statistics import Comparison, Interval
from tests.helpers.publishing import BENCHMARK

SCORES = {"psnr_masked": {"mean": 20.126, "std": 3.0, "n": 9}, "ssim_masked": {"mean": 0.5, "n": 1}}
TREE = {method: {"raw": SCORES, "aligned": SCORES} for method in ("render", "copy_nearest", "points", "points_splat")}
NAMES = {"psnr_masked": "PSNR", "ssim_masked": "SSIM", "lpips_masked": "LPIPS"}


def test_scores_are_shown_with_their_spread_and_absent_ones_in_words():
    assert plus_minus(SCORES["psnr_masked"], "psnr") == "20.13 ± 3.00"
    assert plus_minus(SCORES["ssim_masked"], "ssim") == "0.500"
    assert plus_minus(None, "lpips") == "not measured"
    assert limits(Interval(-0.04, -0.1, 0.02, 9, 6)) == "−0.04 [−0.10, +0.02]"
    assert limits(Interval(0.04, None, None, 9, 3)) == "+0.04"


def test_tables_leave_out_what_nobody_measured_and_the_second_copy_of_a_photograph():
    table = score_table(TREE, NAMES)
    assert table["head"] == ["", "scale", "PSNR", "SSIM", "n"] and len(table["rows"]) == 7
    assert ["nearest photograph copied", "any", "20.13 ± 3.00", "0.500", "9"] in table["rows"]
    empty = TREE | {"points": {"raw": {}, "aligned": {}}}
    assert len(score_table(empty, NAMES)["rows"]) == 5
    rows = group_table({"very_wide": TREE, "close": empty}, "overlap")["rows"]
    assert [row[0] for row in rows] == ["close", "medium", "wide", "very wide"]
    assert rows[3][1:] == [*["20.13 ± 3.00"] * 4, "9"] and rows[0][3] == "not measured"
    assert rows[1][1:] == [*["not measured"] * 4, "0"]
    assert len(group_table({"rooms": TREE}, "scenes")["rows"]) == 1


def result(name: str, gain: float) -> ExperimentResult:
    wobble = np.random.default_rng(ord(name)).normal(0, 0.01, 10)
    rows = [
        {
            "episode": str(i),
            "target": "1",
            "scene": f"s{i // 2}",
            "alignment": "aligned",
            "psnr_masked": 20 + i % 3 + gain + wobble[i],
        }
        for i in range(10)
    ]
    return ExperimentResult(name, {"protocol": {"seed": 0}}, {}, rows, {}, None)


def findings(results: list[ExperimentResult], **others) -> Findings:
    """With nothing but results, and what is named."""
    bins = {"wide": dict.fromkeys(CHART_NAMES)}
    absent = dict.fromkeys(Findings.__annotations__) | {"rows": [], "bins": bins, "confidence": 0.95}
    return Findings(**absent | {"results": results} | others)


def test_charts_of_timings_say_what_they_hold_for_and_whom_they_leave_out():
    def timed(name: str, **changed) -> ExperimentResult:
        about = {"label": name, "protocol": {"seed": 0, "resolution": "224x224"}, "benchmark_params": "p"}
        return replace(result(name, 0), about=about | {"backbone": {"name": "none"}}, benchmark=BENCHMARK | changed)

    runs = [timed("a"), timed("b"), timed("c", device="cuda", precision="16-mixed")]
    captions = {chart["title"]: chart["caption"] for chart in page_charts(findings(runs))}
    assert captions["Time of each piece"] == (
        "Median, 10 to 90 %, on one machine (cpu, 32-true, 224 px). a: a; b: b. Left out: c (cuda, 16-mixed)."
    )
    prices = [caption for title, caption in captions.items() if title.startswith("Quality against")]
    assert len(prices) == 3 and all("one machine (cpu, 32-true, 224 px)" in words for words in prices)
    assert all(words.endswith("b: b. Left out: c (cuda, 16-mixed).") for words in prices)


def comparison(low: float | None, seeds: int) -> Comparison:
    """With nothing but an interval."""
    interval = Interval(0.1, low, low and 0.3, 24, 8, seeds)
    return Comparison(**dict.fromkeys(Comparison.__annotations__) | {"interval": interval})


def test_brackets_are_over_seeds_only_where_an_interval_is():
    def told(name: str, low: float | None, seeds: int) -> str:
        compared = {name: comparison(low, seeds)}
        return brackets(findings([result("a", 0), result("b", 0)], comparisons=compared, controlled=compared))

    over_scenes = "95 % intervals over scenes"
    assert told("a", -0.1, 1) == told("b", -0.1, 1) == told("a", None, 3) == over_scenes
    assert told("a", -0.1, 3) == told("b", -0.1, 3) == over_scenes + ", and over seeds where these are named"
    hidden = {"b": comparison(-0.1, 3)}  # only this run is compared with constant features
    assert brackets(findings([result("a", 0)], comparisons={}, controlled=hidden)) == over_scenes


def test_ranks_are_given_for_three_or_more_runs():
    assert ranks([result("a", 0), result("b", 1)]) == {}
    assert (rank_words(None), rank_words((2, 2)), rank_words((1, 3))) == ("", "2", "1–3")
    found = ranks([result("a", 0), result("b", 0), result("c", 1)])
    assert found == {"a": (1, 3), "b": (1, 3), "c": (1, 3)}  # five scenes can never reach p < 0.05


@pytest.mark.parametrize(("size", "shown"), [((40, 32), (40, 32)), ((800, 400), (384, 192))])
def test_pictures_are_embedded_and_large_ones_made_smaller(size, shown):
    picture = np.full((size[1], size[0], 3), (200, 30, 60), np.uint8)
    head, data = data_uri(picture).split(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/webp;base64" and image.size == shown
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 60)).max() < 12


def test_curves_are_read_and_intervals_kept_on_one_line():
    assert curve_of('step,loss,model\n0,0.5,"a, b"\n10,0.25,c\n') == ([0, 10], [0.5, 0.25])
    assert unbroken("x [−0.09, +0.17], n = 9, y") == "x [−0.09,\u00a0+0.17], n = 9, y"


def test_clouds_of_scenes_without_metres_have_one_row():
    scores = {"chamfer": {"mean": 0.5, "std": 0.1, "n": 4}}
    assert [row[0] for row in cloud_table({"raw": scores, "aligned": scores})["rows"]] == ["raw", "aligned"]
    assert [row[0] for row in cloud_table({"raw": {}, "aligned": scores})["rows"]] == ["aligned"]
