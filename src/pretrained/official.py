"""The geometry networks' official weight files: MASt3R, DUSt3R, CroCo v2, Splatt3R, as published or from the hub.

Nothing in a file is ever executed: pickles are read with weights_only and a named allow-list, constructor strings are
parsed. What loads is strict: every key is accounted for, or the first one that is not is named.
"""

import argparse
import ast
import collections
import json
import math
import pickle
import re
import struct
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import omegaconf
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from src.mast3r.dpt import ALIASES, DPT
from src.mast3r.network import Croco, Mast3r, Mast3rConfig, with_aliases
from src.mast3r.weight_file import Checkpoint, CheckpointError, opening

NAVER = "https://download.europe.naverlabs.com/ComputerVision"
NAVER_LICENCE = "CC BY-NC-SA 4.0 (Naver), non-commercial, and the terms of its training data"
HEAD_WIDTH = 64  # of every published network; head counts cannot be told from weights
ALLOWED = [
    argparse.Namespace,
    omegaconf.dictconfig.DictConfig,
    omegaconf.listconfig.ListConfig,
    omegaconf.base.ContainerMetadata,
    omegaconf.base.Metadata,
    omegaconf.nodes.AnyNode,
    typing.Any,
    collections.defaultdict,
    dict,
    list,
    int,
]
DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    pickle.UnpicklingError,
    struct.error,
)  # what torch's reader raises on changed bytes
HEAD_MODES = {"depth_mode": ("exp", -math.inf, math.inf), "conf_mode": ("exp", 1, math.inf)}
DESCRIPTOR_MODES = {"desc_mode": "norm", "desc_conf_mode": ("exp", 0, math.inf)}
IGNORED_SPLATT3R = "lpips_criterion."  # its training loss's network, kept in the same file
SIZES = {
    "enc_embed_dim": 768,
    "enc_depth": 12,
    "enc_num_heads": 12,
    "dec_embed_dim": 512,
    "dec_depth": 8,
    "dec_num_heads": 16,
    "patch_size": 16,
}  # CroCo's defaults
DEFAULTS = SIZES | {
    "mlp_ratio": 4,
    "pos_embed": "cosine",
    "head_type": "linear",
    "output_mode": "pts3d",
    "two_confs": False,
    "depth_mode": HEAD_MODES["depth_mode"],
    "conf_mode": HEAD_MODES["conf_mode"],
    "desc_mode": "norm",
}


@dataclass(frozen=True)
class Splatt3rOptions:
    """What a Splatt3R checkpoint says of its Gaussian head."""

    sh_degree: int
    use_offsets: bool


