"""Put the trained model of the work tree into the repository, so that a fresh clone predicts without a training.

    python -m src.ship

The model must be what params.yaml and the code make, with model.backbone=none and a geometry network of data/bundled.

reads data/model, data/weights, params.yaml; writes data/bundled/splatt3r: the model, and its Gaussians of two scenes that
no training and no score has seen, for python -m src.view
"""

import sys

import torch

from src.config import load_config
from src.inference.examples import EXAMPLE_FAMILIES, example_pair
from src.inference.trained_model import ship_model, shipped_model, work_tree_model
from src.renders.gaussian_file import write_gaussians
from src.reproducible.files import fresh_folder
from src.reproducible.seeds import fix_computation
from src.run import Words, mistakes_explained
from src.splatt3r.build import SHIPPED
from src.transfer import check_trained


def main(words: list[str]) -> None:
    Words("ship").parse_args(words)
    with mistakes_explained():
        config = load_config()
        check_trained()
        fix_computation(config.threads)
        with fresh_folder(SHIPPED) as folder:
            ship_model(config, folder)
            own, shipped = work_tree_model(config), shipped_model(config, folder)
            for family in EXAMPLE_FAMILIES:
                images, cameras = example_pair(family, own.resolution)
                wanted, found = (
                    each.predict(images, cameras if each.posed else None)[0].gaussians[0] for each in (own, shipped)
                )
                assert torch.equal(found.means, wanted.means) and torch.equal(found.sh, wanted.sh)
                write_gaussians(folder / f"{family}.compressed.ply", found)
    for path in sorted(SHIPPED.iterdir()):
        print(f"{path.as_posix()}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
