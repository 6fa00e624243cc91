"""From the world of a dataset to the frame and scale of a prediction: view 1's camera, the geometry network's metres."""

import torch
from torch import Tensor

from src.geometry.cameras import relative_pose, transform, unproject


def context_points(depth: Tensor, K: Tensor, c2w: Tensor) -> Tensor:
    """True points of the context views in view 1's camera frame.

    depth   (*B, V, H, W)     z-depth, 0 = invalid
    K, c2w  (*B, V, 3, 3), (*B, V, 4, 4)
    returns (*B, V, H, W, 3)  units of depth; meaningless where depth is 0
    """
    return transform(relative_pose(c2w[..., :1, :, :], c2w), unproject(depth, K))


@torch.no_grad()
def scale_factor(predicted: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Predicted over true scale of one pair: median of |predicted| / |true| over the valid pixels of both contexts.

    Taken from the frozen geometry network's points and so the same for every backbone; true camera translations and
    depths are multiplied by it before anything is rendered.

    predicted, truth  (..., 3)  in view 1's camera frame
    valid             (...)     bool
    returns           ()        > 0
    raises            ValueError when no pixel is valid
    """
    if not valid.any():
        raise ValueError(
            "No pixel of the two context views has a valid depth, so their scale cannot be estimated; drop "
            "this pair or use a dataset with depth."
        )
    ratio = predicted[valid].norm(dim=-1) / truth[valid].norm(dim=-1).clamp(min=1e-12)
    return ratio.median()


@torch.no_grad()
def depth_factor(predicted: Tensor, truth: Tensor) -> Tensor:
    """Predicted over true scale (), > 0, of one pair whose views are predicted each in its own camera: median of the
    ratios of z-depth (2, H, W) over the pixels whose true depth is not 0.

    raises    ValueError when there are none
    """
    known = truth > 0
    if not known.any():
        raise ValueError(
            "No pixel of the two context views has a valid depth, so their scale cannot be estimated; drop "
            "this pair or use a dataset with depth."
        )
    return (predicted[known] / truth[known]).median()


@torch.no_grad()
def baseline_factor(predicted: Tensor, K: Tensor, c2w: Tensor) -> Tensor:
    """Predicted over true scale of one pair without true depth: the distance between its cameras. The predicted second
    camera stands where the rays through its predicted points meet, in the least-squares sense; the directions of those
    rays come from its true rotation.

    predicted (H, W, 3)            points of view 2 in view 1's camera frame
    K, c2w    (3, 3), (2, 4, 4)    of view 2; of both views
    returns   ()                   > 0
    raises    ValueError           when both cameras stand in one place
    """
    relative = relative_pose(c2w[:1], c2w[1:])[0].double()
    if not (true := relative[:3, 3].norm()) > 0:
        raise ValueError(
            "The two context views have no depth and were taken from one place, so their scale cannot be "
            "estimated; drop this pair."
        )
    rays = unproject(torch.ones(predicted.shape[:-1], dtype=torch.float64, device=predicted.device), K.double())
    rays = torch.nn.functional.normalize((rays @ relative[:3, :3].mT).reshape(-1, 3), dim=-1)
    across = torch.eye(3, dtype=rays.dtype, device=rays.device) - rays[:, :, None] * rays[:, None]
    points = predicted.double().reshape(-1, 3, 1)
    centre = torch.linalg.solve(across.mean(0), (across @ points).mean(0)[:, 0])
    return (centre.norm() / true).to(predicted.dtype)


def camera_in_prediction(context_c2w: Tensor, c2w: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Cameras c2w (*B, T, 4, 4) seen from the first context camera (*B, 4, 4), translations multiplied by scale (*B)."""
    relative = relative_pose(context_c2w.unsqueeze(-3), c2w).clone()
    scale = torch.as_tensor(scale, dtype=relative.dtype, device=relative.device)
    relative[..., :3, 3] *= scale[..., None, None]
    return relative
