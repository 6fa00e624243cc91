"""Results of other revisions and experiments, read through Git alone: no checkout, no DVC remote."""

import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from src.experiments.result import (
    METRIC,
    REPORTS,
    ExperimentResult,
    OtherSchema,
    experiment_commits,
    merge_seeds,
    protocol_differences,
    read_folder,
    read_revision,
    scored,
)
from src.reproducible.seeds import numpy_generator
from src.reproducible.versions import git_output
from src.results.statistics import Comparison, compare_paired, rank_intervals
from src.results.tables import column, groups, select_rows


def gather(root: str | Path, folder: str | Path = REPORTS) -> list[ExperimentResult]:
    """This run (the work tree), the commit it grew from, and that commit's experiments; equal results once, and results
    that differ in their seed alone as one. A work tree that equals none of them may have other code, and stays alone.

    raises FileNotFoundError when the work tree has no results
    """
    current = read_folder(folder, "this run")
    if current is None:
        raise FileNotFoundError(f"{folder} holds no results; run dvc repro.")
    head = git_output(root, "branch", "--show-current") or git_output(root, "rev-parse", "--short", "HEAD") or ""
    others = [("HEAD", head.strip())] if head else []
    others += [(commit, name) for name, commit in experiment_commits(root)]
    found = []
    for revision, name in others:
        try:
            found += [other] if (other := read_revision(root, revision, name)) else []
        except OtherSchema as error:
            print(f"report: {error}", file=sys.stderr)
    same = [other.name for other in found if (other.about, other.rows) == (current.about, current.rows)]
    others = [other for other in found if other.name not in same]
    if not same:
        return [current, *merge_seeds(others)]
    return merge_seeds([replace(current, name=f"{current.name} ({same[0]})"), *others])


def reference_of(results: list[ExperimentResult]) -> ExperimentResult | None:
    """The first MASt3R-only result that may be compared with the first of all."""
    return next((each for each in results if each.is_mast3r_only and not protocol_differences(results[0], each)), None)


def control_of(results: list[ExperimentResult]) -> ExperimentResult | None:
    """The first result with constant features, an adapter that is told nothing, that may be compared with the first of
    all."""
    return next(
        (
            each
            for each in results
            if each.about["backbone"]["name"] == "constant" and not protocol_differences(results[0], each)
        ),
        None,
    )


def paired(result: ExperimentResult, reference: ExperimentResult, metric: str) -> np.ndarray | None:
    """Differences (K, n) in an aligned metric for the K seeds that both were trained with, targets in the order of their
    names; None where a run has no score of some target, or there is none at all."""
    keys = sorted(reference.scores(metric))
    rows = []
    for seed in sorted(result.runs.keys() & reference.runs.keys()):
        ours, theirs = (scored(each.runs[seed], metric) for each in (result, reference))
        if sorted(ours) != keys or sorted(theirs) != keys:
            return None
        rows.append([ours[key][metric] - theirs[key][metric] for key in keys])
    return np.array(rows) if keys and rows else None


def scenes_of(result: ExperimentResult, metric: str) -> list[str]:
    """Scenes of the targets, in the order of `paired`."""
    found = result.scores(metric)
    return [found[key]["scene"] for key in sorted(found)]


def against_reference(
    results: list[ExperimentResult],
    resamples: int,
    confidence: float,
    seed: int,
    metric: str = METRIC,
    reference: ExperimentResult | None = None,
) -> dict[str, Comparison]:
    """Paired differences in an aligned metric of each comparable result from `reference`, or else from the first
    MASt3R-only one among them, by name; empty without one, or where a target has no score. The first result decides
    what is comparable; other MASt3R-only results are not compared unless the reference is given."""
    comparable = [each for each in results if not protocol_differences(results[0], each)]
    against = reference or reference_of(results)
    compared = [each for each in comparable if each is not against and (reference or not each.is_mast3r_only)]
    if not against:
        return {}
    found = {each.name: values for each in compared if (values := paired(each, against, metric)) is not None}
    if not found:
        return {}
    return compare_paired(
        found, scenes_of(against, metric), numpy_generator(seed, "experiments"), resamples, confidence
    )


def ranks(results: list[ExperimentResult]) -> dict[str, tuple[int, int]]:
    """Best and worst rank by masked PSNR that the pairwise tests leave open, where three or more results are given; all
    of them must be comparable with the first. Two without a common seed are left undecided."""
    scored_ones = [each for each in results if each.scores()]
    if len(scored_ones) < 3:
        return {}
    pairs = {
        (a.name, b.name): values
        for a, b in combinations(scored_ones, 2)
        if (values := paired(a, b, METRIC)) is not None
    }
    return rank_intervals(pairs, scenes_of(scored_ones[0], METRIC), np.random.default_rng(0))


def generalisation(results: list[ExperimentResult], metric: str = METRIC) -> dict[str, dict[str, dict[str, float]]]:
    """recipe -> families it was trained on -> family it was scored on -> mean aligned score, for results that differ
    from the first in their training scenes at most; recipes trained on one choice of scenes alone are left out. Those
    that share label and detail are told apart by the name of their first run."""
    recipes: dict[str, dict[str, ExperimentResult]] = {}
    for each in results:
        if not protocol_differences(results[0], each, free=("train_category",)):
            trained = recipes.setdefault(each.about["recipe"], {})
            trained.setdefault(str(each.about["protocol"].get("train_category", "all")), each)
    tabled = [trained for trained in recipes.values() if len(trained) > 1]
    firsts = [next(iter(trained.values())) for trained in tabled]
    words = [" · ".join(filter(None, (each.label, each.about["detail"]))) for each in firsts]  # however many seeds
    names = [f"{word} · {each.name}" if words.count(word) > 1 else word for word, each in zip(words, firsts)]
    return {
        name: {families: family_means(each, metric) for families, each in trained.items()}
        for name, trained in zip(names, tabled)
    }


def family_means(result: ExperimentResult, metric: str) -> dict[str, float]:
    """Mean aligned score by family of scenes."""
    rows = select_rows(result.rows, alignment="aligned")
    scores = {family: column(select_rows(rows, category=family), metric)[0] for family in groups(rows, "category")}
    return {family: float(np.mean(values)) for family, values in scores.items() if values}
