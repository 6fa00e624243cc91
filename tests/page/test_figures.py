from dataclasses import replace

from src.experiments.result import ExperimentResult
from src.page.figures import cost_charts, curve_of
from tests.helpers.findings import beside, made_up_result
from tests.helpers.publishing import BENCHMARK


def test_charts_of_timings_say_what_they_hold_for_and_whom_they_leave_out():
    def timed(name: str, **changed) -> ExperimentResult:
        about = {"label": name, "protocol": {"seed": 0, "resolution": "224x224"}, "benchmark_params": "p"}
        return replace(
            made_up_result(name, 0), about=about | {"backbone": {"name": "none"}}, benchmark=BENCHMARK | changed
        )

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
