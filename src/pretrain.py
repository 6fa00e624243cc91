"""Train the small bundled geometry network: a pipeline of its own, see data/bundled/dvc.yaml.

    python -m src.pretrain

reads data/bundled/params.yaml; writes data/bundled/geometry.safetensors and data/bundled/provenance.json

Runs on a GPU where torch sees one. A killed run resumes from its last checkpoint in scratch/.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad
from tqdm import tqdm

from src.geometry.alignment import scale_factor
from src.mast3r.network import Mast3r, Mast3rConfig
from src.mast3r.weight_file import read_checkpoint, write_geometry
from src.pretraining.matching import attention_matching_loss, watched
from src.pretraining.muon import Muon
from src.pretraining.pairs import Pairs, Stream, draw_pairs, gathered
from src.reproducible.files import whole_file, write_json
from src.reproducible.hashes import file_hash, params_hash
from src.reproducible.seeds import numpy_generator, torch_generator
from src.reproducible.versions import versions
from src.run import Words, mistakes_explained
from src.splatt3r.losses import confidence_loss, point_errors
from src.timing.measure import hardware

BUNDLED = Path("data/bundled")
SCRATCH = Path("scratch/pretrain")


def autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 where the processor multiplies it in hardware; emulated, it is many times slower than float32."""
    found = {} if device.type == "cuda" else torch.cpu.get_capabilities()
    fast = device.type == "cuda" or found.get("amx_bf16") or found.get("avx512_bf16")
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(fast))


def predict_points(network: Mast3r, images: Tensor) -> tuple:
    """Point maps of both views of images (B, 2, 3, H, W) in [0, 1]."""
    # PyTorch's fused attention for CPUs is slower backwards than the plain one for as few tokens as these.
    plain = contextlib.nullcontext() if images.is_cuda else sdpa_kernel(SDPBackend.MATH)
    with autocast(images.device), plain:
        return network(images[:, 0] * 2 - 1, images[:, 1] * 2 - 1)


@contextlib.contextmanager
def thinned(network: Mast3r, step: int, row: int, column: int) -> Iterator[None]:
    """Lets the DPT heads of `network` compute no more than every `step`-th pixel of the point maps in both directions,
    from (row, column) on. Every second one saves a seventh of a training step."""
    heads = (network.downstream_head1, network.downstream_head2) if step > 1 else ()
    convolutions = [head.dpt.head[2] for head in heads]
    handles = []
    for convolution in convolutions:
        convolution.stride, convolution.padding = (step, step), (0, 0)
        handles.append(
            convolution.register_forward_pre_hook(lambda _, inputs: pad(inputs[0], (1 - column, 1, 1 - row, 1)))
        )
    try:
        yield
    finally:
        for convolution, handle in zip(convolutions, handles):
            convolution.stride, convolution.padding = (1, 1), (1, 1)
            handle.remove()


def objective(network: Mast3r, batch: Pairs, how, corner: Sequence[int]) -> Tensor:
    """Confidence-weighted point regression at metric scale (DUSt3R eq. 4, MASt3R sec. 3.1), and the matching loss of
    some cross-attentions' heads; `how` is the section `objective` of params.yaml. Of the pixels, those at
    corner + k how.pixel_step count."""
    row, column = corner
    with watched(network, how.matching_heads) as attention, thinned(network, how.pixel_step, row, column):
        first, second = predict_points(network, batch["images"])
    truth, valid = (batch[name][:, :, row :: how.pixel_step, column :: how.pixel_step] for name in ("points", "valid"))
    points, confidence = torch.stack([first.pts3d, second.pts3d], 1), torch.stack([first.conf, second.conf], 1)
    metric = torch.ones(len(points), dtype=torch.bool, device=points.device)
    errors = point_errors(points, truth, valid, metric)
    return confidence_loss(
        errors, confidence, valid, how.confidence_alpha
    ) + how.matching_weight * attention_matching_loss(attention, batch["matches"])


def learning_rate(step: int, optimiser) -> float:
    """Linear warm-up, a constant rate, and a linear cool-down to almost nothing over the last `cooldown` steps."""
    rising, falling = (step + 1) / optimiser.warmup, (optimiser.steps - step) / (optimiser.cooldown + 1)
    return optimiser.lr * min(1.0, rising, falling)


def optimisers_of(network: Mast3r, params) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer blocks (updates of AdamW's size), AdamW for everything else."""
    matrices = [weight for name, weight in network.named_parameters() if "_blocks" in name and weight.ndim == 2]
    others = [weight for name, weight in network.named_parameters() if "_blocks" not in name or weight.ndim != 2]
    return [
        Muon(matrices, lr=0, weight_decay=params.weight_decay),
        torch.optim.AdamW(others, lr=0, betas=(0.9, 0.95), weight_decay=params.weight_decay),
    ]


def starting_network(params, device: torch.device) -> Mast3r:
    """The network of params.network with the weights of the file params.start, or drawn from params.seed.

    raises    ValueError  when its heads cannot be thinned as params.objective.pixel_step says
    """
    if params.objective.pixel_step > 1 and params.network.head != "dpt":
        raise ValueError(
            f"objective.pixel_step is {params.objective.pixel_step}, but network.head {params.network.head} "
            "computes patches as a whole; set pixel_step to 1, or head to dpt."
        )
    network = Mast3r(
        Mast3rConfig(
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in OmegaConf.to_container(params.network).items()
            }
        )
    )
    if params.start:
        network.load_state_dict(read_checkpoint(Path(params.start)).state_dict)
    else:
        network.init_weights(torch_generator(params.seed, "network"))
    network.heads_in_autocast = True
    return network.to(device, memory_format=torch.channels_last)


