from src.page.page import brackets
from src.results.statistics import Comparison, Interval
from tests.helpers.findings import beside, made_up_result


def comparison(low: float | None, seeds: int) -> Comparison:
    """With nothing but an interval."""
    interval = Interval(0.1, low, low and 0.3, 24, 8, seeds)
    return Comparison(**dict.fromkeys(Comparison.__annotations__) | {"interval": interval})


def test_brackets_are_over_seeds_only_where_an_interval_is():
    def told(name: str, low: float | None, seeds: int) -> str:
        compared = {name: comparison(low, seeds)}
        return brackets(beside([made_up_result("a", 0), made_up_result("b", 0)], compared, compared))

    over_scenes = "95 % intervals over scenes"
    assert told("a", -0.1, 1) == told("b", -0.1, 1) == told("a", None, 3) == over_scenes
    assert told("a", -0.1, 3) == told("b", -0.1, 3) == over_scenes + ", and over seeds where these are named"
    hidden = {"b": comparison(-0.1, 3)}  # only this run is compared with constant features
    assert brackets(beside([made_up_result("a", 0)], {}, hidden)) == over_scenes
