import json

import numpy as np
import pytest

from src.peer_lists.splatt3r_sets import read_coverage, read_row, rows_of, train_lists
from tests.helpers.miniatures import write
from tests.helpers.peer_lists import LISTED, SHARP, coverage


@pytest.mark.parametrize(("views", "meant"), [(6, LISTED), (5, SHARP)])
def test_the_coverage_matrix_decides_which_photographs_positions_mean(root, tmp_path, views, meant):
    matrix = coverage(tmp_path / "sets", views)
    names, found = read_coverage(tmp_path / "sets/coverage/a0.json", LISTED, SHARP)
    assert names == meant and np.array_equal(found, matrix)
    wanted = [
        ("a0", meant[0], meant[1], meant[2]),
        ("a0", meant[4], meant[3], meant[2]),
        ("a0", meant[0], meant[3], meant[1]),
    ]
    rows = rows_of(tmp_path / "sets/test_set_0.9_0.9.json")
    assert [read_row(row, {"a0": names}) for row in rows[::100]] == wanted


def test_a_matrix_that_fits_neither_list_is_refused(root, tmp_path):
    coverage(tmp_path / "sets", 4)
    with pytest.raises(ValueError, match="covers 4 images, but the scene lists 6, 5 of them not blurred"):
        read_coverage(tmp_path / "sets/coverage/a0.json", *train_lists(root, "a0"))


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_matrices_outside_0_to_1_or_not_square_are_refused(tmp_path, value):
    matrix = coverage(tmp_path, 6)
    matrix[2][3] = value
    write(tmp_path / "coverage/a0.json", {"a0": matrix})
    with pytest.raises(ValueError, match="outside"):
        read_coverage(tmp_path / "coverage/a0.json", LISTED, SHARP)
    write(tmp_path / "coverage/a0.json", {"a0": [row[:5] for row in matrix]})
    with pytest.raises(ValueError, match="coverage matrix is"):
        read_coverage(tmp_path / "coverage/a0.json", LISTED, SHARP)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["a0", 0, 1, 1], "/rows/0: found images .0, 1, 1."),
        (["a0", 0, 1, 6], "0 to 5"),
        (["b", 0, 1, 2], "scene b has no"),
        (["a0", 0, 1], "three different"),
        (["a0", 0, 1, "2"], "/rows/0/3: found str"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(tmp_path, row, words):
    (tmp_path / "test_set_0.5_0.5.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=words):
        read_row(rows_of(tmp_path / "test_set_0.5_0.5.json")[0], {"a0": LISTED})