def start_of(params) -> str:
    """What training starts from: the hash of the file params.start, or that its weights are random.

    raises    FileNotFoundError  when there is no such file
    """
    if not params.start:
        return "random weights"
    if not Path(params.start).is_file():
        raise FileNotFoundError(
            f"{(BUNDLED / 'params.yaml').as_posix()} starts from {params.start}, which is not there; "
            "place it as README.md beside it says, or leave start empty to train from scratch."
        )
    return file_hash(params.start)


def save(checkpoint: Path, network: Mast3r, optimisers: list[torch.optim.Optimizer], step: int) -> None:
    with whole_file(checkpoint) as partial:
        torch.save(
            {
                "network": network.state_dict(),
                "step": step,
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            },
            partial,
        )


def resume(checkpoint: Path, network: Mast3r, optimisers: list[torch.optim.Optimizer]) -> int:
    """Load what `save` wrote, if it is there; the number of steps already taken."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, "cpu", weights_only=True)
    network.load_state_dict(state["network"])
    for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    return state["step"]


def train_network(params, device: torch.device) -> Mast3r:
    """Train from the start, or from the last checkpoint of the same parameters and start in scratch/."""
    started_from = start_of(params)
    network = starting_network(params, device)
    how, optimisers = params.optimiser, optimisers_of(network, params.optimiser)
    checkpoint = SCRATCH / f"network-{params_hash(OmegaConf.to_container(params), started_from)}.pt"
    workers = params.threads if device.type == "cuda" else max(1, params.threads // 2)
    stream = Stream(params.stream, params.stream.first_seed, workers, SCRATCH, device)
    start, losses = resume(checkpoint, network, optimisers), []
    bar = tqdm(range(start, how.steps), initial=start, total=how.steps, desc="pretrain")
    for step in bar:
        stream.grow(int(params.stream.initial_scenes + step * params.stream.scenes_per_step))
        rng = numpy_generator(params.seed, "batch", step)
        batch = draw_pairs(stream.scenes, how.batch_size, rng)
        loss = objective(network, batch, params.objective, rng.integers(params.objective.pixel_step, size=2).tolist())
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), how.clip)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, how)
            with autocast(device):  # Muon multiplies matrices
                optimiser.step()
        losses.append(loss.detach())
        if (step + 1) % how.log_every == 0:
            bar.write(f"step {step + 1} loss {torch.stack(losses).mean().item():.4f} scenes {len(stream.scenes)}")
            losses.clear()
        if (step + 1) % how.checkpoint_every == 0:
            save(checkpoint, network, optimisers, step + 1)
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


def pair_errors(network: Mast3r, pair: Pairs) -> dict[str, float]:
    """Of one pair, a batch of its own: median relative errors, aligned by one scale factor for both views (of both, and
    of each) and raw; absolute logarithm of that factor; AUSE of the aligned errors."""
    first, second = network(pair["images"][:, 0] * 2 - 1, pair["images"][:, 1] * 2 - 1)
    valid = pair["valid"][0]
    prediction, truth = torch.cat([first.pts3d, second.pts3d])[valid], pair["points"][0][valid]
    confidence = torch.cat([first.conf, second.conf])[valid]
    scale = scale_factor(prediction, truth, torch.ones_like(confidence, dtype=torch.bool))
    aligned = relative_errors(prediction / scale, truth)
    views = aligned.split(valid.flatten(1).sum(1).tolist())
    return {
        "median_relative_error_aligned": aligned.median().item(),
        "median_relative_error_aligned_view1": views[0].median().item(),
        "median_relative_error_aligned_view2": views[1].median().item(),
        "median_relative_error_raw": relative_errors(prediction, truth).median().item(),
        "median_abs_log_scale": scale.log().abs().item(),
        "ause": ause(aligned, confidence),
    }


@torch.inference_mode()
def held_out_errors(network: Mast3r, params, device: torch.device) -> dict[str, dict[str, float]]:
    """Median over pairs of their errors, per family, on scenes that training never saw; every pair of views that overlaps
    enough, in fp32."""
    stream = Stream(params.stream, params.stream.held_out_seed, params.threads, SCRATCH, device)
    stream.grow(params.stream.held_out_scenes * len(params.stream.families))
    stream.close()
    results = {}
    for number, family in enumerate(params.stream.families):
        rows = [
            pair_errors(network, gathered([(scene, pair)]))
            for scene in stream.scenes[number :: len(params.stream.families)]
            for pair in scene.pairs
        ]
        results[family] = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
        results[family] |= {"pairs": len(rows), "scenes": params.stream.held_out_scenes}
    return results


def main() -> None:
    params = OmegaConf.load(BUNDLED / "params.yaml")
    OmegaConf.resolve(params)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(params.threads)
    started = time.monotonic()
    network = train_network(params, device)
    seconds = time.monotonic() - started
    halved = {name: tensor.half().cpu() for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: tensor.float() for name, tensor in halved.items()})
    network.heads_in_autocast = False
    record = {
        "params_hash": params_hash(OmegaConf.to_container(params)),
        "started_from": start_of(params),
        "steps": params.optimiser.steps,
        "pairs": params.optimiser.steps * params.optimiser.batch_size,
        "seconds_of_last_run": round(seconds),
        "parameters": sum(p.numel() for p in network.parameters()),
        "versions": versions(),
        "hardware": hardware(),
        "held_out": held_out_errors(network, params, device),
    }
    write_geometry(BUNDLED / "geometry.safetensors", network.config, halved)
    write_json(BUNDLED / "provenance.json", record)
    json.dump(record["held_out"], sys.stdout, indent=2)


if __name__ == "__main__":
    Words("pretrain").parse_args()
    with mistakes_explained():
        main()
