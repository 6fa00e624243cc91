"""Probes of several experiments beside each other; the figures are of formulas written out here."""

import math

import numpy as np
import pytest

from src.experiments.probed import added_by, gain_by_scene, relation, twins
from src.experiments.result import ExperimentResult
from src.page.probe_tables import compared_probes, relation_words, twin_words

SCENES = [f"s{number}" for number in range(12)]


def experiment(
    name: str, gain: float, adds: float | None, weights: str = "none", detail: str = "readout", known: float = 0.0
) -> ExperimentResult:
    """gain: dB of the trained model; adds: dB that its features' readout adds, None without features; known: how much
    better than e^0 they tell depth (logarithm of the squared error) and matches."""
    noise = np.random.default_rng(len(name)).normal(size=len(SCENES))
    rows = [
        {
            "episode": f"{scene}-{pair}",
            "scene": scene,
            "target": "t",
            "alignment": "aligned",
            "psnr_masked": 20 + gain + 0.02 * wave,
        }
        for scene, wave in zip(SCENES, noise)
        for pair in range(2)
    ]
    probes = [{"scene": s, "probe": "psnr_masked", "inputs": "tokens", "value": 18.0} for s in SCENES]
    if adds is not None:
        for scene, wave in zip(SCENES, noise):
            values = {
                ("psnr_masked", "both"): 18 + adds + 0.01 * wave,
                ("log_depth", "features"): -known + 0.01 * wave,
                ("pck_1", "features"): 0.2 + 0.1 * known,
            }
            probes += [{"scene": scene, "probe": p, "inputs": i, "value": value} for (p, i), value in values.items()]
    about = {"backbone": {"name": name.partition("-")[0], "weights": weights}, "detail": detail}
    return ExperimentResult(name, about, rows, {}, None, probes)


NONE = experiment("none", 0.0, None)
LADDER = [experiment(f"n{step}", 0.1 * step**2, 0.05 * step) for step in range(5)]


def test_what_rises_together_has_rank_correlation_one():
    found = relation([NONE, *LADDER], NONE)
    assert found.rho == found.high == pytest.approx(1) and found.low > 0.8
    assert found.points.keys() == {each.name for each in LADDER}
    assert found.points["n4"] == pytest.approx((0.2, 1.6), abs=0.03)
    assert "so the two go together" in relation_words(found.rho, found.low, found.high, 5)


def test_the_rank_correlation_is_that_of_the_squared_rank_differences():
    """rho = 1 - 6 sum(d^2) / (n (n^2 - 1)), without ties."""
    gains, adds = [0.0, 3.0, 1.0, 4.0, 2.0], [0.0, 1.0, 2.0, 3.0, 4.0]
    apart = sum((g - a) ** 2 for g, a in zip(gains, adds))
    found = relation([NONE, *(experiment(f"x{n}", g, a) for n, (g, a) in enumerate(zip(gains, adds)))], NONE)
    assert found.rho == pytest.approx(1 - 6 * apart / (5 * 24)) and found.low == found.high == pytest.approx(found.rho)
    assert "not shown to go together" in relation_words(0.3, -0.4, 0.8, 5)


def test_few_experiments_have_no_rank_correlation():
    found = relation([NONE, *LADDER[:3]], NONE)
    assert found.rho is found.low is None and len(found.points) == 3


def test_gains_are_means_over_the_targets_of_a_scene():
    gain = gain_by_scene(LADDER[3], NONE)
    ours, theirs = (np.random.default_rng(len(name)).normal(size=12) for name in ("n3", "none"))
    assert list(gain) == sorted(SCENES)
    assert [gain[scene] for scene in SCENES] == pytest.approx((0.9 + 0.02 * (ours - theirs)).tolist())


def test_twins_differ_in_their_weights_alone():
    pretrained = experiment("lite-a", 0.1, 0.1, "pretrained", known=0.4)
    untrained = experiment("lite-b", 0.0, 0.0, "random", known=0.1)
    others = [experiment("lite-c", 0, 0, "random", detail="other"), experiment("vit-d", 0, 0, "random"), NONE]
    ((names, found),) = twins([pretrained, untrained, *others]).items()
    assert names == ("lite-a", "lite-b") and found.keys() == {"log_depth", "pck_1"}
    assert found["log_depth"]["mean"] == pytest.approx(-0.3, abs=0.01) and found["pck_1"]["mean"] == pytest.approx(0.03)
    assert found["log_depth"]["p_holm"] < 0.01
    words = twin_words(*names, found)
    assert "lite-a against those of lite-b, its untrained twin" in words and words.count("better") == 2
    worse = twins([experiment("lite-a", 0, 0, "pretrained", known=-0.4), untrained])[names]
    assert twin_words(*names, worse).count("worse") == 2 and math.isclose(worse["pck_1"]["mean"], -0.05)


def test_what_features_add_is_a_row_of_those_that_have_features():
    found = added_by([NONE, LADDER[2]])
    assert found.keys() == {"n2"}
    head, rows = compared_probes(found)
    assert head == ["Run", "splatted points moved by it"] and rows[0][0] == "n2" and rows[0][1].startswith("+0.10")
    assert compared_probes({}) is None
