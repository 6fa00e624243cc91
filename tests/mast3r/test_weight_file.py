import pytest
import torch
from safetensors.torch import save_file

from src.mast3r.weight_file import CheckpointError, read_checkpoint, write_geometry
from tests.helpers.networks import GEOMETRY, drawn_geometry


def test_our_files_give_back_the_network_and_its_sizes(tmp_path):
    original = drawn_geometry()
    write_geometry(tmp_path / "a.safetensors", GEOMETRY, original.state_dict())
    write_geometry(tmp_path / "b.safetensors", GEOMETRY, original.state_dict())
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.config == GEOMETRY
    copy = drawn_geometry(seed=1)
    copy.load_state_dict(checkpoint.state_dict)
    images = torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        for ours, theirs in zip(copy(*images), original(*images)):
            assert torch.equal(ours.pts3d, theirs.pts3d) and torch.equal(ours.conf, theirs.conf)


def test_half_precision_files_load_as_float32(tmp_path):
    write_geometry(
        tmp_path / "a.safetensors", GEOMETRY, {k: v.half() for k, v in drawn_geometry().state_dict().items()}
    )
    assert {value.dtype for value in read_checkpoint(tmp_path / "a.safetensors").state_dict.values()} == {torch.float32}


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    write_geometry(path, GEOMETRY, drawn_geometry().state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="a.safetensors is no whole"):
        read_checkpoint(path)


def test_a_web_page_saved_as_weights_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_text("<!DOCTYPE html><title>404</title>")
    with pytest.raises(CheckpointError, match="a.safetensors"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_a_file_without_sizes_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="how large"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "sizes",
    [
        "<html>",
        "[1]",
        "{}",
        '{"dpt_layer_dims": [4, 4, 8, 8], "depth": 3}',
        '{"dpt_layer_dims": [4, 4, 8, 8], "head": "other"}',
    ],
)
def test_sizes_that_cannot_be_read_are_refused(tmp_path, sizes):
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", {"geometry": sizes})
    with pytest.raises(CheckpointError, match="a.safetensors describes its network's sizes"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc repro weights"):
        read_checkpoint(tmp_path / "none.safetensors")
