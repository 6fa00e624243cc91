"""How far a mean or a difference may be from the truth, given the parts of its variance: intervals, p values, power."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import chi2

MIN_SCENES = 5  # below, no interval: the spread between scenes cannot be told from so few
MOST_SCENES = 100_000  # where the search for the needed number ends
POWER, ALPHA = 0.8, 0.05
SMALLEST_P = 1e-12


@dataclass(frozen=True)
class VariancePart:
    """A part of a variance: an estimate minus what is known to be in it besides.

    estimate   (...)
    freedom    degrees of freedom that it was estimated with, infinite where it is known
    noise      (...), to be taken off
    """

    estimate: np.ndarray | float
    freedom: float
    noise: np.ndarray | float = 0.0

    def scaled(self, share: float) -> "VariancePart":
        return VariancePart(share * self.estimate, self.freedom, share * self.noise)


@lru_cache(256)
def half_widths(freedom: float) -> CubicSpline:
    """`student` over the logarithm of alpha: a hundred times as fast as scipy's function, and right to 1e-9."""
    logarithms = np.linspace(math.log(SMALLEST_P), 0, 4097)
    half = np.exp(logarithms) / 2
    return CubicSpline(logarithms, -ndtri(half) if math.isinf(freedom) else -stdtrit(freedom, half))


def student(alpha: np.ndarray | float, freedom: float) -> np.ndarray | float:
    """Half-width, in standard errors, of an interval that misses the truth with probability alpha, from SMALLEST_P to 1."""
    return half_widths(freedom)(np.log(alpha))


def skewness_factor(alpha: np.ndarray | float, skewness: np.ndarray | float, scenes: int) -> np.ndarray | float:
    """By how much skewed scene means lengthen the interval: the skewness term of the expansion of the distribution of
    |t|   (Hall 1992, The Bootstrap and Edgeworth Expansion, sec. 3.5.3; the kurtosis term, which would shorten it, is
    left out)."""
    z = np.minimum(student(alpha, math.inf), 8.0)
    return 1 + np.maximum(0, skewness**2 * (z**4 + 2 * z**2 - 3) / (18 * scenes))


@lru_cache(64)
def futures(freedom: float, stream: int, count: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Ratios (count,) of the true variance, and of the one that a new experiment would estimate, to the estimated one:
    quantiles of their distributions in a fixed shuffled order (a Latin hypercube)."""
    if math.isinf(freedom):
        return np.ones(count), np.ones(count)
    levels, rng = (np.arange(count) + 0.5) / count, np.random.default_rng(stream)
    # Half a degree of freedom more for the truth stands between no assumption about its size (none more: 85 % are found
    # where 80 % are stated) and its mean being the estimate (two more: 71 %), as src.results.simulate measures.
    true = rng.permutation(freedom / chi2.ppf(levels, freedom + 0.5))
    return true, true * rng.permutation(chi2.ppf(levels, freedom) / freedom)


@dataclass(frozen=True)
class Errors:
    """The parts of the variance of a mean or a difference, that over scenes first, and the scene means' skewness."""

    parts: tuple[VariancePart, ...]
    scenes: int
    skewness: np.ndarray | float = 0.0

    def square(self, number: int, alpha: np.ndarray | float, estimate: np.ndarray | float) -> np.ndarray | float:
        """Squared half-width at alpha of one part, had `estimate` been its estimate. Noise is well known: below ALPHA,
        where the factor is long since an estimate with few degrees of freedom may be far too small, it is taken off with
        the factor at ALPHA."""
        part = self.parts[number]
        factor = student(alpha, part.freedom)
        off = np.minimum(factor, student(ALPHA, part.freedom)) ** 2 * part.noise
        longer = 1.0 if number else skewness_factor(alpha, self.skewness, self.scenes)
        return np.maximum(0, (factor * longer) ** 2 * estimate - off)

    def reach(self, alpha: np.ndarray | float) -> np.ndarray | float:
        """Half-width of an interval that misses the truth with probability alpha: those of the parts add as squares
        (Howe 1974, Approximate confidence limits on the mean of X + Y)."""
        return np.sqrt(sum(self.square(number, alpha, part.estimate) for number, part in enumerate(self.parts)))

    def p(self, mean: np.ndarray | float) -> np.ndarray:
        """The alpha whose interval around `mean` just reaches 0, by bisection of its logarithm."""
        distance = np.abs(np.asarray(mean, np.float64))
        low, high = np.full(distance.shape, math.log(SMALLEST_P)), np.zeros(distance.shape)
        for _ in range(26):
            middle = (low + high) / 2
            holds = self.reach(np.exp(middle)) >= distance
            low, high = np.where(holds, middle, low), np.where(holds, high, middle)
        return np.where(distance == 0, 1.0, np.exp(high))

    def power(self, effect: np.ndarray | float, alpha: float = ALPHA) -> np.ndarray:
        """Chance that a new experiment of this size finds a true `effect` at alpha. Neither the true variance nor the
        one it will estimate is known: the mean over both, given this estimate."""
        leading = (-1, *[1] * np.ndim(self.reach(alpha)))  # the futures' axis stands before repetitions
        true: np.ndarray | float = 0.0
        limit: np.ndarray | float = 0.0
        for stream, part in enumerate(self.parts):
            truths, estimates = (ratio.reshape(leading) for ratio in futures(part.freedom, stream))
            true = true + np.maximum(0, truths * part.estimate - part.noise)
            limit = limit + self.square(stream, alpha, estimates * part.estimate)
        true, limit = np.sqrt(np.maximum(true, 1e-300)), np.sqrt(limit)
        return (ndtr((effect - limit) / true) + ndtr((-effect - limit) / true)).mean(0)

    def detectable(self, alpha: float = ALPHA) -> np.ndarray:
        """Smallest true effect found at alpha with a chance of POWER."""
        low, high = np.zeros(np.shape(self.reach(alpha))), np.asarray(self.reach(alpha) + 1e-12)
        for _ in range(60):
            if not (short := self.power(high, alpha) < POWER).any():
                break
            high = np.where(short, 2 * high, high)
        for _ in range(40):
            middle = (low + high) / 2
            found = self.power(middle, alpha) >= POWER
            low, high = np.where(found, low, middle), np.where(found, middle, high)
        return high

    def scenes_needed(self, effect: float, alpha: float = ALPHA) -> int | None:
        """Smallest number of scenes (at least MIN_SCENES) that finds a true `effect` at alpha with a chance of POWER,
        with the seeds and the deviation between scenes that there are; None where MOST_SCENES are too few."""
        over_scenes, *others = self.parts

        def enough(scenes: int) -> bool:
            part = VariancePart(over_scenes.estimate * self.scenes / scenes, scenes - 1)
            return bool(Errors((part, *others), scenes, self.skewness).power(effect, alpha) >= POWER)

        low, high = MIN_SCENES - 1, MIN_SCENES
        while not enough(high):
            low, high = high, 2 * high
            if low > MOST_SCENES:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high
