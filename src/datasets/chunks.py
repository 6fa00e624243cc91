"""RealEstate10K, ACID and DL3DV as pixelSplat and its followers keep them. Local files only.

The root holds train/ and test/, each with index.json (scene -> file) and .torch files. A file, a chunk, is a list of
scenes: `key`, `url`, `timestamps` (N,), `cameras` (N, 18) and `images`, N JPEG files as bytes. A camera is fx, fy, cx, cy
as shares of width and height, two zeros, and the upper three rows of the world-to-camera matrix.

An evaluation index names, scene by scene, the context and target views that published scores are of.
"""

import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Iterator

import numpy as np
import torch

from src.datasets.json_node import Node
from src.datasets.processes import in_processes
from src.datasets.raw_files import RawFiles, relative_path
from src.datasets.recording import Catalogue, ListedEpisode, Recording
from src.datasets.splits import share_of
from src.datasets.usable import BadFrame, Tally
from src.parameters.datasets import Chunks
from src.reproducible.files import existing_root, read_json, write_json
from src.reproducible.hashes import params_hash
from src.scenes.pixels import BadPixels, decode_photograph, header_size
from src.scenes.scene import Frame

CHUNKS_KEY = "datasets.chunks.source"
CHUNKS_ROOT_HOLDS = "test/ and, to train, train/, each with index.json and its .torch files"
CHUNKED, VIDEOS, CHUNK_INDEX = "chunks", "videos", "index.json"
VALIDATION_SHARE = 0.05  # of the training scenes
WIDEST = 100.0  # degrees: views that see more are left out, as by pixelSplat
CAMERA_NUMBERS = 18
BROKEN_CHUNK = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
)


@dataclass(frozen=True)
class IndexEntry:
    """The views of one scene, by position among its photographs; overlap: small, medium or large where it is told."""

    contexts: list[int]
    targets: list[int]
    overlap: str | None = None


def entry_of(node: Node) -> IndexEntry:
    """raises ValueError when an entry is not of the form above"""
    overlap = node.get("overlap")
    views = ([number.typed(int) for number in node[key].items()] for key in ("context", "target"))
    named = overlap.value if overlap is not None and isinstance(overlap.value, str) else None
    return IndexEntry(*views, named)


def read_evaluation_index(path: Path) -> dict[str, IndexEntry | None]:
    """What an evaluation index says of each scene; None for those that are not scored.

    raises    FileNotFoundError, ValueError
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{CHUNKS_KEY}.evaluation_index is {str(path)!r}, but there is no such file; correct the path."
        )
    top = Node.read(path.read_bytes(), path.name)
    return {key: None if value is None else entry_of(top[key]) for key, value in top.value.items()}


def load_chunk(path: Path, name: str) -> list[dict]:
    """The scenes of a chunk, their images left on disk until they are asked for.

    raises    ValueError when the file is cut short or no chunk
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of images that may not be written to, and of old files
            scenes = torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except BROKEN_CHUNK as error:
        raise ValueError(f"{name} cannot be loaded as a chunk ({type(error).__name__}); get it again.") from error
    if not isinstance(scenes, list) or not all(isinstance(scene, dict) and "key" in scene for scene in scenes):
        raise ValueError(f"{name} holds no list of scenes; get it again.")
    return scenes


def scene_fault(scene: dict) -> tuple[str, str] | None:
    """Why a scene cannot be used at all: the reason that it is counted under, and a sentence."""
    cameras, images = scene.get("cameras"), scene.get("images")
    if not isinstance(images, list) or not isinstance(cameras, torch.Tensor) or cameras.ndim != 2:
        return "bad_scene", "it lacks cameras or images"
    if cameras.shape[1] != CAMERA_NUMBERS:
        return "bad_cameras", f"its cameras have {cameras.shape[1]} numbers each, not {CAMERA_NUMBERS}"
    if len(cameras) != len(images):
        return "bad_scene", f"it has {len(images)} images and {len(cameras)} cameras"
    if any(not isinstance(image, torch.Tensor) or image.dtype != torch.uint8 for image in images):
        return "bad_scene", "its images are not the bytes of files"
    return None


