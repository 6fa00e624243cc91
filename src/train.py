"""Stage `train`: fit the Gaussian head and the fusion adapter (and what the strategy unfreezes) on rendered targets.

    python -m src.train [key=value ...]

reads data/scenes, data/features, data/weights, data/readout.safetensors; writes data/model and the curves data/train

A killed run goes on where its last checkpoint in scratch/ left off and ends with the same bytes. With several devices
Lightning starts this module once more for each, which share out the draws of a step; the first process alone writes.
"""

import logging
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import lightning
import torch
from dvclive import Live
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from src.config import Config, Opt
from src.episodes.episodes import TrainingEpisodes, read_episodes
from src.geometry.alignment import context_points
from src.mast3r.network import Mast3r
from src.metrics.image import load_lpips, psnr
from src.reproducible.files import read_json
from src.reproducible.hashes import file_hash, params_hash
from src.reproducible.seeds import fix_computation
from src.run import memory_advice, run
from src.scenes.features import Features
from src.scenes.scene import all_in_metres, read_index
from src.splatt3r.build import build_model, save_trained, scale_reference, start_heads
from src.splatt3r.fusion_effects import fusion_effects
from src.splatt3r.losses import mast3r_loss, photometric_loss
from src.splatt3r.network import SplatOutput, Splatt3R
from src.splatt3r.posed import PosedSplatt3R
from src.splatt3r.prediction import predict, render_targets, target_mask
from src.splatt3r.readout import read_solution
from src.splatt3r.samples import Sample, Samples, StepSampler, Views, collate

SCENES, FEATURES, WEIGHTS = Path("data/scenes"), Path("data/features"), Path("data/weights")
READOUT, MODEL, CURVES = Path("data/readout.safetensors"), Path("data/model"), Path("data/train")
OPTIMIZER_CLASSES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class TrainingModule(lightning.LightningModule):
    """One network, its loss and its optimiser. Checkpoints hold the trainable tensors alone."""

    strict_loading = False

    def __init__(
        self,
        network: Splatt3R,
        config: Config,
        sampler: StepSampler,
        in_metres: bool,
        lpips: nn.Module | None,
        frozen: Mast3r | None,
    ):
        super().__init__()
        self.network, self.config, self.sampler, self.in_metres = network, config, sampler, in_metres
        self.lpips, self.frozen = lpips, frozen  # neither is trained; `frozen` gives the scales

    def renders(self, batch: Sample) -> tuple[Tensor, Tensor, object]:
        """Targets as rendered (B, T, 3, H, W), their mask (B, T, H, W), and the prediction behind them."""
        prediction = predict(self.network, batch, self.frozen, self.in_metres)
        images = [
            render_targets(prediction.output.gaussians[b], batch, b, scale).images
            for b, scale in enumerate(prediction.scales)
        ]
        return torch.stack(images), target_mask(batch, self.in_metres, self.config.loss.masks), prediction

    def setup(self, stage: str) -> None:
        torch.set_num_threads(self.config.threads)  # Lightning sets its own number when it starts several processes

    def on_train_epoch_start(self) -> None:
        sampler, trainer = self.sampler, self.trainer
        sampler.rank, sampler.processes = trainer.global_rank, trainer.world_size
        sampler.start = trainer.global_step * self.config.data.batch_size * trainer.world_size

    def training_step(self, batch: Sample, _: int) -> dict[str, Tensor]:
        images, mask, prediction = self.renders(batch)
        weights = self.config.loss
        parts = photometric_loss(
            images,
            batch.targets.images,
            mask,
            weights.mse_loss_weight,
            weights.lpips_loss_weight,
            self.lpips,
            weights.apply_mask,
            weights.average_over_mask,
        )
        if weights.mast3r_loss_weight:
            parts["mast3r"] = self.geometry_loss(prediction.output, batch.contexts)
            parts["loss"] = parts["loss"] + weights.mast3r_loss_weight * parts["mast3r"]
        return parts

    def geometry_loss(self, output: SplatOutput, contexts: Views) -> Tensor:
        """MASt3R's loss on the context views' points."""
        maps = output.points1, output.points2
        points, confidence = torch.stack([m.pts3d for m in maps], 1), torch.stack([m.conf for m in maps], 1)
        valid = contexts.valid & (contexts.depth > 0)  # (B, 2, H, W)
        if not valid.flatten(1).any(1).all():
            raise ValueError(
                "A training pair has no depth, which loss.mast3r_loss_weight needs; set it to 0 or take a "
                "dataset with depth."
            )
        truth = context_points(contexts.depth, contexts.K, contexts.c2w)  # (B, 2, H, W, 3)
        in_metres = torch.full((len(points),), self.in_metres, device=points.device)
        return mast3r_loss(points, confidence, truth, valid, contexts.valid & ~valid, in_metres)

    def validation_step(self, batch: Sample, _: int) -> None:
        images, mask, _ = self.renders(batch)
        for render, truth, seen in zip(images.flatten(0, 1), batch.targets.images.flatten(0, 1), mask.flatten(0, 1)):
            if seen.any():
                self.log("val/psnr_masked", psnr(render, truth, seen), on_epoch=True, batch_size=1)

    def configure_optimizers(self) -> dict:
        opt = self.config.opt
        optimizer = OPTIMIZER_CLASSES[opt.optimizer](
            by_rate(self.network, opt), lr=opt.lr, weight_decay=opt.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, opt))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name in trainable
        }


