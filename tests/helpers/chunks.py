"""Chunks as pixelSplat writes them, made of procedural images with known cameras."""

import io
import json

import numpy as np
import torch
from PIL import Image

from tests.helpers.miniatures import RENDERED, rendered

COLOURS = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0))  # of scenes that must not be alike


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=95)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def camera_row(frame, size=RENDERED):
    """fx, fy, cx, cy as shares, two zeros, world-to-camera row by row."""
    width, height = size
    K = frame.K
    shares = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height, 0.0, 0.0]
    return shares + np.linalg.inv(frame.c2w)[:3].ravel().tolist()


def scene(key, number=0, count=12):
    """One of six scenes, which differ in their colours."""
    frames = rendered()[:count]
    return {
        "key": key,
        "url": f"https://example.org/{key}",
        "timestamps": torch.arange(count, dtype=torch.int64) * 33366,
        "cameras": torch.tensor([camera_row(frame) for frame in frames], dtype=torch.float32),
        "images": [jpeg(frame.image[..., COLOURS[number]]) for frame in frames],
    }


def write_chunks(folder, chunks):
    """chunks: file name -> scenes; index.json beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scenes in chunks.items():
        torch.save(scenes, folder / name)
    index = {item["key"]: name for name, scenes in chunks.items() for item in scenes}
    (folder / "index.json").write_text(json.dumps(index))


def write_root(root):
    """Three scenes for training in two chunks, two for testing in one."""
    write_chunks(root / "train", {"000000.torch": [scene("aa", 0), scene("bb", 1)], "000001.torch": [scene("cc", 2)]})
    write_chunks(root / "test", {"000000.torch": [scene("dd", 3), scene("ee", 4)]})
