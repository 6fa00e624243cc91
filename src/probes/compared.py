"""From probe scores by scene to what features know and add; without torch, whose import takes seconds."""

from itertools import product

import numpy as np

from src.results.statistics import SceneScores, SeedSpread, compare_paired
from src.results.tables import Row

NO_SEEDS = SeedSpread(None, None)
PROBE_COLUMNS = ("scene", "probe", "inputs", "value")  # of a table of scores
HELD_AGAINST = ("pck", "line")  # what matches are held against: the true place, or without depth the epipolar line
HEADLINE_PROBES = ("log_depth", "normals", "correction", "pck_1", "line_1")  # verdicts are given for these together
DISTANCES = (1, 2)  # cells within which a match counts


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
    for place, distance in product(HELD_AGAINST, DISTANCES):
        name = f"{place}_{distance}"
        pairs[name] = values_by_scene(rows, name, "features"), values_by_scene(rows, name, "tokens")
    present = {name: pair for name, pair in pairs.items() if pair[0] and pair[1]}
    headline = differences({name: pair for name, pair in present.items() if name in HEADLINE_PROBES})
    others = differences({name: pair for name, pair in present.items() if name not in HEADLINE_PROBES})
    return headline | {name: found | {"p": None, "p_holm": None} for name, found in others.items()}
