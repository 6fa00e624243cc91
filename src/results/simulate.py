"""How often intervals hold the truth and tests cry wolf, by simulation with the real functions.

    python -m src.results.simulate

Prints the table; takes minutes.
"""

import math

import numpy as np
from numpy.random import Generator
from scipy.stats import t as student

from src.results.statistics import (
    ALPHA,
    MIN_SCENES,
    Errors,
    bootstrap_interval,
    compare_paired,
    difference_interval,
    difference_test,
)
from src.run import Words

SHAPES = ("normal", "skewed", "heavy-tailed")  # of simulated effects between scenes


def simulated_scenes(scenes: int, rng: Generator, shape: str) -> tuple[np.ndarray, list[str]]:
    """Differences whose true mean is 0, 4 to 16 targets per scene, with effects between scenes of a named shape."""
    counts = rng.integers(4, 17, scenes)
    effects = {
        "normal": lambda: rng.normal(size=scenes),
        "skewed": lambda: rng.gamma(4, 0.5, scenes) - 2,
        "heavy-tailed": lambda: rng.standard_t(5, scenes) / math.sqrt(5 / 3),
    }[shape]()
    names = np.repeat(np.arange(scenes), counts)
    return effects[names] + rng.normal(size=len(names)), [f"{name:03d}" for name in names]


def simulated_coverage(scenes: int, shape: str, repeats: int, resamples: int, rng: Generator) -> float:
    """Share of intervals that hold the true mean."""
    held = 0
    for _ in range(repeats):
        interval = bootstrap_interval(*simulated_scenes(scenes, rng, shape), rng, resamples)
        held += interval.holds(0)
    return held / repeats


def simulated_false_winners(scenes: int, arms: int, repeats: int, resamples: int, rng: Generator) -> float:
    """Share of comparisons of equal arms with a baseline, on shared targets, that call some arm different."""
    found = 0
    for _ in range(repeats):
        _, names = simulated_scenes(scenes, rng, "normal")
        equals = {
            str(arm): rng.normal(size=scenes)[np.unique(names, return_inverse=True)[1]] + rng.normal(size=len(names))
            for arm in range(arms)
        }
        found += any(result.distinguishable for result in compare_paired(equals, names, rng, resamples).values())
    return found / repeats


def simulated_seeds(
    scenes: int, seeds: int, between: float, repeats: int, resamples: int, rng: Generator
) -> tuple[float, float]:
    """Share of intervals over scenes and seeds that hold the true mean, and share of tests below ALPHA although it is 0;
    between: standard deviation between seeds, where that between scenes is 1, and 0.5 between seeds on one scene."""
    held = found = 0
    for _ in range(repeats):
        shared, names = simulated_scenes(scenes, rng, "normal")
        own = 0.5 * rng.normal(size=(seeds, scenes))[:, np.unique(names, return_inverse=True)[1]]
        differences = shared + between * rng.normal(size=(seeds, 1)) + own
        interval = difference_interval(differences, names, rng, resamples)
        held += interval.holds(0)
        found += difference_test(differences, names, rng) < ALPHA
    return held / repeats, found / repeats


def simulated_power(scenes: int, repeats: int, rng: Generator) -> float:
    """Share of true differences as large as `Errors.detectable` says that a t test over scene means finds: 0.8."""
    effect = Errors(1 / math.sqrt(scenes), scenes).detectable()
    if effect is None:
        raise ValueError(f"{scenes} scenes show no difference, however large; simulate at least {MIN_SCENES}.")
    samples = effect + rng.normal(size=(repeats, scenes))
    t = samples.mean(1) / samples.std(1, ddof=1) * math.sqrt(scenes)
    return float((np.abs(t) > student.ppf(1 - ALPHA / 2, scenes - 1)).mean())


def main() -> None:
    rng = np.random.default_rng(0)
    print("coverage of 95 % intervals (4000 repeats, 1000 resamples)")
    for scenes in (6, 12, 24, 48):
        shares = {shape: simulated_coverage(scenes, shape, 4000, 1000, rng) for shape in SHAPES}
        print(f"  {scenes:3d} scenes  " + "  ".join(f"{shape} {100 * share:.1f} %" for shape, share in shares.items()))
    print("equal arms, some called different (2000 repeats)")
    for scenes in (6, 12, 24):
        print(f"  {scenes:3d} scenes  4 arms  {100 * simulated_false_winners(scenes, 4, 2000, 500, rng):.1f} %")
    print("intervals over 12 scenes and several seeds that hold the truth, equal arms called different (2000 repeats)")
    for seeds in (2, 3, 5):
        rates = [simulated_seeds(12, seeds, between, 2000, 500, rng) for between in (0.0, 0.3, 1.0)]
        print(
            f"  {seeds:3d} seeds   "
            + "  ".join(f"{100 * held:.1f} % {100 * found:.1f} %" for held, found in rates)
            + "   (between seeds 0, 0.3, 1 of what is between scenes)"
        )
    print(f"power at the detectable effect, 12 scenes: {100 * simulated_power(12, 20000, rng):.1f} %")


if __name__ == "__main__":
    Words("results.simulate").parse_args()
    main()
