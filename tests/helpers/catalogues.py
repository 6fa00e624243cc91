"""A dataset's catalogue of made-up scenes."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from src.datasets.recording import Catalogue, Recording
from src.prepare import prepare
from src.reproducible.files import fresh_folder
from src.scenes.scene import Frame
from tests.helpers.episodes import selection

SIZE, VIEWS = (48, 48), 12


def wall(seed: int, count: int = VIEWS) -> list[Frame]:
    """Photographs of a textured wall 2 m away by a camera that slides along it: ov(i, j) = 1 - |i - j| / 12 or so."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(1, 256, (48, 48 + 4 * count, 3), np.uint8)
    K = np.array([[48.0, 0, 24], [0, 48, 24], [0, 0, 1]])
    frames = []
    for i in range(count):
        c2w = np.eye(4)
        c2w[0, 3] = i * 4 * 2 / 48  # four pixels
        image, depth = texture[:, 4 * i : 4 * i + 48].copy(), np.full((48, 48), 2000, np.uint16)
        frames.append(Frame(f"frame{i:03d}", image, depth, 0.001, None, None, K, c2w, i))
    return frames


def read(frames: list, tally):
    """Reader of a recording whose entries may be reasons to skip instead of frames."""
    for number, frame in enumerate(frames):
        if isinstance(frame, Frame):
            yield frame
        else:
            tally.skip(frame, f"listed{number}", "it is broken.")


def catalogue(changes: dict[int, list] | None = None, splits=("train",) * 4 + ("val", "test"), **options) -> Catalogue:
    recordings = []
    for number, split in enumerate(splits):
        frames = (changes or {}).get(number, wall(number))
        recordings.append(
            Recording(
                f"walls__{number}",
                "walls",
                split,
                "metre",
                len(frames),
                partial(read, frames),
                {"license": "none"},
                {"frame001": {"sharpness": 3.5}},
            )
        )
    return Catalogue("walls", recordings, **options)


def built(folder: Path, source: Catalogue, resolution=SIZE, workers=1, **options) -> dict:
    with fresh_folder(folder) as new:
        prepare(source, new, resolution, selection(**options), workers, folder.with_name("scratch"))
    return json.loads((folder / "report.json").read_text())
