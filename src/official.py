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
import typing
from dataclasses import dataclass
from pathlib import Path

import omegaconf
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from src.checkpoints import Checkpoint, CheckpointError
from src.mast3r import Croco, Mast3r, Mast3rConfig, with_aliases

HEAD_WIDTH = 64  # of every published network; head counts cannot be told from weights
ALLOWED = [argparse.Namespace, omegaconf.dictconfig.DictConfig, omegaconf.listconfig.ListConfig,
           omegaconf.base.ContainerMetadata, omegaconf.base.Metadata, omegaconf.nodes.AnyNode, typing.Any,
           collections.defaultdict, dict, list, int]
MODES = {"depth_mode": ("exp", -math.inf, math.inf), "conf_mode": ("exp", 1, math.inf)}
IGNORED_SPLATT3R = "lpips_criterion."  # its training loss's network, kept in the same file
CROCO_DEFAULTS = {"enc_embed_dim": 768, "enc_depth": 12, "enc_num_heads": 12, "dec_embed_dim": 512, "dec_depth": 8,
                  "dec_num_heads": 16, "mlp_ratio": 4, "patch_size": 16, "pos_embed": "cosine", "head_type": "linear",
                  "output_mode": "pts3d", "two_confs": False}


@dataclass(frozen=True)
class Splatt3rOptions:
    """What a Splatt3R checkpoint says of its Gaussian head."""

    sh_degree: int
    use_offsets: bool


def read_official(path: str | Path) -> tuple[Checkpoint, Splatt3rOptions | None]:
    """Sizes and weights of an official file, ready for `Splatt3R.load_geometry` or `Mast3r.load_state_dict`.

    A CroCo file yields encoder and decoder alone, its one decoder copied to both views.

    raises CheckpointError naming the file and the first thing in it that is not as published
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_hub(path), None
    content = load_pickle(path)
    if "state_dict" in content:
        return read_splatt3r(path, content)
    if "model" not in content:
        raise CheckpointError(f"{path} holds {sorted(content)[:5]} instead of a network under `model` or `state_dict`; it "
                              "is no MASt3R, DUSt3R, CroCo or Splatt3R file.")
    keywords = keywords_of(path, content)
    return checked(path, dict(content["model"]), keywords), None


def load_pickle(path: Path) -> dict:
    """The dictionary in a .pth or .ckpt file, nothing executed."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}; place it there or let the stage weights fetch it.")
    with open(path, "rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page, not a weight file; download the file itself.")
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        named = {f"{item.__module__}.{getattr(item, '__qualname__', getattr(item, '_name', item))}" for item in ALLOWED}
        if refused := sorted(set(unknown) - named):
            raise CheckpointError(f"{path} wants to create {', '.join(refused)}, which no official file needs; refusing to "
                                  "load it.")
        with torch.serialization.safe_globals(ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is damaged or no PyTorch file ({str(error).splitlines()[0]}); fetch it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__} instead of a dictionary; it is no official file.")
    return content


def keywords_of(path: Path, content: dict) -> dict[str, object]:
    """Constructor keywords that a MASt3R, DUSt3R or CroCo file states for its network."""
    if "croco_kwargs" in content:
        return dict(content["croco_kwargs"])
    arguments = content.get("args")
    if arguments is None:
        raise CheckpointError(f"{path} has neither `args` nor `croco_kwargs`, so its sizes are unknown.")
    return parse_constructor(path, arguments.model)


def parse_constructor(path: Path, text: str) -> dict[str, object]:
    """Keywords of a constructor call written as text, such as "AsymmetricMASt3R(enc_depth=24, conf_mode=('exp', 1, inf))"."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not a call with keywords alone")
        return {keyword.arg: literal(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise CheckpointError(f"{path} describes its network as {text[:80]!r}, which cannot be read: {error}.") from error


def literal(node: ast.expr) -> object:
    """Value of a literal expression; the bare name `inf` is infinity."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -literal(node.operand)
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(literal(item) for item in node.elts)
    raise ValueError(f"{ast.unparse(node)!r} is no literal")


def config_from(path: Path, keywords: dict[str, object], state: dict[str, Tensor]) -> Mast3rConfig:
    """Sizes from constructor keywords, and from the tensors where there are no keywords for them."""
    values = CROCO_DEFAULTS | keywords
    for name, wanted in MODES.items():
        if tuple(values.get(name, wanted)) != wanted:
            raise CheckpointError(f"{path} was trained with {name} {values[name]}; only {wanted} is supported.")
    position = str(values["pos_embed"])
    if not position.startswith("RoPE"):
        raise CheckpointError(f"{path} uses position embedding {position!r}; only RoPE is supported.")
    head = str(values["head_type"])
    sizes = {name: values[name] for name in ("enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth",
                                             "dec_num_heads", "mlp_ratio", "patch_size")}
    described = {"desc_dim": int(str(values["output_mode"]).partition("desc")[2]),
                 "two_confs": bool(values["two_confs"])} if "desc" in str(values["output_mode"]) else {}
    return Mast3rConfig(**sizes, rope_base=float(position.removeprefix("RoPE")), head=head, **described,
                        **head_sizes(state))