def read_official(path: str | Path) -> tuple[Checkpoint, Splatt3rOptions | None]:
    """Sizes and weights of an official file, ready for `Splatt3R.load_geometry` or `Mast3r.load_state_dict`.

    A CroCo file yields encoder and decoder alone, its one decoder copied to both views.

    raises FileNotFoundError; CheckpointError naming the file and the first thing in it that is not as published
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}; place it there or let the stage weights fetch it.")
    if path.suffix == ".safetensors":
        return read_hub(path), None
    content = load_pickle(path)
    if "state_dict" in content:
        return read_splatt3r(path, content)
    if "model" not in content:
        raise CheckpointError(
            f"{path} holds {sorted(map(str, content))[:5]} instead of a network under `model` or "
            "`state_dict`; it is no MASt3R, DUSt3R, CroCo or Splatt3R file."
        )
    keywords = keywords_of(path, content)
    return checked_checkpoint(path, named_tensors(path, content, "model"), keywords), None


def load_pickle(path: Path) -> dict:
    """The dictionary in a .pth or .ckpt file, nothing executed."""
    opening(path)
    named = {f"{item.__module__}.{getattr(item, '__qualname__', getattr(item, '_name', item))}" for item in ALLOWED}
    try:
        refused = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - named)
        if not refused:
            with torch.serialization.safe_globals(ALLOWED):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise CheckpointError(f"{path} is damaged or no PyTorch file ({reason}); fetch it again.") from error
    if refused:
        raise CheckpointError(
            f"{path} wants to create {', '.join(refused)}, which no official file needs; refusing to load it."
        )
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__} instead of a dictionary; it is no official file."
        )
    return content


def named_tensors(path: Path, content: dict, key: str) -> dict[str, Tensor]:
    """The state dict under `key`; CheckpointError when it holds anything but tensors with names."""
    state = content[key]
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds {type(state).__name__} under `{key}` instead of tensors by name.")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} holds {type(value).__name__} under the name {name!r} of `{key}`; only "
                "tensors with names belong there."
            )
    return dict(state)


def keywords_of(path: Path, content: dict) -> dict[str, object]:
    """Constructor keywords that a MASt3R, DUSt3R or CroCo file states for its network."""
    if isinstance(content.get("croco_kwargs"), dict):
        return content["croco_kwargs"]
    described = getattr(content.get("args"), "model", None)
    if not isinstance(described, str):
        raise CheckpointError(
            f"{path} has neither a constructor in `args.model` nor keywords in `croco_kwargs`, so "
            "its sizes are unknown."
        )
    return parse_constructor(path, described)


def parse_constructor(path: Path, text: str) -> dict[str, object]:
    """Keywords of a constructor call as text, such as "AsymmetricMASt3R(enc_depth=24, conf_mode=('exp', 1, inf))"."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not a call with keywords alone")
        return {keyword.arg: literal(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise CheckpointError(
            f"{path} describes its network as {text[:80]!r}, which cannot be read: {error}."
        ) from error


def literal(node: ast.expr) -> object:
    """Value of a literal expression; the bare name `inf` is infinity."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        if isinstance(value := literal(node.operand), int | float):
            return -value
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(literal(item) for item in node.elts)
    raise ValueError(f"{ast.unparse(node)!r} is no literal")


def config_from(path: Path, keywords: dict[str, object], state: dict[str, Tensor]) -> Mast3rConfig:
    """Sizes from constructor keywords and their defaults; those of the heads from the tensors."""
    values = DEFAULTS | keywords
    values.setdefault("desc_conf_mode", values["conf_mode"])
    output, head = str(values["output_mode"]), str(values["head_type"])
    descriptors = head == "catmlp+dpt"
    modes = HEAD_MODES | (DESCRIPTOR_MODES if descriptors else {})
    if descriptors and not values["two_confs"]:  # its confidence is the points' own
        del modes["desc_conf_mode"]
    for name, wanted in modes.items():
        if values[name] != wanted:
            raise CheckpointError(f"{path} was trained with {name} {values[name]}; only {wanted} is supported.")
    position = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", str(values["pos_embed"]))
    if position is None:
        raise CheckpointError(
            f"{path} uses position embedding {values['pos_embed']!r}; only RoPE is supported, as in 'RoPE100'."
        )
    width = re.fullmatch(r"pts3d\+desc([1-9]\d*)" if descriptors else "pts3d", output)
    if width is None:
        raise CheckpointError(
            f"{path} has a head of type {head!r} that gives {output!r}; 'catmlp+dpt' with "
            "'pts3d+desc24', and 'dpt' or 'linear' with 'pts3d' are supported."
        )
    for name in SIZES:
        if not isinstance(values[name], int) or values[name] < 1:
            raise CheckpointError(f"{path} says {name}={values[name]!r}, which is no size.")
    sizes = {name: values[name] for name in SIZES} | head_sizes(path, state)
    if descriptors:
        sizes |= {"desc_dim": int(width[1]), "two_confs": bool(values["two_confs"])}
    try:
        return Mast3rConfig(**sizes, mlp_ratio=float(values["mlp_ratio"]), rope_base=float(position[1]), head=head)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} describes no network that can be built: {error}") from error


def head_sizes(path: Path, state: dict[str, Tensor]) -> dict[str, object]:
    """Sizes of the heads as their tensors show them; nothing for networks without a DPT."""

    def shape(name: str, dimensions: int) -> torch.Size:
        name = f"downstream_head1.{name}.weight"
        if name not in state:
            raise CheckpointError(f"{path} has no tensor {name}, without which its head's size is unknown.")
        if state[name].ndim != dimensions:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)} and should have {dimensions} dimensions."
            )
        return state[name].shape

    sizes: dict[str, object] = {}
    if any(name.startswith("downstream_head1.dpt.") for name in state):
        sizes |= {
            "dpt_feature_dim": shape("dpt.head.0", 4)[1],
            "dpt_last_dim": shape("dpt.head.2", 4)[0],
            "dpt_layer_dims": tuple(shape(f"dpt.act_postprocess.{i}.0", 4)[0] for i in range(4)),
        }
    if any(name.startswith("downstream_head1.head_local_features.") for name in state):
        hidden, width = shape("head_local_features.fc1", 2)
        sizes["local_features_factor"] = hidden / width
    return sizes


def checked_checkpoint(path: Path, state: dict[str, Tensor], keywords: dict[str, object]) -> Checkpoint:
    """Sizes and adjusted weights, every key compared with the network they describe."""
    one_tensor_per_alias(path, state)
    if not any(name.startswith("downstream_head") for name in state):  # CroCo: one decoder, which both views start from
        state = {name: value for name, value in state.items() if not name.startswith("prediction_head.")}
        config = config_from(path, keywords, state)
        with torch.device("meta"):
            wanted = {
                name: value
                for name, value in Croco(config).state_dict().items()
                if not name.startswith("prediction_head.")
            }
        compare_tensors(path, state, wanted)
        return Checkpoint(config, doubled_decoder(state))
    config = config_from(path, keywords, state)
    with torch.device("meta"):
        wanted = Mast3r(config).state_dict()
    compare_tensors(path, state := with_aliases(doubled_decoder(state)), wanted)
    return Checkpoint(config, state)


def one_tensor_per_alias(path: Path, state: dict[str, Tensor]) -> None:
    """CheckpointError when a tensor that has two names is given under both with different values."""
    for name in state:
        for alias, key in ALIASES.items():
            if name.endswith(f"dpt.{alias}"):
                second = name.removesuffix(alias) + key
                if second in state and not torch.equal(state[name], state[second]):
                    raise CheckpointError(
                        f"{path}: {name} and {second} are names of one tensor and differ; fetch it again."
                    )


def doubled_decoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with `dec_blocks2` copied from `dec_blocks` where it has none, as DUSt3R starts from CroCo."""
    if any(name.startswith("dec_blocks2.") for name in state):
        return state
    return state | {
        name.replace("dec_blocks.", "dec_blocks2.", 1): value
        for name, value in state.items()
        if name.startswith("dec_blocks.")
    }


def compare_tensors(path: Path, state: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """CheckpointError unless both have the same keys and shapes."""
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path} does not match the network it is for: {len(missing)} keys missing "
            f"({', '.join(missing[:2]) or 'none'}), {len(unknown)} unexpected "
            f"({', '.join(unknown[:2]) or 'none'}); fetch it again, or check which network it holds."
        )
    wrong = next((name for name in sorted(wanted) if wanted[name].shape != state[name].shape), None)
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong} has shape {tuple(state[wrong].shape)} and should have "
            f"{tuple(wanted[wrong].shape)}; fetch it again, or check which network it holds."
        )


