import pickle
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file

from src.mast3r.weight_file import CheckpointError
from src.pretrained.state_dicts import (
    Described,
    load_strictly,
    read_described,
    read_state,
    read_tensors,
    write_backbone,
)

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


@pytest.mark.parametrize(
    "save",
    [torch.save, save_file, lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)],
    ids=["zip", "safetensors", "legacy"],
)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, save, share):
    path = tmp_path / "weights.pth"
    save({"weight": torch.rand(64, 64)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="weights.pth is damaged"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"", "neither a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"GIF89a........", "GIF89a"),
    ],
)
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
    with pytest.raises(CheckpointError, match=r"not read for safety \(it would run \w*\.open\); save its") as refused:
        read_tensors(path)
    assert "\x1b" not in str(refused.value) and "weights_only" not in str(refused.value)
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


def fits(state: dict) -> bool:
    return state.keys() == STATE.keys()


@pytest.mark.parametrize(
    ("wrap", "beside"),
    [
        (lambda state: state, 0),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, 0),
        (lambda state: {"epoch": 3, "model": {f"module.encoder.{name}": value for name, value in state.items()}}, 0),
        (
            lambda state: {
                "state_dict": {f"model.backbone.{name}": value for name, value in state.items()}
                | {"head.weight": torch.ones(2)}
            },
            1,
        ),
        (
            lambda state: {
                "student": {"backbone.weight": torch.zeros(3, 4)},
                "optimizer": {"state": {0: {"step": 1}}},
                "teacher": {f"backbone.{name}": value for name, value in state.items()}
                | {"dino_head.mlp.0.weight": torch.ones(2), "dino_head.last": torch.ones(2)},
            },
            2,
        ),
        (
            lambda state: (
                {f"teacher.backbone.{name}": value for name, value in state.items()}
                | {f"student.backbone.{name}": -value for name, value in state.items()}
            ),
            2,
        ),
    ],
)
def test_what_training_loops_put_around_a_network_is_taken_off(tmp_path, capsys, wrap, beside):
    torch.save(wrap(STATE) | {"architecture": "dinov2_vits14"}, tmp_path / "c.pth")
    assert same(read_state(tmp_path / "c.pth", fits), STATE)
    assert read_described(tmp_path / "c.pth") == Described("dinov2_vits14")
    told = capsys.readouterr().out
    assert (f"{beside} tensors beside the backbone's are left out" in told) if beside else "left out" not in told


def test_what_fits_nowhere_is_shown_without_the_common_prefix(tmp_path):
    torch.save(
        {"model": {"module.encoder.weight": torch.ones(2), "module.encoder.other": torch.ones(2)}}, tmp_path / "c.pth"
    )
    found = read_state(tmp_path / "c.pth", fits)
    assert found.keys() == {"weight", "other"}
    with pytest.raises(
        CheckpointError, match="c.pth is wrong: 1 tensors are missing .e.g. bias.; 1 .* left over .e.g. other"
    ):
        load_strictly(torch.nn.Linear(4, 3), found, "c.pth is wrong")
    torch.save({"weights": STATE, "epoch": 3}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="top level holds weights, epoch; .* or under one of teacher, ema, mod"):
        read_state(tmp_path / "c.pth", fits)


def test_a_fine_tuned_backbones_file_comes_back_and_repeats_itself(tmp_path):
    path = tmp_path / "students/mine.safetensors"
    described = Described("test_vit", (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "“Mine”.")
    write_backbone(path, STATE, described)
    first = path.read_bytes()
    assert read_described(path) == described and same(read_state(path, fits), STATE)
    write_backbone(path, STATE, described)
    assert path.read_bytes() == first
    about = {"architecture": "test_vit", "mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "note": "“Mine”."}
    for content in ({"state_dict": STATE} | about, STATE | about):
        torch.save(content, path := tmp_path / "mine.pth")
        assert read_described(path) == described and same(read_state(path, fits), STATE)


def test_a_file_that_does_not_say_its_architecture_is_told_what_to_add(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors", {"format": "pt"})
    torch.save({"model": STATE}, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        with pytest.raises(
            CheckpointError, match=rf"{name} does not say which network .* save_file\(state, path, {{.arch"
        ):
            read_described(tmp_path / name)


@pytest.mark.parametrize("about", [{"mean": "[0.5, 0.5]"}, {"mean": "half"}, {"std": "[1, 0, 1]"}, {"std": "3"}])
def test_statistics_are_three_numbers(tmp_path, about):
    save_file(STATE, tmp_path / "a.safetensors", {"architecture": "test_vit"} | about)
    with pytest.raises(CheckpointError, match="must be a list of three numbers"):
        read_described(tmp_path / "a.safetensors")
