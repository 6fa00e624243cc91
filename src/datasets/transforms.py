"""Captures with a transforms.json, as instant-ngp, nerfstudio and Blender write them.

A capture is a folder with transforms.json, or with transforms_train.json, transforms_val.json, transforms_test.json;
paths inside are relative to it. The dataset's root is one such folder or holds several.
"""

import io
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Callable, Iterator

import numpy as np
from plyfile import PlyData, PlyParseError

from src.datasets.captures import CaptureLayout
from src.datasets.json_node import Node
from src.datasets.photographs import ListedPhotograph, photograph, read_image
from src.datasets.raw_files import RawFiles, check_inside, relative_path
from src.datasets.recording import Recording
from src.datasets.transforms_json import FrameEntry, camera, natural, read_transforms
from src.datasets.usable import BadFrame, Tally
from src.parameters.datasets import TransformsSource
from src.scenes.pixels import BadPixels
from src.scenes.reconstruction import Points
from src.scenes.scene import Frame

WHOLE, BLENDER = "transforms.json", tuple(f"transforms_{part}.json" for part in ("train", "val", "test"))
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".PNG", ".JPG", ".JPEG", ".BMP")
NEIGHBOURS = 3  # frames on each side that instant-ngp compares the sharpness with


def json_files(folder: Path) -> list[str]:
    """The lists of a capture, in the order their photographs are taken in; none when `folder` is no capture."""
    names = (WHOLE,) if (folder / WHOLE).is_file() else BLENDER
    return [name for name in names if (folder / name).is_file()]


def joined_below(folder: str, path: str, where: str) -> str:
    """A path of a list in `folder`, relative to the dataset's root."""
    return (PurePosixPath(folder) / relative_path(path, where)).as_posix()


def candidates(folder: str, node: Node) -> list[str]:
    """Where the image of a file_path may be: as written, with an extension, inside images/; relative to the root."""
    written = joined_below(folder, node.text(), f"{node.file} at {node.pointer}")
    within = [written]
    if "/" not in relative_path(node.text(), ""):
        within.append(joined_below(folder, f"images/{node.text()}", ""))
    bare = "" if PurePosixPath(written).suffix in EXTENSIONS else EXTENSIONS
    return [path + extension for path in within for extension in ("", *bare)]


def in_order(top: Node) -> list[Node]:
    """The frames of a list as its photographs were taken."""
    return sorted(top["frames"].items(), key=lambda frame: natural(relative_path(frame["file_path"].text(), top.file)))


def sharpness_of(entry: FrameEntry) -> float:
    """The variance of the photograph's Laplacian, larger is sharper; NaN when it is not given."""
    node = entry.frame.get("sharpness")
    return np.nan if node is None else node.number()


def has_lists(folder: Path) -> bool:
    return bool(json_files(folder))


