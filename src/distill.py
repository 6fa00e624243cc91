"""Stage `distill`: train a small backbone to predict a large one's features; a pipeline of its own, see
data/distilled/dvc.yaml.

    python -m src.distill NAME [key=value ...]   the entry students.NAME of data/distilled/params.yaml

reads data/scenes, and weights as the stage `weights` finds them; writes data/distilled/NAME: model.safetensors, for
model.backbone=file:…, and record.json

The linear map to the teacher's features (src/pretraining/distillation.py) starts at the best one from the untrained
student's, so what is gained from there on is the student's own; at the end it is dropped. A killed run resumes from
scratch/.
"""

import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from tqdm import tqdm

from src.backbones import load_backbone
from src.backbones.base import Backbone
from src.config import Config
from src.fetching.backbone import backbone_weights
from src.parameters.rules import require, require_positive, require_share
from src.pretrained.choices import DINOV2_WIDTHS
from src.pretrained.state_dicts import Described, write_backbone
from src.pretraining.distillation import Head, SplitImages, agreement_loss, draw_crops, mean_scores, patch_rows
from src.reproducible.files import fresh_folder, read_json, whole_file, write_json
from src.reproducible.hashes import file_hash, module_hashes, params_hash
from src.reproducible.seeds import fix_computation, numpy_generator
from src.reproducible.versions import versions
from src.run import Words, run

SCENES, DISTILLED = Path("data/scenes"), Path("data/distilled")
PROBED = 256  # images, at most, that statistics are taken from, and that agreement is measured on
UNTRAINED = (
    "This backbone was distilled from an untrained teacher: its features are those of random weights, and so "
    "is what was learned."
)
LEARNERS = ("dinov2_", "timm:", "clip", "croco")  # how names begin that model.backbone=file:… knows a network by


@dataclass
class Pair:
    """teacher and student as model.backbone, or model.dinov2_model, names them; their weights as model.weights does."""

    teacher: str = MISSING
    teacher_weights: str = MISSING
    student: str = MISSING
    student_weights: str = MISSING


@dataclass
class Crops:
    cells: list[int] = MISSING
    min_area: float = MISSING

    def __post_init__(self):
        require(
            len(self.cells) == 2 and 1 <= self.cells[0] <= self.cells[1],
            f"crops.cells is {self.cells}; give the smallest and the largest number of patches per side.",
        )
        require_share("crops.min_area", self.min_area)


@dataclass
class Optimiser:
    steps: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    weight_decay: float = MISSING
    warmup: float = MISSING
    clip: float = MISSING
    checkpoint_every: int = MISSING

    def __post_init__(self):
        for key in ("steps", "batch_size", "lr", "clip", "checkpoint_every"):
            require_positive(f"optimiser.{key}", getattr(self, key))
        require_share("optimiser.warmup", self.warmup)


@dataclass
class Params:
    """data/distilled/params.yaml"""

    seed: int = MISSING
    threads: int = MISSING
    students: dict[str, Pair] = MISSING
    crops: Crops = MISSING
    optimiser: Optimiser = MISSING


def read_params(path: Path) -> Params:
    """raises    ValueError  when a key is unknown, missing, mistyped or out of range"""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Params), OmegaConf.load(path)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path.as_posix()} is wrong: {str(error).splitlines()[0]}.") from error


@dataclass(frozen=True, eq=False)
class Known:
    """A backbone, and the record of its weights."""

    backbone: Backbone
    record: dict

    @property
    def label(self) -> str:
        return self.backbone.label(self.record["weights"])


def known_backbone(name: str, choice: str, config: Config, folder: Path) -> Known:
    """A backbone with the weights that `choice` asks for, as the stage `weights` collects them, here into `folder`.

    raises    ValueError, FileNotFoundError  when there are none
    """
    dinov2 = name in DINOV2_WIDTHS
    model = replace(
        config.model,
        backbone="dinov2" if dinov2 else name,
        weights=choice,
        backbone_layers=None,
        dinov2_dim=None,
        dinov2_model=name if dinov2 else config.model.dinov2_model,
    )
    backbone_weights(replace(config, model=model), folder)
    return Known(load_backbone(model, folder), read_json(folder / "record.json"))


def check_roles(teacher: Known, student: Known) -> None:
    """raises    ValueError  when there is nothing to learn, or nobody to learn it"""
    for role, known in (("teacher", teacher), ("student", student)):
        require(
            known.backbone.num_parameters > 0,
            f"The {role} is {known.backbone.name}, which has no weights; name a network, such as dinov2_vits14.",
        )
    require(
        student.backbone.name.startswith(LEARNERS),
        f"The student is {student.backbone.name}, which is no network of its own; name one such as dinov2_vits14.",
    )
    ours, theirs = (known.backbone.network.state_dict() for known in (student, teacher))
    same = student.backbone.name == teacher.backbone.name and all(torch.equal(ours[key], theirs[key]) for key in ours)
    require(
        not same,
        f"Teacher and student are both {teacher.label}, with the same weights, so there is nothing to "
        "learn; choose a smaller student, or other weights.",
    )


@torch.no_grad()
def feature_pairs(
    student: Backbone, teacher: Backbone, images: SplitImages, device: torch.device
) -> Iterable[tuple[Tensor, Tensor]]:
    """Features (N, C) of both, of whole images on the student's grid, one at a time."""
    for index in images.spread(PROBED):
        image = images[index][None].to(device)  # (1, 3, H, W)
        grid = student.grid(image)
        yield patch_rows(student(image, grid)), patch_rows(teacher(image, grid))


