"""The cameras of one's own photographs: read from a file, or found from predicted points where nobody has told them."""

import json
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from src.geometry.cameras import pixel_centres

POINTS = 4096  # that the second camera is found from, at most
REPROJECTION = 0.02  # of the width: how far from its pixel a point may fall
AGREEING = 0.1  # share of the points that must
RIGID = 1e-3  # how far R^T R may be from the identity


def read_cameras(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """K (2, 3, 3) and c2w (2, 4, 4) float64 of a JSON file {"K": [..., ...], "c2w": [..., ...]}: pixels of the upright
    photographs with the first pixel's centre at 0.5, OpenCV axes, any unit of length.

    raises   FileNotFoundError; ValueError when it is not such a file, or what it says is no camera
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} of cameras; name one, or leave --cameras out.")
    try:
        found = json.loads(path.read_text("utf8"))
        K, c2w = (np.array(found[name], np.float64) for name in ("K", "c2w"))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'{path} is no file of cameras ({error!r}); write {{"K": [3x3, 3x3], "c2w": [4x4, 4x4]}}.'
        ) from error
    if K.shape != (2, 3, 3) or c2w.shape != (2, 4, 4) or not (np.isfinite(K).all() and np.isfinite(c2w).all()):
        raise ValueError(
            f"{path} has K {K.shape} and c2w {c2w.shape} where (2, 3, 3) and (2, 4, 4) finite numbers are wanted."
        )
    turns = c2w[:, :3, :3]
    if np.abs(turns.transpose(0, 2, 1) @ turns - np.eye(3)).max() > RIGID or (np.linalg.det(turns) < 0).any():
        raise ValueError(
            f"{path} has a c2w whose 3x3 part is no rotation; write camera-to-world poses with OpenCV's axes."
        )
    if (K[:, 0, 0] <= 0).any() or (K[:, 1, 1] <= 0).any() or np.abs(K[:, 2] - [0, 0, 1]).max() > 0:
        raise ValueError(f"{path} has a K without positive focal lengths in pixels, or whose last row is not 0 0 1.")
    return K, c2w


def pinhole(focal: float, width: int, height: int) -> np.ndarray:
    """K (3, 3) with its principal point in the middle."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def fitted_focal_length(points: Tensor) -> float:
    """Focal length in pixels of a pinhole camera, principal point in the middle, that sees points where they are:
    median over the pixels of |pixel - middle| / |(x, y) / z|.

    points   (H, W, 3)  in the camera's own frame
    raises   ValueError when no point lies in front of it
    """
    height, width = points.shape[:2]
    pixels = pixel_centres(height, width, like=points) - points.new_tensor([width / 2, height / 2])
    seen = points[..., 2] > 0
    if not seen.any():
        raise ValueError("All predicted points lie behind the first camera, so no camera can be found.")
    slopes = points[seen][:, :2] / points[seen][:, 2:]
    return (pixels[seen].norm(dim=-1) / slopes.norm(dim=-1).clamp_min(1e-12)).median().item()


def fitted_pinhole(points: Tensor) -> np.ndarray:
    """K (3, 3) of `fitted_focal_length`, for images as large as points (H, W, 3).

    raises   ValueError when no point lies in front of the camera
    """
    return pinhole(fitted_focal_length(points), points.shape[1], points.shape[0])


def second_camera(points: Tensor, K: np.ndarray) -> np.ndarray:
    """c2w (4, 4) of the camera whose pixels see points (H, W, 3), in the points' frame   (OpenCV's SQPnP in RANSAC).

    raises   ValueError when no camera sees them so
    """
    height, width = points.shape[:2]
    pixels = pixel_centres(height, width, like=points.double()).reshape(-1, 2).cpu().numpy()
    chosen = np.linspace(0, height * width - 1, min(POINTS, height * width)).astype(int)
    cv2.setRNGSeed(0)
    places = points.reshape(-1, 3).double().cpu().numpy()
    found, turn, shift, agreeing = cv2.solvePnPRansac(
        places[chosen], pixels[chosen], K, None, flags=cv2.SOLVEPNP_SQPNP, reprojectionError=REPROJECTION * width
    )
    if not found or len(agreeing) < AGREEING * len(chosen):
        raise ValueError(
            "The predicted points of the second photograph fit no camera: do both photographs show the same place?"
        )
    w2c = np.eye(4)
    w2c[:3, :3], w2c[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
    return np.linalg.inv(w2c)
