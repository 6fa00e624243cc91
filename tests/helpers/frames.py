"""Frames of scenes that the tests make up, and damage to them."""

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from src.scenes.scene import Frame, SceneRecord, write_index, write_scene


def make_frames(count=3, size=(40, 32), depth=np.uint16, seed=0, fg=True):
    """Frames of noise: every pixel of every plane matters."""
    rng = np.random.default_rng(seed)
    width, height = size
    frames = []
    for number in range(count):
        c2w = np.eye(4)
        c2w[:3, 3] = rng.normal(size=3)
        samples = rng.integers(1, 9000, (height, width)).astype(np.uint16)
        frames.append(
            Frame(
                f"frame{number:03d}",
                rng.integers(0, 256, (height, width, 3), np.uint8),
                None if depth is None else samples if depth is np.uint16 else (samples / 1000).astype(np.float16),
                0.0002 if depth is np.uint16 else 1.5,
                rng.integers(0, 256, (height, width), np.uint8) if fg else None,
                rng.integers(0, 4, (height, width), np.uint8) if fg else None,
                np.array([[50, 0, width / 2], [0, 51, height / 2], [0, 0, 1.0]]),
                np.asfortranarray(c2w),
                10 * number,
                0.25 * number,
            )
        )
    return frames


def damaged(path, **changes):
    """The scene file with some tensors replaced."""
    with safe_open(path, framework="numpy") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    save_file(tensors | {key: change(tensors[key]) for key, change in changes.items()}, path, metadata)
    return path


def changed(frame: Frame, **changes) -> Frame:
    return Frame(**vars(frame) | changes)


def camera(fx=50.0, fy=50.0, cx=20.0, cy=16.0):
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def write_photographs(folder, scenes: dict[str, tuple[str, list[np.ndarray]]]) -> None:
    """A folder of scenes: id -> split, images (H, W, 3) uint8."""
    records = []
    for id, (split, images) in scenes.items():
        frames = [
            Frame(f"{i:03d}", image, None, 0.001, None, None, np.eye(3), np.eye(4), i) for i, image in enumerate(images)
        ]
        digest = write_scene(
            folder / f"scenes/{id}.safetensors",
            frames,
            {"id": id, "category": "rooms", "units": "metre"},
            lossless=True,
        )
        records.append(SceneRecord(id, f"scenes/{id}.safetensors", digest, len(frames), split, "metre", 0.0, "rooms"))
    write_index(folder, records)
