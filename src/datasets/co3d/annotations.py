"""What CO3D v2 says about its frames and sequences: gzipped JSON, its types checked, unknown keys ignored."""

import gzip
import json
import math
import re
import zlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Iterable, Iterator, TextIO

from src.datasets.co3d.layout import CO3D_KEY, FRAME_LIST, SEQUENCE_LIST, annotation_files, leaves_root
from src.datasets.json_node import Node
from src.reproducible.hashes import file_hash

DEFAULT_FORMAT = "ndc_norm_image_bounds"  # of files that state none
FORMATS = ("ndc_isotropic", DEFAULT_FORMAT)
BROKEN_LIST = (OSError, EOFError, zlib.error, ValueError, RecursionError)
CHUNK_CHARACTERS = 1 << 20  # characters of a list that are in memory together
FIRST, NEXT = re.compile(r"\s*\[\s*"), re.compile(r"\s*,\s*")  # what an entry of a list follows
EMPTY, END = re.compile(r"\s*\[\s*\]\s*"), re.compile(r"\s*\]\s*")


class AnnotationError(ValueError):
    """An annotation file that cannot be read; the message names it."""


def optional_number(node: Node | None) -> float | None:
    return None if node is None else node.number()


def score(node: Node | None) -> float | None:
    """A quality; NaN says no more than null."""
    return None if node is None or math.isnan(node.number()) else node.number()


def numbers(node: Node, count: int) -> list[float]:
    """A list of that many numbers; NaN and infinity pass."""
    if len(items := node.items()) != count:
        raise node.fault(f"found {len(items)} entries, wanted {count}")
    return [item.number() for item in items]


def path_of(node: Node | None) -> str | None:
    """A path below the dataset's root; None for none.

    raises    ValueError when it points out of the root
    """
    if node is not None and leaves_root(node.text()):
        raise node.fault(f"found {node.value!r}, wanted a path below {CO3D_KEY}.root")
    return None if node is None else node.text()


@dataclass(frozen=True)
class FrameAnnotation:
    """One frame. size (H, W); R (3, 3), T (3): PyTorch3D's world to view, X_view = X_world R + T, None = no camera;
    focal, centre: of the NDC format; kind: known | unseen | None where nothing says so."""

    sequence: str
    number: int
    timestamp: float
    image: str
    size: list[int]
    depth: str | None
    depth_scale: float
    depth_mask: str | None
    mask: str | None
    R: list[list[float]] | None
    T: list[float] | None
    focal: list[float] | None
    centre: list[float] | None
    format: str | None
    frame_set: str | None
    kind: str | None


@dataclass(frozen=True)
class SequenceAnnotation:
    """quality: of the viewpoints, larger is better, None = not known; pointcloud: quality of the point cloud."""

    name: str
    quality: float | None
    pointcloud: float | None


def frame_annotation(node: Node) -> FrameAnnotation:
    image, depth, mask, viewpoint = node["image"], node.get("depth"), node.get("mask"), node.get("viewpoint")
    frame_set, kind = frame_type(node.get("meta"))
    camera = dict.fromkeys(("R", "T", "focal", "centre", "format"))
    if viewpoint is not None:
        camera = {
            "R": viewpoint["R"].matrix((3, 3)).tolist(),
            "T": numbers(viewpoint["T"], 3),
            "focal": numbers(viewpoint["focal_length"], 2),
            "centre": numbers(viewpoint["principal_point"], 2),
            "format": intrinsics_format(viewpoint.get("intrinsics_format")),
        }
    timestamp = optional_number(node.get("frame_timestamp"))
    return FrameAnnotation(
        node["sequence_name"].text(),
        node["frame_number"].typed(int),
        math.nan if timestamp is None else timestamp,
        path_of(image["path"]),
        image_size(image["size"]),
        None if depth is None else path_of(depth["path"]),
        1.0 if depth is None else depth["scale_adjustment"].number(),
        None if depth is None else path_of(depth.get("mask_path")),
        None if mask is None else path_of(mask["path"]),
        frame_set=frame_set,
        kind=kind,
        **camera,
    )


def image_size(node: Node) -> list[int]:
    """[height, width]"""
    sides = [side.typed(int) for side in node.items()]
    if len(sides) != 2:
        raise node.fault(f"found {len(sides)} entries, wanted height and width")
    return sides


def intrinsics_format(node: Node | None) -> str:
    if node is None:
        return DEFAULT_FORMAT
    if node.text() not in FORMATS:
        raise node.fault(f"found {node.value!r}, wanted {' or '.join(FORMATS)}")
    return node.value


def frame_type(meta: Node | None) -> tuple[str | None, str | None]:
    """(train | dev | test, known | unseen) as `meta.frame_type` has them; None for what it does not say."""
    kind = None if meta is None else meta.get("frame_type")
    frame_set, _, seen = ("" if kind is None else kind.text()).partition("_")
    return frame_set if frame_set in ("train", "dev", "test") else None, seen if seen in ("known", "unseen") else None


def sequence_annotation(node: Node) -> SequenceAnnotation:
    cloud = node.get("point_cloud")
    return SequenceAnnotation(
        node["sequence_name"].text(),
        score(node.get("viewpoint_quality_score")),
        None if cloud is None else score(cloud.get("quality_score")),
    )


