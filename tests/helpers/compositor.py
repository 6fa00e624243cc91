"""A naive rasteriser for tests: float64, one Gaussian and one pixel at a time, no tiles. Shares no code with src."""

import math

import numpy as np
from scipy.spatial.transform import Rotation

NEVER = 1e9


def footprint(mean, quat, scale, w2c, K, width, height):
    """Pixel centre (2,), 2D covariance (2, 2) and depth of one Gaussian; wxyz quaternion."""
    rotation = w2c[:3, :3]
    x, y, z = rotation @ mean + w2c[:3, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    spare_x, spare_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = np.clip(x / z, -cx / fx - spare_x, (width - cx) / fx + spare_x)
    slope_y = np.clip(y / z, -cy / fy - spare_y, (height - cy) / fy + spare_y)
    J = np.array([[fx / z, 0, -fx * slope_x / z], [0, fy / z, -fy * slope_y / z]])
    axes = Rotation.from_quat(np.roll(quat, -1)).as_matrix()
    covariance = axes @ np.diag(scale**2) @ axes.T
    spread = J @ rotation @ covariance @ rotation.T @ J.T + 0.3 * np.eye(2)
    return np.array([fx * x / z + cx, fy * y / z + cy]), spread, z


def composite(means, quats, scales, opacities, colors, w2c, K, width, height, near, background=(0, 0, 0)):
    """One view: image (3, H, W), alpha (H, W), accumulated depth (H, W), and how close any pixel came to a threshold
    (as a share of it), so that finite differences can be trusted."""
    means, quats, scales, opacities, colors, w2c, K = (
        np.asarray(a, np.float64) for a in (means, quats, scales, opacities, colors, w2c, K)
    )
    kept = [i for i in range(len(means)) if (w2c[:3, :3] @ means[i] + w2c[:3, 3])[2] >= near]
    prints = {i: footprint(means[i], quats[i], scales[i], w2c, K, width, height) for i in kept}
    order = sorted(kept, key=lambda i: prints[i][2])
    conics = {i: np.linalg.inv(prints[i][1]) for i in kept}
    image, alphas, depths = np.zeros((3, height, width)), np.zeros((height, width)), np.zeros((height, width))
    margin = NEVER
    for row in range(height):
        for column in range(width):
            light = 1.0
            for i in order:
                dx, dy = prints[i][0][0] - (column + 0.5), prints[i][0][1] - (row + 0.5)
                (a, b), (_, c) = conics[i]
                raw = opacities[i] * math.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
                alpha = min(0.999, raw)
                margin = min(margin, abs(255 * alpha - 1), abs(raw / 0.999 - 1))
                if alpha < 1 / 255:
                    continue
                margin = min(margin, abs(1e4 * light * (1 - alpha) - 1))
                if light * (1 - alpha) <= 1e-4:
                    break
                image[:, row, column] += light * alpha * colors[i]
                depths[row, column] += light * alpha * prints[i][2]
                light *= 1 - alpha
            alphas[row, column] = 1 - light
            image[:, row, column] += light * np.asarray(background)
    return image, alphas, depths, margin
