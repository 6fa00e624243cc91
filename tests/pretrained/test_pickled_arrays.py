import pickle

import numpy as np
import pytest

from src.mast3r.weight_file import CheckpointError
from src.pretrained.pickled_arrays import read_arrays

ARRAYS = {"Conv_0": {"kernel": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "bias": np.ones(3, np.float64)}}


@pytest.mark.parametrize("protocol", range(2, 5))
def test_arrays_come_back_as_they_were(tmp_path, protocol):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(ARRAYS, protocol))
    if protocol < 3:  # such old pickles spell bytes by a function, which no array of ours needs
        with pytest.raises(CheckpointError, match="wants to create _codecs.encode"):
            read_arrays(tmp_path / "a.ckpt")
        return
    found = read_arrays(tmp_path / "a.ckpt")
    assert found.keys() == ARRAYS.keys() and found["Conv_0"].keys() == {"kernel", "bias"}
    for name, array in ARRAYS["Conv_0"].items():
        assert np.array_equal(found["Conv_0"][name], array) and found["Conv_0"][name].dtype == array.dtype


def test_the_maker_of_arrays_has_two_names(tmp_path):
    new = pickle.dumps(ARRAYS, 3)
    assert b"cnumpy._core.multiarray\n_reconstruct" in new
    (tmp_path / "old.ckpt").write_bytes(new.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert np.array_equal(read_arrays(tmp_path / "old.ckpt")["Conv_0"]["bias"], np.ones(3))


class Attack:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (Attack(print, "run"), "wants to create builtins.print, which no array needs"),
        (Attack(np.load, "file"), "wants to create numpy.load"),
        (Attack(np.memmap, "file"), "wants to create numpy.memmap"),
    ],
)
def test_anything_but_arrays_is_refused_by_name_and_nothing_runs(tmp_path, capsys, attack, words):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"Conv_0": attack}))
    with pytest.raises(CheckpointError, match=words) as caught:
        read_arrays(tmp_path / "a.ckpt")
    assert "\n" not in str(caught.value) and "a.ckpt" in str(caught.value) and capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [[1], {"a": 1}, {1: np.ones(2)}, {"a": {"b": np.array(["word"])}}, np.ones(3)])
def test_other_content_is_refused(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(content, 4))
    with pytest.raises(CheckpointError, match="a.ckpt holds more than nested dictionaries of number arrays"):
        read_arrays(tmp_path / "a.ckpt")


def test_damage_is_a_sentence(tmp_path):
    whole = pickle.dumps(ARRAYS, 4)
    for content in (b"", b"\x80\x04", whole[:-20], b"no pickle"):
        (tmp_path / "a.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match="a.ckpt is damaged or no pickle of arrays .*; fetch it again"):
            read_arrays(tmp_path / "a.ckpt")
