"""The coverage and test-set files of Splatt3R's release, which name the images of ScanNet++ by position.

Positions count through a scene's `train` list, with the blurred images or without them; which of the two is not
said. The length of the coverage matrix decides, and everything is translated to file names at once.
"""

from collections import Counter
from pathlib import Path
from typing import Iterator

import numpy as np

from src.datasets.json_node import Node
from src.datasets.scannetpp import base_of, blurred
from src.datasets.transforms_json import FrameEntry
from src.episodes.overlap import check_coverage
from src.peer_lists.findings import Finding, fault, note

SCORED_EVERY = 100  # of a test set's rows, the one that Splatt3R scores


def read_set(path: Path) -> Node:
    """raises FileNotFoundError, ValueError"""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; get it again, or leave its scene out.")
    return Node.read(path.read_bytes(), path.name)


def train_lists(root: Path, scene: str) -> tuple[list[str], list[str]]:
    """A scene's images as listed, and those of them that are not blurred."""
    dslr = base_of(root) / "data" / scene / "dslr"
    listed = [name.text() for name in read_set(dslr / "train_test_lists.json")["train"].items()]
    top = read_set(dslr / "nerfstudio" / "transforms.json")
    bad = {frame["file_path"].text() for frame in top["frames"].items() if blurred(FrameEntry(top, frame))}
    return listed, [name for name in listed if name not in bad]


def read_coverage(path: Path, listed: list[str], sharp: list[str]) -> tuple[list[str], np.ndarray]:
    """The images that a coverage file's positions mean, and the matrix (V, V) in [0, 1].

    raises    ValueError when the matrix fits neither list, is not square or leaves [0, 1]
    """
    rows = read_set(path)[path.stem].items()
    matrix = np.array([[value.number() for value in row.items()] for row in rows if len(row.items()) == len(rows)])
    check_coverage(matrix, len(rows), path.name)
    for names in (listed, sharp):
        if len(names) == len(matrix):
            return names, matrix
    raise ValueError(
        f"{path.name} covers {len(matrix)} images, but the scene lists {len(listed)}, {len(sharp)} "
        "of them not blurred; it belongs to another release of ScanNet++: get the one it was made for."
    )


def read_row(row: Node, names: dict[str, list[str]]) -> tuple[str, str, str, str]:
    """(scene, context, context, target) by name; names: what each scene's positions mean.

    raises    ValueError for an unknown scene or position, and for a target that is a context
    """
    scene, *positions = row.items()
    if scene.text() not in names:
        raise row.fault(f"scene {scene.value} has no coverage file")
    known, numbers = names[scene.value], [node.typed(int) for node in positions]
    if len(numbers) != 3 or len(set(numbers)) < 3 or not all(0 <= number < len(known) for number in numbers):
        raise row.fault(f"found images {numbers}, wanted three different ones of 0 to {len(known) - 1}")
    return scene.value, *(known[number] for number in numbers)


def rows_of(path: Path) -> list[Node]:
    """raises ValueError"""
    return Node.read(b'{"rows":' + path.read_bytes() + b"}", path.name)["rows"].items()


def set_findings(root: Path, folder: Path) -> Iterator[Finding]:
    """What coverage and test-set files hold, and everything wrong with them, in the rows that are not scored too."""
    names = {}
    for path in sorted((folder / "coverage").glob("*.json")):
        try:
            listed, sharp = train_lists(root, path.stem)
            names[path.stem], _ = read_coverage(path, listed, sharp)
        except (ValueError, FileNotFoundError) as error:
            yield fault(error)
            continue
        if len(sharp) < len(listed):
            meant = "with" if names[path.stem] == listed else "without"
            yield note(f"{path.name}: positions count {meant} the {len(listed) - len(sharp)} blurred images")
    for path in sorted(folder.glob("test_set_*.json")):
        try:
            rows = rows_of(path)
        except ValueError as error:
            yield fault(error)
            continue
        found = []
        for row in rows:
            try:
                found.append(read_row(row, names))
            except ValueError as error:
                yield fault(error)
        scored = Counter(found[::SCORED_EVERY] if len(found) == len(rows) else [])
        repeated = sum(scored.values()) - len(scored)
        if repeated:
            yield note(f"{path.name}: {repeated} scored rows repeat another")
        yield note(
            f"{path.name}: {len(rows)} rows, {len(rows[::SCORED_EVERY])} of them scored, {len(rows) - len(found)} not "
            f"readable, in {len({row[0] for row in found})} scenes"
        )
