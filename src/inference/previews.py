"""Pictures of predicted Gaussians from where the images were taken and from between: cameras are found from the
predicted points."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from src.inference.cameras import fitted_pinhole, second_camera
from src.splatt3r.network import SplatOutput
from src.splatting.gaussians import Gaussians
from src.splatting.render import render

FRAMES = 16  # from the first image to the second
SHEET = 5  # of them on a sheet
MILLISECONDS = 80  # per frame of an animation


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
    """Pictures (H, W, 3) uint8 of one pair's Gaussians, from the first image's camera to the second's."""
    points1, points2 = output.points1.pts3d[0], output.points2.pts3d[0]
    height, width = points1.shape[:2]
    K = fitted_pinhole(points1)
    cameras = torch.from_numpy(path_between(second_camera(points2, K), count)).to(gaussians.means)
    images = render(gaussians, cameras, torch.from_numpy(K).to(cameras).expand(count, 3, 3), (width, height)).images
    return [pixels(image) for image in images]


def pixels(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of (3, H, W), clamped to [0, 1]."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def drawn(path: Path, images: Tensor, output: SplatOutput, gaussians: Gaussians) -> bytes:
    """The file `path` asks for by its ending: .png, a sheet with both images above and the flight between them
    below; .gif, the flight there and back.

    images   (2, 3, H, W) the images
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
