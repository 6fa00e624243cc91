"""What one run publishes under reports/: written there, read from a folder or through Git alone, without a checkout."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

import numpy as np

from src.probes.compared import PROBE_COLUMNS
from src.reproducible.files import write_json
from src.reproducible.versions import git_output
from src.results.tables import HEADLINE, Row, metrics_of, read_rows, select_rows, write_rows
from src.timing.benchmark_file import BENCHMARK_FILE, BenchmarkRecord, parse_benchmark

REPORTS = Path("reports")

METRIC = HEADLINE[0]  # what experiments are ranked by, with aligned scale

EXPERIMENT_FILE, RECORDS_FILE, PROBES_FILE = "experiment.json", "records.csv", "probes.csv"  # there
HASH = re.compile("[0-9a-f]{16}|[0-9a-f]{64}")
EXPERIMENT = re.compile(
    "refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)"
)  # DVC's references of experiments; it has others there
METRICS_FILE, DETAILS_FILE = "metrics.json", "details.json"
SCORED = "scored"  # folder there, of results of methods that this project does not run, a folder each
SCORING = (
    "scenes",
    "episodes",
    "resolution",
    "eval.split",
    "eval.masks",
    "eval.lpips",
)  # what such a one shares with ours
READ_FILES = (EXPERIMENT_FILE, RECORDS_FILE, PROBES_FILE, BENCHMARK_FILE)  # by `parse_result`, besides the curves
EXPERIMENT_SCHEMA = 5  # of reports/experiment.json and records.csv

Read = Callable[[str], str | None]  # path under reports/ -> its text, or None


class OtherSchema(ValueError):
    """Results that another version of this code published."""


@dataclass(frozen=True)
class ExperimentResult:
    """What one revision published.

    name       of the experiment or revision
    about      reports/experiment.json: label, backbone, protocol, ...
    rows       reports/records.csv: scores of the model's own renders; with several seeds their means
    probes     reports/probes.csv: scene, probe, inputs, value (see src/probes/scores.py); of several seeds the first one's
    curves     text of reports/plots/*.csv that hold training curves, by name
    benchmark  reports/benchmark.json, where there is one
    revision   commit that published it; None for the work tree
    repeats    seed -> rows, where the configuration was trained with several seeds (see `merge_seeds`); else empty
    """

    name: str
    about: dict
    rows: list[Row]
    curves: dict[str, str]
    benchmark: BenchmarkRecord | None
    probes: list[Row] = field(default_factory=list)
    revision: str | None = None
    repeats: dict[int, list[Row]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.about["label"]

    @property
    def is_mast3r_only(self) -> bool:
        return self.about["backbone"]["name"] == "none"

    @property
    def is_outside(self) -> bool:
        """Whether the renders are of a method that this project does not run (src.score)."""
        return "declared" in self.about

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
    return {
        (row["episode"], row["target"]): row
        for row in select_rows(rows, alignment="aligned")
        if row.get(metric) is not None
    }


def averaged(runs: list[list[Row]]) -> list[Row]:
    """Means over runs of the same targets, row by row; a metric that one of them lacks is absent."""
    means = []
    for rows in zip(*runs, strict=True):
        numbers = {name: [row[name] for row in rows] for name in metrics_of(rows[:1])}
        means.append(
            rows[0] | {name: None if None in values else float(np.mean(values)) for name, values in numbers.items()}
        )
    return means


def merge_seeds(results: list[ExperimentResult]) -> list[ExperimentResult]:
    """Results that differ in their seed alone as one, under the name of the first; its rows are means over seeds."""
    merged: list[ExperimentResult] = []
    for each in results:
        place = next((place for place, other in enumerate(merged) if repeats(other, each)), None)
        if place is None:
            merged.append(each)
        else:
            runs = dict(sorted((merged[place].runs | each.runs).items()))
            merged[place] = replace(merged[place], rows=averaged(list(runs.values())), repeats=runs)
    return merged


def repeats(result: ExperimentResult, other: ExperimentResult) -> bool:
    """Whether `other` is the same experiment with other seeds."""

    def targets(rows: list[Row]) -> list[tuple]:
        return [(row["episode"], row["target"], row["alignment"]) for row in rows]

    return (
        result.about["arm"] == other.about["arm"]
        and not protocol_differences(result, other, free=("seed",))
        and not result.runs.keys() & other.runs.keys()
        and targets(result.rows) == targets(other.rows)
    )


def write_result(folder: Path, record: dict, metrics: dict, details: dict, rows: list[Row], probes: list[Row]) -> None:
    """What `parse_result` reads, for Git to track, and the numbers for people. record: of `experiment_record`, with the
    names of the curves; metrics: what `dvc exp show` shows, details: what it has no room for; probes: their scores by
    scene."""
    write_rows(folder / RECORDS_FILE, rows)
    write_rows(folder / PROBES_FILE, probes, PROBE_COLUMNS)
    write_json(folder / METRICS_FILE, metrics)
    write_json(folder / DETAILS_FILE, details)
    write_json(folder / EXPERIMENT_FILE, {"schema": EXPERIMENT_SCHEMA} | record)


def curve_file(curve: str) -> str:
    return f"plots/{curve}.csv"


def parse_result(name: str, read: Read) -> ExperimentResult | None:
    """A result from `read`, which maps a path under reports/ to its text or None; None where nothing was published.

    raises OtherSchema
    """
    texts = {path: read(path) for path in READ_FILES}
    if any(texts[path] is None for path in (EXPERIMENT_FILE, RECORDS_FILE)):
        return None
    about = json.loads(texts[EXPERIMENT_FILE])
    if about.get("schema") != EXPERIMENT_SCHEMA:
        raise OtherSchema(
            f"The results of {name} were published by another version of this code (schema "
            f"{about.get('schema')}, this is {EXPERIMENT_SCHEMA}); run it again to compare it."
        )
    curves = {curve: text for curve in about["curves"] if (text := read(curve_file(curve))) is not None}
    benchmark, probes = texts[BENCHMARK_FILE], texts[PROBES_FILE]
    return ExperimentResult(
        name,
        about,
        read_rows(texts[RECORDS_FILE]),
        curves,
        parse_benchmark(benchmark) if benchmark else None,
        read_rows(probes) if probes else [],
    )


def folder_reader(folder: str | Path) -> Read:
    """Reads what lies in a reports folder."""
    return lambda path: file.read_text("utf8") if (file := Path(folder, path)).exists() else None


def read_folder(folder: str | Path, name: str) -> ExperimentResult | None:
    """What lies in a reports folder of the work tree."""
    return parse_result(name, folder_reader(folder))


def commit_of(root: str | Path, revision: str) -> str | None:
    """The commit of a revision, anything git or dvc exp names; None where there is no such."""
    commit = git_output(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    return commit.strip() if commit else dict(experiment_commits(root)).get(revision)


def reader_of(root: str | Path, commit: str) -> Read:
    """Reads what a commit published, through Git."""
    return lambda path: git_output(root, "show", f"{commit}:{REPORTS.as_posix()}/{path}")


def read_revision(root: str | Path, revision: str, name: str) -> ExperimentResult | None:
    """What a revision (see `commit_of`) published; None when it holds no results of this pipeline."""
    if (commit := commit_of(root, revision)) is None:
        return None
    found = parse_result(name, reader_of(root, commit))
    return found and replace(found, revision=commit)


def flat(tree: dict, prefix: str = "") -> dict[str, object]:
    """{"opt": {"lr": 1}} -> {"opt.lr": 1}"""
    leaves = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def settings(result: ExperimentResult) -> dict[str, object]:
    """All that is held still when results are compared: the protocol, and what computed them."""
    about = result.about
    return flat(about["protocol"] | {"code": about.get("code"), "versions": about.get("versions", {})})


def protocol_differences(first: ExperimentResult, second: ExperimentResult, free: tuple[str, ...] = ()) -> list[str]:
    """What was not held still between two results, `free` settings and sections apart, in words; empty when their scores
    may be compared. Of a method that this project does not run only the scoring is held still."""
    ours, theirs, words = settings(first), settings(second), []
    ignored = {*free, "seed"}  # what another seed changes is for the statistics to say
    held = set(SCORING) if first.is_outside or second.is_outside else ours.keys() | theirs.keys()
    for key in sorted(held):
        here, there = ours.get(key), theirs.get(key)
        if here != there and not {key, key.partition(".")[0]} & ignored:
            hashed = isinstance(here, str) and HASH.fullmatch(here)
            words.append(f"other {key}" if hashed else f"{key} {there} instead of {here}")
    if not words and "targets" not in free and first.scores().keys() != second.scores().keys():
        words.append("other scored targets")
    return words


def comparable(results: list[ExperimentResult], free: tuple[str, ...] = ()) -> list[ExperimentResult]:
    """Those that may be compared with the first, the first among them."""
    return [each for each in results if not protocol_differences(results[0], each, free)]


def experiment_prefix(root: str | Path, baseline: str = "HEAD") -> str | None:
    """What the references of a baseline commit's `dvc exp` experiments begin with; None where there is no such commit."""
    commit = (git_output(root, "rev-parse", baseline) or "").strip()
    return f"refs/exps/{commit[:2]}/{commit[2:]}/" if commit else None


def experiment_commits(root: str | Path, baseline: str = "HEAD") -> list[tuple[str, str]]:
    """(name, commit) of the `dvc exp` experiments that grew from a baseline commit, by name."""
    prefix = experiment_prefix(root, baseline)
    lines = git_output(root, "for-each-ref", "--format=%(refname) %(objectname)", prefix) if prefix else None
    pairs = [line.split() for line in (lines or "").splitlines()]
    return sorted((name.removeprefix(prefix), found) for name, found in pairs)


def all_experiment_commits(root: str | Path) -> list[tuple[str, str]]:
    """(name, commit) of the `dvc exp` experiments of every baseline commit, by name; where several have one name, each has
    its commit's first digits behind it."""
    lines = git_output(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/") or ""
    pairs = [line.split(maxsplit=1) for line in lines.splitlines()]
    found = sorted((match[1], commit) for commit, name in pairs if (match := EXPERIMENT.fullmatch(name)))
    names = [name for name, _ in found]
    return [(name if names.count(name) == 1 else f"{name} ({commit[:7]})", commit) for name, commit in found]
