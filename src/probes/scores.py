"""From errors per patch to a table by scene, and from that to what features know and add."""

import math
from collections import defaultdict

import numpy as np
from torch import Tensor

from src.probes.correspondence import DISTANCES, Matches
from src.results.statistics import SceneScores, SeedSpread, compare_paired
from src.results.tables import Row

NO_SEEDS = SeedSpread(None, None)
HEADLINE_PROBES = ("log_depth", "normals", "correction", "pck_1")  # verdicts are given for these together
LOWEST = 1e-12  # mean squared error that counts as none


class ProbeScores:
    """Sums over patches and pairs, by scene; flat in the number of pairs."""

    def __init__(self):
        self.errors: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0])  # scene, target, inputs
        self.spread: dict[str, list[Tensor]] = {}  # target -> n, sum, sum of squares
        self.psnr: dict[tuple[str, str], list[float]] = defaultdict(list)  # scene, inputs
        self.matches: dict[tuple[str, str, str], Matches] = {}  # scene, bin, inputs

    def add_errors(self, scene: str, target: str, inputs: str, predicted: Tensor, truth: Tensor) -> None:
        total = self.errors[scene, target, inputs]
        total[0] += (predicted - truth).square().sum().item()
        total[1] += len(truth)

    def add_truth(self, target: str, truth: Tensor) -> None:
        self.add_spread(target, [truth.new_tensor(len(truth)), truth.sum(0), truth.square().sum(0)])

    def add_spread(self, target: str, sums: list[Tensor]) -> None:
        self.spread[target] = [a + b for a, b in zip(self.spread.get(target, [0, 0, 0]), sums)]

    def add_matches(self, scene: str, bin: str, inputs: str, found: Matches) -> None:
        key = scene, bin, inputs
        self.matches[key] = self.matches[key] + found if key in self.matches else found

    def add(self, other: "ProbeScores") -> None:
        """The sums of other pairs."""
        for key, (error, count) in other.errors.items():
            self.errors[key][0] += error
            self.errors[key][1] += count
        for target, sums in other.spread.items():
            self.add_spread(target, sums)
        for pair, values in other.psnr.items():
            self.psnr[pair] += values
        for (scene, bin, inputs), found in other.matches.items():
            self.add_matches(scene, bin, inputs, found)

    def explained(self, target: str, inputs: str) -> dict[str, float]:
        """rmse over all test patches, all columns of the target together, and r2 where the target varies; nothing where no
        patch counts."""
        parts = [total for (_, t, i), total in self.errors.items() if (t, i) == (target, inputs)]
        error, count = (sum(part[k] for part in parts) for k in (0, 1))
        if not count:
            return {}
        n, total, squares = self.spread[target]
        variance = (squares - total.square() / n).sum().item()
        varies = variance > LOWEST * count
        return {"rmse": math.sqrt(error / count)} | ({"r2": 1 - error / variance} if varies else {})

    def share(self, inputs: str, bin: str | None = None) -> dict[str, float | int] | None:
        """Shares of the matches of all scenes, of one overlap bin or of all; None where there are none."""
        chosen = [m for (_, b, i), m in self.matches.items() if i == inputs and bin in (None, b)]
        if not chosen or not (all_of := sum(chosen[1:], chosen[0])).visible:
            return None
        found = {f"pck_{distance}": n / all_of.visible for distance, n in zip(DISTANCES, all_of.within)}
        found |= {"mutual": all_of.mutual / all_of.visible, "cells": all_of.visible}
        return found | ({"precision": all_of.precise / all_of.mutual} if all_of.mutual else {})

    def rows(self) -> list[Row]:
        """scene, probe, inputs, value: of readouts the logarithm of the mean squared error, of correspondence shares, of
        splatted points dB."""
        found: list[Row] = [
            row(scene, target, inputs, math.log(max(error / count, LOWEST)))
            for (scene, target, inputs), (error, count) in self.errors.items()
            if count
        ]
        found += [row(scene, "psnr_masked", inputs, float(np.mean(v))) for (scene, inputs), v in self.psnr.items() if v]
        for scene, inputs in sorted({(scene, inputs) for scene, _, inputs in self.matches}):
            parts = [m for (s, _, i), m in self.matches.items() if (s, i) == (scene, inputs)]
            total = sum(parts[1:], parts[0])
            if total.visible:
                found += [
                    row(scene, f"pck_{distance}", inputs, n / total.visible)
                    for distance, n in zip(DISTANCES, total.within)
                ]
        return sorted(found, key=lambda each: (each["probe"], each["inputs"], each["scene"]))


def row(scene: str, probe: str, inputs: str, value: float) -> Row:
    return {"scene": scene, "probe": probe, "inputs": inputs, "value": value}


def values_by_scene(rows: list[Row], probe: str, inputs: str) -> dict[str, float]:
    return {str(r["scene"]): float(r["value"]) for r in rows if (r["probe"], r["inputs"]) == (probe, inputs)}


def differences(claims: dict[str, tuple[dict[str, float], dict[str, float]]]) -> dict[str, dict]:
    """First minus second, scene by scene, with intervals, and p values corrected for the number of claims; by the claims'
    names. Scenes that one of the two lacks are left out; no seed enters."""
    paired = {}
    for name, (first, second) in claims.items():
        scenes = sorted(first.keys() & second.keys())
        if scenes:
            sides = [np.array([[side[scene] for scene in scenes]]) for side in (first, second)]
            paired[name] = (*(SceneScores(means, (), len(scenes)) for means in sides), NO_SEEDS)
    return {
        name: {
            "mean": found.interval.mean,
            "low": found.interval.low,
            "high": found.interval.high,
            "scenes": found.interval.scenes,
            "p": found.p,
            "p_holm": found.p_holm,
        }
        for name, found in compare_paired(paired).items()
    }


def added(rows: list[Row]) -> dict[str, dict]:
    """What features add to the geometry network's tokens: of readouts the logarithm of the ratio of squared errors (below
    0 is better), of splatted points dB, of correspondence the difference of shares. Names that end in _pca are of the
    features' principal components alone."""
    pairs = {
        probe: (values_by_scene(rows, probe, "both"), values_by_scene(rows, probe, "tokens"))
        for probe in ("log_depth", "normals", "distance", "direction", "correction", "psnr_masked")
    }
    for probe in ("log_depth", "normals"):
        pairs[f"{probe}_pca"] = values_by_scene(rows, probe, "both_pca"), values_by_scene(rows, probe, "tokens")
    for distance in DISTANCES:
        name = f"pck_{distance}"
        pairs[name] = values_by_scene(rows, name, "features"), values_by_scene(rows, name, "tokens")
    present = {name: pair for name, pair in pairs.items() if pair[0] and pair[1]}
    headline = differences({name: pair for name, pair in present.items() if name in HEADLINE_PROBES})
    others = differences({name: pair for name, pair in present.items() if name not in HEADLINE_PROBES})
    return headline | {name: found | {"p": None, "p_holm": None} for name, found in others.items()}
