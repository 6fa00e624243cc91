import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import nct, permutation_test
from scipy.stats import t as student

from src.results import statistics
from src.results.simulate import (
    SHAPES,
    simulated_coverage,
    simulated_false_winners,
    simulated_power,
    simulated_scenes,
    simulated_seeds,
)
from src.results.statistics import (
    Errors,
    bootstrap_interval,
    compare_paired,
    difference_interval,
    errors_of,
    holm,
    mean_and_spread,
    rank_intervals,
    scene_deviation,
    scenes_needed,
    sign_flip_test,
    standard_error,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_spread_agrees_with_its_formula():
    values = [1.0, 4.0, 7.5]
    mean = sum(values) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert mean_and_spread(values) == {"mean": pytest.approx(mean), "std": pytest.approx(deviation), "n": 3}
    assert mean_and_spread([2.0]) == {"mean": 2.0, "n": 1}
    with pytest.raises(ValueError, match="no values"):
        mean_and_spread([])


def test_standard_error_of_equal_scenes_is_that_of_their_means():
    values = rng().normal(size=(9, 4))
    expected = values.mean(1).std(ddof=1) / math.sqrt(9)
    assert standard_error(values.sum(1), np.full(9, 4.0)) == pytest.approx(expected)


def test_interval_agrees_with_a_loop_over_resamples():
    values, scenes = simulated_scenes(9, rng(3), "normal")
    interval = bootstrap_interval(values, scenes, rng(), 20000)
    names, generator, distances = sorted(set(scenes)), rng(1), []
    groups = [values[np.array(scenes) == name] for name in names]

    def mean_and_error(drawn):
        total = np.concatenate(drawn)
        residuals = [group.sum() - total.mean() * len(group) for group in drawn]
        return total.mean(), math.sqrt(9 / 8 * sum(r * r for r in residuals)) / len(total)

    centre, error = mean_and_error(groups)
    for _ in range(4000):
        drawn_mean, drawn_error = mean_and_error([groups[i] for i in generator.integers(0, 9, 9)])
        distances.append(abs(drawn_mean - centre) / drawn_error)
    half = np.quantile(distances, 0.95) * error
    assert interval.mean == pytest.approx(centre)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.06)
    assert interval.mean - interval.low == pytest.approx(interval.high - interval.mean)
    assert (interval.n, interval.scenes) == (len(values), 9)


@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_hold_the_truth_as_often_as_they_say(shape):
    assert 0.93 <= simulated_coverage(12, shape, 4000, 400, rng(1)) <= 0.97


def test_equal_arms_are_seldom_called_different():
    assert simulated_false_winners(12, 3, 300, 300, rng(2)) <= 0.05


def test_intervals_do_not_depend_on_the_order_of_the_targets():
    values, scenes = simulated_scenes(8, rng(5), "normal")
    order = rng(6).permutation(len(values))
    shuffled = bootstrap_interval(values[order], [scenes[i] for i in order], rng(), 500)
    assert shuffled.low == pytest.approx(bootstrap_interval(values, scenes, rng(), 500).low)


def test_four_scenes_are_too_few_for_an_interval():
    values, scenes = simulated_scenes(4, rng(), "normal")
    interval = bootstrap_interval(values, scenes, rng())
    assert interval.low is None and interval.high is None and interval.mean == pytest.approx(values.mean())


