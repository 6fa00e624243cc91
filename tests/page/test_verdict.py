import pytest

from src.experiments.result import ExperimentResult
from src.page.verdict import (
    baseline_words,
    cautions,
    control_words,
    difference_words,
    headline,
    interval_words,
    power_words,
)
from src.results.statistics import Comparison, Interval


def result(name: str = "dinov2_vits14", weights: str = "pretrained", label: str = "DINOv2") -> ExperimentResult:
    about = {"label": label, "backbone": {"name": name, "weights": weights}}
    return ExperimentResult("this run", about, rows=[], curves={}, benchmark=None)


def comparison(mean: float, low: float | None, high: float | None, p: float = 0.5) -> Comparison:
    return Comparison(Interval(mean, low, high, 96, 12), p, min(1, 2 * p), 2, 0.21, 53)


@pytest.mark.parametrize(
    ("compared", "expected"),
    [
        (comparison(0.04, -0.09, 0.17), "is not distinguishable from MASt3R only: +0.04 dB [−0.09, +0.17]"),
        (comparison(0.40, 0.20, 0.60, 0.001), "is better than MASt3R only: +0.40 dB [+0.20, +0.60]"),
        (comparison(-0.40, -0.60, -0.20, 0.001), "is worse than MASt3R only: −0.40 dB [−0.60, −0.20]"),
        (comparison(0.40, 0.20, 0.60, 0.04), "is not distinguishable from MASt3R only: +0.40 dB [+0.20, +0.60]"),
    ],
)
def test_the_verdict_says_no_more_than_the_test_and_the_interval(compared, expected):
    words = headline(result(), Interval(20, 19, 21, 96, 12), compared)
    assert words == f"DINOv2 {expected}, n = 96 in 12 scenes, 1 seed."


def test_too_few_scenes_are_said_to_be_too_few():
    words = difference_words("A", "B", comparison(0.3, None, None))
    assert words.startswith("A differs from B by +0.30 dB, n = 96 in 12 scenes") and "fewer than 5 scenes" in words
    few = Comparison(Interval(0.3, None, None, 4, 1), 1, 1, 1, None, None)
    assert power_words(few) is None and "n = 4 in 1 scene, 1 seed:" in difference_words("A", "B", few)


def test_without_a_reference_the_score_itself_is_the_headline():
    score = Interval(20.123, 19.5, 20.75, 96, 12)
    assert headline(result(), score, None) == (
        "DINOv2 reaches 20.12 dB [19.50, 20.75], n = 96 in 12 scenes; "
        "there is no run without a backbone to compare it with yet."
    )
    assert headline(result("none", "none", "MASt3R only"), score, None).startswith("MASt3R only, the reference of all")
    assert interval_words(Interval(1, None, None, 3, 1)) == "1.00 dB, n = 3 in 1 scene"


def test_untrained_controls_and_missing_references_are_cautioned():
    assert "untrained control" in cautions(result(weights="random"), True)[0]
    assert "model.backbone=none" in cautions(result(), False)[0]
    control = result("rgb", "none")
    control.about["backbone"]["note"] = "This is a control."
    assert cautions(control, True) == ["This is a control."]
    assert cautions(result(), True) == cautions(result("none", "none"), False) == []


def test_power_and_baselines_are_told_in_numbers():
    told = power_words(comparison(0.04, -0.09, 0.17))
    assert told.endswith("The two were trained once: what another seed would change is in none of these numbers.")
    assert told.startswith(
        "With these 12 scenes and 2 compared experiments a true difference of 0.21 dB would be found about four times"
    )
    assert all(words in told for words in ("53 scenes", "Test over scenes: p = 0.5, 1 after"))
    none = power_words(Comparison(Interval(9, 8, 10, 40, 6), 0.03, 0.06, 2, None, 7))
    assert none.startswith(
        "With these 6 scenes and 2 compared experiments no true difference, however large, could be called one; "
        "finding 0.1 dB would take 7 scenes."
    )
    seeds = Comparison(Interval(0.04, -0.09, 0.17, 96, 12, 3), 0.5, 1.0, 1, 0.21, None)
    assert "[−0.09, +0.17], n = 96 in 12 scenes, 3 seeds." in difference_words("A", "B", seeds)
    told = power_words(seeds)
    assert told.startswith("With these 12 scenes and 3 seeds a true difference of 0.21 dB would")
    three = power_words(Comparison(Interval(0.04, -0.09, 0.17, 96, 12, 3), 0.5, 1.0, 2, 0.21, None))
    assert three.startswith(
        "With these 12 scenes, 3 seeds and 2 compared experiments a true difference of 0.21 dB would"
    )
    assert "with these seeds no number of scenes is sure to find 0.1 dB. Test over scenes and seeds: p = 0.5" in told
    assert told.endswith(
        "The two were trained with the same 3 seeds: what other ones would change is in these numbers."
    )
    words = baseline_words({"points": comparison(3.0, 2.0, 4.0, 0.001), "copy_nearest": comparison(0.1, -0.2, 0.4)})
    assert "+3.00 dB [+2.00, +4.00] against geometry points, one pixel each;" in words
    assert words.endswith("+0.10 dB [−0.20, +0.40] against nearest context image copied, not distinguishable.")


def test_the_control_is_told_beside_the_headline():
    assert control_words("DINOv2", None) is None
    assert control_words("DINOv2", comparison(0.04, -0.09, 0.17)) == (
        "Against an adapter that is told nothing: DINOv2 is not distinguishable from constant features: "
        "+0.04 dB [−0.09, +0.17], n = 96 in 12 scenes, 1 seed."
    )