def listed_chunk(root: Path, name: str) -> dict:
    """Worker: size and hash of a chunk, and of its scenes key, number of photographs and fault; or the chunk's fault."""
    if not (root / name).is_file():
        return {"file": name, "fault": "missing_chunk", "message": f"{name} is missing"}
    try:
        scenes = load_chunk(root / name, name)
    except ValueError as error:
        return {"file": name, "fault": "bad_chunk", "message": str(error)}
    rows = [[str(scene["key"]), len(scene.get("images") or []), scene_fault(scene)] for scene in scenes]
    return {"file": name, "listed": RawFiles.found(root, [name]).listed[name], "scenes": rows}


def chunk_files(root: Path, part: str) -> dict[str, list[str]]:
    """Chunk file, relative to the root, -> keys that index.json says are in it.

    raises    FileNotFoundError, ValueError
    """
    path = root / part / CHUNK_INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"{part}/{CHUNK_INDEX} is missing in {CHUNKS_KEY}.root, which must hold {CHUNKS_ROOT_HOLDS}."
        )
    index = Node.read(path.read_bytes(), f"{part}/{CHUNK_INDEX}")
    files: dict[str, list[str]] = {}
    for key in index.value:
        files.setdefault(f"{part}/{relative_path(index[key].text(), index.file)}", []).append(key)
    return files


@dataclass
class Listing:
    """What `download` found: scenes to convert, ids of the others by reason, chunks with size and SHA-256."""

    scenes: list[dict] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    excluded: dict[str, list[str]] = field(default_factory=dict)
    chunks: dict[str, list] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        self.skipped.setdefault(reason, []).append(name)

    def exclude(self, reason: str, name: str) -> None:
        self.excluded.setdefault(reason, []).append(name)

    def add(self, part: str, keys: list[str], chunk: dict) -> None:
        """A chunk of `part` (train | test), which index.json says holds the keys."""
        if "fault" in chunk:
            for key in keys:
                self.skip(chunk["fault"], f"{key} ({chunk['message']})")
            return
        self.chunks[chunk["file"]] = chunk["listed"]
        wanted, seen = set(keys), set()
        for position, (key, count, fault) in enumerate(chunk["scenes"]):
            if key not in wanted or key in seen:
                self.exclude("not_in_chunk_index" if key not in wanted else "repeated_key", f"{key} ({chunk['file']})")
                continue
            seen.add(key)
            if fault:
                self.skip(fault[0], f"{key} ({fault[1]})")
            else:
                about = {"key": key, "file": chunk["file"], "position": position, "frames": count}
                self.scenes.append({"id": re.sub(r"[^A-Za-z0-9_.-]", "_", key), "part": part} | about)
        for key in sorted(wanted - seen):
            self.skip("not_in_chunk", f"{key} ({chunk['file']} lacks it)")


def split_scenes(scenes: list[dict], most: int | None) -> list[dict]:
    """Scenes with their split: those of test/ test; of those of train/, at most `most` that their names alone choose,
    a twentieth validates, one at least."""
    trained = sorted(
        (scene for scene in scenes if scene["part"] == "train"),
        key=lambda scene: share_of(CHUNKED, VIDEOS, scene["key"]),
    )
    trained = trained[:most]
    held_out = max(1, round(VALIDATION_SHARE * len(trained)))
    splits = {scene["id"]: "val" if number < held_out else "train" for number, scene in enumerate(trained)}
    splits |= {scene["id"]: "test" for scene in scenes if scene["part"] == "test"}
    return [scene | {"split": splits[scene["id"]]} for scene in scenes if scene["id"] in splits]


def frame_name(position: int) -> str:
    return f"{position:06d}"


