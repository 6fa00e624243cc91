"""How sure a mean or a difference is, and which differences may be called one.

The steps, from scores to a verdict:

1. A scene's scores are averaged: its targets resemble each other, and every scene weighs the same (`SceneScores`).
2. What another choice of scenes would change: the variance of the scene means over their number (`scene_part`).
3. What another seed would change: pooled over all experiments of the comparison that have several seeds, or else a
   stated prior, or else unknown (`seed_spread`). Experiments with the same seed share a part of its effect.
4. Both add up to a half-width (`Errors.reach`), from which interval and p value come alike.
5. p values are corrected for the number of claims (`holm`); below ALPHA a difference is called one.

`python -m src.results.simulate` measures whether this keeps its word.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from src.results.errors import ALPHA, MIN_SCENES, Errors, VariancePart

MIN_FREEDOM = 2  # of a pooled seed variance; with one degree of freedom Student's factor is 12.7 and the truth anywhere
POOLED, PRIOR = "pooled", "prior"  # where a seed variance is from
Repeated = Any  # a number; in a simulation an array, one for each repetition
VERDICTS = ("distinguishable", "not distinguishable", "too few scenes", "not decidable", "no verdict")
DISTINGUISHABLE, NOT_DISTINGUISHABLE, TOO_FEW_SCENES, UNDECIDABLE, NO_VERDICT = VERDICTS


@dataclass(frozen=True)
class SeedSd:
    """Standard deviations of an experiment's mean score between seeds.

    own      what experiments trained with the same seed do not share
    shared   what they share, since the seed draws the same training episodes for all; differences cancel it
    """

    own: float
    shared: float


@dataclass(frozen=True)
class SceneScores:
    """Scene means of one experiment in one metric.

    means   (..., K, S), a row per training; leading axes are repetitions of a simulation
    seeds   of the K trainings; empty for what needs no training (K is then 1)
    n       number of targets behind them
    """

    means: np.ndarray
    seeds: tuple[int, ...]
    n: int


@dataclass(frozen=True)
class SeedSpread:
    """Variance of one training's mean score over seeds: own is what experiments with the same seed do not share, whole
    is all of it; source is POOLED or PRIOR. None where nothing tells."""

    own: tuple[VariancePart, str] | None
    whole: tuple[VariancePart, str] | None


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of means, over scenes that weigh the same.

    low, high   None with fewer than MIN_SCENES scenes
    n           targets
    seeds       number of trainings of each side that was trained
    source      where the variance over seeds is from; None: the interval is over scenes only
    """

    mean: Repeated
    low: Repeated
    high: Repeated
    n: int
    scenes: int
    seeds: tuple[int, ...] = (1,)
    source: str | None = None

    def holds(self, value: float) -> Repeated:
        """Whether there are bounds and `value` lies between them."""
        return self.low is not None and (self.low <= value) & (value <= self.high)


def means_by_scene(values: np.ndarray | Sequence[float], scenes: Sequence[str]) -> np.ndarray:
    """Means (..., S) of values (..., n) by scene; scenes in alphabetical order."""
    values = np.asarray(values, np.float64)
    if values.shape[-1] != len(scenes) or len(scenes) == 0:
        raise ValueError(
            f"Each value needs the name of its scene; got {values.shape[-1]} values and {len(scenes)} names."
        )
    if not np.isfinite(values).all():
        raise ValueError("Statistics were asked of values that are not finite; leave absent metrics out instead.")
    _, index = np.unique(scenes, return_inverse=True)
    members = index == np.arange(index.max() + 1)[:, None]  # (S, n)
    return values @ (members / members.sum(1, keepdims=True)).T


def scores_of(values: np.ndarray, scenes: Sequence[str], seeds: tuple[int, ...]) -> SceneScores:
    """Scene means of values (K, n) for K trainings and n targets, and the name of each target's scene."""
    return SceneScores(means_by_scene(np.atleast_2d(values), scenes), seeds, len(scenes))


