"""Rotations, poses, pinhole cameras, and which surface points a camera sees.

Camera axes are OpenCV's (x right, y down, z forward), `c2w` is 4x4 camera-to-world for column vectors, `K` is 3x3 in
pixels with the origin at the image's corner (first pixel centre at 0.5), `depth` is z-depth, 0 where invalid.
Every function keeps the precision it is given.
"""

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor


def quats_to_rotmats(quats: Tensor) -> Tensor:
    """Rotation matrices of quaternions q = (w, x, y, z) / |q|   (Kuipers 1999, Quaternions and Rotation Sequences).

    quats   (..., 4)     wxyz, any length; zero gives the identity
    returns (..., 3, 3)
    """
    if quats.shape[-1] != 4:
        raise ValueError(f"quats_to_rotmats needs quats (..., 4), wxyz; got {tuple(quats.shape)}.")
    w, x, y, z = quats.unbind(-1)
    length = quats.square().sum(-1)
    t = 2 / torch.where(length > 0, length, 1)
    rows = (
        1 - t * (y * y + z * z),
        t * (x * y - z * w),
        t * (x * z + y * w),
        t * (x * y + z * w),
        1 - t * (x * x + z * z),
        t * (y * z - x * w),
        t * (x * z - y * w),
        t * (y * z + x * w),
        1 - t * (x * x + y * y),
    )
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def turned_quats(rotation: Tensor, quats: Tensor) -> Tensor:
    """Quaternions wxyz (*B, N, 4) after a rotation (*B, 3, 3): of R R(q)."""
    turns = Rotation.from_matrix(rotation.detach().double().cpu().reshape(-1, 3, 3).numpy()).as_quat()  # xyzw
    turn = torch.from_numpy(turns).to(quats).roll(1, -1).reshape(*rotation.shape[:-2], 1, 4)
    w1, v1, w2, v2 = turn[..., :1], turn[..., 1:], quats[..., :1], quats[..., 1:]
    v1 = v1.expand_as(v2)
    real = w1 * w2 - (v1 * v2).sum(-1, keepdim=True)
    return torch.cat([real, w1 * v2 + w2 * v1 + torch.linalg.cross(v1, v2)], -1)


def covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """3D covariance of each Gaussian, R diag(s)^2 R^T   (Kerbl et al. 2023, 3D Gaussian Splatting, sec. 4).

    quats   (..., 4)     wxyz, any length; rotates Gaussian axes into the frame of the means
    scales  (..., 3)     standard deviations, scene units
    returns (..., 3, 3)  scene units squared, same frame
    raises  ValueError   when the last axes are not 4 and 3
    """
    if quats.shape[-1] != 4 or scales.shape[-1] != 3:
        raise ValueError(
            f"covariances needs quats (..., 4) and scales (..., 3); got {tuple(quats.shape)} and {tuple(scales.shape)}."
        )
    RS = quats_to_rotmats(quats) * scales[..., None, :]
    return RS @ RS.mT


def invert_se3(pose: Tensor) -> Tensor:
    """Inverse of rigid transforms (..., 4, 4): rotation R^T, translation -R^T t. R must be orthogonal."""
    rotation, translation = pose[..., :3, :3], pose[..., :3, 3:]
    top = torch.cat([rotation.mT, -rotation.mT @ translation], -1)
    return torch.cat([top, pose[..., 3:, :]], -2)


def relative_pose(base_c2w: Tensor, c2w: Tensor) -> Tensor:
    """Camera-to-world poses (..., 4, 4) rewritten as camera-to-base-camera: inverse(base_c2w) @ c2w."""
    return invert_se3(base_c2w) @ c2w


def transform(pose: Tensor, points: Tensor) -> Tensor:
    """Points carried by rigid transforms: R p + t.

    pose    (*B, 4, 4)
    points  (*B, ..., 3)  any number of dimensions between the batch and the coordinates
    returns as points
    """
    batch = pose.ndim - 2
    if points.ndim == batch + 1:
        return transform(pose, points.unsqueeze(-2)).squeeze(-2)
    flat = points.flatten(batch, -2)
    moved = flat @ pose[..., :3, :3].mT + pose[..., None, :3, 3]
    return moved.reshape(*moved.shape[:batch], *points.shape[batch:])


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width, 2) pixel coordinates x, y of all pixel centres, from (0.5, 0.5); dtype and device of `like`."""
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def unproject(depth: Tensor, K: Tensor) -> Tensor:
    """The point seen at every pixel, depth * K^-1 (x, y, 1), in the camera's frame.

    depth   (*B, H, W)     z-depth
    K       (*B, 3, 3)     pixels of that H x W image
    returns (*B, H, W, 3)  units of depth; the origin where depth is 0
    """
    height, width = depth.shape[-2:]
    centres = pixel_centres(height, width, like=depth)
    rays = torch.cat([centres, torch.ones_like(centres[..., :1])], -1)  # (H, W, 3)
    inverse = torch.linalg.inv(K.double()).to(depth.dtype)
    rays = rays.flatten(0, 1) @ inverse.mT  # (*B, H * W, 3)
    return rays.unflatten(-2, depth.shape[-2:]) * depth[..., None]


def project(points: Tensor, K: Tensor) -> Tensor:
    """Pixel coordinates (x, y) of points in the camera's frame; meaningless where z <= 0, which is not tested.

    points  (*B, ..., 3)  camera frame
    K       (*B, 3, 3)
    returns (*B, ..., 2)  pixels
    """
    batch = K.ndim - 2
    if points.ndim == batch + 1:
        return project(points.unsqueeze(-2), K).squeeze(-2)
    homogeneous = points.flatten(batch, -2) @ K.mT
    pixels = homogeneous[..., :2] / homogeneous[..., 2:]
    return pixels.reshape(*pixels.shape[:batch], *points.shape[batch:-1], 2)


def visible(points: Tensor, depth: Tensor, K: Tensor, c2w: Tensor, tolerance: float, relative: bool = False) -> Tensor:
    """Which world points a camera with a depth map sees: in front of it, inside its image, not occluded.

    A point at camera depth z is unoccluded when the depth stored at its (nearest) pixel is valid and differs from z by
    at most `tolerance`: scene units, or a share of z when `relative`.

    points     (*B, ..., 3)  world frame
    depth      (*B, H, W)    of the camera; 0 = invalid, sees nothing
    K, c2w     (*B, 3, 3), (*B, 4, 4)
    returns    (*B, ...)     bool
    """
    height, width = depth.shape[-2:]
    points = transform(invert_se3(c2w), points)
    x, y = project(points, K).unbind(-1)
    z = points[..., 2]
    inside = (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # NaN (z = 0) and huge coordinates are never inside, but must not reach the integer cast
    column, row = (torch.where(inside, value, 0).floor().long() for value in (x, y))
    batch = depth.ndim - 2
    index = (row * width + column).flatten(batch)
    stored = depth.flatten(-2).expand(*index.shape[:-1], -1).gather(-1, index).reshape(z.shape)
    allowed = tolerance * z if relative else tolerance
    return inside & (stored > 0) & ((z - stored).abs() <= allowed)
