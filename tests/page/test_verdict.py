"""What is said, for every combination of scenes, seeds and metrics; each comparison is made by the real functions."""

import numpy as np
import pytest

from src.experiments.result import ExperimentResult
from src.page.verdict import (
    baseline_words,
    cautions,
    control_words,
    difference_words,
    geometry_words,
    headline,
    interval_words,
    power_words,
    seed_words,
)
from src.results.errors import Errors, VariancePart
from src.results.statistics import (
    POOLED,
    PRIOR,
    Comparison,
    Interval,
    SceneScores,
    SeedSd,
    compare_paired,
    seed_spread,
    without_verdict,
)


def result(name: str = "dinov2_vits14", weights: str = "pretrained", label: str = "DINOv2") -> ExperimentResult:
    about = {"label": label, "backbone": {"name": name, "weights": weights}}
    return ExperimentResult("this run", about, rows=[], curves={}, benchmark=None)


def comparison(
    mean: float = 0.04, p: float = 0.5, seeds: tuple[int, ...] = (1, 1), source: str | None = PRIOR, claims: int = 2
) -> Comparison:
    """Over 12 scenes, with a half-width of 0.2 dB."""
    errors = Errors((VariancePart(0.05**2, 11), VariancePart(0.07**2, np.inf)), 12)
    interval = Interval(mean, mean - 0.2, mean + 0.2, 96, 12, seeds, source)
    return Comparison(interval, errors, p, min(1, 2 * p), claims)


def made(gain: float, first: tuple, second: tuple, others: tuple = (), scenes: int = 12, prior: bool = False) -> str:
    """The sentence on an experiment that is better by a gain than another, beside further experiments with seeds."""

    def scores(seeds: tuple[int, ...], number: int, gain: float = 0.0) -> SceneScores:
        noise = np.random.default_rng(number)
        rough = 0.05 * noise.normal(size=(len(seeds), 1)) + 0.05 * noise.normal(size=(len(seeds), scenes))
        return SceneScores(20 + gain + rough, seeds, 96)

    ours, theirs = scores(first, 1, gain), scores(second, 2)
    further = [scores(seeds, 3 + number) for number, seeds in enumerate(others)]
    spread = seed_spread([ours, theirs, *further], SeedSd(0.05, 0.08) if prior else None)
    return difference_words("A", "B", compare_paired({"a": (ours, theirs, spread)})["a"])


THREE = (0, 1, 2)


@pytest.mark.parametrize(
    ("arguments", "begins", "holds"),
    [
        # one training each: nothing known, measured before, other experiments' seeds
        (
            {"first": (0,), "second": (0,)},
            "A differs from B by +1",
            "1 seed, over scenes only: not decidable from one training",
        ),
        (
            {"first": (0,), "second": (0,), "prior": True},
            "A is better than B",
            "1 seed, what others would change as measured",
        ),
        (
            {"first": (0,), "second": (0,), "others": (THREE, THREE)},
            "A is better than B",
            "1 seed, what others would change as in the other experiments",
        ),
        (
            {"gain": 0.01, "first": (0,), "second": (0,), "prior": True},
            "A is not distinguishable from B",
            "1 seed, what",
        ),
        # several
        ({"first": THREE, "second": THREE}, "A is better than B", "in 12 scenes, 3 seeds."),
        ({"gain": -1.0, "first": THREE, "second": THREE}, "A is worse than B", "in 12 scenes, 3 seeds."),
        ({"gain": 0.0, "first": THREE, "second": THREE}, "A is not distinguishable from B", "in 12 scenes, 3 seeds."),
        # two each: one degree of freedom is too few
        (
            {"first": (0, 1), "second": (0, 1)},
            "A differs from B",
            "2 seeds, over scenes only: not decidable from so few",
        ),
        (
            {"first": (0, 1), "second": (0, 1), "prior": True},
            "A is better than B",
            "2 seeds, what others would change as",
        ),
        # unlike seeds
        ({"first": THREE, "second": (0,)}, "A is better than B", "in 12 scenes, 3 seeds against 1."),
        ({"first": THREE, "second": (3, 4)}, "A is better than B", "in 12 scenes, 3 seeds against 2."),
        (
            {"first": (0,), "second": (1,)},
            "A differs from B by",
            "1 seed, over scenes only: not decidable from one training",
        ),
        (
            {"first": (0,), "second": (1,), "prior": True},
            "A is better than B",
            "1 seed, what others would change as measured",
        ),
        # too few scenes, whatever the seeds
        (
            {"first": THREE, "second": THREE, "scenes": 4},
            "A differs from B by +1",
            "3 seeds: fewer than 5 scenes cannot",
        ),
        (
            {"first": (0,), "second": (0,), "scenes": 1},
            "A differs from B by +1",
            "in 1 scene, 1 seed: fewer than 5 scenes",
        ),
    ],
)
def test_the_verdict_says_no_more_than_the_numbers(arguments, begins, holds):
    words = made(**{"gain": 1.0} | arguments)
    assert words.startswith(begins) and holds in words, words