@dataclass(frozen=True)
class Comparison:
    """One experiment against another on the same targets.

    errors     None with fewer than MIN_SCENES scenes
    p, p_holm  of "no difference", alone and corrected for the number of claims tested together; None where nothing is
               claimed: too few scenes, no variance over seeds, or no headline metric
    claims     how many were tested together
    """

    interval: Interval
    errors: Errors | None
    p: Repeated
    p_holm: Repeated
    claims: int

    @property
    def distinguishable(self) -> Repeated:
        """Whether the corrected test excludes no difference."""
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def verdict(self) -> str:
        """What may be said, one of VERDICTS."""
        if self.errors is None:
            return TOO_FEW_SCENES
        if self.interval.source is None:
            return UNDECIDABLE
        if self.p_holm is None:
            return NO_VERDICT
        return DISTINGUISHABLE if self.distinguishable else NOT_DISTINGUISHABLE

    @property
    def detectable(self) -> Repeated:
        """The smallest true difference that a repetition would find four times out of five, were it the first to pass
        Holm's correction; None where nothing is claimed."""
        return None if self.p is None or self.errors is None else self.errors.detectable(ALPHA / self.claims)

    @property
    def scenes_for_tenth(self) -> int | None:
        """Scenes that finding 0.1 would take; None where with these seeds no number of them is enough."""
        return None if self.p is None or self.errors is None else self.errors.scenes_needed(0.1, ALPHA / self.claims)


def residual_part(trainings: np.ndarray, design: np.ndarray, freedom: int | None = None) -> VariancePart | None:
    """Variance of trainings' means that a linear model of them leaves, without what their own scenes add to it
    (analysis of variance, method of moments: Searle, Casella and McCulloch 1992, Variance Components, ch. 4).

    trainings (..., N, S) scene means; design (N, P); freedom: where it is less than the residual's; None below
    MIN_FREEDOM
    """
    count, scenes = trainings.shape[-2:]
    left = count - int(np.linalg.matrix_rank(design))
    if min(left, freedom or left) < MIN_FREEDOM:
        return None
    residuals = (np.eye(count) - design @ np.linalg.pinv(design)) @ trainings  # (..., N, S)
    means = residuals.mean(-1, keepdims=True)
    between = (means**2).sum((-1, -2)) / left
    # a training that is better on some scenes and worse on others moves the mean too, but that is in the scene part
    interaction = ((residuals - means) ** 2).sum((-1, -2)) / (left * (scenes - 1))
    return VariancePart(between, min(left, freedom or left), interaction / scenes)


def seed_spread(experiments: Sequence[SceneScores], prior: SeedSd | None) -> SeedSpread:
    """Variance over seeds, pooled over all experiments that have several; else of the prior; else unknown.

    It is taken to be the same for all experiments of a comparison. What trainings with one seed share is fitted by an
    effect per seed; whole, which holds that too, has one degree of freedom per further seed, however many experiments.
    """
    several = [each for each in experiments if len(each.seeds) > 1]
    known = prior and SeedSpread(
        (VariancePart(prior.own**2, math.inf), PRIOR), (VariancePart(prior.own**2 + prior.shared**2, math.inf), PRIOR)
    )
    unknown = known or SeedSpread(None, None)
    if not several or several[0].means.shape[-1] < MIN_SCENES:
        return unknown
    trainings = np.concatenate([each.means for each in several], -2)  # (..., N, S)
    names = np.repeat(np.arange(len(several)), [len(each.seeds) for each in several])
    seeds = np.concatenate([each.seeds for each in several])
    by_experiment = (names[:, None] == np.unique(names)).astype(float)  # (N, experiments)
    by_seed = (seeds[:, None] == np.unique(seeds)).astype(float)  # (N, seeds)
    own = residual_part(trainings, np.hstack([by_experiment, by_seed]))
    whole = residual_part(trainings, by_experiment, len(np.unique(seeds)) - 1)
    pooled_whole = (whole, POOLED) if whole else unknown.whole
    # too few common seeds: then all of the variance, which is more
    return SeedSpread((own, POOLED) if own else pooled_whole if whole else unknown.own, pooled_whole)


def seed_parts(
    first: SceneScores, second: SceneScores | None, spread: SeedSpread
) -> tuple[list[VariancePart], str | None]:
    """Parts of the variance of a difference that are over seeds, and where they are from; second None: of a mean.

    With weights a_k and b_k of seed k in both means the variance is own * sum 2 a_k b_k + whole * (sum a_k^2 + b_k^2 -
    2 a_k b_k): seeds that both have count with what they do not share, the others with all.
    """
    weights = [
        dict.fromkeys(each.seeds, 1 / len(each.seeds)) if each and each.seeds else {} for each in (first, second)
    ]
    common = 2 * sum(weight * weights[1].get(seed, 0) for seed, weight in weights[0].items())
    unlike = sum(weight**2 for side in weights for weight in side.values()) - common
    parts, sources = [], []
    for share, found in ((common, spread.own), (unlike, spread.whole)):
        if share > 1e-9:
            if found is None:
                return [], None
            parts.append(found[0].scaled(share))
            sources.append(found[1])
    return parts, PRIOR if PRIOR in sources else POOLED


