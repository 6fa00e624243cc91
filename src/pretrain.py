"""Train the small bundled geometry network from scratch: a pipeline of its own, see data/bundled/dvc.yaml.

reads data/bundled/params.yaml; writes data/bundled/geometry.safetensors and data/bundled/provenance.json

Procedural scenes are rendered by worker processes while training goes on. The pool of scenes a step draws from
depends on the step alone, so the run repeats itself however fast the workers are, and a killed run resumes.
"""

import json
import math
import multiprocessing
import os
import sys
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from src.checkpoints import write_geometry
from src.datasets.procedural import DEPTH_SCALE, generate
from src.alignment import context_points, scale_factor
from src.geometry import transform, unproject, visible
from src.losses import confidence_loss, point_errors
from src.mast3r import Mast3r, Mast3rConfig
from src.provenance import module_hashes, numpy_generator, params_hash, torch_generator, versions, write_json
from src.timing import hardware

FOLDER = Path("data/bundled")
SCRATCH = Path("scratch/pretrain")
AHEAD = 24  # scenes rendered before they are asked for


def render_scene(family: str, seed: int, views: int, resolution: list[int], samples: int, bounces: int, path: Path
                 ) -> Path:
    """Worker: one scene as arrays on disk; images uint8 (V, H, W, 3), depths uint16 (V, H, W), K, c2w."""
    if not path.exists():
        frames = generate(family, seed, views, tuple(resolution), samples, bounces)
        depths = np.stack([frame.depth for frame in frames])
        K, c2w = np.stack([frame.K for frame in frames]), np.stack([frame.c2w for frame in frames])
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, images=np.stack([frame.image for frame in frames]), depths=depths, K=K, c2w=c2w,
                 coverage=coverage(torch.from_numpy(depths * DEPTH_SCALE), torch.from_numpy(K), torch.from_numpy(c2w)))
        os.replace(temporary, path)
    return path


def coverage(depth: Tensor, K: Tensor, c2w: Tensor, stride: int = 8) -> np.ndarray:
    """(V, V) share [i, j] of view i's pixels, on a coarse grid, that view j sees to 0.1 m."""
    world = transform(c2w, unproject(depth, K))[:, stride // 2 :: stride, stride // 2 :: stride]
    seen = [visible(world, depth[j].expand(depth.shape), K[j].expand(K.shape), c2w[j].expand(c2w.shape), 0.1)
            for j in range(len(depth))]
    return torch.stack(seen, 1).double().mean((-2, -1)).numpy()


class Stream:
    """Scenes 0, 1, 2, ... in a fixed order, alternating between the families, rendered ahead by processes."""

    def __init__(self, params, first_seed: int, workers: int):
        self.params, self.first_seed = params, first_seed
        self.pending, self.scenes = deque(), []
        self.generator = module_hashes("src.datasets.")
        self.executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
        SCRATCH.mkdir(parents=True, exist_ok=True)

    def submit(self) -> None:
        number = len(self.scenes) + len(self.pending)
        family = self.params.families[number % len(self.params.families)]
        seed = self.first_seed + number
        how = self.params.views, list(self.params.resolution), self.params.samples, self.params.bounces
        name = SCRATCH / f"{family}-{seed}-{params_hash([how, self.generator])}.npz"
        self.pending.append(self.executor.submit(render_scene, family, seed, *how, name))

    def grow(self, size: int) -> None:
        """Wait until at least `size` scenes are in the pool."""
        while len(self.scenes) < size:
            while len(self.pending) < AHEAD:
                self.submit()
            with np.load(self.pending.popleft().result()) as arrays:
                self.scenes.append({name: arrays[name] for name in arrays})

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)


def pairs_of(scene: dict[str, np.ndarray], min_overlap: float) -> np.ndarray:
    """Ordered pairs (i, j) of different views that see enough of each other, (P, 2)."""
    overlap = np.minimum(scene["coverage"], scene["coverage"].T)
    return np.argwhere((overlap >= min_overlap) & ~np.eye(len(overlap), dtype=bool))


def load_pair(scene: dict[str, np.ndarray], i: int, j: int) -> dict[str, Tensor]:
    """Views i and j: images (2, 3, H, W) in [0, 1], points (2, H, W, 3) in view i's camera in metres, valid (2, H, W)."""
    order = [i, j]
    depth = torch.from_numpy(scene["depths"][order].astype(np.float32) * np.float32(DEPTH_SCALE))
    points = context_points(depth.double(), *(torch.from_numpy(scene[name][order]) for name in ("K", "c2w"))).float()
    images = torch.from_numpy(scene["images"][order]).permute(0, 3, 1, 2).float() / 255
    return {"images": images, "points": points, "valid": depth > 0}


