"""Test sets in the form of other projects."""

import numpy as np
import pytest

from tests.helpers.miniatures import write

LISTED = [f"DSC{number:05d}.JPG" for number in range(6)]

SHARP = LISTED[:2] + LISTED[3:]


def coverage(folder, views, scene="a0"):
    matrix = np.random.default_rng(0).random((views, views)).tolist()
    write(folder / f"coverage/{scene}.json", {scene: matrix})
    return matrix


@pytest.fixture
def root(tmp_path):
    """One scene of six photographs, the third blurred, and a test set of 201 rows."""
    dslr = tmp_path / "root/data/a0/dslr"
    write(dslr / "train_test_lists.json", {"train": LISTED, "test": []})
    write(
        dslr / "nerfstudio/transforms.json",
        {"frames": [{"file_path": name, "is_bad": name not in SHARP} for name in LISTED]},
    )
    rows = [["a0", 0, 1, 2]] * 100 + [["a0", 4, 3, 2]] * 100 + [["a0", 0, 3, 1]]
    write(tmp_path / "sets/test_set_0.9_0.9.json", rows)
    return tmp_path / "root"
