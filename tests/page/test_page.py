from src.experiments.comparisons import Verdicts
from src.page.page import brackets
from src.results.statistics import POOLED, PRIOR, Comparison, Interval
from tests.helpers.findings import beside, made_up_result


def comparison(low: float | None, source: str | None) -> Comparison:
    """With nothing but an interval."""
    interval = Interval(0.1, low, low and 0.3, 24, 8, (3, 3), source)
    return Comparison(**dict.fromkeys(Comparison.__annotations__) | {"interval": interval})


def test_brackets_are_over_seeds_only_where_an_interval_is():
    def told(name: str, low: float | None, source: str | None) -> str:
        compared = {name: comparison(low, source)}
        results = [made_up_result("a", 0), made_up_result("b", 0)]
        return brackets(beside(results, Verdicts({"psnr_masked": compared}, compared, {})))

    over_scenes = "95 % intervals over scenes"
    assert told("a", -0.1, None) == told("b", -0.1, None) == told("a", None, POOLED) == over_scenes
    assert told("a", -0.1, POOLED) == told("b", -0.1, PRIOR) == over_scenes + ", those of differences over seeds too"
    hidden = Verdicts({"psnr_masked": {}}, {"b": comparison(-0.1, POOLED)}, {})  # only this run's is shown
    assert brackets(beside([made_up_result("a", 0)], hidden)) == over_scenes