def read_hub(path: Path) -> Checkpoint:
    """model.safetensors of a hub mirror, whose sizes are in config.json beside it."""
    opening(path)
    described = path.with_name("config.json")
    if not described.is_file():
        raise CheckpointError(
            f"{path} comes without the hub's config.json beside it, which says how large the network "
            "is; place it there."
        )
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({error}); fetch it again.") from error
    try:
        keywords = json.loads(described.read_text(encoding="utf8"))
    except ValueError as error:
        raise CheckpointError(f"{described} is no JSON file ({error}); fetch it again.") from error
    if not isinstance(keywords, dict):
        raise CheckpointError(f"{described} holds a {type(keywords).__name__} instead of the network's keywords.")
    return checked_checkpoint(path, state, {name: _infinite(value) for name, value in keywords.items()})


def _infinite(value: object) -> object:
    """Lists as tuples, and the words that JSON files use for infinity as numbers."""
    if isinstance(value, list):
        return tuple(_infinite(item) for item in value)
    return {"inf": math.inf, "-inf": -math.inf}.get(value, value) if isinstance(value, str) else value


def read_splatt3r(path: Path, content: dict) -> tuple[Checkpoint, Splatt3rOptions]:
    """The Lightning checkpoint of Splatt3R: the whole network with its Gaussian heads under `encoder.`."""
    state, other = {}, []
    for name, value in named_tensors(path, content, "state_dict").items():
        if name.startswith("encoder."):
            state[name.removeprefix("encoder.")] = value
        elif not name.startswith(IGNORED_SPLATT3R):
            other.append(name)
    if other or not state:
        raise CheckpointError(
            f"{path} is no Splatt3R checkpoint: {len(other)} of its keys belong to nothing known "
            f"({', '.join(other[:2]) or 'and none starts with encoder.'})."
        )
    options = splatt3r_options(path, content)
    geometry = {name: value for name, value in state.items() if ".gaussian_dpt." not in name}
    checkpoint = checked_checkpoint(path, geometry, keywords_from_shapes(path, geometry))
    heads = {name: value for name, value in state.items() if ".gaussian_dpt." in name}
    one_tensor_per_alias(path, heads)
    compare_tensors(path, heads := with_aliases(heads), gaussian_heads(checkpoint.config, options.sh_degree))
    return Checkpoint(checkpoint.config, checkpoint.state_dict | heads), options


