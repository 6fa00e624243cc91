"""CO3D v2 (Reizenstein et al. 2021): turns around one object each, cameras and depth from COLMAP, without a metric.

Cameras become OpenCV's, depth stays the float16 bits it is; what its test set hides is not used.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Iterator

import numpy as np

from src.datasets.co3d.annotations import Category, FrameAnnotation, Packed, read_category
from src.datasets.co3d.layout import CO3D_KEY, inside, tree_root
from src.datasets.recording import Catalogue, Recording
from src.datasets.splits import DIVIDED, share_of, split_of
from src.datasets.usable import Tally
from src.parameters.datasets import Co3d
from src.scenes.pixels import BadPixels, decode_depth, decode_mask, decode_photograph
from src.scenes.scene import RELIABLE, VALID, Frame

CO3D_LICENCE = "CC BY-NC 4.0 (Meta), non-commercial"
FLIP = np.diag([-1.0, -1.0, 1.0])  # PyTorch3D's axes (x left, y up) to OpenCV's (x right, y down)
VALIDATION_EVERY = 5  # of the single-sequence subset's training scenes, one in five validates


def intrinsics(size: list[int], focal: list[float], centre: list[float], format: str) -> np.ndarray:
    """K (3, 3) float64 in pixels, corner origin, of a PyTorch3D camera in normalised device coordinates.

    size (H, W); focal, centre (2): x left and y up in units of half the shorter side (`ndc_isotropic`) or of half of
    each side (`ndc_norm_image_bounds`), origin at the image's centre
    """
    height, width = size
    half = np.array([min(size), min(size)] if format == "ndc_isotropic" else [width, height]) / 2
    (fx, fy), (cx, cy) = np.array(focal) * half, np.array([width, height]) / 2 - np.array(centre) * half
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def camera_to_world(R: list[list[float]], T: list[float]) -> np.ndarray:
    """c2w (4, 4) float64, OpenCV axes, of PyTorch3D's row-vector world to view, X_view = X_world R + T."""
    c2w = np.eye(4)
    with np.errstate(invalid="ignore"):  # infinity times 0; such poses are refused later
        c2w[:3, :3], c2w[:3, 3] = np.array(R) @ FLIP, -np.array(R) @ np.array(T)
    return c2w


def name_of(image: str) -> str:
    return PurePosixPath(image).stem


def file_bytes(root: Path, path: str | None) -> bytes | None:
    """A file that the annotations name; None when they name none or it is not there.

    raises    ValueError when it lies outside the dataset
    """
    if path is None or not (file := inside(root, path)).is_file():
        return None
    return file.read_bytes()


def depth_samples(root: Path, annotation: FrameAnnotation, size: tuple[int, int]) -> np.ndarray | None:
    """(H, W) float16, None where there is no file.

    raises    BadPixels `bad_depth`
    """
    if (data := file_bytes(root, annotation.depth)) is None:
        return None
    if not 0 < annotation.depth_scale < np.inf:
        raise BadPixels("bad_depth", f"scale_adjustment is {annotation.depth_scale}; it must be positive.")
    return decode_depth(data, size, "f16")


