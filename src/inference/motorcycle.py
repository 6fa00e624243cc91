"""One real pair of photographs with true depth: scikit-image's motorcycle, of the Middlebury stereo benchmark.

Scharstein et al. 2014, High-Resolution Stereo Datasets with Subpixel-Accurate Ground Truth. The pair lies in
scikit-image's own wheel; its calibration is in the docstring of `skimage.data.stereo_motorcycle`.
"""

import numpy as np
import torch
from skimage.data import stereo_motorcycle

from src.scenes.crop import fit
from src.splatt3r.samples import Views

FOCAL, PRINCIPAL_POINT = 994.978, (311.193, 254.877)  # pixels of the left photograph
SHIFT = 31.086  # pixels, of the right one's principal point to the right
BASELINE = 0.193001  # metres, of the right camera to the right


def depth_of_disparity(disparity: np.ndarray) -> np.ndarray:
    """z-depth in metres of (H, W) pixels by which the right photograph shows a place further left, 0 where unknown:
    FOCAL BASELINE / (disparity + SHIFT)."""
    return np.where(np.isfinite(disparity), FOCAL * BASELINE / (disparity + SHIFT), 0.0)


def carried_depth(depth: np.ndarray, disparity: np.ndarray) -> np.ndarray:
    """Depth (H, W) of the right photograph: that of the left one's pixels where they are seen, the nearest of several; 0
    where none is."""
    rows, columns = np.nonzero(depth > 0)
    places = np.floor(columns + 0.5 - disparity[rows, columns]).astype(int)
    inside = (places >= 0) & (places < depth.shape[1])
    rows, columns, places = rows[inside], columns[inside], places[inside]
    found = np.full(depth.shape, np.inf)
    np.minimum.at(found, (rows, places), depth[rows, columns])
    return np.where(np.isfinite(found), found, 0.0)


def camera_matrices() -> np.ndarray:
    """K (2, 3, 3) of the left and the right photograph, pixels with the first pixel's centre at 0.5."""
    return np.array(
        [[[FOCAL, 0, PRINCIPAL_POINT[0] + shift], [0, FOCAL, PRINCIPAL_POINT[1]], [0, 0, 1]] for shift in (0, SHIFT)]
    )


def motorcycle(resolution: tuple[int, int]) -> Views:
    """Both photographs, the left one first, cut and resized; in metres, in the left camera's frame.

    resolution  (W, H) in pixels
    """
    left, right, disparity = stereo_motorcycle()
    depth = depth_of_disparity(disparity)
    c2w = np.tile(np.eye(4), (2, 1, 1))
    c2w[1, 0, 3] = BASELINE
    images, depths, Ks = [], [], []
    for image, own, K in zip((left, right), (depth, carried_depth(depth, disparity)), camera_matrices()):
        fitted = fit(K, (image.shape[1], image.shape[0]), resolution)
        images.append(torch.tensor(fitted.image(image)).permute(2, 0, 1).float() / 255)
        depths.append(torch.from_numpy(fitted.nearest(own)).float())
        Ks.append(torch.from_numpy(fitted.K).float())
    shown = torch.stack(images).contiguous()
    known = torch.stack(depths)
    valid = torch.ones_like(known, dtype=torch.bool)
    return Views(shown, known, valid, torch.stack(Ks), torch.from_numpy(c2w).float())
