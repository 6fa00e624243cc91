"""Folders of captures that stay where the user keeps them: one scene per capture, evaluated only unless it is named.

What a capture looks like is the layout's to say: transforms.json (src/datasets/transforms.py) or a COLMAP
reconstruction (src/datasets/colmap.py).
"""

import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

from src.datasets.processes import in_processes
from src.datasets.raw_files import RawFiles
from src.datasets.recording import Catalogue, Recording
from src.parameters.datasets import CaptureSource
from src.reproducible.files import existing_root

CAPTURES = "captures"


@dataclass(frozen=True)
class CaptureLayout:
    """What differs between captures of one kind and another.

    dataset     its block in params.yaml
    holds       what the root must hold, in words
    present     whether a folder is a capture
    listing     (root, folder relative to it, source) -> the capture's files and what the manifest says about it, at
                least `listed`, its number of images; raises ValueError when it cannot be used
    recording   (source, root, list file, what the manifest says, Recording's common fields) -> Recording
    """

    dataset: str
    holds: str
    present: Callable[[Path], bool]
    listing: Callable[[Path, str, CaptureSource], tuple[RawFiles, dict]]
    recording: Callable[[CaptureSource, Path, Path, dict, dict], Recording]

    @property
    def key(self) -> str:
        return f"datasets.{self.dataset}.source"

    def root(self, source: CaptureSource) -> Path:
        """raises ValueError, FileNotFoundError"""
        return existing_root(source.root, f"{self.key}.root", self.holds)


def captures(layout: CaptureLayout, root: Path) -> dict[str, str]:
    """Scene id and folder relative to `root` of every capture.

    raises    ValueError when there is none, or two would have one name
    """
    folders = [root] if layout.present(root) else sorted(filter(layout.present, filter(Path.is_dir, root.iterdir())))
    if not folders:
        raise ValueError(
            f"{layout.key}.root is {str(root)!r}, where no capture was found; it must hold {layout.holds}."
        )
    ids = [re.sub(r"[^A-Za-z0-9_-]", "_", folder.resolve().name) for folder in folders]
    for id, count in sorted(Counter(id.lower() for id in ids).items()):  # some disks ignore case
        if count > 1:
            alike = [folder.name for folder, other in zip(folders, ids) if other.lower() == id]
            raise ValueError(
                f"{layout.key}.root holds the folders {' and '.join(map(repr, alike))}, which would both be called {id}; "
                "rename one."
            )
    return {id: folder.relative_to(root).as_posix() for id, folder in zip(ids, folders)}


def list_capture(
    layout: CaptureLayout, source: CaptureSource, root: Path, target: Path, scene: tuple[str, str]
) -> dict:
    """Worker: the files of one capture, hashed, into target/scenes/<id>.json; what the manifest says about it: for a
    capture that cannot be used, `fault`."""
    id, folder = scene
    try:
        files, about = layout.listing(root, folder, source)
    except ValueError as error:
        return {"id": id, "folder": folder, "fault": str(error)}
    files.write_list(target / "scenes" / f"{id}.json")
    return {"id": id, "folder": folder, "fingerprint": files.fingerprint} | about


def list_captures(layout: CaptureLayout, dataset, target: Path, workers: int) -> dict:
    """List every capture and its files; nothing is copied. dataset: the block of params.yaml.

    raises    ValueError, FileNotFoundError for the root; ValueError for a wrong name in train or val, and for a broken
              list where no capture has a whole one or on_bad_frame is error; else that capture is said and left out
    """
    source, root = dataset.source, layout.root(dataset.source)
    found = captures(layout, root)
    for key in ("train", "val"):
        if unknown := [name for name in getattr(source, key) if name not in found]:
            raise ValueError(
                f"{layout.key}.{key} names {', '.join(unknown)}, but the captures are {', '.join(found)}; "
                "correct the list."
            )
    listed = in_processes(
        partial(list_capture, layout, source, root, target), list(found.items()), workers, "list captures"
    )
    faults = [scene["fault"] for scene in listed if "fault" in scene]
    if faults and (len(faults) == len(listed) or source.on_bad_frame == "error"):
        raise ValueError(faults[0])
    for fault in faults:
        print(f"download: a capture is left out: {fault}", file=sys.stderr, flush=True)
    return {"dataset": layout.dataset, "scenes": listed}


def capture_recording(layout: CaptureLayout, source: CaptureSource, root: Path, raw: Path, scene: dict) -> Recording:
    """One capture of the manifest."""
    id = scene["id"]
    common = {
        "id": id,
        "category": CAPTURES,
        "split": "train" if id in source.train else "val" if id in source.val else "test",
        "units": "scene",
        "listed": scene["listed"],
        "metadata": {"license": "the capture's own", "source": {"fingerprint": scene["fingerprint"]}},
        "fingerprint": partial(str, scene["fingerprint"]),
    }
    return layout.recording(source, root, raw / "scenes" / f"{id}.json", scene, common)


def listed_captures(layout: CaptureLayout, dataset, raw: Path, manifest: dict) -> Catalogue:
    """The captures that `download` listed: evaluated only, but for those the parameters call training or validation."""
    source, root = dataset.source, layout.root(dataset.source)
    recordings = [
        capture_recording(layout, source, root, raw, scene) for scene in manifest["scenes"] if "fault" not in scene
    ]
    broken = [scene["id"] for scene in manifest["scenes"] if "fault" in scene]
    return Catalogue(
        layout.dataset,
        recordings,
        {"broken_list": broken} if broken else {},
        on_bad_frame=source.on_bad_frame,
        required=tuple(sorted({recording.split for recording in recordings})),
    )
