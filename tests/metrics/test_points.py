import numpy as np
import pytest
import torch

from src.metrics.points import cloud_score, depth_scores, scale_error


def clouds(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(70, 3))
    return truth[:50] + 0.1 * rng.normal(size=(50, 3)), truth


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cloud_scores_agree_with_brute_force(seed):
    predicted, truth = clouds(seed)
    distances = np.sqrt(((predicted[:, None] - truth[None]) ** 2).sum(-1))
    accuracy, completeness = distances.min(1), distances.min(0)
    score = cloud_score(predicted, truth, [0.05, 0.2])
    assert score.accuracy == pytest.approx(accuracy.mean())
    assert score.completeness == pytest.approx(completeness.mean())
    assert score.chamfer == pytest.approx((accuracy.mean() + completeness.mean()) / 2)
    for tau in (0.05, 0.2):
        precision, recall = (accuracy < tau).mean(), (completeness < tau).mean()
        assert score.fscores[tau] == pytest.approx(2 / (1 / precision + 1 / recall))


def test_cloud_scores_of_a_known_pair():
    score = cloud_score(np.array([[0.0, 0, 0]]), np.array([[0.0, 0, 3], [0, 4, 0]]), [3.5, 0.1])
    assert (score.accuracy, score.completeness, score.chamfer) == (3, 3.5, 3.25)
    assert score.fscores == {3.5: pytest.approx(2 / 3), 0.1: 0.0}


def test_an_empty_cloud_has_no_score_and_a_broken_one_is_refused():
    points = np.zeros((4, 3))
    assert cloud_score(points[:0], points, [0.1]) is None and cloud_score(points, points[:0], [0.1]) is None
    with pytest.raises(ValueError, match="not finite"):
        cloud_score(np.full((4, 3), np.nan), points, [0.1])


def test_depth_scores_agree_with_a_loop():
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 3, (7, 5)) * (rng.random((7, 5)) > 0.3)
    rendered = rng.uniform(0, 3, (7, 5))
    rendered[2, 2], truth[2, 2] = 0, 2
    mask = rng.random((7, 5)) > 0.4
    mask[2, 2] = True
    pairs = [
        (float(rendered[y, x]), float(truth[y, x]))
        for y in range(7)
        for x in range(5)
        if mask[y, x] and truth[y, x] > 0
    ]
    scores = depth_scores(rendered, truth, mask)
    assert scores["depth_abs_rel"] == pytest.approx(sum(abs(r - t) / t for r, t in pairs) / len(pairs))
    assert scores["depth_rmse"] ** 2 == pytest.approx(sum((r - t) ** 2 for r, t in pairs) / len(pairs))
    near = [r > 0 and max(r / t, t / r) < 1.25 for r, t in pairs]
    assert 0 < sum(near) < len(near) and scores["depth_delta1"] == pytest.approx(sum(near) / len(near))
    assert set(depth_scores(rendered, truth, np.zeros_like(mask)).values()) == {None}


def test_depth_scores_of_a_known_pair():
    """Exact, a fifth too far, a quarter too near by the stricter side, and nothing there."""
    truth, rendered = np.array([[1.0, 5, 4, 2]]), np.array([[1.0, 6, 3, 0]])
    scores = depth_scores(rendered, truth, np.ones((1, 4), bool))
    assert scores == {
        "depth_abs_rel": pytest.approx((0 + 0.2 + 0.25 + 1) / 4),
        "depth_delta1": 0.5,
        "depth_rmse": pytest.approx(((0 + 1 + 1 + 4) / 4) ** 0.5),
    }
    assert depth_scores(2 * rendered, 2 * truth, np.ones((1, 4), bool))["depth_delta1"] == 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_cloud_scores_agree_with_torchs_distances(seed):
    predicted, truth = clouds(seed)
    distances = torch.cdist(
        torch.from_numpy(predicted), torch.from_numpy(truth), compute_mode="donot_use_mm_for_euclid_dist"
    )
    taus = [0.02, 0.05, 0.1, 0.3, 1.0]
    score = cloud_score(predicted, truth, taus)
    assert score.accuracy == pytest.approx(distances.amin(1).mean().item())
    assert score.completeness == pytest.approx(distances.amin(0).mean().item())
    for tau in taus:
        precision, recall = ((distances.amin(axis) < tau).double().mean().item() for axis in (1, 0))
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert score.fscores[tau] == pytest.approx(expected)
    assert list(score.fscores.values()) == sorted(score.fscores.values())


def test_scale_error_is_alike_in_both_directions():
    assert scale_error(1.25) == pytest.approx(0.25) == scale_error(0.8)
    assert scale_error(1.0) == 0
    with pytest.raises(ValueError, match="greater than 0"):
        scale_error(0.0)
