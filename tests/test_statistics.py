import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import permutation_test

from src import statistics
from src.statistics import (SHAPES, bootstrap_interval, compare, detectable_effect, holm, power_of, rank_intervals,
                            scene_deviation, scenes_needed, sign_flip_test, simulated_coverage, simulated_false_winners,
                            simulated_power, simulated_scenes, spread, standard_error)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_spread_agrees_with_its_formula():
    values = [1.0, 4.0, 7.5]
    mean = sum(values) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert spread(values) == {"mean": pytest.approx(mean), "std": pytest.approx(deviation), "n": 3}
    assert spread([2.0]) == {"mean": 2.0, "n": 1}
    with pytest.raises(ValueError, match="no values"):
        spread([])


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
    assert power_of(0.7, 1.0, 10) == pytest.approx((abs(t) > 2.262157).mean(), abs=0.01)
    assert simulated_power(12, 20000, rng(1)) == pytest.approx(0.8, abs=0.015)


def test_the_needed_scenes_are_the_fewest_with_enough_power():
    needed = scenes_needed(0.1, 0.35)
    assert power_of(0.1, 0.35, needed) >= 0.8 > power_of(0.1, 0.35, needed - 1)
    assert 0.35 * detectable_effect(needed) <= 0.1 < 0.35 * detectable_effect(needed - 1)
    assert scenes_needed(0.1, 0.0) == 5


def test_deviation_between_equal_scenes_is_that_of_their_means():
    values = rng().normal(size=(7, 3))
    scenes = [f"{i}" for i in range(7) for _ in range(3)]
    assert scene_deviation(values.ravel(), scenes) == pytest.approx(values.mean(1).std(ddof=1))
    assert scene_deviation(values[:4].ravel(), scenes[:12]) is None


def test_a_clear_difference_is_found_and_none_is_not():
    baseline, scenes = simulated_scenes(12, rng(4), "normal")
    noise = rng(5).normal(0, 0.2, len(baseline))
    arms = {"better": baseline + 1 + noise, "equal": baseline + noise - noise.mean()}
    results = compare(arms, baseline, scenes, rng(), 500)
    assert results["better"].distinguishable and not results["equal"].distinguishable
    assert results["better"].interval.low > 0.8 and results["better"].p_holm == 2 * results["better"].p == 4 / 2**12
    assert results["better"].detectable < 0.3


def test_an_arm_s_interval_does_not_depend_on_the_other_arms():
    baseline, names = simulated_scenes(20, rng(), "normal")
    arms = {name: baseline + shift + rng().normal(size=len(names)) for name, shift in (("a", 0.0), ("b", 1.0))}
    alone, beside = compare({"b": arms["b"]}, baseline, names, rng(), 500), compare(arms, baseline, names, rng(), 500)
    assert alone["b"].interval == beside["b"].interval and alone["b"].p == beside["b"].p


def test_rank_intervals_leave_open_what_the_tests_cannot_tell():
    baseline, scenes = simulated_scenes(12, rng(4), "normal")
    wobble = [rng(seed).normal(0, 0.3, len(baseline)) for seed in range(2)]
    arms = {"a": baseline, "b": baseline + wobble[0] - wobble[0].mean(), "c": baseline + 2 + wobble[1]}
    assert rank_intervals(arms, scenes, rng()) == {"a": (2, 3), "b": (2, 3), "c": (1, 1)}


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
    rank_intervals(arms, scenes, rng())
    assert len(seen) == 3
    for a, b in ("ab", "ac", "bc"):
        difference = arms[a] - arms[b]
        assert seen[difference.tobytes()] == real(difference, scenes, rng())


def test_values_without_scenes_or_without_numbers_are_refused():
    with pytest.raises(ValueError, match="name of its scene"):
        bootstrap_interval(np.zeros(3), ["a"], rng())
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_interval(np.array([0, np.nan]), ["a", "b"], rng())


def test_the_full_simulation_is_asked_for_by_name():
    result = subprocess.run([sys.executable, "-m", "src.statistics"], capture_output=True, text=True)
    assert result.returncode != 0 and "--simulate" in result.stderr