def reliable_depth(
    root: Path, annotation: FrameAnnotation, size: tuple[int, int]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Depth (H, W) float16, and flags (H, W) uint8 of where its publisher trusts it; None where there is no file.

    raises    BadPixels when either cannot be used: without the second nothing says what the first is worth
    """
    depth, mask = depth_samples(root, annotation, size), file_bytes(root, annotation.depth_mask)
    if mask is None:
        return depth, None
    return depth, np.where(decode_mask(mask, size), VALID | RELIABLE, VALID).astype(np.uint8)


def read_frame(root: Path, annotation: FrameAnnotation, tally: Tally) -> Frame:
    """One annotated photograph with its depth, masks and camera, none of them judged yet. Depth that cannot be used is
    left out and counted.

    raises    BadPixels for the photograph that cannot be used
    """
    if (annotation.frame_set, annotation.kind) == ("test", "unseen"):
        raise BadPixels("redacted", "the publisher blanked it (test_unseen).")
    if annotation.R is None:
        raise BadPixels("missing_viewpoint", "it has no camera.")
    if (data := file_bytes(root, annotation.image)) is None:
        raise BadPixels("missing_image", f"{annotation.image} is not there.")
    size = annotation.size[1], annotation.size[0]
    image, alpha = decode_photograph(data, size)
    mask, name = file_bytes(root, annotation.mask), name_of(annotation.image)
    try:
        depth, reliable = reliable_depth(root, annotation, size)
    except BadPixels as error:
        depth = reliable = None
        tally.lose("depth_unusable", name, str(error))
    return Frame(
        name,
        image,
        depth,
        annotation.depth_scale,
        alpha if mask is None else decode_mask(mask, size),
        reliable,
        intrinsics(annotation.size, annotation.focal, annotation.centre, annotation.format),
        camera_to_world(annotation.R, annotation.T),
        annotation.number,
        annotation.timestamp,
    )


@dataclass(frozen=True, eq=False)
class Sequence:
    """The photographs of one sequence.

    orphans    names of photographs in set lists that have no annotation
    details    of a Recording; filled while the photographs are read
    """

    root: Path
    annotations: Packed
    orphans: list[str]
    details: dict[str, dict] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Of the annotations, and of size and time of every file that they name."""
        digest = hashlib.sha256(b"".join(self.annotations.parts) + json.dumps(self.orphans).encode())
        for annotation in self.annotations:
            named = annotation.image, annotation.depth, annotation.mask, annotation.depth_mask
            for path in filter(None, named):
                if (file := inside(self.root, path)).is_file():
                    about = file.stat()
                    digest.update(f"{path} {about.st_size} {about.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def __call__(self, tally: Tally) -> Iterator[Frame]:
        for annotation in self.annotations:
            name = name_of(annotation.image)
            self.details[name] = {"source": annotation.image, "seen": annotation.kind}
            try:
                frame = read_frame(self.root, annotation, tally)
            except BadPixels as error:
                tally.skip(error.reason, name, str(error))
                continue
            yield frame
        for name in self.orphans:
            tally.skip("orphan_entry", name, "a set list names it, but it has no annotation.")


@dataclass(frozen=True, eq=False)
class ListedSequence:
    """One sequence of a category as its annotations describe it. set: train | dev | test, None where nothing says."""

    category: str
    name: str
    set: str | None
    frames: Packed
    orphans: list[str]
    quality: dict[str, float | None]

    @property
    def id(self) -> str:
        return f"{self.category}__{self.name}"

    @property
    def share(self) -> float:
        return share_of("co3d", self.category, self.name)


def set_words(subset: str, part: str) -> list[str]:
    """What a part of a set list says of its sequences: the words of its subset, but a few-view list trains on other
    sequences than it is named after."""
    return ["train"] if subset.startswith("fewview") and part == "train" else subset.split("_")


def set_of(frames: list[FrameAnnotation], listed: set[str]) -> str | None:
    """To which of the publisher's sets a sequence belongs: as its frames say; where none does, as the words `listed` of
    the lists that name it. A sequence any part of which is in the test set is a test sequence."""
    said = {frame.frame_set for frame in frames if frame.frame_set} or listed
    return next((name for name in ("test", "dev", "train") if name in said), None)


def listed_sequences(category: Category) -> list[ListedSequence]:
    """Every sequence that any of the category's files names, in order of name."""
    words, entries, hidden = defaultdict(set), defaultdict(dict), set()
    for subset, part, listed in category.lists:
        for sequence, number, image in listed:
            words[sequence].update(set_words(subset, part))
            entries[sequence].setdefault(number, image)
            if subset.startswith("manyview_test") and part == "test":
                hidden.add((sequence, number))
    result = []
    for name in sorted(category.frames.keys() | category.sequences.keys() | entries.keys()):
        frames = [as_listed(frame, hidden) for frame in category.frames.get(name, ())]
        known = {frame.number for frame in frames}
        orphans = [name_of(image) for number, image in sorted(entries[name].items()) if number not in known]
        about = category.sequences.get(name)
        quality = {"viewpoint": about and about.quality, "pointcloud": about and about.pointcloud}
        result.append(
            ListedSequence(category.name, name, set_of(frames, words[name]), Packed(frames), orphans, quality)
        )
    return result


def as_listed(frame: FrameAnnotation, hidden: set[tuple[str, int]]) -> FrameAnnotation:
    """A frame whose own annotation does not say whether its pixels are published, with what the set lists say."""
    if frame.kind is None and (frame.sequence, frame.number) in hidden:
        return FrameAnnotation(**vars(frame) | {"frame_set": "test", "kind": "unseen"})
    return frame


def quality_fault(listed: ListedSequence, minimum: float) -> str | None:
    """Why a sequence's cameras are not trusted; None when they are."""
    quality = listed.quality["viewpoint"]
    if quality is None:
        return "quality_missing"
    return None if quality > minimum else "quality_low"


def splits(sequences: list[ListedSequence], subset: str) -> dict[str, str]:
    """Split by scene id. Full: by the share of its name. Single sequence: of each category's development sequences, in
    order of their shares, the first tests and the others train; of all these, one in five validates. The publisher's
    test sequences, which have no depth, train too."""
    if subset == "full":
        return {listed.id: split_of(listed.share) for listed in sequences}
    result, training, categories = {}, [], set()
    for listed in sorted(sequences, key=lambda listed: listed.share):
        first = listed.set != "test" and listed.category not in categories
        result[listed.id] = "test" if first else "train"
        if listed.set != "test":
            categories.add(listed.category)
            training += [] if first else [listed.id]
    return result | dict.fromkeys(training[::VALIDATION_EVERY], "val")


def exclusion(listed: ListedSequence, subset: str) -> str | None:
    """Why a sequence is left out that has no fault: nothing lists it, or the publisher keeps it for a test."""
    if listed.set is None:
        return "in_no_set"
    return "test_set" if subset == "full" and listed.set == "test" else None


def recording(root: Path, listed: ListedSequence, split: str, archives: dict[str, str]) -> Recording:
    """archives: SHA-256 of the category's archives by name, or of the category's list of files."""
    frames = Sequence(root, listed.frames, listed.orphans)
    about = {"license": CO3D_LICENCE, "quality": listed.quality, "source": archives, "set": listed.set}
    count = len(listed.frames) + len(listed.orphans)
    return Recording(
        listed.id, listed.category, split, "scene", count, frames, about, frames.details, fingerprint=frames.fingerprint
    )


def co3d_scenes(block: Co3d, raw: Path, manifest: dict) -> Catalogue:
    """The sequences of the categories that `download` listed.

    raises    ValueError, FileNotFoundError when annotations are broken, missing or not those that were listed, or when
              the categories are too few to train, validate and test
    """
    root, hashes = tree_root(block.source), {name: about["sha256"] for name, about in manifest["files"].items()}
    listed, skipped, excluded = [], defaultdict(list), defaultdict(list)
    for category in manifest["categories"]:
        for sequence in listed_sequences(read_category(root, category, hashes)):
            if reason := exclusion(sequence, manifest["subset"]):
                excluded[reason].append(sequence.id)
            elif reason := quality_fault(sequence, block.source.min_quality):
                skipped[reason].append(sequence.id)
            else:
                listed.append(sequence)
    chosen = splits(listed, manifest["subset"])
    if not skipped and (lacking := [split for split in DIVIDED if split not in chosen.values()]):
        raise ValueError(
            f"CO3D's {len(listed)} usable sequences of {', '.join(manifest['categories'])} leave no scene "
            f"for {', '.join(lacking)}; name more in {CO3D_KEY}.categories."
        )
    recordings = [
        recording(root, sequence, chosen[sequence.id], manifest["sources"][sequence.category]) for sequence in listed
    ]
    return Catalogue(
        "co3d",
        recordings,
        dict(skipped),
        on_bad_frame=block.source.on_bad_frame,
        max_dropped=block.source.max_dropped,
        excluded=dict(excluded),
    )