class Capture:
    """What the lists of one capture say. `exists` tells which paths relative to the root are files."""

    def __init__(self, folder: str, lists: list[Node], exists: Callable[[str], bool], depth_unit: float):
        self.folder, self.lists, self.depth_unit = folder, lists, depth_unit
        entries = [FrameEntry(top, frame) for top in lists for frame in in_order(top)]
        self.photographs = [(entry, self.listed(entry, number, exists)) for number, entry in enumerate(entries)]

    def listed(self, entry: FrameEntry, number: int, exists: Callable[[str], bool]) -> ListedPhotograph:
        places = candidates(self.folder, entry.frame["file_path"])
        image = next(filter(exists, places), places[0])
        keep = self.path(entry, "mask_path")
        dynamic = PurePosixPath(image).with_name(f"dynamic_mask_{PurePosixPath(image).stem}.png").as_posix()
        depth, unit = self.path(entry, "depth_file_path"), self.depth_unit
        if depth is None and (depth := self.path(entry, "depth_path")) is not None:  # instant-ngp's
            unit = entry.number("integer_depth_scale", 0.0)
            if not 0 < unit < np.inf:
                raise entry.top.fault(f"found integer_depth_scale {unit} beside depth_path, wanted a positive number")
            depth = depth if exists(depth) else next(filter(exists, (depth + end for end in EXTENSIONS)), depth)
        name = relative_path(entry.frame["file_path"].text(), entry.frame.file)
        return ListedPhotograph(name, number, image, depth, unit, keep, ignore=dynamic if exists(dynamic) else None)

    def path(self, entry: FrameEntry, key: str) -> str | None:
        node = entry.frame.get(key)
        return None if node is None else joined_below(self.folder, node.text(), f"{node.file} at {node.pointer}")

    @property
    def point_file(self) -> str | None:
        """The reconstruction's points, where the file says that they are in the coordinates of the poses."""
        for top in self.lists:
            if (node := top.get("ply_file_path")) is not None and top.get("applied_transform") is not None:
                return joined_below(self.folder, node.text(), f"{node.file} at {node.pointer}")
        return None

    def files(self) -> list[str]:
        """All files it names, relative to the root, whether they exist or not."""
        planes = [
            path
            for _, listed in self.photographs
            for path in (listed.image, listed.depth, listed.keep, listed.ignore)
            if path
        ]
        return planes + [self.point_file] * (self.point_file is not None)

    @property
    def reordered(self) -> bool:
        """Whether a list is in another order than its photographs were taken in."""
        pointers = [
            [frame.pointer for frame in frames]
            for top in self.lists
            for frames in (top["frames"].items(), in_order(top))
        ]
        return pointers[::2] != pointers[1::2]

    @property
    def details(self) -> dict[str, dict]:
        """By photograph, what a scene file keeps of its entry."""
        return {
            listed.name: {"path": listed.image} | ({"sharpness": sharp} if np.isfinite(sharp) else {})
            for entry, listed in self.photographs
            for sharp in [sharpness_of(entry)]
        }

    @property
    def unread(self) -> list[str]:
        """Keys that look as if they said something of a camera, and are not known here."""
        return sorted(set().union(*(entry.unread() for entry, _ in self.photographs)))

    def check(self) -> None:
        """raises ValueError for what no photograph may have, even one whose image is missing"""
        for entry, _ in self.photographs:
            try:
                camera(entry, (1, 1), Tally())
            except BadFrame:
                pass  # left out and counted when it is read
        self.left_out()

    def left_out(self) -> dict[int, str]:
        """Position of each photograph that instant-ngp's own keys leave out, and why."""
        top = self.lists[0]
        first = FrameEntry(top, top).number("n_frames", float(len(self.photographs)))
        if not first.is_integer() or first < 1:  # false for NaN
            raise top.fault(f"found n_frames {first}, wanted a whole number of photographs")
        first = int(first)
        threshold = FrameEntry(top, top).number("sharpness_discard_threshold", 0.0)
        sharpness = np.array([sharpness_of(entry) for entry, _ in self.photographs])[:first]
        reasons = {position: "beyond_n_frames" for position in range(first, len(self.photographs))}
        for position, own in enumerate(sharpness if threshold > 0 else []):
            around = sharpness[max(0, position - NEIGHBOURS) : position + NEIGHBOURS + 1]
            if np.isfinite(own) and own <= threshold * np.nanmean(around):
                reasons[position] = "blurry"
        return reasons


def read_capture(files: RawFiles, folder: str, names: list[str], depth_unit: float) -> Capture:
    """The capture as it was listed."""
    paths = [joined_below(folder, name, folder) for name in names]
    lists = [read_transforms(files.read(path), path) for path in paths]
    return Capture(folder, lists, files.__contains__, depth_unit)


