"""Relative pose of two views from matched pixels, and how far one is from the true one."""

import math

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch import Tensor

LEAST_MATCHES = 8  # below, five of them would agree on anything
SURE = 0.99999  # that RANSAC drew five matches without a wrong one
THRESHOLDS = (5, 10, 20)  # degrees


def epipolar_pose(pixels: Tensor, K: np.ndarray, tolerance: float) -> np.ndarray | None:
    """c2w (4, 4) of view 2 in view 1's camera frame, its translation of length 1; None where no pose can be found.

    Essential matrix by five points in RANSAC (Nister 2004, An Efficient Solution to the Five-Point Relative Pose Problem);
    of its four poses the one that puts most points in front of both cameras; refined on all matches that agree with it, for
    five say little where cells are coarse.

    pixels     (2, M, 2)   of views 1 and 2
    K          (2, 3, 3)
    tolerance  pixels that a match may be off its epipolar line
    """
    if pixels.shape[1] < LEAST_MATCHES:
        return None
    rays = [
        cv2.undistortPoints(np.ascontiguousarray(each)[:, None], own, None)
        for each, own in zip(pixels.double().numpy(), K)
    ]
    off = tolerance / np.mean([own[axis, axis] for own in K for axis in range(2)])  # at focal length 1
    cv2.setRNGSeed(0)
    candidates, inliers = cv2.findEssentialMat(*rays, np.eye(3), method=cv2.RANSAC, prob=SURE, threshold=off)
    if candidates is None or candidates.shape[1] != 3:
        return None
    best, most = None, 0
    for essential in np.split(candidates, len(candidates) // 3):
        in_front, turn, shift, _ = cv2.recoverPose(essential, *rays, np.eye(3), mask=inliers.copy())
        if in_front > most:
            best, most = (turn, shift[:, 0]), in_front
    if best is None:
        return None
    agreeing = [cv2.convertPointsToHomogeneous(each)[inliers[:, 0] > 0, 0] for each in rays]
    turn, shift = refined(*best, *agreeing, off)
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = turn.T, -turn.T @ shift
    return c2w


def refined(
    turn: np.ndarray, shift: np.ndarray, first: np.ndarray, second: np.ndarray, off: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and unit translation (3,) of view 1's frame into view 2's, from near ones, with the least Sampson
    distances   (Hartley and Zisserman 2004, Multiple View Geometry, sec. 11.4.3), Cauchy's loss beyond `off`.

    first, second  (M, 3)  matched rays, their z 1
    """

    def pose(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = shift + step[3:]
        return Rotation.from_rotvec(step[:3]).as_matrix() @ turn, moved / np.linalg.norm(moved)

    def distances(step: np.ndarray) -> np.ndarray:
        rotation, (x, y, z) = pose(step)
        essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
        lines, back = first @ essential.T, second @ essential
        slopes = np.hypot(np.hypot(*lines[:, :2].T), np.hypot(*back[:, :2].T))
        return (second * lines).sum(1) / np.maximum(slopes, 1e-12)

    return pose(least_squares(distances, np.zeros(6), loss="cauchy", f_scale=off).x)


def rotation_error(found: np.ndarray, true: np.ndarray) -> float:
    """Angle in degrees, 0 to 180, between rotations (3, 3): 2 arcsin(|R - R'| / sqrt 8), precise near 0 too."""
    return math.degrees(2 * math.asin(min(1, float(np.linalg.norm(found - true)) / math.sqrt(8))))


def direction_error(found: np.ndarray, true: np.ndarray) -> float:
    """Angle in degrees, 0 to 180, between translations (3,) of any length. 90 where none is found; 0 where there is none to
    be found."""
    lengths = np.linalg.norm(found), np.linalg.norm(true)
    if lengths[1] < 1e-9:
        return 0.0
    if lengths[0] < 1e-9:
        return 90.0
    first, second = found / lengths[0], true / lengths[1]
    return math.degrees(2 * math.atan2(np.linalg.norm(first - second), np.linalg.norm(first + second)))


def share_under_curve(error: float, threshold: float) -> float:
    """What a pair of this error adds to the AUC, 0 to 1; the mean over pairs is the AUC: the area under the share of pairs
    whose error, the larger of the two angles, is at most x, for x from 0 to `threshold`, over the threshold   (Sarlin et
    al. 2020, SuperGlue, sec. 5.2; Sun et al. 2021, LoFTR, sec. 4.2)."""
    return max(0.0, 1 - error / threshold)