def by_rate(network: Splatt3R, opt: Opt) -> list[dict]:
    """Trainable parameters as groups for the optimiser, one per learning rate, each in the network's own order."""
    own = {"fusion": opt.lr_fusion} | dict.fromkeys(("encoder", "decoder", "point_head"), opt.lr_geometry)
    rates = {
        parameter: own.get(group) or opt.lr
        for group, members in network.parameter_groups().items()
        for parameter in members.values()
    }
    found: dict[float, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            found.setdefault(rates[parameter], []).append(parameter)
    return [{"params": parameters, "lr": lr} for lr, parameters in found.items()]


def rate_share(step: int, opt: Opt) -> float:
    """Learning rate of a step as a share of the full one: constant, a tenth after half the steps, or half a cosine."""
    if opt.scheduler == "constant":
        return 1.0
    if opt.scheduler == "multistep":
        return 1.0 if step < opt.steps // 2 else 0.1
    return 0.5 * (1 + math.cos(math.pi * min(1, step / opt.steps)))


class Curves(Callback):
    """Training curves, means over the processes, through DVCLive where `live` is set; their history travels in the
    checkpoint, so a resumed run writes whole curves."""

    live: Live | None = None

    def __init__(self, every: int):
        self.every, self.points, self.sums, self.count = every, [], {}, 0

    def add(self, step: int, name: str, value: float) -> None:
        self.points.append([step, name, value])
        if self.live is not None:
            self.live.step = step
            self.live.log_metric(name, value)

    def on_train_batch_end(self, trainer, module, outputs: dict[str, Tensor], batch, batch_idx: int) -> None:
        for name, value in outputs.items():
            mean = trainer.strategy.reduce(value).item()
            if not math.isfinite(mean):  # on all processes alike
                raise ValueError(
                    f"train/{name} of step {trainer.global_step} is {mean}, so the weights are lost; lower opt.lr, or "
                    "look at the scenes with python -m src.check_scenes."
                )
            self.sums[name] = self.sums.get(name, 0.0) + mean
        self.count += 1
        if trainer.global_step % self.every == 0:
            for name, total in self.sums.items():
                self.add(trainer.global_step, f"train/{name}", total / self.count)
            self.sums, self.count = {}, 0

    def on_validation_end(self, trainer, module) -> None:
        if "val/psnr_masked" in trainer.callback_metrics:
            self.add(trainer.global_step, "val/psnr_masked", trainer.callback_metrics["val/psnr_masked"].item())

    def state_dict(self) -> dict:
        return {"points": self.points, "sums": self.sums, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.sums, self.count = state["sums"], state["count"]
        for point in state["points"]:
            self.add(*point)


class Progress(Callback):
    """One bar over all steps, with the loss and the time left; validations are part of that time."""

    bar: tqdm | None = None

    def on_train_start(self, trainer, module) -> None:
        silent = not trainer.is_global_zero
        self.bar = tqdm(None, "train", trainer.max_steps, initial=trainer.global_step, smoothing=0, disable=silent)

    def on_train_batch_end(self, trainer, module, outputs: dict[str, Tensor], batch, batch_idx: int) -> None:
        self.bar.set_postfix(loss=f"{outputs['loss'].item():.4f}", refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_start(self, trainer, module) -> None:
        if self.bar:
            self.bar.set_description("validate")

    def on_validation_end(self, trainer, module) -> None:
        if self.bar:
            self.bar.set_description("train")

    def on_train_end(self, trainer, module) -> None:
        self.bar.close()

    def on_exception(self, trainer, module, error: BaseException) -> None:
        if self.bar:
            self.bar.close()


def fingerprint(config: Config) -> str:
    """Names a run by all that decides its result: parameters, scenes, features and code."""
    code = [file_hash(path) for path in sorted(Path("src").rglob("*.py"))]
    inputs = [
        file_hash(SCENES / "index.jsonl"),
        file_hash(READOUT),
        *(read_json(FEATURES / kind / "record.json") for kind in ("geometry", "backbone")),
    ]
    sections = (
        config.seed,
        config.threads,
        config.data,
        config.dataset,
        config.model,
        config.opt,
        config.loss,
        config.geometries[config.model.geometry],
    )
    return params_hash(*sections, code, inputs)


def loaders(config: Config) -> tuple[DataLoader, DataLoader, Features]:
    """Batches of training draws, and of the frozen validation episodes; and the backbone's features."""
    features = Features(FEATURES / "geometry", "tokens"), Features(FEATURES / "backbone", "features")
    batch, epoch = config.data.batch_size, min(config.opt.val_every, config.opt.steps) * config.data.batch_size
    draw = TrainingEpisodes(SCENES, config.dataset.episodes, config.dataset.train_category, config.seed)
    draws = config.opt.steps * batch * config.opt.processes
    training = Samples(SCENES, *features, config.dataset.resolution, draw, draws)
    frozen = read_episodes(SCENES, "val", config.dataset.train_category)
    validation = Samples(SCENES, *features, config.dataset.resolution, frozen.__getitem__, len(frozen))
    how = {
        "num_workers": config.data.num_workers,
        "persistent_workers": config.data.num_workers > 0,
        "collate_fn": collate,
    }
    return (
        DataLoader(training, batch, sampler=StepSampler(epoch), **how),
        DataLoader(validation, 1, **how),
        features[1],
    )


def fit_network(config: Config, network: Splatt3R, train_loader: DataLoader, val_loader: DataLoader) -> Path:
    """Train `network` in place, resuming from scratch/ if a run with the same fingerprint was cut short. Of several
    processes the first alone returns; the others end here.

    returns    the folder of the checkpoint, of no use once the result is saved
    """
    scratch = Path(os.environ.get("DVC_ROOT", ".")) / "scratch" / f"train-{fingerprint(config)}"
    last = scratch / "last.ckpt"
    if config.opt.precision == "16-mixed" and not torch.cuda.is_available():
        raise ValueError(
            "opt.precision is 16-mixed, but torch sees no CUDA device, which that needs; set it to bf16-mixed "
            "or 32-true."
        )
    lpips = load_lpips(WEIGHTS / "lpips_loss") if config.loss.lpips_loss_weight else None
    in_metres = all_in_metres(read_index(SCENES))
    frozen = scale_reference(network, WEIGHTS / "geometry")
    module = TrainingModule(network, config, train_loader.sampler, in_metres, lpips, frozen)
    curves = Curves(config.opt.log_every)
    saver = ModelCheckpoint(
        scratch, "last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    # where a process's share has no depth in one view, the loss on points does not reach all their parameters
    strategy = "ddp_find_unused_parameters_true" if config.opt.processes > 1 else "auto"
    trainer = lightning.Trainer(
        max_steps=config.opt.steps,
        precision=config.opt.precision,
        devices=config.opt.devices,
        num_nodes=config.opt.num_nodes,
        gradient_clip_val=config.opt.gradient_clip_val,
        logger=False,
        callbacks=[curves, saver, Progress()],
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        default_root_dir=scratch,
        use_distributed_sampler=False,
        strategy=strategy,
    )
    first = trainer.is_global_zero
    with Live(str(CURVES), save_dvc_exp=False, dvcyaml=None) if first else nullcontext() as curves.live:
        if last.exists():
            trainer.print(f"train: resuming from {last}")
        else:
            trainer.print("train: validating before the first step")
            interruptible(trainer.validate, module, val_loader, verbose=False)
        checkpoint = last if last.exists() else None
        interruptible(trainer.fit, module, train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)
    trainer.strategy.barrier()
    if not first:
        sys.exit()
    return scratch


def interruptible(work: Callable[..., object], *arguments, **options) -> None:
    """Call a method of Lightning's trainer, which turns Ctrl-C into the exit of a program that failed."""
    try:
        work(*arguments, **options)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise


def effects(network: Splatt3R, loader: DataLoader) -> dict:
    """What the adapters are and do, on the validation episodes: their number of parameters, and `fusion_effects`."""
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return {
        "parameters": sum(p.numel() for p in network.parameter_groups()["fusion"].values()),
        "sites": fusion_effects(network, loader),
    }


@memory_advice()
def main(config: Config) -> None:
    fix_computation(config.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    train_loader, val_loader, backbone = loaders(config)
    network = build_model(
        config, WEIGHTS / "geometry", backbone.channels, train_points=config.loss.mast3r_loss_weight > 0
    )
    initial_head = start_heads(network, config, WEIGHTS / "geometry")
    if isinstance(network, PosedSplatt3R):
        inputs = "both" if backbone.channels and config.model.site == "depth" else "tokens"
        if solution := read_solution(READOUT, inputs):
            network.readout.load_solution(solution)
    network.gradient_checkpointing = config.opt.gradient_checkpointing
    scratch = fit_network(config, network, train_loader, val_loader)
    geometry = read_json(FEATURES / "geometry" / "record.json")
    save_trained(
        network,
        MODEL,
        {
            "backbone": backbone.record,
            "geometry": geometry,
            "feature_channels": backbone.channels,
            "initial_head": initial_head,
            "steps": config.opt.steps,
            "train_category": config.dataset.train_category or "all",
            "train_points": config.loss.mast3r_loss_weight > 0,
            "fusion": effects(network, val_loader),
            "trainable_parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        },
    )
    shutil.rmtree(scratch)


if __name__ == "__main__":
    run(main, "train")
