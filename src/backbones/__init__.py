"""The variable of the benchmark. A family is one entry of FAMILIES; nothing else asks who a backbone is."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from src.backbones.base import Backbone
from src.backbones.controls import Constant, Nothing, Rgb, Shuffled
from src.backbones.dinov2 import DinoV2, check_width
from src.backbones.files import read_tensors
from src.backbones.timm import Timm, clip
from src.config import Model
from src.provenance import read_json, seed_of


def dinov2(model: Model, seed: int) -> DinoV2:
    check_width(model.dinov2_model, model.dinov2_dim)
    return DinoV2(model.dinov2_model, model.backbone_layers, seed)


def constant(model: Model, seed: int) -> Constant:
    """As wide as the DINOv2 that model.dinov2_model names."""
    return Constant(check_width(model.dinov2_model, model.dinov2_dim) * len(model.backbone_layers or [None]))


# from the configuration and a seed for untrained weights; a name with a colon wants an argument after it
FAMILIES: dict[str, Callable[[Model, int], Backbone]] = {
    "none": lambda model, seed: Nothing(),
    "dinov2": dinov2,
    "clip": lambda model, seed: clip(model.backbone_layers, seed),
    "timm:": lambda model, seed: Timm(model.backbone.partition(":")[2], model.backbone_layers, seed),
    "shuffled": lambda model, seed: Shuffled(dinov2(model, seed), seed),
    "constant": constant,
    "rgb": lambda model, seed: Rgb(),
}


def build(model: Model, seed: int) -> Backbone:
    """The backbone that the section `model` of params.yaml asks for, with untrained weights drawn from `seed`.

    raises    ValueError  when model.backbone is not known, or a key of its family does not fit
    """
    family, colon, argument = model.backbone.partition(":")
    if family + colon not in FAMILIES or (colon and not argument):
        known = [f"{name}<name>" if name.endswith(":") else name for name in FAMILIES]
        near = get_close_matches(model.backbone, known, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"model.backbone is {model.backbone!r}; {hint}Known are {', '.join(known)}.")
    return FAMILIES[family + colon](model, seed_of(seed, "backbone"))


def load(model: Model, folder: str | Path) -> Backbone:
    """The backbone with the weights that the stage `weights` left in `folder`: tensors, or the seed to draw them from.

    raises    ValueError  when they are another backbone's
    """
    record = read_json(Path(folder) / "record.json")
    backbone = build(model, record.get("seed", 0))
    if record["name"] != backbone.name:
        raise ValueError(f"{folder} holds weights of {record['name']}, but the parameters ask for {backbone.name}; run "
                         "dvc repro weights.")
    if record["weights"] not in ("none", "random"):
        path = Path(folder) / "model.safetensors"
        backbone.load(read_tensors(path), str(path))
    return backbone