def test_a_metric_that_is_only_shown_has_no_verdict():
    words = difference_words("A", "B", without_verdict(comparison(9.0, 1e-6)))
    assert words.startswith("A differs from B by +9.00 dB [+8.80, +9.20]")
    assert words.endswith(": no verdict is given, since they were trained on other scenes.")


def test_the_headline_is_the_comparison_s_sentence():
    words = headline(result(), Interval(20, 19, 21, 96, 12), comparison(0.4, 0.001))
    assert words == (
        "DINOv2 is better than MASt3R only: +0.40 dB [+0.20, +0.60], n = 96 in 12 scenes, 1 seed, what others would "
        "change as measured before."
    )
    corrected = headline(result(), Interval(20, 19, 21, 96, 12), comparison(0.4, 0.04))  # the interval excludes 0
    assert corrected.startswith("DINOv2 is not distinguishable from MASt3R only: +0.40 dB [+0.20, +0.60]")


def test_without_a_reference_the_score_itself_is_the_headline():
    score = Interval(20.123, 19.5, 20.75, 96, 12)
    assert headline(result(), score, None) == (
        "DINOv2 reaches 20.12 dB [19.50, 20.75], n = 96 in 12 scenes; there is no run without a backbone to compare it "
        "with yet."
    )
    assert headline(result("none", "none", "MASt3R only"), score, None).startswith("MASt3R only, the reference of all")
    assert interval_words(Interval(1, None, None, 3, 1)) == "1.00 dB, n = 3 in 1 scene"
    assert headline(result(), None, None) == "DINOv2 has no masked PSNR; “What was not measured” says why."


def test_untrained_controls_and_missing_references_are_cautioned():
    assert "untrained control" in cautions(result(weights="random"), True)[0]
    assert "model.backbone=none" in cautions(result(), False)[0]
    control = result("rgb", "none")
    control.about["backbone"]["note"] = "This is a control."
    assert cautions(control, True) == ["This is a control."]
    assert cautions(result(), True) == cautions(result("none", "none"), False) == []


def test_power_is_told_in_numbers():
    found = comparison()
    told = power_words(found)
    assert told.startswith(
        f"With these 12 scenes, 1 seed and 2 claims a true difference of {found.detectable:.2f} dB would be found about"
    )
    assert found.scenes_for_tenth is None and "with these seeds no number of scenes is sure to find 0.1 dB" in told
    assert "p = 0.5, 1 after Holm's correction" in told and told.endswith("(datasets.<name>.seed_sd).")
    alone = power_words(comparison(seeds=(3, 2), source=POOLED, claims=1))
    assert alone.startswith("With these 12 scenes and 3 seeds against 2 a true") and alone.endswith(
        "that have several."
    )
    assert power_words(without_verdict(found)) is None
    exact = Comparison(found.interval, Errors((VariancePart(0.01, 11),), 12), 0.5, 0.5, 1)
    assert f"finding 0.1 dB would take {exact.scenes_for_tenth} scenes" in power_words(exact)


def test_baselines_are_told_in_numbers():
    compared = {"points": comparison(3.0, 0.001, (1,)), "copy_nearest": comparison(0.1, 0.4, (1,))}
    words = baseline_words(compared)
    assert "+3.00 dB [+2.80, +3.20] against geometry points, one pixel each;" in words
    assert words.endswith("+0.10 dB [−0.10, +0.30] against nearest context image copied, not distinguishable.")
    assert baseline_words({"points": comparison(3.0, 0.001, (1,), None)}).endswith("one pixel each, over scenes only.")


@pytest.mark.parametrize(
    "limits, word",
    [
        ((-0.03, -0.01), "nearer"),
        ((0.01, 0.03), "training made geometry worse"),
        ((-0.01, 0.03), "not distinguishable"),
        ((None, None), "not distinguishable"),
    ],
)
def test_gaussians_are_called_nearer_than_the_points_only_outside_chance(limits, word):
    mean = -0.02 if word == "nearer" else 0.02
    cloud = {
        method: {"aligned": {"chamfer": {"mean": value, "std": 0.1, "n": 24}}}
        for method, value in (("render", 0.1 + mean), ("points_splat", 0.1))
    }
    words = geometry_words(cloud, Interval(mean, *limits, 24, 12 if limits[0] else 1))
    assert f"{0.1 + mean:.3f} m, the frozen points 0.100 m" in words and words.endswith(f"{word}.")
    assert seed_words(comparison(3.0, 0.001, (1,)).interval) == "1 seed, what others would change as measured before"


def test_the_control_is_told_beside_the_headline():
    assert control_words("DINOv2", None) is None
    assert control_words("DINOv2", comparison()).startswith(
        "Against an adapter that is told nothing: DINOv2 is not distinguishable from constant features: +0.04 dB "
        "[−0.16, +0.24], n = 96 in 12 scenes, 1 seed"
    )
