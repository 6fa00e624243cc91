"""A short form of `python -m src.results.simulate`: what it promises, at a few cells with fewer repetitions."""

import math

import numpy as np
import pytest

from src.results.errors import ALPHA
from src.results.simulate import (
    COVERAGE,
    FALSE_WINNERS,
    FALSE_WINNERS_ODD,
    FOUND,
    Case,
    coverage_and_winners,
    power,
    rank_coverage,
    simulated,
    stated_power,
)
from src.results.statistics import holm

REPETITIONS = 600
CHANCE = 2 / math.sqrt(REPETITIONS)  # twice the standard error of a share is this times sqrt(share (1 - share))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tolerance(share: float) -> float:
    return CHANCE * math.sqrt(share * (1 - share))


@pytest.mark.parametrize(
    "case",
    [
        Case(1, 0.07, 16, 4),
        Case(1, 0.1, 50, 4),
        Case(2, 0.0, 8, 4),
        Case(2, 0.07, 50, 4),
        Case(3, 0.0, 16, 4),
        Case(3, 0.1, 50, 2),
        Case(5, 0.03, 8, 4),
    ],
    ids=str,
)
def test_intervals_hold_the_truth_and_equal_experiments_are_seldom_called_different(case):
    held, winners, prior = coverage_and_winners(case, REPETITIONS, rng(1))
    assert COVERAGE[0] - tolerance(0.95) <= held <= COVERAGE[1] + tolerance(0.95)
    assert winners <= FALSE_WINNERS + tolerance(0.05) and prior == (case.seeds == 1)


@pytest.mark.parametrize("shape", ["unequal", "heavy-tailed", "skewed"])
def test_unlike_scenes_make_no_more_winners(shape):
    for case in (Case(1, 0.0, 16, 4, shape), Case(3, 0.0, 8, 4, shape)):
        assert coverage_and_winners(case, REPETITIONS, rng(2))[1] <= FALSE_WINNERS_ODD + tolerance(0.06)


def test_true_gains_are_found():
    usual = Case(3, 0.07, 16, 4)
    assert power(usual, 0.3, REPETITIONS, rng(3)) >= 0.9 - tolerance(0.9)
    share, median = stated_power(usual, REPETITIONS, rng(4))
    assert FOUND[0] - tolerance(0.8) <= share <= FOUND[1] + tolerance(0.8) and 0.15 < median < 0.3


def test_rank_intervals_hold_all_at_once():
    assert rank_coverage(Case(3, 0.07, 16, 4), REPETITIONS, rng(5)) >= 1 - ALPHA - tolerance(0.95)


def signs_flipped(differences: np.ndarray) -> np.ndarray:
    """p of Fisher's sign-flip test over scenes, (repeats,), for (repeats, S) differences: exact."""
    scenes = differences.shape[1]
    signs = 1.0 - 2.0 * (np.arange(2**scenes)[:, None] >> np.arange(scenes) & 1)  # (2^S, S)
    sums = np.abs(differences @ signs.T)
    return (sums >= sums[:, :1] * (1 - 1e-9)).mean(1)


def test_a_rule_over_scenes_alone_fails_this_simulation():
    """The rule from before: one training each, a sign-flip test over scenes, Holm's correction over experiments. The
    check above has teeth: it finds winners among equals on every fourth page."""
    case = Case(1, 0.07, 12, 4)
    first, *others = simulated(case, 300, rng(6))[0]
    p = holm(np.array([signs_flipped((each.means - first.means)[:, 0]) for each in others]))
    assert np.any(np.array(p) < ALPHA, 0).mean() > 0.2 > FALSE_WINNERS + tolerance(0.05)
    assert coverage_and_winners(case, REPETITIONS, rng(6))[1] <= FALSE_WINNERS + tolerance(0.05)


def test_simulated_scores_have_the_stated_deviations():
    """Of the difference of two trainings with one seed, and of one training between seeds."""
    scores = simulated(Case(2, 0.07, 4000, 2), 60, rng(7))[0]
    means = np.stack([each.means.mean(-1) for each in scores])  # (2, repeats, seeds)
    difference = means[0] - means[1]
    assert difference.std() == pytest.approx(0.07, rel=0.2)
    assert (means[:, :, 0] - means[:, :, 1]).std() / math.sqrt(2) == pytest.approx(
        math.hypot(0.07 / 2**0.5, 0.076), rel=0.2
    )
    apart = (scores[0].means - scores[1].means)[:, 0].std(-1).mean()
    assert apart == pytest.approx(math.sqrt(0.12**2 + 0.25**2 / 6 + 0.29**2 / 18), rel=0.03)