def head_sizes(state: dict[str, Tensor]) -> dict[str, object]:
    """Sizes of the heads as their tensors show them; nothing for networks without a DPT."""
    prefix = "downstream_head1."
    sizes: dict[str, object] = {}
    if f"{prefix}dpt.head.0.weight" in state:
        sizes |= {"dpt_feature_dim": state[f"{prefix}dpt.head.0.weight"].shape[1],
                  "dpt_last_dim": state[f"{prefix}dpt.head.2.weight"].shape[0],
                  "dpt_layer_dims": tuple(state[f"{prefix}dpt.act_postprocess.{i}.0.weight"].shape[0] for i in range(4))}
    if f"{prefix}head_local_features.fc1.weight" in state:
        hidden, width = state[f"{prefix}head_local_features.fc1.weight"].shape
        sizes["local_features_factor"] = hidden / width
    return sizes


def checked(path: Path, state: dict[str, Tensor], keywords: dict[str, object]) -> Checkpoint:
    """Sizes and adjusted weights, every key compared with the network they describe."""
    if not any(name.startswith("downstream_head") for name in state):  # CroCo: one decoder, which both views start from
        state = {name: value for name, value in state.items() if not name.startswith("prediction_head.")}
        config = config_from(path, keywords, state)
        with torch.device("meta"):
            wanted = {name: value for name, value in Croco(config).state_dict().items() if not name.startswith("prediction_head.")}
        compare(path, state, wanted)
        return Checkpoint(config, doubled_decoder(state))
    config = config_from(path, keywords, state)
    with torch.device("meta"):
        wanted = Mast3r(config).state_dict()
    compare(path, state := with_aliases(doubled_decoder(state)), wanted)
    return Checkpoint(config, state)


def doubled_decoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with `dec_blocks2` copied from `dec_blocks` where it has none, as DUSt3R starts from CroCo."""
    if any(name.startswith("dec_blocks2.") for name in state):
        return state
    return state | {name.replace("dec_blocks.", "dec_blocks2.", 1): value for name, value in state.items()
                    if name.startswith("dec_blocks.")}


def compare(path: Path, state: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """CheckpointError unless both have the same keys and shapes."""
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        raise CheckpointError(f"{path} does not match the network it describes: {len(missing)} keys missing "
                              f"({', '.join(missing[:2]) or 'none'}), {len(unknown)} unexpected "
                              f"({', '.join(unknown[:2]) or 'none'}).")
    wrong = next((name for name in sorted(wanted) if wanted[name].shape != state[name].shape), None)
    if wrong:
        raise CheckpointError(f"{path}: {wrong} has shape {tuple(state[wrong].shape)} and should have "
                              f"{tuple(wanted[wrong].shape)}.")


def read_hub(path: Path) -> Checkpoint:
    """model.safetensors of a hub mirror, whose sizes are in config.json beside it."""
    described = path.with_name("config.json")
    if not described.is_file():
        raise CheckpointError(f"{path} comes without the hub's config.json beside it, which says how large the network is; "
                              "place it there.")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({error}); fetch it again.") from error
    text = described.read_text(encoding="utf8").replace("-Infinity", "-1e999").replace("Infinity", "1e999")
    keywords = {name: _infinite(value) for name, value in json.loads(text).items()}
    return checked(path, state, keywords)


def _infinite(value: object) -> object:
    """Lists as tuples, and the words that JSON files use for infinity as numbers."""
    if isinstance(value, list):
        return tuple(_infinite(item) for item in value)
    return {"inf": math.inf, "-inf": -math.inf}.get(value, value) if isinstance(value, str) else value


def read_splatt3r(path: Path, content: dict) -> tuple[Checkpoint, Splatt3rOptions]:
    """The Lightning checkpoint of Splatt3R: the whole network with its Gaussian heads under `encoder.`."""
    state, other = {}, []
    for name, value in content["state_dict"].items():
        if name.startswith("encoder."):
            state[name.removeprefix("encoder.")] = value
        elif not name.startswith(IGNORED_SPLATT3R):
            other.append(name)
    if other or not state:
        raise CheckpointError(f"{path} is no Splatt3R checkpoint: {len(other)} of its keys belong to nothing known "
                              f"({', '.join(other[:2]) or 'and none starts with encoder.'}).")
    settings = content.get("hyper_parameters", {}).get("config")
    if settings is None or "use_offsets" not in settings:
        raise CheckpointError(f"{path} does not say whether its Gaussians use offsets (hyper_parameters.config.use_offsets).")
    coefficients = int(settings.get("sh_degree", 1))  # the original's name for the number of coefficients per colour
    degree = math.isqrt(coefficients) - 1
    if (degree + 1) ** 2 != coefficients:
        raise CheckpointError(f"{path} has {coefficients} colour coefficients, which is no whole number of degrees.")
    geometry = with_aliases({name: value for name, value in state.items() if ".gaussian_dpt." not in name})
    heads = with_aliases({name: value for name, value in state.items() if ".gaussian_dpt." in name})
    checkpoint = checked(path, geometry, keywords_from_shapes(geometry))
    return Checkpoint(checkpoint.config, checkpoint.state_dict | heads), Splatt3rOptions(degree, bool(settings["use_offsets"]))


def keywords_from_shapes(state: dict[str, Tensor]) -> dict[str, object]:
    """Constructor keywords of a MASt3R network with heads of the published width, read off its tensors."""
    def depth(blocks: str) -> int:
        return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{blocks}."))

    encoder, decoder = state["patch_embed.proj.weight"].shape[0], state["dec_norm.weight"].shape[0]
    return {"enc_embed_dim": encoder, "enc_depth": depth("enc_blocks"), "enc_num_heads": encoder // HEAD_WIDTH,
            "dec_embed_dim": decoder, "dec_depth": depth("dec_blocks"), "dec_num_heads": decoder // HEAD_WIDTH,
            "pos_embed": "RoPE100", "head_type": "catmlp+dpt", "output_mode": "pts3d+desc24", "two_confs": True}