def listed_file(root: Path, file: str, sha256: str | None) -> Path:
    """An annotation file; `sha256`: what it had when it was listed.

    raises    AnnotationError, FileNotFoundError
    """
    path = root / file
    if not path.is_file():
        raise FileNotFoundError(f"CO3D's {file} is missing in {CO3D_KEY}.root; take it from its publisher.")
    if sha256 is not None and file_hash(path) != sha256:
        raise AnnotationError(f"{file} has changed since the dataset was listed; run dvc repro -f download.")
    return path


def broken(file: str, error: Exception) -> AnnotationError:
    return AnnotationError(f"{file} at /: it is broken ({error}); take it from its publisher.")


def read_node(root: Path, file: str, sha256: str | None = None) -> Node:
    """A JSON file, gzipped when its name ends in .jgz.

    raises    AnnotationError, FileNotFoundError
    """
    data = listed_file(root, file, sha256).read_bytes()
    try:
        return Node(file, "", json.loads(gzip.decompress(data) if file.endswith(".jgz") else data))
    except BROKEN_LIST as error:
        raise broken(file, error) from error


def entries_of(stream: TextIO) -> Iterator[object]:
    """The entries of a JSON list, decoded one after the other.

    raises    ValueError when it is none
    """
    decode, text, place, before = json.JSONDecoder().raw_decode, "", 0, FIRST
    while True:
        try:
            value, end = decode(text, start.end() if (start := before.match(text, place)) else len(text))
        except ValueError:
            if more := stream.read(CHUNK_CHARACTERS):
                text, place = text[place:] + more, 0
                continue
            if (EMPTY if before is FIRST else END).fullmatch(text, place):
                return
            raise ValueError("it is no whole list") from None
        yield value
        place, before = end, NEXT


def list_entries(root: Path, file: str, sha256: str | None = None) -> Iterator[Node]:
    """The entries of a gzipped JSON list, one in memory at a time: all frames of a category fill gigabytes.

    raises    AnnotationError, FileNotFoundError
    """
    path = listed_file(root, file, sha256)
    try:
        with gzip.open(path, "rt", encoding="utf8") as stream:
            for number, value in enumerate(entries_of(stream)):
                yield Node(file, f"/{number}", value)
    except BROKEN_LIST as error:
        raise broken(file, error) from error


class Packed:
    """The frames of one sequence in file order, compressed: those of many sequences fit in memory."""

    def __init__(self, frames: Iterable[FrameAnnotation] = ()):
        self.parts, self.count = [], 0
        if frames := list(frames):
            self.add(frames)

    def add(self, frames: list[FrameAnnotation]) -> None:
        self.parts.append(zlib.compress(json.dumps([vars(frame) for frame in frames]).encode()))
        self.count += len(frames)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[FrameAnnotation]:
        for part in self.parts:
            yield from (FrameAnnotation(**entry) for entry in json.loads(zlib.decompress(part)))


def packed_sequences(frames: Iterator[FrameAnnotation]) -> dict[str, Packed]:
    """By sequence; the frames of one mostly stand together."""
    sequences = {}
    for name, together in groupby(frames, lambda frame: frame.sequence):
        sequences.setdefault(name, Packed()).add(list(together))
    return sequences


@dataclass(frozen=True)
class Category:
    """A category's annotations. frames: by sequence, in file order; sequences: by name; lists: (subset, train | val |
    test, [(sequence, frame number, image path)])."""

    name: str
    frames: dict[str, Packed]
    sequences: dict[str, SequenceAnnotation]
    lists: list[tuple[str, str, list[tuple[str, int, str]]]]


def list_entry(node: Node) -> tuple[str, int, str]:
    if len(entry := node.items()) != 3:
        raise node.fault(f"found {len(entry)} entries, wanted sequence, frame number and image path")
    return entry[0].text(), entry[1].typed(int), path_of(entry[2])


def set_lists(root: Path, file: str, sha256: str | None) -> Iterator[tuple[str, str, list[tuple[str, int, str]]]]:
    """(subset, part, entries) of one set-list file; eval batches and unknown parts are left alone."""
    subset = Path(file).stem.removeprefix("set_lists_")
    node = read_node(root, file, sha256)
    for part in ("train", "val", "test"):
        if (entries := node.get(part)) is not None:
            yield subset, part, [list_entry(entry) for entry in entries.items()]


def read_category(root: Path, name: str, hashes: dict[str, str]) -> Category:
    """All annotations of a category; hashes: SHA-256 by file, where the files were listed.

    raises    AnnotationError for a file that is broken, lacks a required key or has a wrong type
    """
    file, sequences = f"{name}/{FRAME_LIST}", {}
    frames = packed_sequences(map(frame_annotation, list_entries(root, file, hashes.get(file))))
    for node in read_node(root, f"{name}/{SEQUENCE_LIST}", hashes.get(f"{name}/{SEQUENCE_LIST}")).items():
        sequence = sequence_annotation(node)
        if sequences.setdefault(sequence.name, sequence) != sequence:
            raise node.fault(f"sequence {sequence.name} is listed twice, with different qualities")
    lists = [part for file in annotation_files(root, name)[2:] for part in set_lists(root, file, hashes.get(file))]
    return Category(name, frames, sequences, lists)
