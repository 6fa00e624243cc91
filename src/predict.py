"""Gaussians of one's own two photographs, by the trained model of this experiment.

    python -m src.predict a.jpg b.jpg -o scene.ply                       for any splat viewer, or python -m src.view
    python -m src.predict a.jpg b.jpg -o scene.splat --preview way.gif   smaller file; a flight between the two cameras

    -o, --output FILE   scene.ply, .splat or .compressed.ply
    --cameras FILE      the photographs' cameras, JSON {"K": [3x3, 3x3], "c2w": [4x4, 4x4]} (pixels, OpenCV axes), for a
                        model of the posed track; without it they are estimated from the predicted points
    --preview FILE      a .png sheet, or a .gif animation of the way between the two cameras
    --force             replace files that exist

reads data/model, data/weights, params.yaml; no cached features; writes the files named
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src import backbones
from src.backbones.base import Backbone
from src.config import Config, load_config
from src.extract import cells
from src.geometry.alignment import baseline_factor, camera_in_prediction
from src.inference.cameras import fitted_pinhole, read_cameras, second_camera
from src.inference.photographs import read_snapshot
from src.inference.previews import drawn
from src.renders.gaussian_file import ending_of, write_gaussians
from src.reproducible.files import read_json, write_whole
from src.reproducible.seeds import fix_computation
from src.run import Words, mistakes_explained
from src.splatt3r import build
from src.splatt3r.network import SplatOutput, Splatt3R
from src.splatt3r.posed import Cameras, PosedSplatt3R, unposed_points
from src.splatt3r.prediction import posed_views, splat

WEIGHTS, MODEL = Path("data/weights"), Path("data/model")
NEEDED = (
    WEIGHTS / "geometry/model.safetensors",
    WEIGHTS / "backbone/record.json",
    MODEL / "record.json",
    MODEL / build.TRAINED,
)
PREVIEWS = (".png", ".gif")


def arguments(words: list[str]) -> argparse.Namespace:
    parser = Words("predict")
    parser.add_argument("photographs", nargs=2, type=Path, metavar="photograph")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cameras", type=Path, metavar="FILE")
    parser.add_argument("--preview", type=Path, metavar="FILE")
    parser.add_argument("--force", action="store_true")
    return parser.parse_args(words)


def check_outputs(output: Path, preview: Path | None, force: bool) -> None:
    """Before anything is computed.

    raises    ValueError  when a file could not be written, or exists and may not be replaced
    """
    ending_of(output)
    if preview is not None and preview.suffix.lower() not in PREVIEWS:
        raise ValueError(f"The preview {preview} must end in {' or '.join(PREVIEWS)}.")
    for path in filter(None, (output, preview)):
        if not path.parent.is_dir():
            raise ValueError(f"There is no folder {path.parent} to write {path.name} into; make it first.")
        if path.exists() and not force:
            raise ValueError(f"{path} exists; name another file, or say --force to replace it.")


def load_trained_model(config: Config) -> tuple[Splatt3R, Backbone, dict]:
    """The trained network and its backbone, and the record of the training.

    raises    FileNotFoundError, ValueError  when there is no trained model, or it is not the one of params.yaml
    """
    if missing := [path.as_posix() for path in NEEDED if not path.exists()]:
        raise FileNotFoundError(
            f"There is no trained model here, {', '.join(missing)} missing; run dvc repro train "
            "(or dvc pull train where a remote has it)."
        )
    record, backbone = read_json(MODEL / "record.json"), backbones.load_backbone(config.model, WEIGHTS / "backbone")
    if record["feature_channels"] != backbone.channels:
        raise ValueError(
            f"{MODEL} was trained on features of {record['feature_channels']} channels, but params.yaml "
            f"asks for {backbone.title} with {backbone.channels}; run dvc repro train."
        )
    network, _ = build.load_model(config, WEIGHTS / "geometry", MODEL)
    return network, backbone, record


def half(features: Tensor) -> Tensor:
    """Rounded and laid out in memory as the features are that the model was trained on."""
    return features.half().contiguous().float()


def inputs(network: Splatt3R, backbone: Backbone, images: Tensor, grid: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `splat` reads of a pair of images (2, 3, H, W) in [0, 1], computed here: a batch of one.

    grid   as in params.yaml model.feature_grid
    """
    tokens, features = half(network.encode(images * 2 - 1)), None
    if backbone.channels:
        features = half(backbone(images, cells(tuple(images.shape[:1:-1]), grid)))[None]
    return images[None], tokens[None], features


