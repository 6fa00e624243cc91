import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from src.reproducible.files import existing_root, fresh_folder, whole_file


def test_the_new_folder_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "data" / "scenes"
    for content in ("first", "second"):
        with fresh_folder(path) as folder:
            assert os.listdir(folder) == [] and folder.parent == path.parent
            (folder / content).touch()
        assert os.listdir(path) == [content]
    assert os.listdir(path.parent) == ["scenes"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_was_there_survives_a_failure(tmp_path, error):
    path = tmp_path / "scenes"
    with fresh_folder(path) as folder:
        (folder / "good").touch()
    with pytest.raises(error):
        with fresh_folder(path) as folder:
            (folder / "bad").touch()
            raise error
    assert os.listdir(path) == ["good"] and os.listdir(tmp_path) == ["scenes"]


def test_remains_of_a_killed_run_are_swept_away(tmp_path):
    (tmp_path / ".scenes.new").mkdir()
    (tmp_path / ".scenes.new" / "half").touch()
    with fresh_folder(tmp_path / "scenes"):
        pass
    assert os.listdir(tmp_path) == ["scenes"] and os.listdir(tmp_path / "scenes") == []


def test_a_run_killed_between_the_renames_loses_nothing(tmp_path):
    (tmp_path / ".scenes.old").mkdir()
    (tmp_path / ".scenes.old" / "good").touch()
    with pytest.raises(ValueError):
        with fresh_folder(tmp_path / "scenes"):
            raise ValueError
    assert os.listdir(tmp_path / "scenes") == ["good"] and os.listdir(tmp_path) == ["scenes"]


def test_a_missing_root_is_one_sentence_that_names_the_key(tmp_path):
    assert existing_root(str(tmp_path), "datasets.co3d.root", "CO3D v2") == tmp_path
    with pytest.raises(ValueError, match="^datasets.co3d.root is empty; set it .* holds CO3D v2.$"):
        existing_root(None, "datasets.co3d.root", "CO3D v2")
    with pytest.raises(FileNotFoundError, match="^datasets.co3d.root is '.*', but there is no such folder"):
        existing_root(str(tmp_path / "absent"), "datasets.co3d.root", "CO3D v2")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_whole_file_has_the_mode_that_the_umask_gives(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "weights.safetensors") as partial:
            save_file({"a": np.zeros(1)}, partial)  # which makes it 0600
        assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
