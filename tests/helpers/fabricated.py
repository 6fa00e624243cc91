"""Small made-up results, in the formats of the stages before `evaluate`: tests of what follows need no model."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from src.geometry.alignment import context_points
from src.probes.results import write_probe
from src.renders.baselines import points_as_gaussians
from src.renders.ply import write_ply
from src.reproducible.files import write_json
from src.scenes.scene import Frame, Scene, SceneRecord, write_index, write_scene

SIZE = (40, 32)  # W, H
PLANE = 2.0  # metres: every scene is a painted wall that far ahead
BINS = ("close", "wide")


def wall(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Paint (..., 3) in [0, 1] at metres x, y of the wall of a scene."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(0, 6, (8, 2)), rng.uniform(0, 6.28, 8), rng.normal(0, 0.06, (8, 3))
    phases = x[..., None] * waves[0][:, 0] + y[..., None] * waves[0][:, 1] + waves[1]
    return np.clip(0.5 + np.sin(phases) @ waves[2], 0, 1)


def frames(seed: int, count: int, size: tuple[int, int] = SIZE) -> list[Frame]:
    """Photographs of a wall by a camera that slides along it."""
    width, height = size
    focal = 1.2 * width
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    taken = []
    for number in range(count):
        c2w = np.eye(4)
        c2w[:2, 3] = 0.08 * number, 0.02 * number
        x, y = ((pixels - K[axis, 2]) / focal * PLANE + c2w[axis, 3] for axis, pixels in enumerate((columns, rows)))
        image = np.rint(255 * wall(x, y, seed)).astype(np.uint8)
        depth = np.full((height, width), round(PLANE / 0.001), np.uint16)
        depth[:2] = 0
        taken.append(Frame(f"{number:03d}", image, depth, 0.001, None, None, K, c2w, number))
    return taken


def renders(scene: Scene, contexts: tuple, targets: tuple, noise: dict[str, float], rng: np.random.Generator) -> dict:
    """Photographs with noise of a named strength, as if a model and the baselines had rendered them."""
    views, size = [scene.view(name, SIZE) for name in (*contexts, *targets)], (len(targets), 3, SIZE[1], SIZE[0])
    photos, depth = torch.stack([view.image for view in views[2:]]), torch.stack([view.depth for view in views[2:]])
    draw = lambda strength, shape=size: strength * torch.from_numpy(rng.normal(size=shape)).float()
    mask = torch.ones(len(targets), SIZE[1], SIZE[0], dtype=torch.bool)
    mask[:, :, :5] = False
    pictures = {"mask": mask, "copy_nearest": views[0].image.expand(size), "scale": torch.tensor([1.25]).double()}
    for suffix, worse in (("", 1.5), ("_aligned", 1.0)):
        for method in ("render", "points", "points_splat"):
            pictures[method + suffix] = photos + draw(noise[method] * worse)
        pictures["depth" + suffix] = depth * worse**0.5
        pictures["alpha" + suffix] = torch.ones(depth.shape)
    stack = {key: torch.stack([getattr(view, key) for view in views[:2]]) for key in ("depth", "K", "c2w")}
    points = context_points(*stack.values()).reshape(-1, 3)
    pictures["means"] = 1.25 * (points + draw(0.01, points.shape))
    pictures["points_means"] = 1.25 * (points + draw(0.05, points.shape))
    pictures |= {"points_scale": pictures["scale"]} | {
        f"points_{name}": pictures[name] for name in ("depth", "depth_aligned")
    }
    return pictures


def real_pair() -> dict:
    """data/real_pair/summary.json of a model with a backbone; the left photograph is hidden from the right one."""
    shares = {"pck_1": 0.25, "pck_2": 0.5, "mutual": 0.75, "cells": 40}
    scores = {"psnr": 15.5, "psnr_masked": 16.5, "ssim": 0.375, "ssim_masked": 0.4375}
    return {
        "pair": "a made-up pair",
        "resolution": [*SIZE],
        "cameras": "given",
        "backbone": "made up",
        "geometry": "made up",
        "known": 0.9,
        "median_depth": 2.5,
        "scale": 0.8,
        "seen": {"left": 0.0, "right": 0.7},
        "point_error": {"geometry": 0.125, "model": 0.0625},
        "correspondence": {"tokens": shares},
        "renders": {"left": scores, "right": scores, "left_from_right": {"psnr": 12.25, "ssim": 0.25}},
        "absent": {"Matches of one real pair by the features": "they are the same everywhere"},
    }


def write_results(
    folder: Path,
    seed: int = 0,
    scenes_per_family: int = 3,
    gain: float = 0.0,
    backbone: str = "dinov2_vits14",
    weights: str = "random",
    steps: int = 40,
) -> None:
    """Everything `evaluate` and `report` read, under folder/data; `gain` makes the model's renders less noisy."""
    rng = np.random.default_rng(seed)
    records, episodes = [], []
    (folder / "data/renders").mkdir(parents=True, exist_ok=True)
    for family in ("objects", "rooms"):
        for number in range(scenes_per_family):
            name = f"{family}__{number}"
            path = folder / f"data/scenes/scenes/{name}.safetensors"
            about = {"id": name, "category": family, "units": "metre", "license": "Apache-2.0", "dataset": "procedural"}
            digest = write_scene(path, frames(number + 100 * (family == "rooms"), 6), about, lossless=True)
            records.append(SceneRecord(name, f"scenes/{name}.safetensors", digest, 6, "test", "metre", 1.0, family))
            for bin_number, overlap in enumerate(BINS):
                about = {
                    "episode": f"{name}__{overlap}",
                    "scene": name,
                    "contexts": ["000", f"00{3 + bin_number}"],
                    "targets": ["001", "002"],
                    "bin": overlap,
                    "category": family,
                }
                episodes.append(about)
                noise = {"render": 0.05 * rng.uniform(0.8, 1.5) * (1 - gain), "points": 0.3, "points_splat": 0.1}
                pictures = renders(
                    Scene.open(path),
                    about["contexts"],
                    about["targets"],
                    noise,
                    np.random.default_rng([seed, number, bin_number]),
                )
                dtypes = {"mask": torch.uint8, "scale": torch.float64}
                stored = {key: value.to(dtypes.get(key, torch.float16)).contiguous() for key, value in pictures.items()}
                save_file(
                    stored,
                    folder / f"data/renders/{about['episode']}.safetensors",
                    {"episode": json.dumps(about, sort_keys=True)},
                )
                if number == bin_number == 0:
                    colours = torch.cat(
                        [Scene.open(path).view(name, SIZE).image.flatten(1).T for name in about["contexts"]]
                    )
                    gaussians = points_as_gaussians(pictures["means"].float(), colours, torch.tensor(1.2 * SIZE[0]))
                    for ending in (".ply", ".points_splat.ply"):
                        write_ply(folder / f"data/renders/{about['episode']}{ending}", gaussians)
    write_index(folder / "data/scenes", records)
    lines = "".join(json.dumps(episode, sort_keys=True) + "\n" for episode in episodes)
    (folder / "data/scenes/episodes_test.jsonl").write_text(lines)
    write_training(folder, backbone, weights, steps)