def test_no_difference_at_all_has_an_interval_of_no_width():
    interval = bootstrap_interval(np.zeros(12), [str(i // 2) for i in range(12)], rng(), 200)
    assert (interval.low, interval.mean, interval.high) == (0, 0, 0)
    assert sign_flip_test(np.zeros(12), [str(i // 2) for i in range(12)], rng()) == 1


def test_sign_flips_agree_with_scipy():
    values, scenes = simulated_scenes(10, rng(7), "normal")
    values = values + 0.4
    sums = np.array([values[np.array(scenes) == name].sum() for name in sorted(set(scenes))])
    expected = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_test(values, scenes, rng()) == pytest.approx(expected)


def test_drawn_sign_flips_agree_with_a_normal_approximation():
    values, scenes = simulated_scenes(40, rng(8), "normal")
    values = values + 0.2
    sums = np.array([values[np.array(scenes) == name].sum() for name in sorted(set(scenes))])
    expected = math.erfc(abs(sums.sum()) / math.sqrt((sums**2).sum()) / math.sqrt(2))
    assert sign_flip_test(values, scenes, rng()) == pytest.approx(expected, abs=0.02)


def test_holm_agrees_with_a_published_example():
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")"""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_power_and_detectable_effect_agree_with_simulation():
    samples = 0.7 + rng().normal(size=(40000, 10))
    t = samples.mean(1) / samples.std(1, ddof=1) * math.sqrt(10)
    errors = Errors(1 / math.sqrt(10), 10)
    assert errors.power(0.7) == pytest.approx((abs(t) > 2.262157).mean(), abs=0.01)
    assert errors.power(0.7) == pytest.approx(nct.sf(2.262157, 9, 0.7 * math.sqrt(10)), abs=1e-3)
    assert errors.power(errors.detectable()) == pytest.approx(0.8, abs=1e-6)
    assert simulated_power(12, 20000, rng(1)) == pytest.approx(0.8, abs=0.015)


def test_the_needed_scenes_are_the_fewest_with_enough_power():
    def errors(scenes, over_seeds=0.0):
        return Errors(0.35 / math.sqrt(scenes), scenes, over_seeds, 3)

    for over_seeds in (0.0, 0.01):
        needed = scenes_needed(0.1, errors(16, over_seeds))
        assert errors(needed, over_seeds).power(0.1) >= 0.8 > errors(needed - 1, over_seeds).power(0.1)
        assert errors(needed, over_seeds).detectable() <= 0.1 < errors(needed - 1, over_seeds).detectable()
    assert scenes_needed(0.1, errors(16, 0.01)) > scenes_needed(0.1, errors(16))
    assert scenes_needed(0.1, errors(16, 0.1)) is None  # three seeds so far apart hide 0.1 behind any number of scenes
    assert scenes_needed(0.1, Errors(0.0, 16)) == 6  # 2 / 2^5 is not below 0.05


def test_power_is_that_of_the_corrected_test_and_of_no_p_below_the_sign_flips_smallest():
    errors = Errors(1 / math.sqrt(10), 10)
    assert errors.power(0.7, 0.05 / 4) == pytest.approx(
        nct.sf(student.ppf(1 - 0.05 / 8, 9), 9, 0.7 * math.sqrt(10)), abs=1e-3
    )
    assert errors.power(errors.detectable(0.05 / 4), 0.05 / 4) == pytest.approx(0.8, abs=1e-6)
    assert (
        Errors(0.0, 5).power(100.0) == 0 and Errors(0.1, 5).detectable() is Errors(0.1, 6).detectable(0.05 / 2) is None
    )
    assert Errors(0.0, 6).power(100.0) == 1 and Errors(0.0, 6).detectable() == 0 and Errors(0.1, 6).detectable() > 0
    noise, scenes = simulated_scenes(6, rng(4), "normal")
    sure = compare_paired({"a": 10 + 0.01 * noise, "b": 10 - 0.01 * noise}, scenes, rng(), 300)
    assert not sure["a"].distinguishable and sure["a"].arms == 2 and sure["a"].detectable is None
    assert (
        sure["a"].scenes_for_tenth == 7
        and compare_paired({"a": 10 + 0.01 * noise}, scenes, rng(), 300)["a"].distinguishable
    )


def test_deviation_between_equal_scenes_is_that_of_their_means():
    values = rng().normal(size=(7, 3))
    scenes = [f"{i}" for i in range(7) for _ in range(3)]
    assert scene_deviation(values.ravel(), scenes) == pytest.approx(values.mean(1).std(ddof=1))
    assert scene_deviation(values[:4].ravel(), scenes[:12]) is None


def test_a_clear_difference_is_found_and_none_is_not():
    baseline, scenes = simulated_scenes(12, rng(4), "normal")
    noise = rng(5).normal(0, 0.2, len(baseline))
    results = compare_paired({"better": 1 + noise, "equal": noise - noise.mean()}, scenes, rng(), 500)
    assert results["better"].distinguishable and not results["equal"].distinguishable
    assert results["better"].interval.low > 0.8 and results["better"].p_holm == 2 * results["better"].p == 4 / 2**12
    assert results["better"].detectable < 0.3


def test_an_arm_s_interval_does_not_depend_on_the_other_arms():
    baseline, names = simulated_scenes(20, rng(), "normal")
    arms = {name: shift + rng().normal(size=len(names)) for name, shift in (("a", 0.0), ("b", 1.0))}
    alone, beside = compare_paired({"b": arms["b"]}, names, rng(), 500), compare_paired(arms, names, rng(), 500)
    assert alone["b"].interval == beside["b"].interval and alone["b"].p == beside["b"].p


def pairs_of(arms: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    return {(a, b): arms[a] - arms[b] for a, b in itertools.combinations(arms, 2)}


def test_rank_intervals_leave_open_what_the_tests_cannot_tell():
    baseline, scenes = simulated_scenes(12, rng(4), "normal")
    wobble = [rng(seed).normal(0, 0.3, len(baseline)) for seed in range(2)]
    arms = {"a": baseline, "b": baseline + wobble[0] - wobble[0].mean(), "c": baseline + 2 + wobble[1]}
    assert rank_intervals(pairs_of(arms), scenes, rng()) == {"a": (2, 3), "b": (2, 3), "c": (1, 1)}


def test_every_pair_of_a_ranking_sees_the_same_draws(monkeypatch):
    """With more scenes than can be flipped in every way, where the test draws."""
    baseline, scenes = simulated_scenes(20, rng(4), "normal")
    arms = {name: baseline + rng(seed).normal(0, 0.3, len(baseline)) for seed, name in enumerate("abc")}
    seen = {}
    real = statistics.sign_flip_test

    def recorded(differences, *rest):
        seen[differences.tobytes()] = real(differences, *rest)
        return seen[differences.tobytes()]

    monkeypatch.setattr(statistics, "sign_flip_test", recorded)
    rank_intervals(pairs_of(arms), scenes, rng())
    assert len(seen) == 3
    for a, b in ("ab", "ac", "bc"):
        difference = arms[a] - arms[b]
        assert seen[difference.tobytes()] == real(difference, scenes, rng())


def test_a_ranking_calls_no_arms_different_whose_comparison_does_not(monkeypatch):
    baseline, scenes = simulated_scenes(12, rng(4), "normal")
    arms = {name: baseline + shift for name, shift in (("a", 0.0), ("b", 1.0), ("c", 2.0))}
    assert rank_intervals(pairs_of(arms), scenes, rng()) == {"a": (3, 3), "b": (2, 2), "c": (1, 1)}
    wide = statistics.Interval(1.0, -1.0, 3.0, len(baseline), 12)
    monkeypatch.setattr(statistics, "difference_interval", lambda *_: wide)
    assert set(rank_intervals(pairs_of(arms), scenes, rng()).values()) == {(1, 3)}


def test_seeds_widen_the_interval_as_student_s_over_their_means_would():
    shared, scenes = simulated_scenes(9, rng(3), "normal")
    differences = shared + np.array([[-0.7], [0.1], [0.6]])
    found = difference_interval(differences, scenes, rng(), 500)
    over_scenes = bootstrap_interval(shared, scenes, rng(), 500)
    over_seeds = student(2, 0, np.std([-0.7, 0.1, 0.6], ddof=1) / math.sqrt(3)).interval(0.95)[1]
    assert found.mean == pytest.approx(over_scenes.mean) and (found.n, found.scenes, found.seeds) == (len(shared), 9, 3)
    assert (found.high - found.mean) ** 2 == pytest.approx((over_scenes.high - over_scenes.mean) ** 2 + over_seeds**2)
    assert found.high - found.mean == pytest.approx(found.mean - found.low)
    assert difference_interval(shared[None], scenes, rng(), 500) == over_scenes


def test_a_difference_that_seeds_do_not_share_is_not_called_one():
    noise, scenes = simulated_scenes(16, rng(4), "normal")
    agreed, chance = (0.01 * noise + np.array(means)[:, None] for means in ([0.3, 0.31, 0.29], [1.0, -0.4, 0.3]))
    assert compare_paired({"a": agreed}, scenes, rng(), 300)["a"].distinguishable
    one, several = (compare_paired({"a": values}, scenes, rng(), 300)["a"] for values in (chance[:1], chance))
    assert one.distinguishable and not several.distinguishable and several.p > 0.2 > 0.001 > one.p
    assert several.detectable > 10 * one.detectable and several.scenes_for_tenth is None
    assert rank_intervals({("a", "b"): chance, ("a", "c"): agreed, ("b", "c"): agreed}, scenes, rng()) == {
        "a": (1, 2),
        "b": (1, 2),
        "c": (3, 3),
    }


def test_p_over_scenes_and_seeds_is_where_the_interval_reaches_zero():
    errors = Errors(0.1, 16, 0.05, 3)
    alpha = errors.p(0.35)
    halves = [student.ppf(1 - alpha / 2, freedom) * error for freedom, error in ((15, 0.1), (2, 0.05))]
    assert math.hypot(*halves) == pytest.approx(0.35)
    assert Errors(0.1, 16).p(0.35) == pytest.approx(2 * student.sf(3.5, 15))
    assert errors.p(0.0) == pytest.approx(1.0) and errors.p(1e9) < 1e-11


def test_errors_are_those_of_scene_means_and_of_seed_means():
    values = rng().normal(size=(3, 7, 4))
    found = errors_of(values.reshape(3, 28), [f"{i}" for i in range(7) for _ in range(4)])
    assert found.over_scenes == pytest.approx(values.mean((0, 2)).std(ddof=1) / math.sqrt(7))
    assert found.over_seeds == pytest.approx(values.mean((1, 2)).std(ddof=1) / math.sqrt(3))
    assert (found.scenes, found.seeds) == (7, 3) and 2 <= found.freedom <= 8
    equal = Errors(0.1, 9, 0.1, 9)  # two parts as large have twice the degrees of freedom
    assert equal.freedom == pytest.approx(16) and equal.total == pytest.approx(0.1 * math.sqrt(2))


def test_intervals_over_seeds_hold_the_truth_and_cry_wolf_no_more_than_they_say():
    for seeds, between in ((2, 1.0), (3, 0.0), (3, 0.3), (5, 1.0)):
        held, found = simulated_seeds(12, seeds, between, 400, 200, rng(1))
        assert held >= 0.93 and found <= 0.07, (seeds, between)


def test_values_without_scenes_or_without_numbers_are_refused():
    with pytest.raises(ValueError, match="name of its scene"):
        bootstrap_interval(np.zeros(3), ["a"], rng())
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_interval(np.array([0, np.nan]), ["a", "b"], rng())


def test_the_full_simulation_takes_no_words_and_the_old_name_says_the_new_one():
    for words, said in (
        (["src.results.simulate", "x"], "simulate"),
        (["src.statistics"], "python -m src.results.simulate"),
    ):
        result = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
        assert result.returncode != 0 and said in result.stderr
