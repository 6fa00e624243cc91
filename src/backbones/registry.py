"""The variable of the benchmark. A family is one entry of FAMILIES; nothing else asks who a backbone is."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from src.backbones.base import Backbone
from src.backbones.controls import Constant, Nothing, Oracle, Random, Rgb, Shuffled
from src.backbones.croco import CrocoBackbone
from src.backbones.dinov2 import DINOV2_MODELS, DinoV2, check_width
from src.backbones.timm_models import Timm, clip
from src.config import Model
from src.pretrained.state_dicts import Described, read_described, read_tensors
from src.reproducible.files import read_json
from src.reproducible.seeds import seed_of


def dinov2(model: Model, seed: int | None, kind: type[DinoV2] = DinoV2) -> DinoV2:
    check_width(model.dinov2_model, model.dinov2_dim)
    return kind(model.dinov2_model, model.backbone_layers, seed)


def constant_features(model: Model, seed: int | None) -> Constant:
    """As wide as the DINOv2 that model.dinov2_model names."""
    return Constant(check_width(model.dinov2_model, model.dinov2_dim) * len(model.backbone_layers or [None]))


def argument(model: Model) -> str:
    """What follows the colon in model.backbone."""
    return model.backbone.partition(":")[2]


# from the configuration and a seed for untrained weights; a name with a colon wants an argument after it
FAMILIES: dict[str, Callable[[Model, int | None], Backbone]] = {
    "none": lambda model, seed: Nothing(),
    "dinov2": dinov2,
    "croco": lambda model, seed: CrocoBackbone(model.backbone_layers, seed),
    "clip": lambda model, seed: clip("", model.backbone_layers, seed),
    "clip:": lambda model, seed: clip(argument(model), model.backbone_layers, seed),
    "timm:": lambda model, seed: Timm(argument(model), model.backbone_layers, seed),
    "file:": lambda model, seed: fine_tuned(read_described(argument(model)), model, seed),
    "random": lambda model, seed: dinov2(model, seed, Random),
    "shuffled": lambda model, seed: Shuffled(dinov2(model, seed), seed),
    "constant": constant_features,
    "rgb": lambda model, seed: Rgb(),
    "oracle": lambda model, seed: Oracle(),
}


def known() -> list[str]:
    """What model.backbone can be."""
    return [f"{name}<{'path' if name == 'file:' else 'name'}>" if name.endswith(":") else name for name in FAMILIES]


def build_backbone(model: Model, seed: int | None) -> Backbone:
    """The backbone that the section `model` of params.yaml asks for, with untrained weights drawn from `seed`; None =
    for its record alone, large networks have no weights then.

    raises    ValueError  when model.backbone is not known, or a key of its family does not fit
    """
    family, colon, name = model.backbone.partition(":")
    if family + colon not in FAMILIES or (colon and not name):
        near = get_close_matches(model.backbone, known(), n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"model.backbone is {model.backbone!r}; {hint}Known are {', '.join(known())}.")
    return FAMILIES[family + colon](model, None if seed is None else seed_of(seed, "backbone"))


def fine_tuned(described: Described, model: Model, seed: int | None) -> Backbone:
    """The network that the file of model.backbone=file:<path> says it holds; its weights are not read here.

    raises    ValueError  when the file names no network that has weights
    """
    name = described.architecture
    if name in DINOV2_MODELS:
        chosen = {"backbone": "dinov2", "dinov2_model": name, "dinov2_dim": None}
    elif name in FAMILIES or f"{name.partition(':')[0]}:" in FAMILIES:
        chosen = {"backbone": name}
    else:
        chosen = {"backbone": f"timm:{name}"}
    path = Path(argument(model))
    nested = chosen["backbone"].startswith("file:")
    if nested or not hasattr(backbone := build_backbone(replace(model, **chosen), seed), "network"):
        raise ValueError(
            f"{path} names the architecture {name!r}, which has no weights; write a name of "
            "model.dinov2_model or of timm into the file."
        )
    shown = Path(*path.parts[-2:]).as_posix()  # <folder>/<file>: every student's file is called model.safetensors
    backbone.name, backbone.title = f"file:{shown}", f"{backbone.title}, fine-tuned ({shown})"
    backbone.described, backbone.own_weights = described, str(path)
    backbone.licence, backbone.source, backbone.note = "unknown", None, described.note or backbone.note
    backbone.mean, backbone.std = (tuple(getattr(described, key) or getattr(backbone, key)) for key in ("mean", "std"))
    return backbone


def load_backbone(model: Model, folder: str | Path) -> Backbone:
    """The backbone with the weights that the stage `weights` left in `folder`: tensors, or the seed to draw them from.

    raises    ValueError  when they are another backbone's
    """
    record = read_json(Path(folder) / "record.json")
    if "described" in record and model.backbone.startswith("file:"):  # of the file as it was then
        backbone = fine_tuned(Described(**record["described"]), model, 0)
    else:
        backbone = build_backbone(model, record.get("seed", 0))
    if record["name"] != backbone.name:
        raise ValueError(
            f"{folder} holds weights of {record['name']}, but the parameters ask for {backbone.name}; run "
            "dvc repro weights."
        )
    if record["weights"] not in ("none", "random"):
        path = Path(folder) / "model.safetensors"
        backbone.load(read_tensors(path), str(path))
    return backbone
