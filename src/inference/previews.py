"""Pictures of predicted Gaussians from where the photographs were taken and from between: cameras are found from the
predicted points, since nobody has told them."""

import io
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from src.geometry.cameras import pixel_centres
from src.splatt3r.network import SplatOutput
from src.splatting.gaussians import Gaussians
from src.splatting.render import render

FRAMES = 16  # from the first photograph to the second
SHEET = 5  # of them on a sheet
MILLISECONDS = 80  # per frame of an animation
POINTS = 4096  # that the second camera is found from, at most
REPROJECTION = 0.02  # of the width: how far from its pixel a point may fall
AGREEING = 0.1  # share of the points that must


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
        raise ValueError("All predicted points lie behind the first camera, so no preview can be drawn.")
    slopes = points[seen][:, :2] / points[seen][:, 2:]
    return (pixels[seen].norm(dim=-1) / slopes.norm(dim=-1).clamp_min(1e-12)).median().item()


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
            "The predicted points of the second photograph fit no camera, so no preview can be drawn: do "
            "both photographs show the same place? Without --preview the Gaussians are written anyway."
        )
    w2c = np.eye(4)
    w2c[:3, :3], w2c[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
    return np.linalg.inv(w2c)


def path_between(c2w: np.ndarray, count: int) -> np.ndarray:
    """Cameras (count, 4, 4) from the identity to c2w: turned evenly about one axis, moved along a straight line."""
    steps = np.linspace(0, 1, count)
    path = np.tile(np.eye(4), (count, 1, 1))
    ends = Rotation.from_matrix(np.stack([np.eye(3), c2w[:3, :3]]))
    path[:, :3, :3] = Slerp([0, 1], ends)(steps).as_matrix()
    path[:, :3, 3] = steps[:, None] * c2w[:3, 3]
    return path


@torch.no_grad()
def flight(output: SplatOutput, gaussians: Gaussians, count: int) -> list[np.ndarray]:
    """Pictures (H, W, 3) uint8 of one pair's Gaussians, from the first photograph's camera to the second's."""
    points1, points2 = output.points1.pts3d[0], output.points2.pts3d[0]
    height, width = points1.shape[:2]
    focal = fitted_focal_length(points1)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    cameras = torch.from_numpy(path_between(second_camera(points2, K), count)).to(gaussians.means)
    images = render(gaussians, cameras, torch.from_numpy(K).to(cameras).expand(count, 3, 3), (width, height)).images
    return [pixels(image) for image in images]


def pixels(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of (3, H, W), clamped to [0, 1]."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def drawn(path: Path, images: Tensor, output: SplatOutput, gaussians: Gaussians) -> bytes:
    """The file `path` asks for by its ending: .png, a sheet with both photographs above and the flight between them
    below; .gif, the flight there and back.

    images   (2, 3, H, W) the photographs
    """
    file = io.BytesIO()
    if path.suffix.lower() == ".gif":
        frames = [Image.fromarray(frame) for frame in flight(output, gaussians, FRAMES)]
        frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:] + frames[-2:0:-1], duration=MILLISECONDS, loop=0
        )
    else:
        shown = np.concatenate(flight(output, gaussians, SHEET), 1)
        above = np.full_like(shown, 255)
        width = images.shape[-1]
        above[:, :width], above[:, -width:] = (pixels(image) for image in images)
        Image.fromarray(np.concatenate([above, shown])).save(file, "PNG")
    return file.getvalue()