def select_listed(scenes: list[dict], entries: dict[str, IndexEntry | None], listing: Listing) -> list[dict]:
    """Training scenes as they are; of the test scenes those that an evaluation index scores, with the views that it
    names. The others are excluded, by reason."""
    kept = []
    for scene in scenes:
        entry = entries.get(scene["key"])
        if scene["split"] != "test":
            kept.append(scene)
        elif entry is None:
            listing.exclude("null_in_index" if scene["key"] in entries else "not_in_index", scene["key"])
        elif not all(0 <= view < scene["frames"] for view in entry.contexts + entry.targets):
            most = max(entry.contexts + entry.targets)
            listing.skip(
                "views_beyond", f"{scene['key']} ({scene['frames']} photographs, the index asks for number {most})"
            )
        else:
            kept.append(scene | {"contexts": entry.contexts, "targets": entry.targets, "overlap": entry.overlap})
    return kept


def list_chunks(dataset: Chunks, target: Path, workers: int) -> dict:
    """List every scene that the chunks' index files name; nothing is copied.

    raises    ValueError, FileNotFoundError for the root, an index file, a scene in both parts, an evaluation index of
              other scenes
    """
    source = dataset.source
    root = existing_root(source.root, f"{CHUNKS_KEY}.root", CHUNKS_ROOT_HOLDS)
    files = {part: chunk_files(root, part) for part in ["test"] + ["train"] * (root / "train").is_dir()}
    keys = {part: {key for found in chunks.values() for key in found} for part, chunks in files.items()}
    if both := sorted(keys["test"] & keys.get("train", set())):
        raise ValueError(f"scene {both[0]} is in train and in test, as are {len(both) - 1} others; remove one of each.")
    entries = read_evaluation_index(Path(source.evaluation_index).expanduser()) if source.evaluation_index else None
    if entries is not None and not keys["test"] & entries.keys():
        raise ValueError(
            f"{CHUNKS_KEY}.evaluation_index is {source.evaluation_index!r}, which knows none of the {len(keys['test'])} "
            "scenes of test/; name the index of this dataset."
        )
    listing = Listing()
    for part, chunks in files.items():
        for chunk in in_processes(partial(listed_chunk, root), list(chunks), workers, f"list {part} chunks"):
            listing.add(part, chunks[chunk["file"]], chunk)
    scenes = split_scenes(listing.scenes, source.train_scenes)
    absent = []
    if entries is not None:
        scenes = select_listed(scenes, entries, listing)
        absent = sorted(key for key, entry in entries.items() if entry is not None and key not in keys["test"])
    write_json(target / "chunks.json", listing.chunks)
    return {
        "dataset": CHUNKED,
        "scenes": scenes,
        "skipped": listing.skipped,
        "excluded": listing.excluded,
        "index": None if entries is None else {"entries": len(entries), "absent": absent},
    }


@lru_cache(maxsize=1)  # one chunk at a time: the scenes of one follow each other
def unchanged_chunk(root: Path, name: str, size: int, sha256: str) -> list[dict]:
    """raises ValueError when the file is gone or is another one than was listed"""
    if [size, sha256] != RawFiles.found(root, [name]).listed.get(name):
        raise ValueError(f"{name} changed after it was listed; restore it, or run dvc repro --force download.")
    return load_chunk(root / name, name)


