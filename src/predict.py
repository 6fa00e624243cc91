"""Gaussians of one's own two photographs, by a trained model: the work tree's, or the one that comes with this repository.

    python -m src.predict a.jpg b.jpg -o scene.ply                       for any splat viewer, or python -m src.view
    python -m src.predict a.jpg b.jpg -o scene.splat --preview way.gif   smaller file; a flight between the two cameras

    -o, --output FILE   scene.ply, .splat or .compressed.ply
    --cameras FILE      the photographs' cameras, JSON {"K": [3x3, 3x3], "c2w": [4x4, 4x4]} (pixels, OpenCV axes), for a
                        model of the posed track; without it they are estimated from the predicted points
    --preview FILE      a .png sheet, or a .gif animation of the way between the two cameras
    --shipped           by the model in data/bundled/splatt3r, which is taken too where there is no data/model
    --force             replace files that exist

reads data/model and data/weights, or data/bundled; params.yaml; no cached features; writes the files named
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from src.config import load_config
from src.inference.cameras import read_cameras
from src.inference.photographs import read_snapshot
from src.inference.previews import drawn
from src.inference.trained_model import trained_model
from src.renders.gaussian_file import ending_of, write_gaussians
from src.reproducible.files import write_whole
from src.reproducible.seeds import fix_computation
from src.run import Words, mistakes_explained

PREVIEWS = (".png", ".gif")


def arguments(words: list[str]) -> argparse.Namespace:
    parser = Words("predict")
    parser.add_argument("photographs", nargs=2, type=Path, metavar="photograph")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cameras", type=Path, metavar="FILE")
    parser.add_argument("--preview", type=Path, metavar="FILE")
    parser.add_argument("--shipped", action="store_true")
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


def main(words: list[str]) -> None:
    asked = arguments(words)
    with mistakes_explained():
        check_outputs(asked.output, asked.preview, asked.force)
        config = load_config()
        fix_computation(config.threads)
        K, c2w = (None, None), None
        if asked.cameras is not None:
            K, c2w = read_cameras(asked.cameras)
        model = trained_model(config, asked.shipped)
        if model.notice:
            print(model.notice)
        snapshots = [read_snapshot(path, model.resolution, own) for path, own in zip(asked.photographs, K)]
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
        output, made_by = model.predict(images.to(model.device), cameras)
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