def mirrored(pair: dict[str, Tensor]) -> dict[str, Tensor]:
    """The pair seen in a mirror: columns reversed, x of camera 1 negated."""
    points = pair["points"].flip(2) * torch.tensor([-1.0, 1.0, 1.0])
    return {"images": pair["images"].flip(3), "points": points, "valid": pair["valid"].flip(2)}


def recoloured(images: Tensor, rng: np.random.Generator) -> Tensor:
    """One random exposure and tint for both views: images ** gamma * gain per channel, clamped to [0, 1]."""
    gain = torch.tensor(rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3), dtype=torch.float32)
    return (images ** float(rng.uniform(0.8, 1.25)) * gain.view(1, 3, 1, 1)).clamp(0, 1)


def draw_batch(scenes: list[dict], batch_size: int, min_overlap: float, rng: np.random.Generator) -> dict[str, Tensor]:
    """A batch of augmented pairs, each tensor with a leading batch axis."""
    pairs = []
    while len(pairs) < batch_size:
        scene = scenes[rng.integers(len(scenes))]
        choices = pairs_of(scene, min_overlap)
        if len(choices) == 0:
            continue
        pair = load_pair(scene, *choices[rng.integers(len(choices))])
        if rng.random() < 0.5:
            pair = mirrored(pair)
        pairs.append(pair | {"images": recoloured(pair["images"], rng)})
    return {name: torch.stack([pair[name] for pair in pairs]) for name in pairs[0]}


def predict(network: Mast3r, images: Tensor) -> tuple:
    """Point maps of both views of images (B, 2, 3, H, W) in [0, 1], computed in bfloat16."""
    # PyTorch's fused attention for CPUs is slower backwards than the plain one for as few tokens as these.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        return network(images[:, 0] * 2 - 1, images[:, 1] * 2 - 1)


def objective(network: Mast3r, batch: dict[str, Tensor], alpha: float) -> Tensor:
    """Confidence-weighted point regression at metric scale (DUSt3R eq. 4, MASt3R sec. 3.1)."""
    first, second = predict(network, batch["images"])
    points, confidence = torch.stack([first.pts3d, second.pts3d], 1), torch.stack([first.conf, second.conf], 1)
    errors = point_errors(points, batch["points"], batch["valid"], torch.ones(len(points), dtype=torch.bool))
    return confidence_loss(errors, confidence, batch["valid"], alpha)


