"""Stages `extract_geometry` and `extract_backbone`: frozen features of every image, computed once.

    python -m src.extract geometry [key=value ...]   data/scenes, data/weights/geometry -> data/features/geometry
    python -m src.extract backbone [key=value ...]   data/scenes, data/weights/backbone -> data/features/backbone

Each folder gets record.json and a file per scene: `tokens` (frames, n, E) or `features` (frames, C, gh, gw), f16.
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from src.backbones import load_backbone
from src.config import Config
from src.mast3r.attention import Grid
from src.mast3r.weight_file import load_geometry
from src.reproducible.files import read_json, write_json
from src.reproducible.seeds import fix_computation
from src.run import Words, memory_advice, run
from src.scenes.crop import PATCH
from src.scenes.features import ViewFeatures, write_features

SCENES, WEIGHTS, FEATURES = Path("data/scenes"), Path("data/weights"), Path("data/features")


def geometry_features(folder: Path, device: torch.device) -> tuple[ViewFeatures, dict]:
    """Views -> encoder tokens (B, n, E); and what the record says of them."""
    network = load_geometry(folder).to(device)
    about = {
        "channels": network.config.enc_embed_dim,
        "patch_size": network.config.patch_size,
        "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    return lambda images, depth, K: network.encode(images * 2 - 1), about


def cells(size: tuple[int, int], grid: str) -> Grid | None:
    """What a backbone's `forward` takes as its grid, for images of `size` (W, H): None with `native`, as many cells as
    its own patches need; with `aligned` those of the geometry network, for which images are resized."""
    return (size[1] // PATCH, size[0] // PATCH) if grid == "aligned" else None


@memory_advice()
@torch.inference_mode()
def main(config: Config, kind: str) -> None:
    """kind  `geometry` or `backbone`"""
    fix_computation(config.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = tuple(config.dataset.resolution)
    record = read_json(WEIGHTS / kind / "record.json")
    if kind == "geometry":
        tensor, (features, about) = "tokens", geometry_features(WEIGHTS / kind, device)
    else:
        backbone = load_backbone(config.model, WEIGHTS / kind).to(device)
        tensor, wanted = "features", cells(size, config.model.feature_grid)

        def features(images: Tensor, depth: Tensor, K: Tensor) -> Tensor:
            return backbone.of_views(images, depth, K, wanted)

        about = {
            "label": backbone.label(record["weights"]),
            "channels": backbone.channels,
            "patch_size": backbone.patch_size,
            "num_parameters": backbone.num_parameters,
        }
        about |= {"true_points": True} if backbone.true_points else {}
    shutil.rmtree(FEATURES / kind, ignore_errors=True)
    if about["channels"]:
        write_features(SCENES, FEATURES / kind, tensor, features, size, device)
    write_json(FEATURES / kind / "record.json", record | about)


if __name__ == "__main__":
    words = Words("extract")
    words.add_argument("kind", choices=("geometry", "backbone"))
    words.overrides()
    asked = words.parse_args()
    run(lambda config: main(config, asked.kind), f"extract_{asked.kind}", asked.overrides)
