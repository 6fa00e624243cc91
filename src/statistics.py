"""How sure a mean or a difference is. Targets of one scene resemble each other: scenes are what is resampled.

`python -m src.statistics --simulate` prints how often the intervals hold the truth and how often the tests cry wolf.
"""

import math
import sys
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.random import Generator
from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

MIN_SCENES = 5  # below, no interval: the spread between scenes cannot be told from so few
EXACT_SCENES = 14  # up to 2^14 sign patterns are enumerated, above they are drawn
POWER, ALPHA = 0.8, 0.05
SHAPES = ("normal", "skewed", "heavy-tailed")  # of simulated effects between scenes


@dataclass(frozen=True)
class Interval:
    """A mean over n targets in a number of scenes; low and high are None with fewer than MIN_SCENES scenes."""

    mean: float
    low: float | None
    high: float | None
    n: int
    scenes: int


@dataclass(frozen=True)
class Comparison:
    """One arm against another on the same targets. p is of the sign-flip test, p_holm corrected for the number of arms;
    detectable: the smallest true difference found with a power of 0.8; scenes_for_tenth: scenes that 0.1 would need."""

    interval: Interval
    p: float
    p_holm: float
    detectable: float | None
    scenes_for_tenth: int | None

    @property
    def distinguishable(self) -> bool:
        """Whether the corrected test and the interval both exclude no difference."""
        low, high = self.interval.low, self.interval.high
        return low is not None and self.p_holm < ALPHA and not low <= 0 <= high


def spread(values: np.ndarray | list[float]) -> dict[str, float | int]:
    """mean, std (of a sample, n - 1; absent for one value) and n."""
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        raise ValueError("The mean of no values was asked for; leave the metric out instead.")
    return {"mean": float(values.mean()), "n": len(values)} | (
        {"std": float(values.std(ddof=1))} if len(values) > 1 else {})


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


def bootstrap_interval(values: np.ndarray, scenes: list[str], rng: Generator, resamples: int = 2000,
                       confidence: float = 0.95) -> Interval:
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


def power_of(effect: float, deviation: float, scenes: int) -> float:
    """Chance that a two-sided t test at 0.05 over `scenes` scenes finds a true `effect`; deviation between scenes."""
    limit, freedom = student.ppf(1 - ALPHA / 2, scenes - 1), scenes - 1
    shift = min(effect * math.sqrt(scenes) / deviation, 8.0)  # there the power is 1, and beyond nct loses its footing
    return float(nct.sf(limit, freedom, shift) + nct.cdf(-limit, freedom, shift))


def scene_deviation(differences: np.ndarray, scenes: list[str]) -> float | None:
    """Standard deviation between scenes behind the standard error of the mean; None with fewer than MIN_SCENES."""
    sums, counts = scene_sums(differences, scenes)
    return standard_error(sums, counts) * math.sqrt(len(sums)) if len(sums) >= MIN_SCENES else None


@lru_cache(64)
def detectable_effect(scenes: int) -> float:
    """Smallest true difference found with a power of 0.8, in standard deviations between scenes."""
    return float(brentq(lambda effect: power_of(effect, 1.0, scenes) - POWER, 0.0, 8 / math.sqrt(scenes)))


def scenes_needed(effect: float, deviation: float) -> int:
    """Smallest number of scenes (at least MIN_SCENES) that finds a true `effect` with a power of 0.8."""
    low, high = MIN_SCENES - 1, MIN_SCENES
    if deviation == 0:
        return MIN_SCENES
    while power_of(effect, deviation, high) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(effect, deviation, middle) >= POWER else (middle, high)
    return high


def compare(arms: dict[str, np.ndarray], baseline: np.ndarray, scenes: list[str], rng: Generator,
            resamples: int = 2000, confidence: float = 0.95) -> dict[str, Comparison]:
    """Each arm minus the baseline, all (n,) on the same n targets; p values are corrected over the arms. Every arm sees
    the same draws, so that its interval does not depend on which others are there."""
    differences = {name: np.asarray(values, np.float64) - baseline for name, values in arms.items()}
    tests = [sign_flip_test(difference, scenes, deepcopy(rng)) for difference in differences.values()]
    comparisons = {}
    for (name, difference), p, p_holm in zip(differences.items(), tests, holm(tests)):
        interval = bootstrap_interval(difference, scenes, deepcopy(rng), resamples, confidence)
        deviation = scene_deviation(difference, scenes)
        detectable = None if deviation is None else deviation * detectable_effect(interval.scenes)
        needed = None if deviation is None else scenes_needed(0.1, deviation)
        comparisons[name] = Comparison(interval, p, p_holm, detectable, needed)
    return comparisons


