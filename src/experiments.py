"""Results of other revisions and experiments, read through Git alone: no checkout, no DVC remote."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Callable

import numpy as np

from src.provenance import numpy_generator
from src.records import Row, column, groups, metrics_of, read_rows, select
from src.statistics import Comparison, compare, rank_intervals

REPORTS = Path("reports")
METRIC = "psnr_masked"  # what backbones are compared by, with aligned scale
SCHEMA = 4  # of reports/experiment.json and records.csv


class OtherSchema(ValueError):
    """Results that another version of this code published."""


@dataclass(frozen=True)
class Result:
    """What one revision published.

    name       of the experiment or revision
    about      reports/experiment.json: label, backbone, protocol, ...
    metrics    reports/metrics.json
    rows       reports/records.csv: scores of the model's own renders; with several seeds their means
    curves     text of reports/plots/*.csv that hold training curves, by name
    benchmark  reports/benchmark.json, where there is one
    revision   commit that published it; None for the work tree
    repeats    seed -> rows, where the configuration was trained with several seeds (see `joined`); else empty
    """

    name: str
    about: dict
    metrics: dict
    rows: list[Row]
    curves: dict[str, str]
    benchmark: dict | None
    revision: str | None = None
    repeats: dict[int, list[Row]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.about["label"]

    @property
    def is_baseline(self) -> bool:
        return self.about["backbone"]["name"] == "none"

    @property
    def runs(self) -> dict[int, list[Row]]:
        """seed -> rows of the run that was trained with it."""
        return self.repeats or {self.about["protocol"]["seed"]: self.rows}

    @property
    def detail(self) -> str:
        """How the backbone is used, and how many seeds it was trained with where these are several."""
        return ", ".join(filter(None, (self.about["detail"], f"{len(self.repeats)} seeds" if self.repeats else "")))

    def scores(self, metric: str = METRIC) -> dict[tuple[str, str], Row]:
        """Aligned rows that have the metric, by (episode, target)."""
        return scored(self.rows, metric)


def scored(rows: list[Row], metric: str) -> dict[tuple[str, str], Row]:
    return {(row["episode"], row["target"]): row for row in select(rows, alignment="aligned")
            if row.get(metric) is not None}


def averaged(runs: list[list[Row]]) -> list[Row]:
    """Means over runs of the same targets, row by row; a metric that one of them lacks is absent."""
    means = []
    for rows in zip(*runs, strict=True):
        numbers = {name: [row[name] for row in rows] for name in metrics_of(rows[:1])}
        means.append(rows[0] | {name: None if None in values else float(np.mean(values))
                                for name, values in numbers.items()})
    return means


def joined(results: list[Result]) -> list[Result]:
    """Results that differ in their seed alone as one, under the name of the first; its rows are means over seeds."""
    arms: list[Result] = []
    for each in results:
        place = next((place for place, arm in enumerate(arms) if repeats(arm, each)), None)
        if place is None:
            arms.append(each)
        else:
            runs = dict(sorted((arms[place].runs | each.runs).items()))
            arms[place] = replace(arms[place], rows=averaged(list(runs.values())), repeats=runs)
    return arms


def repeats(arm: Result, other: Result) -> bool:
    """Whether `other` is the same arm trained with other seeds."""
    def targets(rows: list[Row]) -> list[tuple]:
        return [(row["episode"], row["target"], row["alignment"]) for row in rows]

    return (arm.about["arm"] == other.about["arm"] and not protocol_differences(arm, other, free=("seed",))
            and not arm.runs.keys() & other.runs.keys() and targets(arm.rows) == targets(other.rows))


def git(root: str | Path, *words: str) -> str | None:
    """Output of a git command; None when it fails or there is no Git."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=True)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
    return done.stdout.decode("utf8")


def result(name: str, read: Callable[[str], str | None]) -> Result | None:
    """A result from `read`, which maps a path under reports/ to its text or None; None where nothing was published.

    raises OtherSchema
    """
    texts = {path: read(path) for path in ("experiment.json", "metrics.json", "records.csv", "benchmark.json")}
    if any(text is None for path, text in texts.items() if path != "benchmark.json"):
        return None
    about = json.loads(texts["experiment.json"])
    if about.get("schema") != SCHEMA:
        raise OtherSchema(f"The results of {name} were published by another version of this code (schema "
                          f"{about.get('schema')}, this is {SCHEMA}); run it again to compare it.")
    curves = {curve: text for curve in about["curves"] if (text := read(f"plots/{curve}.csv")) is not None}
    benchmark = texts["benchmark.json"]
    return Result(name, about, json.loads(texts["metrics.json"]), read_rows(texts["records.csv"]), curves,
                  json.loads(benchmark) if benchmark else None)


def read_folder(folder: str | Path, name: str) -> Result | None:
    """What lies in a reports folder of the work tree."""
    folder = Path(folder)
    return result(name, lambda path: (folder / path).read_text("utf8") if (folder / path).exists() else None)


def read_revision(root: str | Path, revision: str, name: str) -> Result | None:
    """What a revision (anything git or dvc exp names) published; None when it holds no results of this pipeline."""
    commit = git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    commit = commit.strip() if commit else dict(experiments(root)).get(revision)
    if commit is None:
        return None
    found = result(name, lambda path: git(root, "show", f"{commit}:{REPORTS.as_posix()}/{path}"))
    return found and replace(found, revision=commit)


def experiments(root: str | Path, baseline: str = "HEAD") -> list[tuple[str, str]]:
    """(name, commit) of the `dvc exp` experiments that grew from a baseline commit, by name."""
    commit = (git(root, "rev-parse", baseline) or "").strip()
    prefix = f"refs/exps/{commit[:2]}/{commit[2:]}/"
    lines = git(root, "for-each-ref", "--format=%(refname) %(objectname)", prefix) if commit else None
    pairs = [line.split() for line in (lines or "").splitlines()]
    return sorted((name.removeprefix(prefix), found) for name, found in pairs)


def gather(root: str | Path, folder: str | Path = REPORTS) -> list[Result]:
    """This run (the work tree), the commit it grew from, and that commit's experiments; equal results once, and results
    that differ in their seed alone as one. A work tree that equals none of them may have other code, and stays alone.

    raises FileNotFoundError when the work tree has no results
    """
    current = read_folder(folder, "this run")
    if current is None:
        raise FileNotFoundError(f"{folder} holds no results; run dvc repro.")
    head = git(root, "branch", "--show-current") or git(root, "rev-parse", "--short", "HEAD") or ""
    others = [("HEAD", head.strip())] if head else []
    others += [(commit, name) for name, commit in experiments(root)]
    found = []
    for revision, name in others:
        try:
            found += [other] if (other := read_revision(root, revision, name)) else []
        except OtherSchema as error:
            print(f"report: {error}", file=sys.stderr)
    same = [other.name for other in found if (other.about, other.rows) == (current.about, current.rows)]
    others = [other for other in found if other.name not in same]
    if not same:
        return [current, *joined(others)]
    return joined([replace(current, name=f"{current.name} ({same[0]})"), *others])


def flat(tree: dict, prefix: str = "") -> dict[str, object]:
    """{"opt": {"lr": 1}} -> {"opt.lr": 1}"""
    leaves = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def protocol_differences(first: Result, second: Result, free: tuple[str, ...] = ()) -> list[str]:
    """What was not held still between two results, `free` settings apart, in words; empty when their scores may be
    compared."""
    ours, theirs = (flat(each.about["protocol"]) for each in (first, second))
    ignored, words = set(free), []
    if first.runs.keys() & second.runs.keys():  # which are what is compared
        ignored.add("seed")
    for key in sorted((ours.keys() | theirs.keys()) - ignored):
        here, there = ours.get(key), theirs.get(key)
        if here != there:
            hashed = isinstance(here, str) and len(here) == 64
            words.append(f"other {key}" if hashed else f"{key} {there} instead of {here}")
    if not words and first.scores().keys() != second.scores().keys():
        words.append("other scored targets")
    return words


def baseline_of(results: list[Result]) -> Result | None:
    """The first MASt3R-only result that may be compared with the first of all."""
    return next((each for each in results if each.is_baseline and not protocol_differences(results[0], each)), None)


def control_of(results: list[Result]) -> Result | None:
    """The first result with constant features, an adapter that is told nothing, that may be compared with the first of
    all."""
    return next((each for each in results if each.about["backbone"]["name"] == "constant"
                 and not protocol_differences(results[0], each)), None)


def paired(arm: Result, reference: Result, metric: str) -> np.ndarray | None:
    """Differences (K, n) in an aligned metric for the K seeds that both were trained with, targets in the order of their
    names; None where a run has no score of some target, or there is none at all."""
    keys = sorted(reference.scores(metric))
    rows = []
    for seed in sorted(arm.runs.keys() & reference.runs.keys()):
        ours, theirs = (scored(each.runs[seed], metric) for each in (arm, reference))
        if sorted(ours) != keys or sorted(theirs) != keys:
            return None
        rows.append([ours[key][metric] - theirs[key][metric] for key in keys])
    return np.array(rows) if keys and rows else None


def scenes_of(result: Result, metric: str) -> list[str]:
    """Scenes of the targets, in the order of `paired`."""
    found = result.scores(metric)
    return [found[key]["scene"] for key in sorted(found)]


def against_baseline(results: list[Result], resamples: int, confidence: float, seed: int, metric: str = METRIC,
                     reference: Result | None = None) -> dict[str, Comparison]:
    """Paired differences in an aligned metric of each comparable result from `reference`, or else from the first
    MASt3R-only one among them, by name; empty without one, or where a target has no score. The first result decides
    what is comparable; other MASt3R-only results are no arms unless the reference is given."""
    comparable = [each for each in results if not protocol_differences(results[0], each)]
    baseline = reference or baseline_of(results)
    arms = [each for each in comparable if each is not baseline and (reference or not each.is_baseline)]
    if not baseline:
        return {}
    found = {arm.name: values for arm in arms if (values := paired(arm, baseline, metric)) is not None}
    if not found:
        return {}
    return compare(found, scenes_of(baseline, metric), numpy_generator(seed, "experiments"), resamples, confidence)


def ranks(results: list[Result]) -> dict[str, tuple[int, int]]:
    """Best and worst rank by masked PSNR that the pairwise tests leave open, where three or more results are given; all
    of them must be comparable with the first. Two without a common seed are left undecided."""
    scored_ones = [each for each in results if each.scores()]
    if len(scored_ones) < 3:
        return {}
    pairs = {(a.name, b.name): values for a, b in combinations(scored_ones, 2)
             if (values := paired(a, b, METRIC)) is not None}
    return rank_intervals(pairs, scenes_of(scored_ones[0], METRIC), np.random.default_rng(0))


def generalisation(results: list[Result], metric: str = METRIC) -> dict[str, dict[str, dict[str, float]]]:
    """arm -> families it was trained on -> family it was scored on -> mean aligned score, for results that differ from
    the first in their training scenes at most; arms trained on one choice of scenes alone are left out. Arms that share
    label and detail are told apart by the name of their first run."""
    arms: dict[str, dict[str, Result]] = {}
    for each in results:
        if not protocol_differences(results[0], each, free=("train_category",)):
            trained = arms.setdefault(each.about["recipe"], {})
            trained.setdefault(str(each.about["protocol"].get("train_category", "all")), each)
    tabled = [trained for trained in arms.values() if len(trained) > 1]
    firsts = [next(iter(trained.values())) for trained in tabled]
    words = [" · ".join(filter(None, (each.label, each.about["detail"]))) for each in firsts]  # however many seeds
    names = [f"{word} · {each.name}" if words.count(word) > 1 else word for word, each in zip(words, firsts)]
    return {name: {families: family_means(each, metric) for families, each in trained.items()}
            for name, trained in zip(names, tabled)}


def family_means(result: Result, metric: str) -> dict[str, float]:
    """Mean aligned score by family of scenes."""
    rows = select(result.rows, alignment="aligned")
    scores = {family: column(select(rows, category=family), metric)[0] for family in groups(rows, "category")}
    return {family: float(np.mean(values)) for family, values in scores.items() if values}
