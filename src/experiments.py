"""Results of other revisions and experiments, read through Git alone: no checkout, no DVC remote.

`python -m src.experiments [REV ...]` compares the results in reports/ with those of revisions or experiments (without
names: all experiments that grew from this commit) and refuses those that were measured in another way.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import numpy as np

from src.provenance import numpy_generator
from src.records import Row, column, read_rows, select
from src.statistics import Comparison, Interval, compare

REPORTS = Path("reports")
METRIC = "psnr_masked"  # what backbones are compared by, with aligned scale
SCHEMA = 1  # of reports/experiment.json and records.csv


class OtherSchema(ValueError):
    """Results that another version of this code published."""


@dataclass(frozen=True)
class Result:
    """What one revision published.

    name       of the experiment or revision
    about      reports/experiment.json: label, backbone, protocol, ...
    metrics    reports/metrics.json
    rows       reports/records.csv: scores of the model's own renders
    curves     text of reports/plots/*.csv that hold training curves, by name
    benchmark  reports/benchmark.json, where there is one
    """

    name: str
    about: dict
    metrics: dict
    rows: list[Row]
    curves: dict[str, str]
    benchmark: dict | None

    @property
    def label(self) -> str:
        return self.about["label"]

    @property
    def is_baseline(self) -> bool:
        return self.about["backbone"]["name"] == "none"

    def scores(self, metric: str = METRIC, alignment: str = "aligned") -> dict[tuple[str, str], Row]:
        """Rows that have the metric, by (episode, target)."""
        rows = select(self.rows, alignment=alignment)
        return {(row["episode"], row["target"]): row for row in rows if row.get(metric) is not None}


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
    return result(name, lambda path: git(root, "show", f"{commit}:{REPORTS.as_posix()}/{path}"))


def experiments(root: str | Path, baseline: str = "HEAD") -> list[tuple[str, str]]:
    """(name, commit) of the `dvc exp` experiments that grew from a baseline commit, by name."""
    commit = (git(root, "rev-parse", baseline) or "").strip()
    prefix = f"refs/exps/{commit[:2]}/{commit[2:]}/"
    lines = git(root, "for-each-ref", "--format=%(refname) %(objectname)", prefix) if commit else None
    pairs = [line.split() for line in (lines or "").splitlines()]
    return sorted((name.removeprefix(prefix), found) for name, found in pairs)


def gather(root: str | Path, folder: str | Path = REPORTS) -> list[Result]:
    """This run (the work tree), the commit it grew from, and that commit's experiments; equal results once.

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
    current = replace(current, name=f"{current.name} ({same[0]})" if same else current.name)
    return [current, *(other for other in found if other.name not in same)]


def flat(tree: dict, prefix: str = "") -> dict[str, object]:
    """{"opt": {"lr": 1}} -> {"opt.lr": 1}"""
    leaves = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def protocol_differences(first: Result, second: Result) -> list[str]:
    """What was not held still between two results, in words; empty when their scores may be compared."""
    ours, theirs = (flat(each.about["protocol"]) for each in (first, second))
    words = []
    for key in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(key), theirs.get(key)
        if here != there:
            hashed = isinstance(here, str) and len(here) == 64
            words.append(f"other {key}" if hashed else f"{key} {there} instead of {here}")
    if not words and first.scores().keys() != second.scores().keys():
        words.append("other scored targets")
    return words


def against_baseline(results: list[Result], resamples: int, confidence: float, seed: int) -> dict[str, Comparison]:
    """Paired differences in METRIC of each comparable result from the first MASt3R-only one among them, by name; empty
    without one. The first result decides what is comparable."""
    comparable = [each for each in results if not protocol_differences(results[0], each)]
    baselines = [each for each in comparable if each.is_baseline]
    arms = [each for each in comparable if not each.is_baseline]
    if not baselines or not arms:
        return {}
    reference = baselines[0].scores()
    keys = sorted(reference)
    if not keys:
        return {}
    values = {arm.name: np.array([arm.scores()[key][METRIC] for key in keys]) for arm in arms}
    baseline, scenes = zip(*((reference[key][METRIC], reference[key]["scene"]) for key in keys))
    rng = numpy_generator(seed, "experiments")
    return compare(values, np.array(baseline), list(scenes), rng, resamples, confidence)


def mean_of(each: Result, metric: str) -> float | None:
    """Mean aligned score over all targets."""
    values, _ = column(select(each.rows, alignment="aligned"), metric)
    return float(np.mean(values)) if values else None


def signed(interval: Interval) -> str:
    """+0.04 [-0.09, +0.17]"""
    return f"{interval.mean:+.2f}" + ("" if interval.low is None else f" [{interval.low:+.2f}, {interval.high:+.2f}]")


def markdown(results: list[Result], comparisons: dict[str, Comparison]) -> str:
    """Backbone | PSNR | SSIM | LPIPS | difference, a row per result."""
    lines = ["| Run | Backbone | PSNR | SSIM | LPIPS | PSNR - MASt3R only |", "|---|---|---|---|---|---|"]
    for each in results:
        cells = [mean_of(each, metric) for metric in ("psnr_masked", "ssim_masked", "lpips_masked")]
        difference = signed(comparisons[each.name].interval) if each.name in comparisons else ""
        lines.append(f"| {each.name} | {each.label} | " + " | ".join(
            "not measured" if value is None else f"{value:.{digits}f}" for value, digits in zip(cells, (2, 3, 3)))
            + f" | {difference} |")
    return "\n".join(lines)


def main(words: list[str]) -> None:
    try:
        results = gather(".")
        named = {word: read_revision(".", word, word) for word in words}
    except (FileNotFoundError, OtherSchema) as error:
        sys.exit(f"error: {error}")
    if words:
        if missing := [word for word, found in named.items() if found is None]:
            sys.exit(f"error: {', '.join(missing)}: no such revision or experiment, or it has no results in reports/.")
        results = [results[0], *named.values()]
    differing = {each.name: found for each in results if (found := protocol_differences(results[0], each))}
    for name, found in differing.items():
        print(f"refused: {name} was measured in another way: {'; '.join(found)}", file=sys.stderr)
    comparable = [each for each in results if each.name not in differing]
    print(markdown(comparable, against_baseline(comparable, 2000, 0.95, 0)))
    sys.exit(1 if differing and words else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
