"""Weight files of any publisher as plain tensors, read without running what is in them."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from src.checkpoints import ZIP, CheckpointError, opening

PICKLE = b"\x80\x02"  # what torch.save wrote before its version 1.6


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file or of a state dict saved by torch, whatever the file is called.

    raises FileNotFoundError; CheckpointError when it is something else, is not whole, or holds more than tensors
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}; check model.weights.")
    head = opening(path)
    try:
        if head.startswith((ZIP, PICKLE)):
            state = torch.load(path, "cpu", weights_only=True)
        elif head[8:9] == b"{":
            state = load_file(path)
        else:
            raise CheckpointError(f"{path} is neither a safetensors file nor one saved by torch; it begins with "
                                  f"{head[:8]!r}; delete it and fetch it again.")
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} is damaged or not whole ({first_line(error)}); delete it and fetch it "
                              "again.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is damaged, or holds more than tensors, which is not read for safety "
                              f"({first_line(error)}); save its state dict alone.") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path} is no plain state dict: its top level holds {described(state)}; save the "
                              "network's state dict alone.")
    return state


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def described(content: object) -> str:
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
        raise CheckpointError(f"{complaint}: {'; '.join(problems)}; check that model.backbone and model.dinov2_model "
                              "name the network it was saved from.")
    network.load_state_dict(state)
