"""Where the files of CO3D v2 lie: its root, its categories, its annotation files, and the paths those name."""

import os
from pathlib import Path

from src.parameters.datasets import Co3dSource
from src.reproducible.files import existing_root

CO3D_KEY = "datasets.co3d.source"
FRAME_LIST, SEQUENCE_LIST = "frame_annotations.jgz", "sequence_annotations.jgz"
SUBSETS = "category_to_subset_name_list.json"
CO3D_ROOT_HOLDS = f"CO3D v2 as its publisher unpacks it, a folder per category with {FRAME_LIST}"


def tree_root(source: Co3dSource) -> Path:
    """The folder with the categories: `root`, filled by hand, or the place that downloads fill, which need not exist.
    The subsets have files of the same names, so each has its own place.

    raises    FileNotFoundError when `root` names no folder
    """
    if source.root:
        return existing_root(source.root, f"{CO3D_KEY}.root", CO3D_ROOT_HOLDS)
    return Path(os.environ.get("DVC_ROOT", "."), Path(source.store).expanduser(), source.subset)


def categories_in(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob(f"*/{FRAME_LIST}"))


def chosen_categories(wanted: list[str], there: list[str], where: str) -> list[str]:
    """The categories asked for, all when none is named, in alphabetical order.

    raises    ValueError naming the valid ones when one is not `there`, or when there is none
    """
    if not there:
        raise ValueError(f"{where} holds no category; {CO3D_KEY}.root must name a folder with {CO3D_ROOT_HOLDS}.")
    if unknown := sorted(set(wanted) - set(there)):
        raise ValueError(
            f"{CO3D_KEY}.categories names {', '.join(unknown)}, which {where} does not have; choose from "
            f"{', '.join(sorted(there))}."
        )
    return sorted(set(wanted) or set(there))


def annotation_files(root: Path, category: str) -> list[str]:
    """What describes a category, relative to the root."""
    lists = sorted(path.relative_to(root).as_posix() for path in (root / category / "set_lists").glob("*.json"))
    return [f"{category}/{FRAME_LIST}", f"{category}/{SEQUENCE_LIST}", *lists]


def leaves_root(path: str) -> bool:
    """Whether a path of the annotations points out of the dataset by its spelling."""
    return path.startswith("/") or "\\" in path or ".." in path.split("/")


def inside(root: Path, path: str) -> Path:
    """The file that a path of the annotations names.

    raises    ValueError when it lies outside the dataset, links followed
    """
    file = (root / path).resolve()
    if leaves_root(path) or not file.is_relative_to(root.resolve()):
        raise ValueError(
            f"The annotations of CO3D name {path!r}, which lies outside {CO3D_KEY}.root; repair them, or take "
            "them from their publisher."
        )
    return file