def given_cameras(points: Tensor, K: Tensor, c2w: Tensor) -> Cameras:
    """Of a pair whose K (2, 3, 3) and c2w (2, 4, 4), in any unit, are known: the distance between them is brought to the
    units of points (2, H, W, 3), predicted without cameras."""
    scale = baseline_factor(points[1], K[1], c2w)
    relative = camera_in_prediction(c2w[:1], c2w[None, 1:], scale[None])[:, 0]
    return Cameras(K[None], relative, scale[None])


def estimated_cameras(points: Tensor) -> Cameras:
    """One focal length for both views, and the second camera, as points (2, H, W, 3), predicted without cameras, have
    them."""
    first, second = points.cpu()
    K = fitted_pinhole(first)
    relative = torch.from_numpy(second_camera(second, K)).to(points)[None]
    return Cameras(torch.from_numpy(K).to(points).expand(1, 2, 3, 3), relative, points.new_ones(1))


@torch.inference_mode()
def predict_pair(
    config: Config, images: Tensor, cameras: tuple[Tensor, Tensor] | None = None
) -> tuple[SplatOutput, str]:
    """Gaussians (a batch of one) of photographs (2, 3, H, W), and in words what made them; cameras: K (2, 3, 3) and c2w
    (2, 4, 4), for a model of the posed track alone.

    raises    ValueError  when cameras are given to a model that does not ask for them, or can not be estimated
    """
    network, backbone, record = load_trained_model(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, backbone, images = network.to(device), backbone.to(device), images.to(device)
    words = f"{record['geometry']['label']}, {record['backbone']['label']}, {record['steps']} training steps"
    read = inputs(network, backbone, images, config.model.feature_grid)
    if not isinstance(network, PosedSplatt3R):
        if cameras is not None:
            raise ValueError("The trained model is of the unposed track, which takes no cameras; leave --cameras out.")
        return splat(network, *read), words
    pair, _, features = read
    views = posed_views(network, *read)
    points = unposed_points(network, views, network.grid(pair[:, 0]))[0]
    if cameras is None:
        found, told = estimated_cameras(points), "estimated"
    else:
        found, told = given_cameras(points, *(each.to(pair) for each in cameras)), "given"
    return network(views, pair, found, features)[0], f"{words}, cameras {told}"


def main(words: list[str]) -> None:
    asked = arguments(words)
    with mistakes_explained():
        check_outputs(asked.output, asked.preview, asked.force)
        config = load_config()
        fix_computation(config.threads)
        K, c2w = (None, None), None
        if asked.cameras is not None:
            K, c2w = read_cameras(asked.cameras)
        size = tuple(config.dataset.resolution)
        snapshots = [read_snapshot(path, size, own) for path, own in zip(asked.photographs, K)]
        for path, snapshot in zip(asked.photographs, snapshots):
            print(f"{path}: {'; '.join(snapshot.notes)}")
        images = torch.stack([snapshot.image for snapshot in snapshots])
        if torch.equal(*images):
            print(
                "warning: both images are the same picture, which shows no depth; name two of one place",
                file=sys.stderr,
            )
        cameras = None
        if c2w is not None:
            cameras = torch.from_numpy(np.stack([each.K for each in snapshots])), torch.from_numpy(c2w)
        output, made_by = predict_pair(config, images, cameras)
        gaussians = output.gaussians[0]
        picture = None if asked.preview is None else drawn(asked.preview, images, output, gaussians)
        write_gaussians(asked.output, gaussians)
    if picture is not None:
        write_whole(asked.preview, picture)
    print(f"model: {made_by}")
    print(
        f"{asked.output}: {len(gaussians)} Gaussians in the first photograph's camera frame, in the geometry "
        "network's units"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
