import pickle
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file

from src.backbones.files import load_strictly, read_tensors
from src.checkpoints import CheckpointError

STATE = {"weight": torch.arange(12.0).view(3, 4), "bias": torch.ones(3)}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_all_three_kinds_of_file_are_read_whatever_their_name(tmp_path):
    path = tmp_path / "weights.bin"
    torch.save(STATE, path)
    assert same(read_tensors(path), STATE)
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert same(read_tensors(path), STATE)
    save_file(STATE, path)
    assert same(read_tensors(path), STATE)


def test_a_header_that_begins_like_a_web_page_is_none(tmp_path):
    path, state = tmp_path / "weights.safetensors", {"weight": torch.ones(1)}
    save_file(state, path, {"padding": ""})
    begun = int.from_bytes(path.read_bytes()[:8], "little")  # length of the JSON that follows
    save_file(state, path, {"padding": "x" * (0x3C20 - begun)})
    assert path.read_bytes()[:8] == b" <\0\0\0\0\0\0" and same(read_tensors(path), state)


@pytest.mark.parametrize("save", [torch.save, save_file, lambda state, path: torch.save(
    state, path, _use_new_zipfile_serialization=False)], ids=["zip", "safetensors", "legacy"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, save, share):
    path = tmp_path / "weights.pth"
    save({"weight": torch.rand(64, 64)}, path)
    data = path.read_bytes()
    path.write_bytes(data[:int(share * len(data))])
    with pytest.raises(CheckpointError, match="weights.pth is damaged"):
        read_tensors(path)


@pytest.mark.parametrize(("content", "words"), [
    (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"), (b"", "neither a safetensors file"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"), (b"GIF89a........", "GIF89a")])
def test_other_things_are_named(tmp_path, content, words):
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_tensors(path)


def test_nothing_in_a_file_is_run(tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"

    class Harmful:
        def __reduce__(self):
            return open, (str(trace), "w")

    torch.save({"weight": torch.ones(1), "more": Harmful()}, path)
    with pytest.raises(CheckpointError, match="not read for safety"):
        read_tensors(path)
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(CheckpointError):
        read_tensors(path)
    assert not trace.exists()


def test_more_than_a_state_dict_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": STATE, "epoch": 3}, path)
    with pytest.raises(CheckpointError, match="top level holds model, epoch"):
        read_tensors(path)
    torch.save({"model": STATE, "args": Namespace(lr=1)}, path)
    with pytest.raises(CheckpointError, match="not read for safety"):
        read_tensors(path)
    with pytest.raises(FileNotFoundError, match="check model.weights"):
        read_tensors(tmp_path / "absent.pth")


def test_strict_loading_copies_all_or_nothing():
    network = torch.nn.Linear(4, 3)
    load_strictly(network, {name: tensor.half() for name, tensor in STATE.items()}, "x")
    assert torch.equal(network.weight, STATE["weight"]) and network.weight.dtype == torch.float32
    with pytest.raises(CheckpointError, match=r"a.pth is wrong: 1 tensors are missing \(e.g. bias\); 1 .* left over"):
        load_strictly(network, {"weight": torch.zeros(3, 4), "more": torch.ones(1)}, "a.pth is wrong")
    with pytest.raises(CheckpointError, match=r"weight is \(4, 3\) instead of \(3, 4\)"):
        load_strictly(network, STATE | {"weight": torch.zeros(4, 3)}, "a.pth is wrong")
    assert torch.equal(network.weight, STATE["weight"])
