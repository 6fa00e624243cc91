"""What each 3D Gaussian covers of an image: its elliptical footprint, and the gradient back to the Gaussian.

Elliptical weighted average splatting (Zwicker et al. 2002, EWA splatting; Kerbl et al. 2023) with the rules of gsplat
1.5: centres nearer than `near` are dropped, the projection is linearised at a centre clamped to 1.3 times the half
field of view, 0.3 px^2 is added to the diagonal of the 2D covariance, and a footprint ends where its opacity falls
under 1/255 (Radl et al. 2024, StopThePop, B.2). Computed in float64, stored in float32. Vectors are tuples.
"""

import math

import numpy as np
from numba import njit, prange

from src.splatting.cpu.jit import COMPILED
from src.splatting.thresholds import BLUR, MIN_ALPHA, TILE

FAR_PLANE = 1e10

# Columns of a footprint. Exponent at offset (dx, dy) = centre - pixel: HALF_XX dx^2 + XY dx dy + HALF_YY dy^2.
X, Y, HALF_XX, XY, HALF_YY, OPACITY, RED, GREEN, BLUE, DEPTH, RADIUS_Y = range(11)
COLUMNS = 11

# Columns of its gradient: sums over pixels of g, g dx, g dy, g dx^2, g dx dy, g dy^2, where g = d loss / d exponent,
# then the gradients of colour and depth.
SUM, SUM_X, SUM_Y, SUM_XX, SUM_XY, SUM_YY, GRAD_RED, GRAD_GREEN, GRAD_BLUE, GRAD_DEPTH = range(10)
GRADIENTS = 10


@njit(**COMPILED)
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**COMPILED)
def scaled(a, factor):
    return a[0] * factor, a[1] * factor, a[2] * factor


@njit(**COMPILED)
def combined(a, x, b, y, c, z):
    return (a[0] * x + b[0] * y + c[0] * z, a[1] * x + b[1] * y + c[1] * z, a[2] * x + b[2] * y + c[2] * z)


@njit(**COMPILED)
def axes_of(quat):
    """Columns of the rotation matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quat
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )


@njit(**COMPILED)
def unit_quaternion(quats, i):
    w, x, y, z = np.float64(quats[i, 0]), np.float64(quats[i, 1]), np.float64(quats[i, 2]), np.float64(quats[i, 3])
    length = math.sqrt(w * w + x * x + y * y + z * z)
    return (w / length, x / length, y / length, z / length), length


@njit(**COMPILED)
def matrix_row(matrix, i):
    return matrix[i, 0], matrix[i, 1], matrix[i, 2]


@njit(**COMPILED)
def centre_of(means, i, w2c):
    """Centre in the camera's frame."""
    mean = (np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2]))
    return (
        dot(matrix_row(w2c, 0), mean) + w2c[0, 3],
        dot(matrix_row(w2c, 1), mean) + w2c[1, 3],
        dot(matrix_row(w2c, 2), mean) + w2c[2, 3],
    )


@njit(**COMPILED)
def linearised(centre, camera):
    """Rows of d pixel / d camera point at a centre whose x/z and y/z are clamped, and whether each was clamped."""
    fx, fy, left, right, top, bottom = camera[0], camera[1], camera[4], camera[5], camera[6], camera[7]
    x, y, z = centre
    slope_x, slope_y = min(right, max(-left, x / z)), min(bottom, max(-top, y / z))
    clamped = (x / z > right) or (x / z < -left), (y / z > bottom) or (y / z < -top)
    return (fx / z, 0.0, -fx * slope_x / z), (0.0, fy / z, -fy * slope_y / z), clamped


@njit(**COMPILED)
def camera_axes(quat, scales, i, w2c):
    """The Gaussian's three axes, each as long as its standard deviation, in the camera's frame."""
    a, b, c = axes_of(quat)
    r0, r1, r2 = matrix_row(w2c, 0), matrix_row(w2c, 1), matrix_row(w2c, 2)
    return (
        scaled((dot(r0, a), dot(r1, a), dot(r2, a)), np.float64(scales[i, 0])),
        scaled((dot(r0, b), dot(r1, b), dot(r2, b)), np.float64(scales[i, 1])),
        scaled((dot(r0, c), dot(r1, c), dot(r2, c)), np.float64(scales[i, 2])),
    )