@torch.no_grad()
def agreement(
    student: Backbone, teacher: Backbone, head: Head, images: SplitImages, device: torch.device
) -> dict[str, dict[str, float]]:
    """Scores of the projected student, and of the training mean, which says the same of every patch."""
    pairs = feature_pairs(student, teacher, images, device)
    return mean_scores(
        ((found, head.target(wanted)) for found, wanted in pairs),
        {"student": head, "mean": lambda found: torch.zeros_like(head(found))},
    )


def warm_cosine(step: int, settings: Optimiser) -> float:
    """Learning rate of a step as a share of optimiser.lr: half a cosine, below a linear rise at the beginning."""
    rise = min(1, (step + 1) / max(1, settings.warmup * settings.steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def train_student(
    student: Backbone,
    teacher: Backbone,
    head: Head,
    images: SplitImages,
    params: Params,
    checkpoint: Path,
    device: torch.device,
) -> None:
    """Train student and projection in place, from the checkpoint where there is one."""
    settings, crops = params.optimiser, (params.crops.cells, params.crops.min_area)
    patch = max(student.patch_size, teacher.patch_size)
    student.requires_grad_(True)
    fitted = nn.ModuleList([student.network, head])
    optimiser = torch.optim.AdamW(fitted.parameters(), settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_cosine(step, settings))
    parts = {"fitted": fitted, "optimiser": optimiser, "schedule": schedule}
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, device, weights_only=True)
        start = state.pop("step")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    bar = tqdm(range(start, settings.steps), "distill", initial=start, total=settings.steps)
    for step in bar:
        rng = numpy_generator(params.seed, "distill", step)
        batch, grid = draw_crops(images, settings.batch_size, *crops, patch, rng)
        batch = batch.to(device)
        predicted = head(patch_rows(student.features(student.prepared(batch, grid))))
        loss = agreement_loss(predicted, head.target(patch_rows(teacher(batch, grid))))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(fitted.parameters(), settings.clip)
        optimiser.step()
        schedule.step()
        if step % 10 == 0:  # reading it waits for the GPU
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        if (step + 1) % settings.checkpoint_every == 0:
            with whole_file(checkpoint) as partial:
                torch.save({"step": step + 1} | {name: part.state_dict() for name, part in parts.items()}, partial)
    student.freeze()


def distill(student: Backbone, teacher: Backbone, params: Params, checkpoint: Path) -> dict:
    """Train the student in place; returns how well it meets the teacher on validation images, and did before."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":  # resampling position embeddings has no deterministic gradient there
        torch.set_deterministic_debug_mode("default")
    student, teacher = student.to(device), teacher.to(device)
    head = Head(student.channels, teacher.channels).to(device)
    training, held_out = SplitImages(SCENES, "train"), SplitImages(SCENES, "val")
    head.fit(feature_pairs(student, teacher, training, device))
    before = agreement(student, teacher, head, held_out, device)
    train_student(student, teacher, head, training, params, checkpoint, device)
    after = agreement(student, teacher, head, held_out, device)
    return {
        "training_photographs": len(training),
        "held_out_photographs": len(held_out.spread(PROBED)),
        "held_out": after | {"student_before": before["student"]},
    }


def main(config: Config, name: str) -> None:
    """name  of the entry of data/distilled/params.yaml"""
    params = read_params(DISTILLED / "params.yaml")
    if name not in params.students:
        raise ValueError(
            f"{name} is no entry of students in {DISTILLED.as_posix()}/params.yaml, which has "
            f"{', '.join(params.students) or 'none'}."
        )
    fix_computation(params.threads)
    pair, config = params.students[name], replace(config, seed=params.seed)
    scratch = Path(os.environ.get("DVC_ROOT", ".")) / "scratch" / f"distill-{name}"
    teacher = known_backbone(pair.teacher, pair.teacher_weights, config, scratch / "teacher")
    student = known_backbone(pair.student, pair.student_weights, config, scratch / "student")
    check_roles(teacher, student)
    record = {
        "name": student.backbone.name,
        "label": f"{student.backbone.title}, distilled from {teacher.label}",
        "teacher": teacher.record,
        "student": student.record,
        "steps": params.optimiser.steps,
        "params": params_hash(pair, params.crops, params.optimiser, params.seed, params.threads),
        "scenes": file_hash(SCENES / "index.jsonl"),
        "versions": versions(),
    }
    caution = UNTRAINED if teacher.record["weights"] == "random" else teacher.backbone.note
    record |= {"caution": caution} if caution else {}
    checkpoint = scratch / f"{params_hash(record, module_hashes('src.'), file_hash(__file__))}.pt"
    record |= distill(student.backbone, teacher.backbone, params, checkpoint)
    with fresh_folder(DISTILLED / name) as folder:
        write_backbone(
            folder / "model.safetensors",
            student.backbone.network.state_dict(),
            Described(student.backbone.name, note=caution),
        )
        write_json(folder / "record.json", record)
    shutil.rmtree(scratch)
    for who, scores in record["held_out"].items():
        print(f"distill: {who}: " + ", ".join(f"{key} {value:.4f}" for key, value in scores.items()))


if __name__ == "__main__":
    words = Words("distill")
    words.add_argument("name", metavar="NAME")
    words.overrides()
    asked = words.parse_args()
    run(lambda config: main(config, asked.name), "distill", asked.overrides)
