import itertools
import math

import numpy as np
import pytest
from scipy.stats import nct, norm
from scipy.stats import t as student

from src.results.errors import ALPHA, Errors, VariancePart, skewness_factor
from src.results.errors import student as half_width
from src.results.statistics import (
    DISTINGUISHABLE,
    NOT_DISTINGUISHABLE,
    POOLED,
    PRIOR,
    TOO_FEW_SCENES,
    UNDECIDABLE,
    SceneScores,
    SeedSd,
    SeedSpread,
    compare_paired,
    holm,
    means_by_scene,
    measured,
    rank_intervals,
    scores_of,
    seed_parts,
    seed_spread,
    without_verdict,
)

KNOWN = SeedSd(0.05, 0.08)
UNKNOWN = SeedSpread(None, None)
SYMMETRIC = np.array([-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scores(means, seeds=(0,)) -> SceneScores:
    return SceneScores(np.atleast_2d(np.asarray(means, float)), tuple(seeds), 100)


def drawn(gain: float = 0.0, seeds=(0,), scenes: int = 16, seed: int = 0, own: float = 0.05) -> SceneScores:
    """An experiment around 20 dB, scene means 0.1 dB apart from its equals'."""
    noise = rng(seed)
    hard = 20 + 2 * rng(99).normal(size=scenes)
    effects = own * noise.normal(size=(len(seeds), 1)) + 0.05 * noise.normal(size=(len(seeds), scenes))
    return scores(hard + gain + 0.1 * noise.normal(size=scenes) + effects, seeds)


def test_scene_means_agree_with_a_loop_and_weigh_scenes_alike():
    values, names = rng().normal(size=(2, 9)), list("abcabaaab")
    found = means_by_scene(values, names)
    for row, means in zip(values, found):
        expected = [np.mean([value for value, name in zip(row, names) if name == scene]) for scene in "abc"]
        assert means == pytest.approx(expected)
    one = scores_of(values[:1], names, (0,))
    assert measured(one, None, UNKNOWN)[0].mean == pytest.approx(found[0].mean()) != pytest.approx(values[0].mean())
    assert one.n == 9


def test_half_widths_are_student_s_over_the_whole_range():
    alphas = np.exp(np.random.default_rng(0).uniform(np.log(1e-12), 0, 2000))
    for freedom in (1, 2, 4, 15.5, 31, np.inf):
        exact = student.isf(alphas / 2, freedom) if np.isfinite(freedom) else norm.isf(alphas / 2)
        assert half_width(alphas, freedom) == pytest.approx(exact, rel=1e-7, abs=1e-9)


def test_an_interval_of_symmetric_scene_means_is_student_s():
    interval, errors = measured(scores(20 + SYMMETRIC), None, UNKNOWN)
    expected = student(6, 20, SYMMETRIC.std(ddof=1) / math.sqrt(7)).interval(0.95)
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert (interval.n, interval.scenes, interval.seeds, interval.source) == (100, 7, (1,), None)
    narrower, _ = measured(scores(20 + SYMMETRIC), None, UNKNOWN, 0.9)
    assert narrower.high == pytest.approx(student(6, 20, SYMMETRIC.std(ddof=1) / math.sqrt(7)).ppf(0.95))


def test_skewed_means_lengthen_the_interval_by_what_their_t_errs():
    """Exponential means: Student's 99 % intervals miss too often, the longer ones about as often as they say."""
    samples, scenes = rng().exponential(size=(100_000, 40)) - 1, 40
    t = np.abs(samples.mean(1) / samples.std(1, ddof=1)) * math.sqrt(scenes)
    limit = student.ppf(0.995, scenes - 1)
    missed, corrected = (t > limit).mean(), (t > limit * skewness_factor(0.01, 2.0, scenes)).mean()
    assert missed > 0.02 and 0.006 < corrected < 0.013
    assert skewness_factor(0.05, 0.0, 8) == 1 and skewness_factor(1.0, 3.0, 8) == 1


def variance(part: VariancePart) -> np.ndarray:
    return np.maximum(0, part.estimate - part.noise)


def test_the_seed_variance_is_that_of_a_two_way_layout():
    """Of three experiments with the same four seeds, by the sums of squares of a textbook."""
    cells = rng(1).normal(size=(3, 4, 9)) + rng(2).normal(size=(3, 4, 1))
    cells[:, 2] += 5  # a seed that is better for all is no difference between experiments
    spread = seed_spread([scores(each, range(4)) for each in cells], None)
    residuals = cells - cells.mean(1, keepdims=True) - cells.mean(0, keepdims=True) + cells.mean((0, 1), keepdims=True)
    between = (residuals.mean(2) ** 2).sum() / 6
    interaction = ((residuals - residuals.mean(2, keepdims=True)) ** 2).sum() / (6 * 8)
    assert variance(spread.own[0]) == pytest.approx(between - interaction / 9)
    assert (spread.own[0].freedom, spread.whole[0].freedom, spread.own[1], spread.whole[1]) == (6, 3, POOLED, POOLED)
    within = np.mean([np.var(each.mean(1), ddof=1) for each in cells])
    apart = cells - cells.mean(1, keepdims=True)
    noise = ((apart - apart.mean(2, keepdims=True)) ** 2).sum() / (9 * 8)
    assert variance(spread.whole[0]) == pytest.approx(within - noise / 9)


def test_the_seed_variance_is_estimated_without_bias():
    """Own 0.3, shared 0.4, with 0.5 between trainings on one scene, which is no part of it."""
    noise, repeats = rng(3), 4000
    cells = 0.3 * noise.normal(size=(repeats, 4, 3, 1)) + 0.4 * noise.normal(size=(repeats, 1, 3, 1))
    cells = cells + 0.5 * noise.normal(size=(repeats, 4, 3, 20))
    spread = seed_spread([SceneScores(cells[:, number], (0, 1, 2), 1) for number in range(4)], None)
    assert variance(spread.own[0]).mean() == pytest.approx(0.09, rel=0.03)
    assert variance(spread.whole[0]).mean() == pytest.approx(0.25, rel=0.06)


def test_experiments_with_one_seed_borrow_the_variance_of_those_with_several():
    several = [drawn(seeds=(0, 1, 2), seed=1), drawn(seeds=(0, 1, 2), seed=2)]
    single = drawn(seed=3)
    assert seed_spread([single, *several], KNOWN) == seed_spread(several, None)
    assert seed_spread([single, drawn(seed=4)], None) == UNKNOWN
    known = seed_spread([single, drawn(seed=4)], KNOWN)
    assert known.own == (VariancePart(0.05**2, math.inf), PRIOR) and variance(known.whole[0]) == pytest.approx(
        0.05**2 + 0.08**2
    )
    two = [drawn(seeds=(0, 1), seed=1), drawn(seeds=(0, 1), seed=2)]  # one degree of freedom tells too little
    assert seed_spread(two, KNOWN) == known and seed_spread(two, None) == UNKNOWN
    alone = seed_spread([drawn(seeds=(0, 1, 2), seed=1), single], KNOWN)  # no seed that two experiments share
    assert alone.own == alone.whole and alone.own[1] == POOLED and alone.own[0].freedom == 2


@pytest.mark.parametrize(
    ("first", "second", "own", "whole"),
    [
        ((0,), (0,), 2.0, 0.0),
        ((0, 1, 2), (0, 1, 2), 2 / 3, 0.0),
        ((0, 1), (2, 3), 0.0, 1.0),
        ((0, 1), (1, 2), 0.5, 0.5),
        ((0, 1, 2), (0,), 2 / 3, 2 / 3),
        ((0, 1, 2, 3), (), 0.0, 0.25),
    ],
)
def test_common_seeds_count_with_what_they_do_not_share(first, second, own, whole):
    spread = SeedSpread((VariancePart(1.0, 4), POOLED), (VariancePart(100.0, 2), POOLED))
    parts, source = seed_parts(scores([0] * max(1, len(first)), first), scores([0], second), spread)
    assert sum(variance(part) for part in parts) == pytest.approx(own + 100 * whole) and source == POOLED
    # the variance of a difference of means, by simulation: own 1, shared root of 99
    noise, draws = rng(5), 200_000
    shared = math.sqrt(99) * noise.normal(size=(draws, 4))
    means = [
        np.mean([shared[:, seed] + noise.normal(size=draws) for seed in seeds], 0) if seeds else 0.0
        for seeds in (first, second)
    ]
    assert np.var(means[0] - means[1]) == pytest.approx(own + 100 * whole, rel=0.02)


def test_unlike_seed_sets_use_all_their_seeds():
    first, second = drawn(0.5, (0, 1, 2), seed=1), drawn(0.0, (2, 3), seed=2)
    interval, _ = measured(first, second, seed_spread([first, second], KNOWN))
    assert interval.mean == pytest.approx(first.means.mean() - second.means.mean()) and interval.seeds == (3, 2)
    assert interval.source == POOLED


def test_half_widths_of_parts_add_as_squares_and_p_is_where_they_reach_zero():
    errors = Errors((VariancePart(0.01, 15), VariancePart(0.0025, 2)), 16)
    p = float(errors.p(0.35))
    halves = [student.ppf(1 - p / 2, freedom) * error for freedom, error in ((15, 0.1), (2, 0.05))]
    assert math.hypot(*halves) == pytest.approx(0.35, rel=1e-5)
    alone = Errors((VariancePart(0.01, 15),), 16)
    assert alone.p(0.35) == pytest.approx(2 * student.sf(3.5, 15), rel=1e-5)
    assert errors.p(0.0) == 1 and errors.p(1e9) < 1e-11
    known = Errors((VariancePart(0.01, math.inf),), 16)
    assert known.p(0.2) == pytest.approx(2 * norm.sf(2), rel=1e-5)


def test_power_is_the_noncentral_t_s_averaged_over_what_the_estimate_leaves_open():
    known = Errors((VariancePart(0.04, math.inf),), 16)
    assert known.power(0.6) == pytest.approx(norm.sf(1.959964 - 3) + norm.cdf(-1.959964 - 3), abs=1e-4)
    estimated, noise = Errors((VariancePart(0.04, 9),), 10), rng(1)
    true = 0.2 * np.sqrt(9 / noise.chisquare(9.5, 40_000))
    expected = np.mean(nct.sf(student.ppf(0.975, 9), 9, 0.6 / true[:4000]))
    assert estimated.power(0.6) == pytest.approx(expected, abs=0.015)
    assert estimated.power(estimated.detectable()) == pytest.approx(0.8, abs=1e-6)
    assert estimated.detectable(0.01) > estimated.detectable() > known.detectable()


def test_the_needed_scenes_are_the_fewest_with_enough_power():
    def errors(scenes, over_seeds=0.0):
        return Errors((VariancePart(0.35**2 / scenes, scenes - 1), VariancePart(over_seeds**2, 4)), scenes)

    for over_seeds in (0.0, 0.01):
        needed = errors(16, over_seeds).scenes_needed(0.1)
        assert errors(needed, over_seeds).power(0.1) >= 0.8 > errors(needed - 1, over_seeds).power(0.1)
    assert errors(16, 0.01).scenes_needed(0.1) > errors(16).scenes_needed(0.1)
    assert errors(16, 0.1).scenes_needed(0.1) is None  # seeds so far apart hide 0.1 behind any number of scenes


def test_holm_agrees_with_a_published_example():
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")"""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0] and holm([]) == []
    several = holm(np.array([[0.01, 0.7], [0.04, 0.9], [0.03, 0.8], [0.005, 0.6]]))
    assert [each[0] for each in several] == pytest.approx([0.03, 0.06, 0.06, 0.02]) and several[0][1] == 1


def test_a_clear_difference_is_found_and_none_is_not():
    several = {gain: drawn(gain, (0, 1, 2), seed=number) for number, gain in enumerate((0.0, 1.0, 0.001))}
    spread = seed_spread(list(several.values()), None)
    found = compare_paired({gain: (several[gain], several[0.0], spread) for gain in (1.0, 0.001)})
    assert found[1.0].verdict == DISTINGUISHABLE and found[1.0].interval.low > 0.8
    assert found[0.001].verdict == NOT_DISTINGUISHABLE and found[0.001].p > 0.05
    assert found[1.0].claims == 2 and found[1.0].p_holm == pytest.approx(2 * found[1.0].p)
    assert 0.05 < found[1.0].detectable < 1 and found[1.0].interval.source == POOLED
    assert without_verdict(found[1.0]).verdict == "no verdict" and without_verdict(found[1.0]).detectable is None


def test_a_single_training_never_wins_without_a_known_seed_variance():
    first, second = drawn(9.0, seed=1), drawn(0.0, seed=2)
    found = compare_paired({"a": (first, second, UNKNOWN)})["a"]
    assert found.verdict == UNDECIDABLE and not found.distinguishable and found.p is found.p_holm is None
    assert found.interval.low > 8 and found.interval.source is None and found.claims == 0
    assert compare_paired({"a": (first, second, seed_spread([first, second], KNOWN))})["a"].verdict == DISTINGUISHABLE


def test_a_difference_as_large_as_seeds_make_is_not_called_one():
    first, second = drawn(0.12, seed=1, own=0), drawn(0.0, seed=2, own=0)
    one, known = (seed_spread([first, second], SeedSd(own, 0.08)) for own in (0.001, 0.05))
    assert compare_paired({"a": (first, second, one)})["a"].verdict == DISTINGUISHABLE
    assert compare_paired({"a": (first, second, known)})["a"].verdict == NOT_DISTINGUISHABLE


def test_four_scenes_are_too_few_for_an_interval():
    first, second = drawn(9.0, (0, 1, 2), scenes=4, seed=1), drawn(0.0, (0, 1, 2), scenes=4, seed=2)
    found = compare_paired({"a": (first, second, seed_spread([first, second], KNOWN))})["a"]
    assert found.verdict == TOO_FEW_SCENES and found.interval.low is found.interval.high is found.detectable is None
    assert found.interval.mean == pytest.approx(first.means.mean() - second.means.mean())


def test_no_difference_at_all_has_p_1():
    same = drawn(seeds=(0, 1, 2))
    found = compare_paired({"a": (same, same, seed_spread([same, same], None))})["a"]
    assert found.interval.mean == 0 and found.p == 1 and found.verdict == NOT_DISTINGUISHABLE
    assert (found.interval.low, found.interval.high) == pytest.approx((0, 0), abs=1e-9)


def test_claims_without_a_decision_do_not_count_among_the_others():
    several = [drawn(gain, (0, 1, 2), seed=number) for number, gain in enumerate((0.0, 1.0))]
    few = drawn(0.0, (0, 1, 2), scenes=4)
    spread = seed_spread(several, None)
    found = compare_paired({"a": (several[1], several[0], spread), "b": (few, few, spread)})
    assert found["a"].claims == 1 and found["a"].p_holm == found["a"].p


def pairs_of(several: dict[str, SceneScores]) -> dict:
    spread = seed_spread(list(several.values()), KNOWN)
    return {(a, b): (several[a], several[b], spread) for a, b in itertools.combinations(several, 2)}


def test_rank_intervals_leave_open_what_the_tests_cannot_tell():
    several = {name: drawn(gain, (0, 1, 2), seed=ord(name)) for name, gain in (("a", 0.0), ("b", 0.02), ("c", 2.0))}
    assert rank_intervals(pairs_of(several)) == {"a": (2, 3), "b": (2, 3), "c": (1, 1)}
    sure = {name: drawn(gain, (0, 1, 2), seed=ord(name)) for name, gain in (("a", 0.0), ("b", 1.0), ("c", 2.0))}
    assert rank_intervals(pairs_of(sure)) == {"a": (3, 3), "b": (2, 2), "c": (1, 1)}


def test_repetitions_give_what_each_gives_alone():
    """The simulation's leading axis."""
    cells = rng().normal(size=(5, 3, 2, 8))
    together = [SceneScores(cells[:, merged], (0, 1), 1) for merged in range(3)]
    many = compare_paired({merged: (together[merged], together[0], seed_spread(together, None)) for merged in (1, 2)})
    for repeat in range(5):
        alone = [SceneScores(each, (0, 1), 1) for each in cells[repeat]]
        one = compare_paired({merged: (alone[merged], alone[0], seed_spread(alone, None)) for merged in (1, 2)})
        for merged in (1, 2):
            assert many[merged].interval.low[repeat] == pytest.approx(one[merged].interval.low)
            assert many[merged].p_holm[repeat] == pytest.approx(one[merged].p_holm)
            assert many[merged].detectable[repeat] == pytest.approx(one[merged].detectable)


def test_values_without_scenes_or_without_numbers_are_refused():
    with pytest.raises(ValueError, match="name of its scene"):
        means_by_scene(np.zeros(3), ["a"])
    with pytest.raises(ValueError, match="not finite"):
        means_by_scene(np.array([0, np.nan]), ["a", "b"])
    assert ALPHA == 0.05
