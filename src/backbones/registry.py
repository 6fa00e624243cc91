"""The variable of the benchmark. A family is one entry of FAMILIES; nothing else asks who a backbone is.

Networks are imported where one is built, as torch takes seconds and the stage `check` needs their names alone.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.backbones.blocks import chosen_blocks
from src.backbones.spelling import names_like
from src.config import Model
from src.pretrained.choices import DINOV2_WIDTHS
from src.reproducible.files import read_json

if TYPE_CHECKING:
    from src.backbones.base import Backbone
    from src.pretrained.state_dicts import Described


def argument(model: Model) -> str:
    """What follows the colon in model.backbone."""
    return model.backbone.partition(":")[2]


def dinov2(model: Model, seed: int | None) -> "Backbone":
    from src.backbones.dinov2 import DinoV2, check_width

    check_width(model.dinov2_model, model.dinov2_dim)
    return DinoV2(model.dinov2_model, model.backbone_layers, seed)


def croco(model: Model, seed: int | None) -> "Backbone":
    from src.backbones.croco import CrocoBackbone

    return CrocoBackbone(model.backbone_layers, seed)


def clip_tower(model: Model, seed: int | None) -> "Backbone":
    from src.backbones.timm_models import clip

    return clip(argument(model), model.backbone_layers, seed)


def alexnet_or_vgg(model: Model, seed: int | None) -> "Backbone":
    from src.backbones.alexnet_vgg import Trunk

    return Trunk({"alexnet": "alex", "vgg16": "vgg"}[model.backbone], model.backbone_layers, seed)


def timm(model: Model, seed: int | None) -> "Backbone":
    from src.backbones.timm_models import Timm

    return Timm(argument(model), model.backbone_layers, seed)


def from_file(model: Model, seed: int | None) -> "Backbone":
    from src.pretrained.state_dicts import read_described

    return fine_tuned(read_described(argument(model)), model, seed)


def control(model: Model, seed: int | None) -> "Backbone":
    """`constant` is as wide as the DINOv2 that model.dinov2_model names, whose kin `random` and `shuffled` are."""
    from src.backbones.controls import Constant, Nothing, Oracle, Random, Rgb, Shuffled, Truth
    from src.backbones.dinov2 import check_width

    width, layers = check_width(model.dinov2_model, model.dinov2_dim), model.backbone_layers
    return {
        "none": Nothing,
        "random": lambda: Random(model.dinov2_model, layers, seed),
        "shuffled": lambda: Shuffled(dinov2(model, seed), seed),
        "constant": lambda: Constant(width * len(layers or [None])),
        "rgb": Rgb,
        "oracle": Oracle,
        "truth": lambda: Truth(noise_of(model)),
    }[model.backbone.partition(":")[0]]()


def noise_of(model: Model) -> float:
    """Of model.backbone=truth:<noise>, standard deviation of the logarithm of depth; 0 for `truth`.

    raises    ValueError  when it is no number from 0 on
    """
    try:
        noise = float(argument(model) or 0)
        if 0 <= noise < 10:
            return noise
    except ValueError:
        pass
    raise ValueError(
        f"model.backbone is {model.backbone}, whose {argument(model)!r} is no share of the depth; write truth, or "
        "truth:0.1 for 10 % of noise."
    )


# from the configuration and a seed for untrained weights; a name with a colon wants an argument after it
FAMILIES: dict[str, Callable[[Model, int | None], "Backbone"]] = {
    "none": control,
    "dinov2": dinov2,
    "croco": croco,
    "clip": clip_tower,
    "clip:": clip_tower,
    "timm:": timm,
    "alexnet": alexnet_or_vgg,
    "vgg16": alexnet_or_vgg,
    "file:": from_file,
    "random": control,
    "shuffled": control,
    "constant": control,
    "rgb": control,
    "oracle": control,
    "truth": control,
    "truth:": control,
}
# blocks that model.backbone_layers chooses among, where no network need be built to know; 0 = it has none to choose
DEPTHS = {
    "none": 0,
    "croco": 24,
    "clip": 12,
    "alexnet": 5,
    "vgg16": 5,
    "constant": 0,
    "rgb": 0,
    "oracle": 0,
    "truth": 0,
}
FEATURELESS = ("none", "oracle")
DINOV2_DEPTHS = {384: 12, 768: 12, 1024: 24, 1536: 40}  # by width


def known() -> list[str]:
    """What model.backbone can be."""
    words = {"file:": "path", "truth:": "noise"}
    return [f"{name}<{words.get(name, 'name')}>" if name.endswith(":") else name for name in FAMILIES]


def near_networks(name: str) -> list[str]:
    """What is like a name that is no family's: sizes of DINOv2, then networks of timm."""
    if sizes := names_like(name, DINOV2_WIDTHS, 0.95):
        return [f"dinov2 with model.dinov2_model={sizes[0]}"]
    from src.backbones.timm_models import names

    return names_like(name, [f"timm:{network}" for network in names()], 0.5)


def family_of(model: Model) -> str:
    """The key of FAMILIES that model.backbone means.

    raises    ValueError  when there is none
    """
    family, colon, name = model.backbone.partition(":")
    if family + colon not in FAMILIES or (colon and not name):
        near = names_like(model.backbone, known()) or near_networks(model.backbone)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"model.backbone is {model.backbone!r}; {hint}Known are {', '.join(known())}.")
    return family + colon


def build_backbone(model: Model, seed: int | None) -> "Backbone":
    """The backbone that the section `model` of params.yaml asks for, with untrained weights drawn from `seed`; None =
    for its record alone, large networks have no weights then.

    raises    ValueError  when model.backbone is not known, or a key of its family does not fit
    """
    from src.reproducible.seeds import seed_of

    return FAMILIES[family_of(model)](model, None if seed is None else seed_of(seed, "backbone"))


def refuse_backbone(model: Model) -> None:
    """Raise what `build_backbone` would raise. Only a name with a colon is built for that, others are judged in no time."""
    family = family_of(model)
    if family.endswith(":"):
        build_backbone(model, None)
    elif depth := DEPTHS.get(family, DINOV2_DEPTHS[DINOV2_WIDTHS[model.dinov2_model]]):
        chosen_blocks(model.backbone_layers, depth)


def fine_tuned(described: "Described", model: Model, seed: int | None) -> "Backbone":
    """The network that the file of model.backbone=file:<path> says it holds; its weights are not read here.

    raises    ValueError  when the file names no network that has weights
    """
    name = described.architecture
    if name in DINOV2_WIDTHS:
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


def load_backbone(model: Model, folder: str | Path) -> "Backbone":
    """The backbone with the weights that the stage `weights` left in `folder`: tensors, or the seed to draw them from.

    raises    ValueError  when they are another backbone's
    """
    from src.pretrained.state_dicts import Described, read_tensors

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