def splatt3r_options(path: Path, content: dict) -> Splatt3rOptions:
    """The Gaussian head's settings from `hyper_parameters.config`."""
    settings = content.get("hyper_parameters")
    settings = settings.get("config") if isinstance(settings, Mapping) else None
    if not isinstance(settings, Mapping) or "use_offsets" not in settings:
        raise CheckpointError(
            f"{path} does not say whether its Gaussians use offsets (hyper_parameters.config.use_offsets)."
        )
    coefficients = settings.get("sh_degree", 1)  # the original's name for the number of coefficients per colour
    degree = next((degree for degree in range(4) if (degree + 1) ** 2 == coefficients), None)
    if degree is None:
        raise CheckpointError(
            f"{path} has {coefficients} colour coefficients (hyper_parameters.config.sh_degree); 1, "
            "4, 9 and 16 are whole degrees."
        )
    return Splatt3rOptions(degree, bool(settings["use_offsets"]))


def gaussian_heads(config: Mast3rConfig, sh_degree: int) -> dict[str, Tensor]:
    """Names and shapes of both views' Gaussian heads: offset 3, scale 3, rotation 4, colour, opacity 1 per pixel."""
    widths = (config.enc_embed_dim, *[config.dec_embed_dim] * 3)
    with torch.device("meta"):
        head = DPT(
            widths, config.dpt_layer_dims, config.dpt_feature_dim, config.dpt_last_dim, 11 + 3 * (sh_degree + 1) ** 2
        )
    return {
        f"downstream_head{view}.gaussian_dpt.dpt.{name}": value
        for view in (1, 2)
        for name, value in head.state_dict().items()
    }


def keywords_from_shapes(path: Path, state: dict[str, Tensor]) -> dict[str, object]:
    """Constructor keywords of a MASt3R network with heads of the published width, read off its tensors."""

    def width(name: str) -> int:
        if name not in state or state[name].ndim == 0:
            raise CheckpointError(f"{path} has no tensor encoder.{name}, without which its network's size is unknown.")
        return state[name].shape[0]

    def depth(blocks: str) -> int:
        numbers = [re.match(rf"{blocks}\.(\d+)\.", name) for name in state]
        return 1 + max((int(number[1]) for number in numbers if number), default=-1)

    encoder, decoder = width("patch_embed.proj.weight"), width("dec_norm.weight")
    return {
        "enc_embed_dim": encoder,
        "enc_depth": depth("enc_blocks"),
        "enc_num_heads": encoder // HEAD_WIDTH,
        "dec_embed_dim": decoder,
        "dec_depth": depth("dec_blocks"),
        "dec_num_heads": decoder // HEAD_WIDTH,
        "pos_embed": "RoPE100",
        "head_type": "catmlp+dpt",
        "output_mode": "pts3d+desc24",
        "two_confs": True,
        "desc_conf_mode": DESCRIPTOR_MODES["desc_conf_mode"],
    }