@njit(**COMPILED)
def tile_range(centre, radius, pixels):
    """First tile, and one past the last, of the pixel centres within `radius`; (0, 0) where there are none."""
    first, last = max(np.ceil(centre - radius - 0.5), 0.0), min(np.floor(centre + radius - 0.5), pixels - 1.0)
    return (int(first) // TILE, int(last) // TILE + 1) if first <= last else (0, 0)


def camera_numbers(K: np.ndarray, width: int, height: int) -> np.ndarray:
    """fx, fy, cx, cy, then the slopes (x or y over z) where the linearisation is clamped: left, right, top, bottom."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
    return np.array(
        [
            fx,
            fy,
            cx,
            cy,
            cx / fx + margin_x,
            (width - cx) / fx + margin_x,
            cy / fy + margin_y,
            (height - cy) / fy + margin_y,
        ]
    )


@njit(parallel=True, **COMPILED)
def project_gaussians(means, quats, scales, opacities, colors, w2c, camera, width, height, near, footprints, tiles):
    """Footprints of N Gaussians in one view; those that cover no pixel centre, or hold a nan, get no tiles.

    means, quats, scales, opacities, colors  float32, as in rasterize, colors of this view (N, 3)
    w2c         (4, 4)        float64
    camera      (8,)          see camera_numbers
    footprints  (N, COLUMNS)  float32, written
    tiles       (N, 4)        int32, written: first column, first row, one past the last column, and row
    """
    for i in prange(len(means)):
        tiles[i] = 0
        # Behind `near`, or too faint to reach 1/255 anywhere: not drawn.
        centre = centre_of(means, i, w2c)
        x, y, z = centre
        opacity = np.float64(opacities[i])
        if not (near <= z <= FAR_PLANE and opacity >= MIN_ALPHA):
            continue
        # The three axes as vectors of the camera's frame, then of the image: J R S, whose square is the 2D covariance.
        quat, _ = unit_quaternion(quats, i)
        a, b, c = camera_axes(quat, scales, i, w2c)
        across, down, _ = linearised(centre, camera)
        u, v = (dot(across, a), dot(across, b), dot(across, c)), (dot(down, a), dot(down, b), dot(down, c))
        xx, xy, yy = dot(u, u) + BLUR, dot(u, v), dot(v, v) + BLUR
        determinant = xx * yy - xy * xy
        pixel_x, pixel_y = camera[0] * x / z + camera[2], camera[1] * y / z + camera[3]
        if not (0 < determinant < math.inf and abs(pixel_x) < math.inf and abs(pixel_y) < math.inf):
            continue
        # The ellipse at which alpha falls to 1/255, in a box; the tiles whose pixel centres that box holds.
        extent = 1.001 * math.sqrt(2 * math.log(opacity / MIN_ALPHA))  # the factor covers float32 rounding
        radius_x = extent * math.sqrt(xx) + 0.01 + 1e-6 * abs(pixel_x)
        radius_y = extent * math.sqrt(yy) + 0.01 + 1e-6 * abs(pixel_y)
        left, right = tile_range(pixel_x, radius_x, width)
        top, bottom = tile_range(pixel_y, radius_y, height)
        if left == right or top == bottom:
            continue
        # The exponent is half of d^T C^-1 d, so the inverse covariance is stored with that half in it.
        tiles[i, 0], tiles[i, 1], tiles[i, 2], tiles[i, 3] = left, top, right, bottom
        footprints[i, X], footprints[i, Y] = pixel_x, pixel_y
        footprints[i, HALF_XX], footprints[i, HALF_YY] = 0.5 * yy / determinant, 0.5 * xx / determinant
        footprints[i, XY] = -xy / determinant
        footprints[i, OPACITY] = opacities[i]
        footprints[i, RED], footprints[i, GREEN], footprints[i, BLUE] = colors[i, 0], colors[i, 1], colors[i, 2]
        footprints[i, DEPTH], footprints[i, RADIUS_Y] = z, radius_y


@njit(**COMPILED)
def covariance_gradient(xx, xy, yy, grad_xx, grad_xy, grad_yy):
    """From the gradient of Q = C^-1 = [[xx, xy], [xy, yy]] to that of C, -Q G Q; the xy terms count both entries."""
    to_xx = -(xx * xx * grad_xx + xx * xy * grad_xy + xy * xy * grad_yy)
    to_xy = -(2 * xx * xy * grad_xx + (xx * yy + xy * xy) * grad_xy + 2 * xy * yy * grad_yy)
    to_yy = -(xy * xy * grad_xx + xy * yy * grad_xy + yy * yy * grad_yy)
    return to_xx, to_xy, to_yy


@njit(**COMPILED)
def centre_gradient(centre, camera, clamped, to_pixel_x, to_pixel_y, to_across, to_down, to_depth):
    """Gradient of the centre in the camera's frame, through the pixel it falls on, the linearisation and the depth."""
    x, y, z = centre
    fx, fy = camera[0], camera[1]
    to_x, to_y = fx / z * to_pixel_x, fy / z * to_pixel_y
    to_z = to_depth - (x * to_x + y * to_y) / z - (fx * to_across[0] + fy * to_down[1]) / (z * z)
    if clamped[0]:
        slope = camera[5] if x > 0 else -camera[4]
        to_z += fx * slope / (z * z) * to_across[2]
    else:
        to_x -= fx / (z * z) * to_across[2]
        to_z += 2 * fx * x / (z * z * z) * to_across[2]
    if clamped[1]:
        slope = camera[7] if y > 0 else -camera[6]
        to_z += fy * slope / (z * z) * to_down[2]
    else:
        to_y -= fy / (z * z) * to_down[2]
        to_z += 2 * fy * y / (z * z * z) * to_down[2]
    return to_x, to_y, to_z


@njit(**COMPILED)
def quaternion_gradient(quat, length, a, b, c):
    """Gradient of an unnormalised quaternion of this length from those of the rotation's columns a, b, c."""
    w, x, y, z = quat
    to_w = 2 * (x * (b[2] - c[1]) + y * (c[0] - a[2]) + z * (a[1] - b[0]))
    to_x = 2 * (w * (b[2] - c[1]) + y * (a[1] + b[0]) + z * (a[2] + c[0]) - 2 * x * (b[1] + c[2]))
    to_y = 2 * (w * (c[0] - a[2]) + x * (a[1] + b[0]) + z * (b[2] + c[1]) - 2 * y * (a[0] + c[2]))
    to_z = 2 * (w * (a[1] - b[0]) + x * (a[2] + c[0]) + y * (b[2] + c[1]) - 2 * z * (a[0] + b[1]))
    radial = w * to_w + x * to_x + y * to_y + z * to_z
    return (
        (to_w - radial * w) / length,
        (to_x - radial * x) / length,
        (to_y - radial * y) / length,
        (to_z - radial * z) / length,
    )


@njit(parallel=True, **COMPILED)
def project_backward(
    means, quats, scales, w2c, camera, footprints, tiles, sums, to_means, to_quats, to_scales, to_opacities, to_colors
):
    """Add one view's gradients, given its `sums` (N, GRADIENTS), to those of the Gaussians, shaped as these."""
    for i in prange(len(means)):
        if tiles[i, 0] == tiles[i, 2]:
            continue
        half_xx, xy = np.float64(footprints[i, HALF_XX]), np.float64(footprints[i, XY])
        half_yy = np.float64(footprints[i, HALF_YY])
        sum_x, sum_y = np.float64(sums[i, SUM_X]), np.float64(sums[i, SUM_Y])
        to_xx, to_xy, to_yy = covariance_gradient(
            2 * half_xx, xy, 2 * half_yy, 0.5 * sums[i, SUM_XX], np.float64(sums[i, SUM_XY]), 0.5 * sums[i, SUM_YY]
        )
        centre = centre_of(means, i, w2c)
        quat, length = unit_quaternion(quats, i)
        a, b, c = camera_axes(quat, scales, i, w2c)
        across, down, clamped = linearised(centre, camera)
        u, v = (dot(across, a), dot(across, b), dot(across, c)), (dot(down, a), dot(down, b), dot(down, c))
        to_u = (2 * to_xx * u[0] + to_xy * v[0], 2 * to_xx * u[1] + to_xy * v[1], 2 * to_xx * u[2] + to_xy * v[2])
        to_v = (2 * to_yy * v[0] + to_xy * u[0], 2 * to_yy * v[1] + to_xy * u[1], 2 * to_yy * v[2] + to_xy * u[2])

        right, under, forward = matrix_row(w2c, 0), matrix_row(w2c, 1), matrix_row(w2c, 2)
        to_centre = centre_gradient(
            centre,
            camera,
            clamped,
            2 * half_xx * sum_x + xy * sum_y,
            xy * sum_x + 2 * half_yy * sum_y,
            combined(a, to_u[0], b, to_u[1], c, to_u[2]),
            combined(a, to_v[0], b, to_v[1], c, to_v[2]),
            np.float64(sums[i, GRAD_DEPTH]),
        )
        to_mean = combined(right, to_centre[0], under, to_centre[1], forward, to_centre[2])

        # Of the axes, in the frame of the means.
        world_across = combined(right, across[0], under, across[1], forward, across[2])
        world_down = combined(right, down[0], under, down[1], forward, down[2])
        rotation = axes_of(quat)
        to_a = combined(world_across, to_u[0], world_down, to_v[0], forward, 0.0)
        to_b = combined(world_across, to_u[1], world_down, to_v[1], forward, 0.0)
        to_c = combined(world_across, to_u[2], world_down, to_v[2], forward, 0.0)
        to_quat = quaternion_gradient(
            quat,
            length,
            scaled(to_a, np.float64(scales[i, 0])),
            scaled(to_b, np.float64(scales[i, 1])),
            scaled(to_c, np.float64(scales[i, 2])),
        )
        for k in range(3):
            to_means[i, k] += to_mean[k]
            to_colors[i, k] += sums[i, GRAD_RED + k]
        for k in range(4):
            to_quats[i, k] += to_quat[k]
        to_scales[i, 0] += dot(to_a, rotation[0])
        to_scales[i, 1] += dot(to_b, rotation[1])
        to_scales[i, 2] += dot(to_c, rotation[2])
        to_opacities[i] -= sums[i, SUM] / footprints[i, OPACITY]