def rank_intervals(arms: dict[str, np.ndarray], scenes: list[str], rng: Generator) -> dict[str, tuple[int, int]]:
    """Best and worst rank (1 = highest mean) of each arm that its pairwise tests leave open, all at once with 95 %
    (Mogstad et al. 2024, Inference for Ranks, with Holm-corrected sign-flip tests); every pair sees the same draws."""
    pairs = list(combinations(arms, 2))
    differences = {(a, b): np.asarray(arms[a], np.float64) - arms[b] for a, b in pairs}
    adjusted = holm([sign_flip_test(differences[pair], scenes, deepcopy(rng)) for pair in pairs])
    better = {name: 0 for name in arms}  # arms that are surely better than this one
    worse = dict(better)
    for (a, b), p in zip(pairs, adjusted):
        if p < ALPHA:
            winner, loser = (a, b) if differences[a, b].mean() > 0 else (b, a)
            better[loser] += 1
            worse[winner] += 1
    return {name: (1 + better[name], len(arms) - worse[name]) for name in arms}


def simulated_scenes(scenes: int, rng: Generator, shape: str) -> tuple[np.ndarray, list[str]]:
    """Differences whose true mean is 0, 4 to 16 targets per scene, with effects between scenes of a named shape."""
    counts = rng.integers(4, 17, scenes)
    effects = {"normal": lambda: rng.normal(size=scenes), "skewed": lambda: rng.gamma(4, 0.5, scenes) - 2,
               "heavy-tailed": lambda: rng.standard_t(5, scenes) / math.sqrt(5 / 3)}[shape]()
    names = np.repeat(np.arange(scenes), counts)
    return effects[names] + rng.normal(size=len(names)), [f"{name:03d}" for name in names]


def simulated_coverage(scenes: int, shape: str, repeats: int, resamples: int, rng: Generator) -> float:
    """Share of intervals that hold the true mean."""
    held = 0
    for _ in range(repeats):
        interval = bootstrap_interval(*simulated_scenes(scenes, rng, shape), rng, resamples)
        held += interval.low is not None and interval.low <= 0 <= interval.high
    return held / repeats


def simulated_false_winners(scenes: int, arms: int, repeats: int, resamples: int, rng: Generator) -> float:
    """Share of comparisons of equal arms with a baseline, on shared targets, that call some arm different."""
    found = 0
    for _ in range(repeats):
        baseline, names = simulated_scenes(scenes, rng, "normal")
        equals = {str(arm): baseline + rng.normal(size=scenes)[np.unique(names, return_inverse=True)[1]]
                  + rng.normal(size=len(names)) for arm in range(arms)}
        found += any(result.distinguishable for result in compare(equals, baseline, names, rng, resamples).values())
    return found / repeats


def simulated_power(scenes: int, repeats: int, rng: Generator) -> float:
    """Share of true differences as large as `detectable_effect` says that a t test over scene means finds: 0.8."""
    effect = detectable_effect(scenes)
    samples = effect + rng.normal(size=(repeats, scenes))
    t = samples.mean(1) / samples.std(1, ddof=1) * math.sqrt(scenes)
    return float((np.abs(t) > student.ppf(1 - ALPHA / 2, scenes - 1)).mean())


def main(words: list[str]) -> None:
    if words != ["--simulate"]:
        sys.exit("usage: python -m src.statistics --simulate")
    rng = np.random.default_rng(0)
    print("coverage of 95 % intervals (4000 repeats, 1000 resamples)")
    for scenes in (6, 12, 24, 48):
        shares = {shape: simulated_coverage(scenes, shape, 4000, 1000, rng) for shape in SHAPES}
        print(f"  {scenes:3d} scenes  " + "  ".join(f"{shape} {100 * share:.1f} %" for shape, share in shares.items()))
    print("equal arms, some called different (2000 repeats)")
    for scenes in (6, 12, 24):
        print(f"  {scenes:3d} scenes  4 arms  {100 * simulated_false_winners(scenes, 4, 2000, 500, rng):.1f} %")
    print(f"power at the detectable effect, 12 scenes: {100 * simulated_power(12, 20000, rng):.1f} %")


if __name__ == "__main__":
    main(sys.argv[1:])
