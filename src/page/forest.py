"""Rows of a forest: what experiments differ by from one of them, over all seeds and seed by seed."""

from collections.abc import Mapping

import numpy as np

from src.experiments.result import METRIC, ExperimentResult
from src.page.charts import Colours, Difference
from src.results.statistics import Comparison
from src.results.tables import scene_weighted, select_rows

CEILINGS = ("oracle",)  # backbones that are told the truth


def means_by_seed(result: ExperimentResult) -> dict[int, float]:
    """seed -> mean aligned masked PSNR over scenes that weigh the same; seeds without scores are left out."""
    means = {seed: scene_weighted(select_rows(rows, alignment="aligned"), METRIC) for seed, rows in result.runs.items()}
    return {seed: mean for seed, mean in means.items() if mean is not None}


def differences_by_seed(result: ExperimentResult, reference: ExperimentResult) -> tuple[float, ...]:
    """Each seed's mean minus that of the reference's same seed, or minus the mean over all of its seeds where it lacks
    that one."""
    ours, theirs = means_by_seed(result), means_by_seed(reference)
    if not theirs:
        return ()
    usual = float(np.mean(list(theirs.values())))
    return tuple(mean - theirs.get(seed, usual) for seed, mean in ours.items())


def forest_rows(
    results: list[ExperimentResult],
    reference: ExperimentResult,
    compared: Mapping[str, Comparison],
    colours: Colours,
) -> dict[str, Difference]:
    """A row per compared result, by name, in the order of `results`."""
    return {
        each.name: Difference(
            compared[each.name].interval,
            colours[each.name],
            differences_by_seed(each, reference),
            each.about["backbone"]["name"] in CEILINGS,
        )
        for each in results
        if each.name in compared
    }
