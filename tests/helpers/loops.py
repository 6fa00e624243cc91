"""Formulas written as loops."""

import numpy as np


def visible_by_loop(points, depth, K, c2w, tolerance, relative):
    seen = np.zeros(points.shape[:-1], bool)
    w2c = np.linalg.inv(c2w)
    for index in np.ndindex(seen.shape):
        x, y, z = (w2c @ np.append(points[index], 1))[:3]
        if z <= 0:
            continue
        u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
        if not (0 <= u < depth.shape[1] and 0 <= v < depth.shape[0]):
            continue
        d = depth[int(v), int(u)]
        seen[index] = d > 0 and abs(d - z) <= (tolerance * z if relative else tolerance)
    return seen
