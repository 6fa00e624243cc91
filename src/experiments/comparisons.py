"""Results of other revisions and experiments, read through Git alone: no checkout, no DVC remote."""

import sys
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from src.experiments.archive import ARCHIVE, kept_results
from src.experiments.result import (
    METRIC,
    REPORTS,
    SCORED,
    ExperimentResult,
    OtherSchema,
    comparable,
    experiment_commits,
    merge_seeds,
    read_folder,
    read_revision,
    scored,
)
from src.reproducible.versions import git_output
from src.results.statistics import (
    Claim,
    Comparison,
    SceneScores,
    SeedSd,
    SeedSpread,
    compare_paired,
    rank_intervals,
    scores_of,
    seed_spread,
    without_verdict,
)
from src.results.tables import HEADLINE


def equal(one: ExperimentResult, other: ExperimentResult) -> bool:
    """Whether they are one result, whatever their names and wherever they were timed."""
    return (one.about, one.rows) == (other.about, other.rows)


def at_revisions(root: str | Path) -> list[ExperimentResult]:
    """What the commit of a work tree and that commit's experiments published."""
    head = git_output(root, "branch", "--show-current") or git_output(root, "rev-parse", "--short", "HEAD") or ""
    revisions = [("HEAD", head.strip())] if head else []
    revisions += [(commit, name) for name, commit in experiment_commits(root)]
    found = []
    for revision, name in revisions:
        try:
            found += [other] if (other := read_revision(root, revision, name)) else []
        except OtherSchema as error:
            print(f"report: {error}", file=sys.stderr)
    return found


def gather(root: str | Path, folder: str | Path = REPORTS, kept_alone: bool = False) -> list[ExperimentResult]:
    """This run (the work tree), the experiments that Git keeps in `folder`, the commit it grew from, and that commit's
    experiments (kept_alone: without these two); equal results once, and results that differ in their seed alone as one. A
    work tree that equals none of them may have other code, and stays alone.

    raises FileNotFoundError when the work tree has no results
    """
    current = read_folder(folder, "this run")
    if current is None:
        raise FileNotFoundError(f"{folder} holds no results; run dvc repro.")
    kept, unread = kept_results(Path(folder) / ARCHIVE.name)
    print(*(f"report: {error}\n" for error in unread), sep="", end="", file=sys.stderr)
    same, others = [], []
    for other in kept if kept_alone else [*kept, *at_revisions(root)]:
        place = next((place for place, each in enumerate(others) if equal(other, each)), None)
        if equal(other, current):
            same.append(other.name)
        elif place is None:
            others.append(other)
        elif others[place].revision is None:  # kept, and an experiment here, whose renders the cache may have
            others[place] = replace(others[place], revision=other.revision)
    if not same:
        return [current, *merge_seeds(others), *outside(folder)]
    return merge_seeds([replace(current, name=f"{current.name} ({same[0]})"), *others]) + outside(folder)


def outside(folder: str | Path = REPORTS) -> list[ExperimentResult]:
    """Results of methods that this project does not run, as src.score left them under a reports folder."""
    found = []
    for path in sorted(Path(folder, SCORED).glob("[!.]*")):
        try:
            found += [each] if (each := read_folder(path, path.name)) else []
        except OtherSchema as error:
            print(f"report: {error}", file=sys.stderr)
    return found


def reference_of(results: list[ExperimentResult], free: tuple[str, ...] = ()) -> ExperimentResult | None:
    """The first MASt3R-only result that may be compared with the first of all, `free` settings apart."""
    return next((each for each in comparable(results, free) if each.is_mast3r_only), None)


def control_of(results: list[ExperimentResult], free: tuple[str, ...] = ()) -> ExperimentResult | None:
    """The first result with constant features, an adapter that is told nothing, that may be compared with the first of
    all, `free` settings apart."""
    return next((each for each in comparable(results, free) if each.about["backbone"]["name"] == "constant"), None)


