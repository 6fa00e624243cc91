"""This repository's history as a test of equals: comparisons of experiments that cannot differ, judged again.

tests/data/null_comparisons.csv holds every comparison of masked PSNR in the committed reports/comparison, up to 673da7d,
between experiments without learned features: no backbone, untrained ones (main, vitb, add), constant features. Those with
the baseline are from comparison.json, those with constant features from the sentences of table.md, to 0.01 dB. Limits
are those of the rule from before, together is how many it corrected for, called is what it said.

The records behind them are not in Git, so this is what can be done: the standard error over scenes is that of the old
interval read as Student's (it was longer, so the error comes out a little large), without skewness, and weighs targets
instead of scenes. Comparisons over three seeds mix scenes and seeds in their limits and are not judged again; none
of them was called different. What other seeds change is the stated prior, which these very comparisons gave: that the
rule holds on them is no independent proof, but that it would not have said what it said.

    python -m tests.results.test_statistics_history

prints the list.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from scipy.stats import t as student

from src.config import load_config
from src.results.errors import ALPHA, Errors, VariancePart
from src.results.statistics import holm
from tests.helpers.repository import ROOT

NULLS = ROOT / "tests/data/null_comparisons.csv"


@dataclass(frozen=True)
class Null:
    """One comparison between experiments that cannot differ, in dB."""

    commit: str
    first: str
    second: str
    seeds: int
    difference: float
    half: float
    scenes: int
    together: int
    called: bool


def nulls(path: Path = NULLS) -> list[Null]:
    with open(path) as file:
        return [
            Null(
                row["commit"],
                row["first"],
                row["second"],
                int(row["seeds"]),
                float(row["difference"]),
                (float(row["high"]) - float(row["low"])) / 2,
                int(row["scenes"]),
                int(row["together"]),
                row["called"] == "yes",
            )
            for row in csv.DictReader(file)
        ]


def stated_own() -> float:
    """Of datasets.procedural.seed_sd, for masked PSNR."""
    return load_config(["data.dataset=procedural"], ROOT).dataset.seed_sd["psnr_masked"]["own"]


def judged_again() -> list[tuple[Null, float, float]]:
    """Comparisons of single trainings with p of the new rule, alone and corrected for as many claims as the comparison
    had with the same second experiment (the least favourable to the rule: it corrects for all metrics besides)."""
    own, found = stated_own(), []
    for null in (each for each in nulls() if each.seeds == 1):
        over_scenes = VariancePart((null.half / student.ppf(1 - ALPHA / 2, null.scenes - 1)) ** 2, null.scenes - 1)
        p = float(Errors((over_scenes, VariancePart(2 * own**2, math.inf)), null.scenes).p(null.difference))
        found.append((null, p, holm([p, *[1.0] * (null.together - 1)])[0]))
    return found


def test_equals_were_called_different_and_are_no_more():
    again = judged_again()
    assert len(again) == 38 and sum(null.called for null, _, _ in again) == 7
    assert sum(p < ALPHA for _, _, p in again) <= 0.05 * len(again)
    assert not any(each.called for each in nulls() if each.seeds > 1) and len(nulls()) == 50


def test_the_stated_prior_is_what_the_history_shows():
    """Root mean square of the differences, of two trainings each."""
    squares = [each.difference**2 for each in nulls() if each.seeds == 1]
    assert math.sqrt(sum(squares) / len(squares) / 2) == pytest.approx(stated_own(), rel=0.01)


if __name__ == "__main__":
    for null, p, corrected in judged_again():
        said = "called different" if null.called else "not distinguishable"
        says = "called different" if corrected < ALPHA else "not distinguishable"
        print(
            f"{null.commit} {null.first:8s} - {null.second:8s} {null.difference:+.3f} dB  then {said:19s}  "
            f"now {says:19s} p = {p:.3f}, {corrected:.3f}"
        )
