import os
from pathlib import Path

import pytest

from src.config import load_config
from src.datasets.co3d.layout import annotation_files, categories_in, chosen_categories, inside, leaves_root, tree_root
from tests.helpers.co3d_miniature import write
from tests.helpers.repository import ROOT


def source(*options: str):
    return load_config([f"datasets.co3d.source.{option}" for option in options], ROOT).datasets.co3d.source


def test_downloads_have_a_place_per_subset_in_the_repository(monkeypatch, tmp_path):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert tree_root(source()) == Path("scratch/co3d/singlesequence")
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")  # experiments in temporary copies of the repository share it
    assert tree_root(source("subset=full")) == Path("/elsewhere/scratch/co3d/full")
    assert tree_root(source(f"store={tmp_path}")) == tmp_path / "singlesequence"
    assert tree_root(source(f"root={tmp_path}")) == tmp_path


def test_categories_are_the_folders_with_annotations(tmp_path):
    for name in ("vase/frame_annotations.jgz", "apple/frame_annotations.jgz", "notes/read.me"):
        write(tmp_path / name, b"")
    assert categories_in(tmp_path) == ["apple", "vase"]
    assert chosen_categories([], ["vase", "apple"], "it") == ["apple", "vase"]
    assert chosen_categories(["vase", "vase"], ["vase", "apple"], "it") == ["vase"]
    for name in ("manyview_dev_0", "fewview_dev"):
        write(tmp_path / f"apple/set_lists/set_lists_{name}.json", b"")
    assert annotation_files(tmp_path, "apple")[2:] == [
        "apple/set_lists/set_lists_fewview_dev.json",
        "apple/set_lists/set_lists_manyview_dev_0.json",
    ]


@pytest.mark.parametrize("path", ["/etc/passwd", "a/../../b", "..", "a\\..\\b"])
def test_paths_that_leave_the_root_are_known_by_their_spelling(path, tmp_path):
    assert leaves_root(path)
    with pytest.raises(ValueError, match="lies outside datasets.co3d.source.root"):
        inside(tmp_path, path)


def test_links_are_followed(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    write(other / "a.jpg", b"x")
    write(root / "real/a.jpg", b"y")
    os.symlink(other, root / "out")
    os.symlink(root / "real", root / "within")
    os.symlink(root, tmp_path / "alias")
    assert inside(tmp_path / "alias", "within/a.jpg").read_bytes() == b"y"
    with pytest.raises(ValueError, match="'out/a.jpg', which lies outside"):
        inside(root, "out/a.jpg")