def scene_scores(result: ExperimentResult, metric: str, targets: list[tuple[str, str]]) -> SceneScores | None:
    """Aligned scores of all trainings of a result on named (episode, target)s; None where one has other targets, or
    there are none."""
    runs = {seed: scored(rows, metric) for seed, rows in result.runs.items()}
    if not targets or any(sorted(run) != targets for run in runs.values()):
        return None
    values = np.array([[run[target][metric] for target in targets] for run in runs.values()])
    return scores_of(values, [result.scores(metric)[target]["scene"] for target in targets], tuple(runs))


def scores_and_spread(
    results: list[ExperimentResult], metric: str, priors: dict[str, dict[str, float]]
) -> tuple[dict[str, SceneScores], SeedSpread]:
    """SceneScores by name, of those with the targets of the first that has any, and what seeds change: pooled over all."""
    targets = next((sorted(found) for each in results if (found := each.scores(metric))), [])
    found = {each.name: own for each in results if (own := scene_scores(each, metric, targets))}
    prior = SeedSd(**priors[metric]) if metric in priors else None
    return found, seed_spread(list(found.values()), prior)


@dataclass(frozen=True)
class Verdicts:
    """All that is claimed of some results together.

    differences   metric -> name -> comparison with the reference
    controlled    name -> comparison with the control in METRIC
    ranks         name -> best and worst rank by METRIC that pairwise tests leave open, among three or more
    """

    differences: dict[str, dict[str, Comparison]]
    controlled: dict[str, Comparison]
    ranks: dict[str, tuple[int, int]]


def judge(
    results: list[ExperimentResult],
    reference: ExperimentResult | None,
    control: ExperimentResult | None,
    priors: dict[str, dict[str, float]],
    confidence: float,
    metrics: tuple[str, ...] = HEADLINE,
    elsewhere: frozenset[str] = frozenset(),
) -> Verdicts:
    """Differences of comparable results from a reference and from a control, where there are these.

    Everything that gets a verdict is corrected together: all results in all HEADLINE metrics against the reference, and
    in the first against the control. Further `metrics` get differences without a verdict. Ranks are corrected among
    themselves: they hold all at once with 95 %.

    priors     metric -> what seeds change, where no result has several (datasets.<name>.seed_sd)
    elsewhere  names of results that were trained on other scenes: they have differences, no verdicts and no ranks
    """
    measured = {metric: scores_and_spread(results, metric, priors) for metric in dict.fromkeys((*metrics, *HEADLINE))}

    def claims(metric: str, second: ExperimentResult | None) -> dict[str, Claim]:
        found, spread = measured[metric]
        if second is None or second.name not in found:
            return {}
        return {name: (own, found[second.name], spread) for name, own in found.items() if name != second.name}

    together = {
        (metric, name): claim
        for metric in HEADLINE
        for name, claim in claims(metric, reference).items()
        if name not in elsewhere
    }
    if control is not reference:
        beside = {
            name: claim
            for name, claim in claims(METRIC, control).items()
            if name not in elsewhere and (not reference or name != reference.name)
        }
        together |= {(None, name): claim for name, claim in beside.items()}
    tested = compare_paired(together, confidence)
    differences = {}
    for metric in measured:
        claimed = {name: each for (of, name), each in tested.items() if of == metric}
        others = {name: claim for name, claim in claims(metric, reference).items() if name not in claimed}
        shown = compare_paired(others, confidence)
        differences[metric] = claimed | {name: without_verdict(each) for name, each in shown.items()}
    found, spread = measured[METRIC]
    ranked = [name for name in found if name not in elsewhere]
    pairs = {(a, b): (found[a], found[b], spread) for a, b in combinations(ranked, 2)} if len(ranked) > 2 else {}
    controlled = {name: each for (of, name), each in tested.items() if of is None}
    return Verdicts(differences, controlled, rank_intervals(pairs))
