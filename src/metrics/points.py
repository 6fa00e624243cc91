"""How close predicted points, depths and scale are to the true ones. Distances are in the unit of the points."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

DEPTH_SCORES = ("depth_abs_rel", "depth_rmse", "depth_delta1")
DELTA = 1.25  # a depth within this factor of the true one counts as found


@dataclass(frozen=True)
class CloudScore:
    """accuracy: mean distance of a predicted point to the nearest true one; completeness: the other way round;
    chamfer: the mean of the two; fscores: per tau, the harmonic mean of the shares of points nearer than tau."""

    accuracy: float
    completeness: float
    chamfer: float
    fscores: dict[float, float]


def cloud_score(predicted: np.ndarray, truth: np.ndarray, taus: list[float]) -> CloudScore | None:
    """Chamfer distance and F-scores   (Knapitsch et al. 2017, Tanks and Temples, sec. 4.2).

    predicted, truth (N, 3), (M, 3)  same frame and unit
    taus             distances at which a point counts as found
    returns          None when either cloud is empty
    raises           ValueError when a point is not finite
    """
    if len(predicted) == 0 or len(truth) == 0:
        return None
    if not (np.isfinite(predicted).all() and np.isfinite(truth).all()):
        raise ValueError(
            "A point cloud to be scored holds points that are not finite; the predicted means or the true "
            "depths behind it are broken."
        )
    to_truth = cKDTree(truth).query(predicted)[0]
    to_predicted = cKDTree(predicted).query(truth)[0]
    accuracy, completeness = float(to_truth.mean()), float(to_predicted.mean())
    fscores = {tau: harmonic_mean(float((to_truth < tau).mean()), float((to_predicted < tau).mean())) for tau in taus}
    return CloudScore(accuracy, completeness, (accuracy + completeness) / 2, fscores)


def harmonic_mean(precision: float, recall: float) -> float:
    """0 when both are."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def depth_scores(rendered: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float | None]:
    """Depth errors of one view   (Eigen et al. 2014, Depth Map Prediction, sec. 3.3).

    depth_abs_rel   mean of |rendered - true| / true
    depth_rmse      root of the mean squared difference, in the unit of the depths
    depth_delta1    share of the pixels whose larger depth is less than 1.25 times the smaller

    rendered, truth (H, W)  z-depth in one unit; true 0 = unknown, rendered 0 = nothing there, which counts as an error
                            of the whole depth
    mask            (H, W)  pixels that count
    returns         None for all three when no such pixel has a true depth
    """
    known = mask.astype(bool) & (truth > 0)
    if not known.any():
        return dict.fromkeys(DEPTH_SCORES)
    true, shown = truth[known].astype(np.float64), rendered[known].astype(np.float64)
    error = np.abs(shown - true)
    close = (shown < DELTA * true) & (true < DELTA * shown)
    return {
        "depth_abs_rel": float(np.mean(error / true)),
        "depth_rmse": float(np.sqrt(np.mean(error**2))),
        "depth_delta1": float(np.mean(close)),
    }


def scale_error(scale: float) -> float:
    """How far a predicted over true scale is from 1, alike in both directions: 0.25 for 1.25 and for 0.8."""
    if not scale > 0:
        raise ValueError(f"A scale must be greater than 0; got {scale}.")
    return max(scale, 1 / scale) - 1
