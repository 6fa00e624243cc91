"""The coverage and test-set files of Splatt3R's release, which name the photographs of ScanNet++ by position.

Positions count through a scene's `train` list, with the blurred photographs or without them; which of the two is not
said. The length of the coverage matrix decides, and everything is translated to file names at once.

    python -m src.datasets.splatt3r_sets <ScanNet++ root> <folder with coverage/ and test_set_*.json>

says what the files hold.
"""

import sys
from pathlib import Path

import numpy as np

from src.datasets.json_node import Node
from src.datasets.scannetpp import KEY, base_of, blurred
from src.datasets.transforms_json import Entry
from src.folders import existing_root
from src.overlap import check_coverage

EVERY = 100  # of a test set's rows, the one that Splatt3R scores


def read_node(path: Path) -> Node:
    """raises FileNotFoundError, ValueError"""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; get it again, or leave its scene out.")
    return Node.read(path.read_bytes(), path.name)


def train_lists(root: Path, scene: str) -> tuple[list[str], list[str]]:
    """A scene's photographs as listed, and those of them that are not blurred."""
    dslr = base_of(root) / "data" / scene / "dslr"
    listed = [name.text() for name in read_node(dslr / "train_test_lists.json")["train"].items()]
    top = read_node(dslr / "nerfstudio" / "transforms.json")
    bad = {frame["file_path"].text() for frame in top["frames"].items() if blurred(Entry(top, frame))}
    return listed, [name for name in listed if name not in bad]


def read_coverage(path: Path, listed: list[str], sharp: list[str]) -> tuple[list[str], np.ndarray]:
    """The photographs that a coverage file's positions mean, and the matrix (V, V) in [0, 1].

    raises    ValueError when the matrix fits neither list, is not square or leaves [0, 1]
    """
    rows = read_node(path)[path.stem].items()
    matrix = np.array([[value.number() for value in row.items()] for row in rows if len(row.items()) == len(rows)])
    check_coverage(matrix, len(rows), path.name)
    for names in (listed, sharp):
        if len(names) == len(matrix):
            return names, matrix
    raise ValueError(f"{path.name} covers {len(matrix)} photographs, but the scene lists {len(listed)}, {len(sharp)} "
                     "of them not blurred; it belongs to another release of ScanNet++: get the one it was made for.")


def read_test_set(path: Path, names: dict[str, list[str]]) -> list[tuple[str, str, str, str]]:
    """(scene, context, context, target) by name of every row that Splatt3R scores; names: what each scene's positions
    mean.

    raises    ValueError for an unknown scene or position, and for a target that is a context
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; get it again.")
    file = Node.read(b'{"rows":' + path.read_bytes() + b"}", path.name)
    found = []
    for row in file["rows"].items()[::EVERY]:
        scene, *positions = row.items()
        if scene.text() not in names:
            raise row.fault(f"scene {scene.value} has no coverage file")
        known, numbers = names[scene.value], [node.typed(int) for node in positions]
        if len(numbers) != 3 or len(set(numbers)) < 3 or not all(0 <= number < len(known) for number in numbers):
            raise row.fault(f"found photographs {numbers}, wanted three different ones of 0 to {len(known) - 1}")
        found.append((scene.value, *(known[number] for number in numbers)))
    return found


def read_sets(root: Path, folder: Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """Every test set of the folder, by file name."""
    names = {path.stem: read_coverage(path, *train_lists(root, path.stem))[0]
             for path in sorted((folder / "coverage").glob("*.json"))}
    return {path.name: read_test_set(path, names) for path in sorted(folder.glob("test_set_*.json"))}


def main(root: str, folder: str) -> None:
    sets = read_sets(existing_root(root, f"{KEY}.root", "ScanNet++"), Path(folder))
    for name, rows in sets.items():
        print(f"{name}: {len(rows)} scored rows in {len({row[0] for row in rows})} scenes")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ValueError, FileNotFoundError, TypeError) as error:
        sys.exit(f"error: {error}")