def scene_part(differences: np.ndarray) -> tuple[VariancePart, np.ndarray]:
    """Variance of the mean of (..., S) differences of scene means over the choice of scenes, and their skewness."""
    scenes = differences.shape[-1]
    apart = differences - differences.mean(-1, keepdims=True)
    apart[np.abs(apart) <= 1e-12 * (1 + np.abs(differences))] = 0  # equal but for rounding
    second, third = (apart**2).mean(-1), (apart**3).mean(-1)
    skewness = np.divide(third, second**1.5, out=np.zeros_like(second), where=second > 0)
    return VariancePart(second / (scenes - 1), scenes - 1), skewness


def measured(
    first: SceneScores, second: SceneScores | None, spread: SeedSpread, confidence: float = 1 - ALPHA
) -> tuple[Interval, Errors | None]:
    """Interval of a difference, or with second None of a mean, and the errors behind it."""
    differences = first.means.mean(-2) - (second.means.mean(-2) if second else 0)  # (..., S)
    scenes, mean = differences.shape[-1], differences.mean(-1)
    seeds = tuple(len(each.seeds) for each in (first, second) if each and each.seeds)
    if scenes < MIN_SCENES:
        return Interval(plain(mean), None, None, first.n, scenes, seeds), None
    over_scenes, skewness = scene_part(differences)
    parts, source = seed_parts(first, second, spread)
    errors = Errors((over_scenes, *parts), scenes, skewness)
    half = errors.reach(1 - confidence)
    return Interval(plain(mean), plain(mean - half), plain(mean + half), first.n, scenes, seeds, source), errors


def plain(value: Repeated) -> Repeated:
    """A single number as Python's; repetitions stay an array."""
    return np.asarray(value).item() if np.ndim(value) == 0 else value


def holm(p_values: Sequence[Repeated]) -> list[Repeated]:
    """p values corrected for their number, in the same order   (Holm 1979, A simple sequentially rejective test)."""
    if not len(p_values):
        return []
    values = np.asarray(p_values, np.float64)  # (claims, ...)
    order = np.argsort(values, 0, kind="stable")
    ranks = np.arange(len(values), 0, -1).reshape(-1, *[1] * (values.ndim - 1))
    largest = np.maximum.accumulate(np.minimum(1.0, ranks * np.take_along_axis(values, order, 0)), 0)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, largest, 0)
    return [plain(each) for each in adjusted]


Claim = tuple[SceneScores, SceneScores, SeedSpread]  # one experiment, another, what seeds change in this metric


def compare_paired(claims: dict[Any, Claim], confidence: float = 1 - ALPHA) -> dict[Any, Comparison]:
    """All that is claimed together: a comparison per claim, p values corrected for the number of those that can be
    decided."""
    found = {key: measured(*claim, confidence) for key, claim in claims.items()}
    tested = {key: errors.p(interval.mean) for key, (interval, errors) in found.items() if errors and interval.source}
    corrected = dict(zip(tested, holm(list(tested.values()))))
    return {
        key: Comparison(
            interval, errors, plain(tested[key]) if key in tested else None, corrected.get(key), len(tested)
        )
        for key, (interval, errors) in found.items()
    }


def without_verdict(comparison: Comparison) -> Comparison:
    """The same without a verdict, for what is shown and not claimed."""
    return replace(comparison, p=None, p_holm=None)


def rank_intervals(claims: dict[tuple[str, str], Claim]) -> dict[str, tuple[int, int]]:
    """Best and worst rank (1 = highest mean) of each experiment that its pairwise comparisons leave open, all at once
    with 95 %   (Mogstad et al. 2024, Inference for Ranks, with Holm-corrected tests). claims: of every pair."""
    better: dict[str, Repeated] = {
        name: 0 for pair in claims for name in pair
    }  # experiments that are surely better than this one
    worse = dict(better)
    for pair, comparison in compare_paired(claims).items():
        surely = np.asarray(comparison.distinguishable)
        first_wins, second_wins = surely & (comparison.interval.mean > 0), surely & (comparison.interval.mean < 0)
        better[pair[1]], worse[pair[0]] = better[pair[1]] + first_wins, worse[pair[0]] + first_wins
        better[pair[0]], worse[pair[1]] = better[pair[0]] + second_wins, worse[pair[1]] + second_wins
    return {name: (plain(1 + better[name]), plain(len(better) - worse[name])) for name in better}
