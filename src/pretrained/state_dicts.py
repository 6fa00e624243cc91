"""Weight files of any publisher as plain tensors, read without running what is in them.

A fine-tuned backbone (model.backbone=file:<path>) is one file that says what network its tensors belong to:

    safetensors  the network's state dict, and the metadata (a safetensors file's map of strings)
                     architecture  a name of model.dinov2_model (dinov2_vits14), of timm (vit_small_patch16_224), or
                                   of model.backbone (croco, clip, timm:<name>)
                     mean, std     optional JSON lists of three numbers, "[0.5, 0.5, 0.5]": the input statistics it was
                                   trained with, where they are not the architecture's own
                     note          optional: what no report of a run with it may leave out, a sentence
    torch        a dictionary with the same keys beside the state dict, which is under `state_dict`, `model` or `teacher`

`write_backbone` writes the first form. Parameter names are those of the architecture's own network (timm's, or as its
publisher has them), all of them, with any of PREFIXES before them; tensors beside that prefix, such as a training head,
are left out.
"""

import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from src.mast3r.weight_file import ZIP, CheckpointError, opening
from src.reproducible.files import whole_file

PICKLE = b"\x80\x02"  # what torch.save wrote before its version 1.6
# where training loops put the state dict; a teacher, or `ema`, is a mean of students
ENTRIES = ("teacher", "ema", "model_ema", "state_dict", "model_state_dict", "model")
# what they put before its names, nested at will
PREFIXES = (
    *("teacher.", "module.", "model.", "backbone.", "encoder.", "_orig_mod.", "net.", "network.", "vit.", "dinov2."),
)
TRAINED_BESIDE = ("head.", "heads.", "classifier.", "fc.", "dino_head.", "ibot_head.")  # what they train beside it
MAX_NESTING = 4  # of the nesting, at most
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # of terminals, in torch's messages
REFUSED = re.compile(r"(?:GLOBAL|global:?|class) ([A-Za-z_][\w.]*\.\w+)")  # what torch would have had to run


@dataclass(frozen=True)
class Described:
    """What a fine-tuned backbone's file says of itself; mean and std None, note empty = the architecture's own."""

    architecture: str
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    note: str = ""


def write_backbone(path: str | Path, state: Mapping[str, Tensor], described: Described) -> None:
    """A file that model.backbone=file:<path> reads; its bytes depend on its content alone."""
    statistics = {name: json.dumps(values) for name in ("mean", "std") if (values := getattr(described, name))}
    note = {"note": described.note} if described.note else {}
    with whole_file(path) as partial:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
            partial,
            {"architecture": described.architecture} | statistics | note,
        )
        order_metadata(partial)


