"""How sure a mean or a difference is. Targets of one scene resemble each other: scenes are what is resampled. Where arms
were trained with several seeds, what another choice of seeds would change counts as well.
"""

import math
from collections.abc import Hashable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from scipy.optimize import brentq
from scipy.stats import chi2, norm
from scipy.stats import t as student

MIN_SCENES = 5  # below, no interval: the spread between scenes cannot be told from so few
MOST_SCENES = 100_000  # where the search for the needed number ends
EXACT_SCENES = 14  # up to 2^14 sign patterns are enumerated, above they are drawn
POWER, ALPHA = 0.8, 0.05
Arm = TypeVar("Arm", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """A mean over n targets in a number of scenes, and over training runs with as many seeds; low and high are None with
    fewer than MIN_SCENES scenes."""

    mean: float
    low: float | None
    high: float | None
    n: int
    scenes: int
    seeds: int = 1

    def holds(self, value: float) -> bool:
        """Whether the bounds are known and `value` lies between them."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high


@dataclass(frozen=True)
class Comparison:
    """One arm against another on the same targets and seeds. p as of `difference_test`, p_holm corrected for the number
    of arms that were tested together; detectable: the smallest true difference found with a power of about 0.8 among so
    many, None where these scenes cannot show any; scenes_for_tenth: scenes that 0.1 would need, None where with these
    seeds no number of them is sure to be enough."""

    interval: Interval
    p: float
    p_holm: float
    arms: int
    detectable: float | None
    scenes_for_tenth: int | None

    @property
    def distinguishable(self) -> bool:
        """Whether the corrected test and the interval both exclude no difference."""
        return self.interval.low is not None and self.p_holm < ALPHA and not self.interval.holds(0)


def mean_and_spread(values: np.ndarray | list[float]) -> dict[str, float | int]:
    """mean, std (of a sample, n - 1; absent for one value) and n."""
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        raise ValueError("The mean of no values was asked for; leave the metric out instead.")
    return {"mean": float(values.mean()), "n": len(values)} | (
        {"std": float(values.std(ddof=1))} if len(values) > 1 else {}
    )


def scene_sums(values: np.ndarray, scenes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each scene, (S,) and (S,); scenes in alphabetical order."""
    values = np.asarray(values, np.float64)
    if len(values) != len(scenes) or len(values) == 0:
        raise ValueError(f"Each value needs the name of its scene; got {len(values)} values and {len(scenes)} names.")
    if not np.isfinite(values).all():
        raise ValueError("Statistics were asked of values that are not finite; leave absent metrics out instead.")
    _, index = np.unique(scenes, return_inverse=True)
    return np.bincount(index, values), np.bincount(index).astype(np.float64)


def standard_error(sums: np.ndarray, counts: np.ndarray) -> float:
    """Standard error of sums.sum() / counts.sum() over scenes drawn at random, linearised   (Cochran 1977, ch. 6)."""
    residuals = sums - sums.sum() / counts.sum() * counts
    scenes = len(sums)
    return math.sqrt(scenes / (scenes - 1) * (residuals**2).sum()) / counts.sum()


def studentised(sums: np.ndarray, counts: np.ndarray, rng: Generator, resamples: int) -> np.ndarray:
    """(mean of a resample - mean) / standard error of the resample, (resamples,); scenes are drawn with replacement."""
    scenes = len(sums)
    drawn = rng.multinomial(scenes, np.full(scenes, 1 / scenes), resamples).astype(np.float64)
    means = drawn @ sums / (drawn @ counts)
    squares = drawn @ sums**2 - 2 * means * (drawn @ (sums * counts)) + means**2 * (drawn @ counts**2)
    errors = np.sqrt(scenes / (scenes - 1) * squares.clip(0)) / (drawn @ counts)
    shifts = means - sums.sum() / counts.sum()
    # one scene drawn throughout has no spread: an infinite t, except where the mean did not move either
    scale = np.abs(sums / counts).max() + 1e-300
    errors[errors < 1e-9 * scale] = 0
    shifts[np.abs(shifts) < 1e-9 * scale] = 0
    return np.divide(shifts, errors, out=np.where(shifts == 0, 0.0, np.copysign(np.inf, shifts)), where=errors > 0)


def bootstrap_interval(
    values: np.ndarray, scenes: list[str], rng: Generator, resamples: int = 2000, confidence: float = 0.95
) -> Interval:
    """Scene-clustered bootstrap interval of the mean, studentised and symmetric   (Hall 1988, On symmetric bootstrap
    confidence intervals: its coverage errs less than an equal-tailed one's).

    values (n,), scenes (n,) names; rng decides the resamples and so the last digits
    """
    sums, counts = scene_sums(values, scenes)
    mean = float(sums.sum() / counts.sum())
    if len(sums) < MIN_SCENES:
        return Interval(mean, None, None, len(values), len(sums))
    distances = np.sort(np.abs(studentised(sums, counts, rng, resamples)))
    reach = distances[min(resamples, math.ceil(confidence * (resamples + 1))) - 1]
    if not math.isfinite(reach):
        return Interval(mean, None, None, len(values), len(sums))
    half = float(reach) * standard_error(sums, counts)
    return Interval(mean, mean - half, mean + half, len(values), len(sums))


@lru_cache(4)
def all_signs(scenes: int) -> np.ndarray:
    """Every pattern of signs, (2^scenes, scenes)."""
    return 1.0 - 2.0 * (np.arange(2**scenes)[:, None] >> np.arange(scenes) & 1)


def sign_flip_test(differences: np.ndarray, scenes: list[str], rng: Generator, draws: int = 20000) -> float:
    """p of "no difference", two-sided: how often flipping the sign of whole scenes moves the mean as far from 0
    (Fisher's randomisation test). Exact up to 14 scenes, where rng is not touched."""
    sums, _ = scene_sums(differences, scenes)
    exact = len(sums) <= EXACT_SCENES
    signs = all_signs(len(sums)) if exact else rng.choice([-1.0, 1.0], (draws, len(sums)))
    reached = np.abs(signs @ sums) >= np.abs(sums.sum()) * (1 - 1e-9)
    return float(reached.mean()) if exact else float((reached.sum() + 1) / (draws + 1))


def holm(p_values: list[float]) -> list[float]:
    """p values corrected for their number, in the same order   (Holm 1979, A simple sequentially rejective test)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def seed_error(differences: np.ndarray) -> float:
    """Standard error over training seeds of the mean of differences (K, n), for K seeds and n targets; 0 for one seed,
    which tells nothing about others."""
    means = differences.mean(1)
    return float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0


@lru_cache(1024)
def estimated_errors(freedom: float, count: int = 1000) -> np.ndarray:
    """Standard errors that might be estimated where the true one is 1: so many quantiles of their distribution."""
    return np.sqrt(chi2.ppf((np.arange(count) + 0.5) / count, freedom) / freedom)


@lru_cache(1024)
def student_reach(alpha: float, freedom: int) -> float:
    """Half-width, in standard errors, of an interval that misses the truth with probability alpha."""
    return float(student.ppf(1 - alpha / 2, freedom))


@dataclass(frozen=True)
class Errors:
    """Standard errors of a mean difference from the choice of scenes and from that of seeds, and the numbers of both.
    What differs between seeds from scene to scene is in both, so that together they err towards caution."""

    over_scenes: float
    scenes: int
    over_seeds: float = 0.0
    seeds: int = 1

    @property
    def total(self) -> float:
        return math.hypot(self.over_scenes, self.over_seeds)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the total   (Satterthwaite 1946, An approximate distribution of estimates of variance
        components)."""
        if self.over_seeds == 0:
            return self.scenes - 1
        parts = self.over_scenes**4 / (self.scenes - 1) + self.over_seeds**4 / (self.seeds - 1)
        return self.total**4 / parts

    def reach(self, alpha: float) -> float:
        """Half-width of an interval that misses the truth with probability alpha: Student's half-widths over scenes and
        over seeds add as squares   (Howe 1974, Approximate confidence limits on the mean of X + Y)."""
        over_scenes = student_reach(alpha, self.scenes - 1) * self.over_scenes
        over_seeds = student_reach(alpha, self.seeds - 1) * self.over_seeds if self.over_seeds else 0.0
        return math.hypot(over_scenes, over_seeds)

    def p(self, mean: float) -> float:
        """The alpha whose interval around `mean` just reaches 0."""
        if abs(mean) >= self.reach(1e-12):
            return 1e-12
        return float(brentq(lambda alpha: self.reach(alpha) - abs(mean), 1e-12, 1.0, xtol=1e-12))

    def power(self, effect: float, alpha: float = ALPHA) -> float:
        """Chance to find a true `effect` at alpha; 0 where even the smallest p of the sign-flip test is larger."""
        if 2 / 2**self.scenes >= alpha:
            return 0.0
        if self.total == 0:
            return 1.0
        limit, shift = self.reach(alpha) / self.total, effect / self.total
        estimated = estimated_errors(self.freedom)  # noncentral t, as a mean over the errors that could be estimated
        return float((norm.sf(limit * estimated - shift) + norm.cdf(-limit * estimated - shift)).mean())

    def detectable(self, alpha: float = ALPHA) -> float | None:
        """Smallest true effect found at alpha with a chance of POWER; None where none is."""
        most = 2 * self.reach(alpha) + 8 * self.total  # surely found if any is
        if self.power(most, alpha) < POWER:
            return None
        return float(brentq(lambda effect: self.power(effect, alpha) - POWER, 0.0, most)) if self.total else 0.0


def difference_interval(
    differences: np.ndarray, scenes: list[str], rng: Generator, resamples: int = 2000, confidence: float = 0.95
) -> Interval:
    """Interval of the mean of differences (K, n), for K training seeds and n targets: that over scenes of what the seeds
    have in common, widened by Student's interval over seeds (half-widths add as squares)."""
    interval = replace(
        bootstrap_interval(differences.mean(0), scenes, rng, resamples, confidence), seeds=len(differences)
    )
    if interval.seeds == 1 or interval.high is None:
        return interval
    over_seeds = student_reach(1 - confidence, interval.seeds - 1) * seed_error(differences)
    half = math.hypot(interval.high - interval.mean, over_seeds)
    return replace(interval, low=interval.mean - half, high=interval.mean + half)


def scene_deviation(differences: np.ndarray, scenes: list[str]) -> float | None:
    """Standard deviation between scenes behind the standard error of the mean; None with fewer than MIN_SCENES."""
    sums, counts = scene_sums(differences, scenes)
    return standard_error(sums, counts) * math.sqrt(len(sums)) if len(sums) >= MIN_SCENES else None


def errors_of(differences: np.ndarray, scenes: list[str]) -> Errors | None:
    """Of the mean of differences (K, n), for K training seeds and n targets; None with fewer than MIN_SCENES."""
    deviation, count = scene_deviation(differences.mean(0), scenes), len(set(scenes))
    if deviation is None:
        return None
    return Errors(deviation / math.sqrt(count), count, seed_error(differences), len(differences))


def difference_test(differences: np.ndarray, scenes: list[str], rng: Generator) -> float:
    """p of "no difference" for differences (K, n): of the sign-flip test over scenes, and with K > 1 seeds the larger of
    that and of the test that the interval over scenes and seeds amounts to."""
    mean = differences.mean(0)
    p, errors = sign_flip_test(mean, scenes, rng), errors_of(differences, scenes)
    return p if errors is None or errors.over_seeds == 0 else max(p, errors.p(float(mean.mean())))


def scenes_needed(effect: float, errors: Errors, alpha: float = ALPHA) -> int | None:
    """Smallest number of scenes (at least MIN_SCENES) that finds a true `effect` at alpha with a power of 0.8, with the
    seeds and the deviation between scenes that there are; None where MOST_SCENES are too few."""

    def enough(scenes: int) -> bool:
        over_scenes = errors.over_scenes * math.sqrt(errors.scenes / scenes)
        return replace(errors, over_scenes=over_scenes, scenes=scenes).power(effect, alpha) >= POWER

    low, high = MIN_SCENES - 1, MIN_SCENES
    while not enough(high):
        low, high = high, 2 * high
        if low > MOST_SCENES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def compare_paired(
    differences: dict[Arm, np.ndarray],
    scenes: list[str],
    rng: Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> dict[Arm, Comparison]:
    """What arms differ by from one baseline, or the arms of pairs from each other, each (n,) on the same n targets or
    (K, n) with K seeds; p values are corrected over the arms, and power is that of an arm whose p is the smallest (Holm's
    first step). Every arm sees the same draws, so that its interval does not depend on which others there are."""
    arms = {name: np.atleast_2d(np.asarray(values, np.float64)) for name, values in differences.items()}
    tests = [difference_test(values, scenes, deepcopy(rng)) for values in arms.values()]
    comparisons, alpha = {}, ALPHA / max(1, len(arms))
    for (name, values), p, p_holm in zip(arms.items(), tests, holm(tests)):
        interval = difference_interval(values, scenes, deepcopy(rng), resamples, confidence)
        errors = errors_of(values, scenes)
        comparisons[name] = Comparison(
            interval,
            p,
            p_holm,
            len(arms),
            errors.detectable(alpha) if errors else None,
            scenes_needed(0.1, errors, alpha) if errors else None,
        )
    return comparisons


def rank_intervals(
    differences: dict[tuple[str, str], np.ndarray], scenes: list[str], rng: Generator
) -> dict[str, tuple[int, int]]:
    """Best and worst rank (1 = highest mean) of each arm that its pairwise comparisons leave open, all at once with 95 %
    (Mogstad et al. 2024, Inference for Ranks, with Holm-corrected tests).

    differences    of every pair of arms, first minus second: (n,), or (K, n) with K seeds
    """
    better = {name: 0 for pair in differences for name in pair}  # arms that are surely better than this one
    worse = dict(better)
    for pair, comparison in compare_paired(differences, scenes, rng).items():
        if comparison.distinguishable:
            winner, loser = pair if comparison.interval.mean > 0 else pair[::-1]
            better[loser] += 1
            worse[winner] += 1
    return {name: (1 + better[name], len(better) - worse[name]) for name in better}
