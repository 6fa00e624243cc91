"""Frozen features of every view: a safetensors per scene, `tokens` (frames, n, E) or `features` (frames, C, gh, gw), f16."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from src.reproducible.files import read_json
from src.scenes.scene import Scene, read_index, write_arrays


class Features:
    """One folder of cached features, `data/features/geometry` or `data/features/backbone`: a safetensors per scene."""

    def __init__(self, folder: str | Path, tensor: str):
        self.folder, self.tensor = Path(folder), tensor
        self.record = read_json(self.folder / "record.json")

    @property
    def channels(self) -> int:
        """Width of the features; 0 when there is no backbone and so no file."""
        return self.record["channels"]

    @property
    def true_points(self) -> bool:
        """Whether the contexts' true points stand for the predicted ones (model.backbone=oracle)."""
        return self.record.get("true_points", False)

    def read(self, scene: Scene, names: tuple[str, ...]) -> Tensor:
        """Features of the named frames, (len(names), ...), as float32."""
        path = self.folder / f"{scene.id}.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing, but scene {scene.id} is in the index; run dvc repro.")
        with safe_open(path, framework="pt") as file:
            rows = file.get_slice(self.tensor)
            return torch.stack([rows[index] for index in map(scene.names.index, names)]).float()


IMAGES_AT_A_TIME = 16
# of images (B, 3, H, W) in [0, 1]; depth (B, H, W) and K (B, 3, 3) of the views, which the positive control alone reads
ViewFeatures = Callable[[Tensor, Tensor, Tensor], Tensor]


def write_features(
    scenes: Path,
    folder: Path,
    tensor: str,
    features: ViewFeatures,
    size: tuple[int, int],
    device: torch.device,
) -> None:
    """A file per scene of the index, its frames in the scene's order.

    raises    ValueError  when a feature is not finite in half precision
    """
    for record in tqdm(read_index(scenes), desc=f"extract {folder.name}"):
        scene = Scene.open(scenes / record.file, record.sha256)
        batches = []
        for start in range(0, len(scene), IMAGES_AT_A_TIME):
            views = [scene.view(name, size) for name in scene.names[start : start + IMAGES_AT_A_TIME]]
            tensors = (torch.stack([getattr(view, key) for view in views]) for key in ("image", "depth", "K"))
            batches.append(features(*(tensor.to(device) for tensor in tensors)).half().cpu())
        found = torch.cat(batches)
        if not found.isfinite().all():
            raise ValueError(
                f"Features of scene {scene.id} are not finite in half precision; check the weights that "
                f"{folder.name} was computed with."
            )
        write_arrays(
            folder / f"{scene.id}.safetensors",
            {tensor: found.numpy()},
            "features",
            {"scene": scene.id, "sha256": record.sha256, "size": list(size)},
        )