def write_training(folder: Path, backbone: str, weights: str, steps: int) -> None:
    """The record and the curves of a training run."""
    channels = 0 if backbone == "none" else 384
    labels = {"none": "no backbone", "dinov2_vits14": "DINOv2 ViT-S/14 (random weights, untrained)"}
    record = {
        "name": backbone,
        "label": labels.get(backbone, backbone),
        "weights": weights,
        "channels": channels,
        "patch_size": 14,
        "licence": "Apache-2.0",
        "source": "timm vit_small_patch14_dinov2",
        "sha256": None,
    }
    geometry = {
        "name": "tiny",
        "label": "tiny MASt3R",
        "weights": "bundled",
        "channels": 192,
        "patch_size": 16,
        "licence": "Apache-2.0",
        "source": "trained by this project",
        "sha256": "ab" * 32,
    }
    fusion = {
        "parameters": 23456 if channels else 0,
        "sites": {"4": {"relative_change": 0.0625, "weight": 0.03125}} if channels else {},
    }
    write_json(
        folder / "data/model/record.json",
        {
            "backbone": record,
            "geometry": geometry,
            "feature_channels": channels,
            "initial_head": "points",
            "steps": steps,
            "train_category": "all",
            "trainable_parameters": 123456,
            "fusion": fusion,
        },
    )
    write_probe(folder / "data/probe", {"backbone": record["label"], "absent": {"Probes": "nothing was probed"}}, [])
    write_json(folder / "data/real_pair/summary.json", real_pair())
    Image.new("RGB", (90, 40), (200, 30, 30)).save(folder / "data/real_pair/pictures.png")
    curves = {"train/loss": (0.09, 0.01), "train/mse": (0.08, 0.01), "val/psnr_masked": (14, 24)}
    for name, (first, last) in curves.items():
        path = folder / f"data/train/plots/metrics/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = "".join(f"{step}\t{last + (first - last) * 0.9**step}\n" for step in range(0, steps + 1, 10))
        path.write_text(f"step\t{name.split('/')[1]}\n" + rows)


def change(file: Path, **replaced: torch.Tensor) -> None:
    with safe_open(file, framework="pt") as opened:
        tensors, about = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()
    save_file(tensors | replaced, file, about)