def chunk_camera(row: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """K (3, 3) in pixels and c2w (4, 4) of a camera's 18 numbers, for an image of `size` (W, H).

    raises    BadFrame
    """
    if not np.isfinite(row).all():
        raise BadFrame("nonfinite_pose", "the camera holds NaN or infinity.")
    width, height = size
    K = np.array([[row[0] * width, 0, row[2] * width], [0, row[1] * height, row[3] * height], [0, 0, 1]])
    w2c = np.vstack([row[6:].reshape(3, 4), [0, 0, 0, 1]])
    if abs(np.linalg.det(w2c[:3, :3])) < 0.5:
        raise BadFrame("bad_rotation", "the pose is no rotation: it flattens space.")
    c2w = np.linalg.inv(w2c)
    c2w[3] = 0, 0, 0, 1
    return K, c2w


def widest_view(cameras: np.ndarray) -> float:
    """The largest field of view, in degrees, across or down, of cameras (N, 18) that have one."""
    focal = cameras[:, :2][np.isfinite(cameras[:, :2]) & (cameras[:, :2] > 0)]
    return float(np.degrees(2 * np.arctan(0.5 / focal)).max(initial=0))


@dataclass(frozen=True, eq=False)
class ChunkFrames:
    """The photographs of one scene of the manifest, those of an evaluation index alone where it names some; read when
    they are asked for.

    listed     size and SHA-256 of the scene's chunk
    size       (W, H) that all must have
    details    of a Recording; filled while the photographs are read
    """

    root: Path
    listed: tuple[int, str]
    scene: dict
    size: tuple[int, int]
    details: dict[str, dict] = field(default_factory=dict)

    @property
    def positions(self) -> list[int]:
        if "contexts" in self.scene:
            return sorted({*self.scene["contexts"], *self.scene["targets"]})
        return list(range(self.scene["frames"]))

    def __call__(self, tally: Tally) -> Iterator[Frame]:
        """raises SceneDropped `bad_shape` or `wide_view`; ValueError when the chunk changed"""
        file = self.scene["file"]
        stored = unchanged_chunk(self.root, file, *self.listed)[self.scene["position"]]
        cameras, images = stored["cameras"].double().numpy(), stored["images"]
        names = [frame_name(position) for position in self.positions]
        sizes = {header_size(images[position].numpy().tobytes()) for position in self.positions} - {None, self.size}
        if sizes:
            found = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            tally.drop("bad_shape", names, f"its images are {found}, not {self.size[0]}x{self.size[1]}.")
        if (angle := widest_view(cameras)) > WIDEST:
            tally.drop("wide_view", names, f"a camera sees {angle:.0f} degrees, over {WIDEST:.0f}.")
        for position, name in zip(self.positions, names):
            try:
                image, _ = decode_photograph(images[position].numpy().tobytes(), self.size)
                K, c2w = chunk_camera(cameras[position], self.size)
                yield Frame(name, image, None, 1.0, None, None, K, c2w, position)
            except (BadPixels, BadFrame) as error:
                tally.skip(error.reason, name, str(error))
        times = stored.get("timestamps")
        if isinstance(times, torch.Tensor) and len(times) == len(images):
            self.details.update(
                {frame_name(position): {"timestamp": int(times[position])} for position in self.positions}
            )


def chunk_recording(dataset: Chunks, root: Path, chunks: dict[str, list], scene: dict) -> Recording:
    """One scene of the manifest."""
    frames = ChunkFrames(root, tuple(chunks[scene["file"]]), scene, tuple(dataset.source.image_size))
    listed = "contexts" in scene
    return Recording(
        scene["id"],
        VIDEOS,
        scene["split"],
        "scene",
        len(frames.positions),
        frames,
        {"license": "the dataset's own", "source": {"key": scene["key"], "chunk": scene["file"]}},
        frames.details,
        # of a listed scene one target is enough; drawn episodes need their gap
        min_frames=3 if listed else max(dataset.episodes.temporal_gap_min + 1, 2 + dataset.episodes.num_targets),
        fingerprint=partial(params_hash, *chunks[scene["file"]], scene, dataset.source.image_size),
        episode=ListedEpisode(
            tuple(map(frame_name, scene["contexts"])), tuple(map(frame_name, scene["targets"])), scene["overlap"]
        )
        if listed
        else None,
    )


def listed_chunk_scenes(dataset: Chunks, raw: Path, manifest: dict) -> Catalogue:
    """The scenes that `download` listed."""
    root = existing_root(dataset.source.root, f"{CHUNKS_KEY}.root", CHUNKS_ROOT_HOLDS)
    chunks = read_json(raw / "chunks.json")
    recordings = [chunk_recording(dataset, root, chunks, scene) for scene in manifest["scenes"]]
    return Catalogue(
        CHUNKED,
        recordings,
        manifest["skipped"],
        on_bad_frame=dataset.source.on_bad_frame,
        max_dropped=dataset.source.max_dropped,
        excluded=manifest["excluded"],
        required=tuple(sorted({recording.split for recording in recordings})),
        index=manifest["index"],
    )