def order_metadata(path: Path) -> None:
    """Sort a safetensors file's metadata in place, which its library writes in another order each time."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(ordered) == length, f"{path}: {len(ordered)} bytes instead of {length}"
        file.seek(8)
        file.write(ordered)


def read_described(path: str | Path) -> Described:
    """What network the tensors of a fine-tuned backbone's file belong to.

    raises FileNotFoundError; CheckpointError when the file does not say, or is none
    """
    content, about = read_content(path)
    about = about or {name: value for name, value in content.items() if not isinstance(value, Tensor | Mapping)}
    if not isinstance(name := about.get("architecture"), str) or not name:
        raise CheckpointError(
            f"{path} does not say which network its tensors belong to; add it: for safetensors "
            'save_file(state, path, {"architecture": "dinov2_vits14"}), for torch a key '
            "`architecture` beside the state dict; a name of model.dinov2_model, model.backbone or "
            "timm."
        )
    return Described(
        name, *(three_numbers(path, key, about.get(key)) for key in ("mean", "std")), note=str(about.get("note") or "")
    )


def three_numbers(path: str | Path, key: str, value: object) -> tuple[float, float, float] | None:
    """`value` as a statistic per RGB channel; None stays None."""
    if value is None:
        return None
    try:
        numbers = tuple(float(number) for number in (json.loads(value) if isinstance(value, str) else value))
        if len(numbers) != 3 or (key == "std" and min(numbers) <= 0):
            raise ValueError("wrong number or sign")
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} states {key} {value!r}; it must be a list of three numbers, one per colour"
            f"{', above 0' if key == 'std' else ''}, such as [0.5, 0.5, 0.5]."
        ) from error
    return numbers


def read_state(path: str | Path, fits: Callable[[dict[str, Tensor]], bool]) -> dict[str, Tensor]:
    """The state dict in a file of someone's training loop, without the prefix that it put before the names.

    fits    whether a state dict has all names of the network that it is for, and no other
    returns the first one that fits; where none does, all tensors under their names without what is common to all, for
            a message that says what is missing
    raises  FileNotFoundError, CheckpointError
    """
    content, _ = read_content(path)
    entry = next((name for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
    state = dict(content if entry is None else content[entry])
    about = [field.name for field in fields(Described)]
    state = {name: value for name, value in state.items() if name not in about}
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(
            f"{path} is no plain state dict: its top level holds {shown_content(content)}; save the "
            f"network's state dict alone, or under one of {', '.join(ENTRIES)}."
        )
    candidates, common = {"": state}, ("", state)
    for _ in range(MAX_NESTING):
        for stripped, candidate in candidates.items():
            for found in (candidate, without_heads(candidate)):
                if fits(found):
                    say_stripped(path, entry, stripped, len(state) - len(found))
                    return found
        common = next(((way, one) for way, one in candidates.items() if len(one) == len(state)), common)
        deeper = {
            way + prefix: {
                name.removeprefix(prefix): tensor for name, tensor in candidate.items() if name.startswith(prefix)
            }
            for way, candidate in candidates.items()
            for prefix in PREFIXES
        }
        candidates = {way: candidate for way, candidate in deeper.items() if candidate}
    say_stripped(path, entry, common[0], 0)
    return common[1]


def without_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(TRAINED_BESIDE)}


def say_stripped(path: str | Path, entry: str | None, prefix: str, left_out: int) -> None:
    """Tell what was taken off a file's tensors, where anything was."""
    words = [f"its entry {entry} is read"] * (entry is not None) + [f"{prefix} before the names is taken off"] * bool(
        prefix
    )
    words += [f"{left_out} tensors beside the backbone's are left out"] * bool(left_out)
    if words:
        print(f"{path}: {', '.join(words)}", flush=True)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file or of a state dict saved by torch, whatever the file is called.

    raises FileNotFoundError; CheckpointError when it is something else, is not whole, or holds more than tensors
    """
    state, _ = read_content(path)
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(
            f"{path} is no plain state dict: its top level holds {shown_content(state)}; save the "
            "network's state dict alone."
        )
    return state


def read_content(path: str | Path) -> tuple[dict, dict[str, str]]:
    """The dictionary in a weight file, and a safetensors file's metadata (of others empty).

    raises FileNotFoundError; CheckpointError when it is something else, is not whole, or would have to be executed
    """
    path, metadata = Path(path), {}
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}; check model.weights and model.backbone.")
    head = opening(path)
    try:
        if head.startswith((ZIP, PICKLE)):
            state = torch.load(path, "cpu", weights_only=True)
        elif head[8:9] == b"{":
            state = load_file(path)
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
        else:
            raise CheckpointError(
                f"{path} is neither a safetensors file nor one saved by torch; it begins with "
                f"{head[:8]!r}; delete it and fetch it again."
            )
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path} is damaged or not whole ({first_line(error)}); delete it and fetch it again."
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors, which is not read for safety"
            f"{refused_class(error)}; save its state dict alone."
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} is no plain state dict: its top level holds {shown_content(state)}; save the "
            "network's state dict alone."
        )
    return state, metadata


def refused_class(error: Exception) -> str:
    """What torch would have had to run, in words of ours: its own are long, and advise to run it."""
    found = REFUSED.search(ESCAPES.sub("", str(error)))
    return f" (it would run {found[1]})" if found else ""


def first_line(error: Exception) -> str:
    return ESCAPES.sub("", str(error)).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def shown_content(content: object) -> str:
    return ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else f"a {type(content).__name__}"


def load_strictly(network: nn.Module, state: dict[str, Tensor], complaint: str) -> None:
    """Copy `state` into `network`; nothing is changed unless all names and shapes agree.

    complaint  begins the message of the CheckpointError, without a full stop
    """
    wanted = network.state_dict()
    differences = {"are missing": wanted.keys() - state.keys(), "are left over": state.keys() - wanted.keys()}
    problems = [f"{len(names)} tensors {what} (e.g. {min(names)})" for what, names in differences.items() if names]
    for name in sorted(wanted.keys() & state.keys()):
        if wanted[name].shape != state[name].shape:
            problems.append(f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}")
            break
    if problems:
        raise CheckpointError(
            f"{complaint}: {'; '.join(problems)}; check that model.backbone and model.dinov2_model "
            "name the network it was saved from."
        )
    network.load_state_dict(state)
