""".splat files, the 32 bytes a Gaussian of the first web viewers (antimatter15): without view-dependent colour."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from src.reproducible.files import write_whole
from src.splatting.gaussians import Gaussians
from src.splatting.sh import dc_to_rgb, rgb_to_dc

# means and scales in scene units; red, green, blue, opacity of 255; a unit quaternion wxyz, -1 to 1 around 128
LAYOUT = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def in_bytes(values: Tensor) -> np.ndarray:
    """The nearest whole numbers in [0, 255]."""
    return values.round().clamp(0, 255).byte().numpy()


def write_splat(path: str | Path, gaussians: Gaussians) -> None:
    """Write N Gaussians rounded, those that show most first (size times opacity), as viewers draw while they load."""
    g = gaussians.detach().to("cpu", torch.float64)
    order = (g.scales.prod(-1) * g.opacities).argsort(descending=True, stable=True)
    rows = np.empty(len(g), LAYOUT)
    rows["means"], rows["scales"] = g.means[order].numpy(), g.scales[order].numpy()
    rows["rgba"] = in_bytes(255 * torch.cat([dc_to_rgb(g.sh[:, 0]), g.opacities[:, None]], -1)[order])
    rows["quats"] = in_bytes(128 * normalize(g.quats, dim=-1)[order] + 128)
    write_whole(path, rows.tobytes())


def read_splat(path: str | Path) -> Gaussians:
    """raises ValueError when the file is empty or cut short"""
    data = Path(path).read_bytes()
    if not data or len(data) % LAYOUT.itemsize:
        raise ValueError(
            f"{path} has {len(data)} bytes; a .splat file has {LAYOUT.itemsize} for each Gaussian, so export it again."
        )
    rows = np.frombuffer(data, LAYOUT)
    means, scales, rgba, quats = (torch.from_numpy(rows[name].astype(np.float32)) for name in LAYOUT.names)
    return Gaussians(means, (quats - 128) / 128, scales, rgba[:, 3] / 255, rgb_to_dc(rgba[:, None, :3] / 255))