def learning_rate(step: int, optimiser) -> float:
    """Linear warm-up, then a half cosine to 1 % of the peak."""
    if step < optimiser.warmup:
        return optimiser.lr * (step + 1) / optimiser.warmup
    progress = (step - optimiser.warmup) / max(1, optimiser.steps - optimiser.warmup)
    return optimiser.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def optimisers_of(network: Mast3r, params) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer blocks (updates of AdamW's size), AdamW for everything else."""
    matrices = [weight for name, weight in network.named_parameters() if "_blocks" in name and weight.ndim == 2]
    others = [weight for name, weight in network.named_parameters() if "_blocks" not in name or weight.ndim != 2]
    return [torch.optim.Muon(matrices, lr=0, weight_decay=params.weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=0, betas=(0.9, 0.95), weight_decay=params.weight_decay)]


def train(params) -> Mast3r:
    """Train from scratch, or from the last checkpoint of the same parameters in scratch/."""
    network = Mast3r(Mast3rConfig(**{key: tuple(value) if isinstance(value, list) else value
                                     for key, value in OmegaConf.to_container(params.network).items()}))
    network.to(memory_format=torch.channels_last)
    network.init_weights(torch_generator(params.seed, "network"))
    network.heads_in_autocast = True
    optimisers = optimisers_of(network, params.optimiser)
    checkpoint = SCRATCH / f"network-{params_hash(OmegaConf.to_container(params))}.pt"
    stream = Stream(params.stream, params.stream.first_seed, workers=max(1, params.threads // 2))
    start, history = 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        start, history = state["step"], state["history"]
    bar = tqdm(range(start, params.optimiser.steps), initial=start, total=params.optimiser.steps, desc="pretrain")
    for step in bar:
        stream.grow(int(params.stream.initial_scenes + step * params.stream.scenes_per_step))
        batch = draw_batch(stream.scenes, params.optimiser.batch_size, params.stream.min_overlap,
                           numpy_generator(params.seed, "batch", step))
        loss = objective(network, batch, params.optimiser.confidence_alpha)
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), params.optimiser.clip)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, params.optimiser)
            optimiser.step()
        history.append(loss.item())
        if (step + 1) % params.optimiser.log_every == 0:
            bar.write(f"step {step + 1} loss {np.mean(history[-params.optimiser.log_every:]):.4f} "
                      f"scenes {len(stream.scenes)}")
        if (step + 1) % params.optimiser.checkpoint_every == 0:
            torch.save({"network": network.state_dict(), "step": step + 1, "history": history,
                        "optimisers": [optimiser.state_dict() for optimiser in optimisers]}, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
    stream.close()
    return network


def relative_errors(prediction: Tensor, truth: Tensor) -> Tensor:
    """Distance of each predicted point from the true one, relative to the true point's distance from camera 1."""
    return (prediction - truth).norm(dim=-1) / truth.norm(dim=-1)


def ause(errors: Tensor, confidence: Tensor, steps: int = 20) -> float:
    """Area under the sparsification error: mean error left after removing the least confident share, minus the same
    with the largest errors removed, averaged over shares 0 to 95 % and divided by the mean error (0 is perfect)."""
    def curve(order: Tensor) -> Tensor:
        ranked = errors[order]
        return torch.stack([ranked[: max(1, round(len(ranked) * (1 - k / steps)))].mean() for k in range(steps)])

    gap = curve(confidence.argsort(descending=True)) - curve(errors.argsort())
    return (gap.mean() / errors.mean()).item()


@torch.inference_mode()
def held_out_errors(network: Mast3r, params) -> dict[str, dict[str, float]]:
    """Errors per family on scenes that training never saw; every pair of views that overlaps enough, in fp32."""
    stream = Stream(params.stream, params.stream.held_out_seed, workers=params.threads)
    stream.grow(params.stream.held_out_scenes * len(params.stream.families))
    stream.close()
    results = {}
    for number, family in enumerate(params.stream.families):
        rows = []
        for scene in stream.scenes[number :: len(params.stream.families)]:
            for i, j in pairs_of(scene, params.stream.min_overlap):
                pair = load_pair(scene, i, j)
                first, second = network(*(pair["images"][:, None] * 2 - 1))
                prediction = torch.cat([first.pts3d, second.pts3d])[pair["valid"]]
                confidence, truth = torch.cat([first.conf, second.conf])[pair["valid"]], pair["points"][pair["valid"]]
                scale = scale_factor(prediction, truth, torch.ones_like(confidence, dtype=torch.bool))
                aligned = relative_errors(prediction / scale, truth)
                rows.append([aligned.median(), relative_errors(prediction, truth).median(), scale.log().abs(),
                             ause(aligned, confidence)])
        medians = np.median(np.array(rows, dtype=np.float64), axis=0)
        results[family] = {"median_relative_error_aligned": medians[0], "median_relative_error_raw": medians[1],
                           "median_abs_log_scale": medians[2], "ause": medians[3], "pairs": len(rows),
                           "scenes": params.stream.held_out_scenes}
    return results


def main() -> None:
    params = OmegaConf.load(FOLDER / "params.yaml")
    OmegaConf.resolve(params)
    torch.set_num_threads(params.threads)
    started = time.monotonic()
    network = train(params)
    seconds = time.monotonic() - started
    halved = {name: tensor.half() for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: tensor.float() for name, tensor in halved.items()})
    network.heads_in_autocast = False
    record = {"params_hash": params_hash(OmegaConf.to_container(params)), "steps": params.optimiser.steps,
              "pairs": params.optimiser.steps * params.optimiser.batch_size, "seconds_of_last_run": round(seconds),
              "parameters": sum(p.numel() for p in network.parameters()), "versions": versions(),
              "hardware": hardware(), "held_out": held_out_errors(network, params)}
    write_geometry(FOLDER / "geometry.safetensors", network.config, halved)
    write_json(FOLDER / "provenance.json", record)
    json.dump(record["held_out"], sys.stdout, indent=2)


if __name__ == "__main__":
    main()