def listed_capture(root: Path, folder: str, source: TransformsSource) -> tuple[RawFiles, dict]:
    """The files of one capture, and what the manifest says about it.

    raises    ValueError for a broken list
    """
    names = json_files(root / folder)
    paths = [joined_below(folder, name, folder) for name in names]
    lists = [read_transforms((root / path).read_bytes(), path) for path in paths]
    capture = Capture(folder, lists, lambda path: (root / path).is_file(), source.depth_unit)
    capture.check()
    if capture.unread:
        print(f"download: {folder}: {', '.join(capture.unread)} are not known here and change no camera", flush=True)
    for path in capture.files():
        check_inside(root / path, root / folder)
    files = RawFiles.found(root, paths + capture.files())
    points = capture.point_file if capture.point_file in files else None
    return files, {"lists": names, "listed": len(capture.photographs), "points": points}


def capture_frames(files: RawFiles, capture: Capture, tally: Tally) -> Iterator[Frame]:
    """Every photograph of a capture that can be read, straightened; the tally is told about the others.

    raises    ValueError when one image is listed twice with different entries
    """
    left_out, seen = capture.left_out(), {}
    tally.count("reordered", int(capture.reordered))
    tally.count("unread_intrinsics", len(capture.unread))
    for position, (entry, listed) in enumerate(capture.photographs):
        about = entry.frame.value | {"file_path": listed.image}  # one file may be spelled in several ways
        if listed.image in seen:
            if seen[listed.image] != about:
                raise entry.frame.fault(f"{listed.name} is listed twice with different entries")
            tally.skip("duplicate_record", listed.name, "it is listed twice.")
        elif position in left_out:
            tally.skip(left_out[position], listed.name, "n_frames or sharpness_discard_threshold leaves it out.")
        else:
            try:
                yield capture_frame(files, entry, listed, tally)
            except (BadPixels, BadFrame) as error:
                tally.skip(error.reason, listed.name, str(error))
        seen.setdefault(listed.image, about)


def capture_frame(files: RawFiles, entry: FrameEntry, listed: ListedPhotograph, tally: Tally) -> Frame:
    """raises BadPixels, BadFrame"""
    pixels = read_image(files, listed.image)
    taken = camera(entry, pixels[0].shape[1::-1], tally)
    return photograph(files, listed, pixels, taken, taken.K, tally)


@dataclass(frozen=True, eq=False)
class CaptureFrames:
    """The photographs of one capture of the manifest. Its lists are read when they are asked for: those of many
    captures would not fit in memory.

    details    of a Recording; filled while the photographs are read
    """

    root: Path
    list_file: Path
    scene: dict
    depth_unit: float
    details: dict[str, dict] = field(default_factory=dict)

    def __call__(self, tally: Tally) -> Iterator[Frame]:
        files = RawFiles.of_list(self.root, self.list_file)
        capture = read_capture(files, self.scene["folder"], self.scene["lists"], self.depth_unit)
        self.details.update(capture.details)
        yield from capture_frames(files, capture, tally)


def capture_points(root: Path, list_file: Path, path: str) -> Points:
    """raises ValueError when the file holds no points"""
    files = RawFiles.of_list(root, list_file)
    try:
        vertices = PlyData.read(io.BytesIO(files.read(path)))["vertex"]
        return Points(np.stack([vertices[axis] for axis in "xyz"], -1).astype(np.float64))
    except (PlyParseError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no PLY file with points ({error}); remove ply_file_path from the list, or repair the file."
        ) from error


def capture_of_lists(source: TransformsSource, root: Path, list_file: Path, scene: dict, common: dict) -> Recording:
    """One capture of the manifest."""
    frames = CaptureFrames(root, list_file, scene, source.depth_unit)
    points = partial(capture_points, root, list_file, scene["points"]) if scene["points"] else None
    return Recording(**common, frames=frames, details=frames.details, points=points)


TRANSFORMS = CaptureLayout(
    "transforms",
    "a capture (transforms.json or transforms_{train,val,test}.json and its images), or one folder per capture",
    has_lists,
    listed_capture,
    capture_of_lists,
)
