"""From errors per patch to a table by scene."""

import math
from collections import defaultdict

import numpy as np
from torch import Tensor

from src.probes.compared import DISTANCES, PROBE_COLUMNS
from src.probes.correspondence import Matches
from src.results.tables import Row

LOWEST = 1e-12  # mean squared error that counts as none


class ProbeScores:
    """Sums over patches and pairs, by scene; flat in the number of pairs."""

    def __init__(self):
        self.errors: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0])  # scene, target, inputs
        self.spread: dict[str, list[Tensor]] = {}  # target -> n, sum, sum of squares
        self.psnr: dict[tuple[str, str], list[float]] = defaultdict(list)  # scene, inputs
        self.matches: dict[tuple[str, str, str, str], Matches] = {}  # of HELD_AGAINST, scene, bin, inputs

    def add_errors(self, scene: str, target: str, inputs: str, predicted: Tensor, truth: Tensor) -> None:
        total = self.errors[scene, target, inputs]
        total[0] += (predicted - truth).square().sum().item()
        total[1] += len(truth)

    def add_truth(self, target: str, truth: Tensor) -> None:
        self.add_spread(target, [truth.new_tensor(len(truth)), truth.sum(0), truth.square().sum(0)])

    def add_spread(self, target: str, sums: list[Tensor]) -> None:
        self.spread[target] = [a + b for a, b in zip(self.spread.get(target, [0, 0, 0]), sums)]

    def add_matches(self, place: str, scene: str, bin: str, inputs: str, found: Matches) -> None:
        key = place, scene, bin, inputs
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
        for which, found in other.matches.items():
            self.add_matches(*which, found)

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

    def share(self, place: str, inputs: str, bin: str | None = None) -> dict[str, float | int] | None:
        """Shares of the matches of all scenes, of one overlap bin or of all; None where there are none."""
        chosen = [m for (p, _, b, i), m in self.matches.items() if (p, i) == (place, inputs) and bin in (None, b)]
        if not chosen or not (all_of := sum(chosen[1:], chosen[0])).visible:
            return None
        found = {f"{place}_{distance}": n / all_of.visible for distance, n in zip(DISTANCES, all_of.within)}
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
        for place, scene, inputs in sorted({(place, scene, inputs) for place, scene, _, inputs in self.matches}):
            parts = [m for (p, s, _, i), m in self.matches.items() if (p, s, i) == (place, scene, inputs)]
            total = sum(parts[1:], parts[0])
            if total.visible:
                found += [
                    row(scene, f"{place}_{distance}", inputs, n / total.visible)
                    for distance, n in zip(DISTANCES, total.within)
                ]
        return sorted(found, key=lambda each: (each["probe"], each["inputs"], each["scene"]))


def row(scene: str, probe: str, inputs: str, value: float) -> Row:
    return dict(zip(PROBE_COLUMNS, (scene, probe, inputs, value)))
