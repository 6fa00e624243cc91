import math

import pytest
import torch

from src.probes.scores import ProbeScores


def test_a_scene_without_a_patch_that_counts_is_absent():
    scores, truth = ProbeScores(), torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    for scene, values in (("seen", truth), ("blind", truth[:0])):
        scores.add_truth("log_depth", values)
        scores.add_errors(scene, "log_depth", "tokens", values + 0.5, values)
    (row,) = scores.rows()
    assert row["scene"] == "seen" and row["value"] == pytest.approx(math.log(0.25))
    assert scores.explained("log_depth", "tokens") == {"rmse": 0.5, "r2": pytest.approx(1 - 0.5 / 2)}
    empty = ProbeScores()
    empty.add_truth("log_depth", truth[:0])
    empty.add_errors("blind", "log_depth", "tokens", truth[:0], truth[:0])
    assert empty.rows() == [] and empty.explained("log_depth", "tokens") == {}
