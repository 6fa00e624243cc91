from dataclasses import replace

import pytest

from src.experiments.result import ExperimentResult
from src.page.charts import ACCENT, SECOND
from src.page.figures import cost_charts, curve_of, overlap_chart
from src.page.forest import differences_by_seed, forest_rows
from src.results.statistics import Comparison, Interval
from src.timing.benchmark_file import BenchmarkRecord
from tests.helpers.findings import beside, made_up_result
from tests.helpers.publishing import BENCHMARK


def test_charts_of_timings_say_what_they_hold_for_and_whom_they_leave_out():
    def timed(name: str, **changed) -> ExperimentResult:
        about = {"label": name, "protocol": {"seed": 0, "resolution": "224x224"}, "benchmark_params": "p"}
        benchmark = BenchmarkRecord(BENCHMARK | changed)
        return replace(made_up_result(name, 0), about=about | {"backbone": {"name": "none"}}, benchmark=benchmark)

    runs = [timed("a"), timed("b"), timed("c", device="cuda", precision="16-mixed")]
    captions = {chart["title"]: chart["caption"] for chart in cost_charts(beside(runs))}
    assert captions["Time of each piece"] == (
        "Median, 10 to 90 %, on one machine (cpu, 32-true, 224 px). a: a; b: b. Left out: c (cuda, 16-mixed)."
    )
    prices = [caption for title, caption in captions.items() if title.startswith("Quality against")]
    assert len(prices) == 3 and all("one machine (cpu, 32-true, 224 px)" in words for words in prices)
    assert all(words.endswith("b: b. Left out: c (cuda, 16-mixed).") for words in prices)


def test_curves_are_the_first_two_columns():
    assert curve_of('step,loss,model\n0,0.5,"a, b"\n10,0.25,c\n') == ([0, 10], [0.5, 0.25])


def seeds_of(result: ExperimentResult, gains: dict[int, float]) -> ExperimentResult:
    runs = {
        seed: [row | {"psnr_masked": row["psnr_masked"] + gain} for row in result.rows] for seed, gain in gains.items()
    }
    return replace(result, repeats=runs)


def test_differences_of_seeds_are_paired_where_both_have_the_seed():
    base = seeds_of(made_up_result("b", 0.0), {0: 0.0, 1: 0.3, 2: -0.3})
    found = differences_by_seed(seeds_of(made_up_result("b", 0.0), {1: 1.0, 2: 1.0, 5: 1.0}), base)
    assert found == pytest.approx((0.7, 1.3, 1.0))
    interval = Interval(1.0, 0.9, 1.1, 10, 5, (3, 3))
    oracle = replace(base, name="o", about=base.about | {"backbone": {"name": "oracle"}})
    compared = {name: Comparison(interval, None, None, None, 1) for name in ("b", "o")}
    rows = forest_rows([base, oracle], base, compared, {"b": ACCENT, "o": SECOND})
    assert [(row.colour, row.ceiling) for row in rows.values()] == [(ACCENT, False), (SECOND, True)]


def test_bins_say_how_many_scenes_they_have():
    run = made_up_result("a", 0)
    run.about["label"] = "A"
    methods = ("render", "copy_nearest", "points", "points_splat")
    bins = {
        "close": dict.fromkeys(methods, Interval(20.0, 19.0, 21.0, 30, 12)),
        "very_wide": dict.fromkeys(methods, None) | {"render": Interval(18.0, None, None, 3, 2)},
    }
    svg = overlap_chart(bins, run, "95 %")["svg"]
    assert all(f">{words}<" in svg for words in ("close", "12 scenes", "very wide", "2 scenes"))
