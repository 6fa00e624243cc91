"""What experiments' frozen features know and add, beside each other, and whether that foretells the end result.

No training and no seed enters the probes: where an experiment has several seeds, they are those of its first.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from src.experiments.result import METRIC, ExperimentResult
from src.probes.compared import added, differences, values_by_scene
from src.results.statistics import means_by_scene

KNOWN = ("log_depth", "normals", "pck_1")  # of the features alone; pretrained ones are held against untrained in these
FEWEST = 4  # experiments whose ranks are worth a word
RESAMPLES = 2000


@dataclass(frozen=True)
class Relation:
    """points: name -> (dB that the features' readout adds to splatted points, dB that the trained model gained). rank
    correlation (Spearman's rho) of the two, and its percentile interval over resampled scenes, the experiments being
    given; None with fewer than FEWEST experiments."""

    points: dict[str, tuple[float, float]]
    rho: float | None = None
    low: float | None = None
    high: float | None = None


def added_by(results: list[ExperimentResult]) -> dict[str, dict[str, dict]]:
    """name -> what its features add to the geometry's tokens, as of `added`; of those that have features."""
    return {each.name: found for each in results if (found := added(each.probes))}


def twins(results: list[ExperimentResult]) -> dict[tuple[str, str], dict[str, dict]]:
    """(pretrained, its untrained twin) -> what the features of the first know more than the second's: of readouts the
    logarithm of the ratio of squared errors, of matches the difference of shares. Twins differ in their weights alone."""

    def kind(each: ExperimentResult) -> tuple[str, str]:
        return each.about["backbone"]["name"], each.about["detail"]

    untrained = {kind(each): each for each in results if each.about["backbone"]["weights"] == "random"}
    found = {}
    for each in results:
        twin = untrained.get(kind(each))
        if twin is None or each.about["backbone"]["weights"] != "pretrained":
            continue
        known = {name: tuple(values_by_scene(side.probes, name, "features") for side in (each, twin)) for name in KNOWN}
        if compared := differences({name: sides for name, sides in known.items() if all(sides)}):
            found[each.name, twin.name] = compared
    return found


def gain_by_scene(result: ExperimentResult, reference: ExperimentResult) -> dict[str, float]:
    """Masked PSNR over the reference's, scene by scene."""
    ours, theirs = result.scores(), reference.scores()
    both = sorted(ours.keys() & theirs.keys())
    names = [ours[key]["scene"] for key in both]
    means = means_by_scene([ours[key][METRIC] - theirs[key][METRIC] for key in both], names)
    return dict(zip(sorted(set(names)), means.tolist()))


def relation(results: list[ExperimentResult], reference: ExperimentResult) -> Relation:
    """Of the experiments with features, other than the reference."""
    sides = {}
    for each in results:
        own, tokens = (values_by_scene(each.probes, METRIC, inputs) for inputs in ("both", "tokens"))
        gain = gain_by_scene(each, reference)
        scenes = sorted(own.keys() & tokens.keys() & gain.keys())
        if each is not reference and scenes:
            sides[each.name] = scenes, [own[name] - tokens[name] for name in scenes], [gain[name] for name in scenes]
    points = {name: (float(np.mean(add)), float(np.mean(gain))) for name, (_, add, gain) in sides.items()}
    if len(sides) < FEWEST or len({tuple(scenes) for scenes, _, _ in sides.values()}) > 1:
        return Relation(points)
    values = np.array([(add, gain) for _, add, gain in sides.values()])  # (experiments, 2, scenes)
    drawn = np.random.default_rng(0).integers(values.shape[-1], size=(RESAMPLES, values.shape[-1]))
    found = [spearmanr(*values[..., scenes].mean(-1).T).statistic for scenes in drawn]
    low, high = np.nanpercentile(found, (2.5, 97.5)).tolist()
    return Relation(points, float(spearmanr(*values.mean(-1).T).statistic), low, high)
