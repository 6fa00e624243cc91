"""Scenes on disk: one immutable safetensors file per scene, its frames encoded, its cameras exact.

A folder of scenes holds index.jsonl (one SceneRecord per line, sorted) and scenes/<id>.safetensors.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from src.reproducible.files import write_whole
from src.scenes.crop import Fit, fit
from src.scenes.pixels import BadPixels, content_hash, decode, depth_metres, encode_jpeg, encode_png

SCENE_SCHEMA = 1
UNITS = ("metre", "scene")
ENCODINGS = {"u16": np.uint16, "f16": np.float16}
PLANES = ("image", "depth", "fg", "flag")
VALID, RELIABLE = 1, 2  # bits of the flags: photometrically valid, depth reliable
INDEX = "index.jsonl"


class SceneError(ValueError):
    """A scene file or index that is not what it should be; the message names the file and what to do."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image as stored: pixels, and the camera that took it.

    image        (H, W, 3)  uint8 sRGB
    depth        (H, W)     uint16 or float16 samples; times `depth_scale` = z-depth in scene units; 0 = invalid
    fg           (H, W)     uint8, foreground probability * 255
    flags        (H, W)     uint8 bit field: 1 = photometrically valid, 2 = depth reliable; None = all of both
    K            (3, 3)     float64, pixels of this image, corner origin (first pixel centre at 0.5)
    c2w          (4, 4)     float64, OpenCV axes, world in scene units
    timestamp               seconds, NaN when unknown
    """

    name: str
    image: np.ndarray
    depth: np.ndarray | None
    depth_scale: float
    fg: np.ndarray | None
    flags: np.ndarray | None
    K: np.ndarray
    c2w: np.ndarray
    frame_number: int
    timestamp: float = float("nan")

    def __post_init__(self) -> None:
        size = self.image.shape[:2]
        wanted = {
            "image": ((*size, 3), ("uint8",)),
            "depth": (size, ("uint16", "float16")),
            "fg": (size, ("uint8",)),
            "flags": (size, ("uint8",)),
            "K": ((3, 3), ("float64",)),
            "c2w": ((4, 4), ("float64",)),
        }
        for name, (shape, dtypes) in wanted.items():
            array = getattr(self, name)
            if array is not None and (array.shape != shape or str(array.dtype) not in dtypes):
                raise ValueError(
                    f"frame {self.name}: {name} must be {shape} {' or '.join(dtypes)}; got {array.shape} {array.dtype}."
                )

    @property
    def size(self) -> tuple[int, int]:
        """(W, H)"""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, eq=False)
class View:
    """One image at the resolution asked for, as tensors.

    image (3, H, W) float32 [0, 1] · depth (H, W) float32 scene units, 0 = invalid or unreliable · valid (H, W) bool,
    photometrically · fg (H, W) float32 [0, 1] or None · K (3, 3) float32 pixels, corner origin · c2w (4, 4) float32,
    the world moved so that the middle of the scene's cameras is its origin: far from it float32 loses the baseline
    """

    name: str
    image: Tensor
    depth: Tensor
    valid: Tensor
    fg: Tensor | None
    K: Tensor
    c2w: Tensor


def packed_frames(plane: str, entries: list[bytes]) -> dict[str, np.ndarray]:
    """Encoded frames joined, frame i = bytes[offsets[i]:offsets[i + 1]]."""
    offsets = np.cumsum([0, *map(len, entries)], dtype=np.int64)
    return {f"{plane}_bytes": np.frombuffer(b"".join(entries), dtype=np.uint8), f"{plane}_offsets": offsets}


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray], key: str, about: dict[str, Any]) -> str:
    """Write a safetensors file atomically, with canonical JSON of `about` as its one metadata entry `key` (several are
    written in random order); equal arguments give equal bytes. Returns the file's SHA-256."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # safetensors ignores strides
    data = save(arrays, {key: json.dumps(about, sort_keys=True, allow_nan=False)})
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def depth_encoding(frames: list[Frame]) -> str:
    """`u16` or `f16`, one for all frames of a scene; `u16` when none has depth."""
    found = {str(frame.depth.dtype) for frame in frames if frame.depth is not None}
    if len(found) > 1:
        raise ValueError(f"depth samples of one scene must have one type; got {' and '.join(sorted(found))}.")
    return "f16" if found == {"float16"} else "u16"


def write_scene(path: str | Path, frames: list[Frame], metadata: dict[str, Any], lossless: bool) -> str:
    """Write a scene file atomically; equal arguments give equal bytes.

    metadata  at least `id`, `category`, `units` (metre | scene); JSON values. An entry `frames` (a dict per frame) is
              merged with each frame's name and content hash
    lossless  images as PNG (targets must not be re-compressed), else JPEG q95 4:4:4; depth is PNG always
    returns   SHA-256 of the file
    raises    ValueError  on repeated names, frames not in order of frame_number, a bad id, unknown units
    """
    names, numbers = [frame.name for frame in frames], [frame.frame_number for frame in frames]
    if not frames or len(set(names)) < len(names) or any(a >= b for a, b in zip(numbers, numbers[1:])):
        raise ValueError(
            f"scene {metadata.get('id')}: needs frames with distinct names in increasing frame_number; "
            f"got {list(zip(names, numbers))}."
        )
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", metadata["id"]):
        raise ValueError(f"scene id {metadata['id']!r} may hold only letters, digits and _ . -")
    if metadata["units"] not in UNITS:
        raise ValueError(f"scene {metadata['id']}: units are {metadata['units']!r}; choose one of {', '.join(UNITS)}.")
    encode = encode_png if lossless else encode_jpeg
    entries = {"image": [encode(frame.image) for frame in frames]}
    for plane, attribute in (("depth", "depth"), ("fg", "fg"), ("flag", "flags")):
        pixels = [getattr(frame, attribute) for frame in frames]
        entries[plane] = [b"" if array is None else encode_png(array) for array in pixels]
    tensors = {name: array for plane in PLANES for name, array in packed_frames(plane, entries[plane]).items()}
    tensors |= {
        "K": np.stack([frame.K for frame in frames]),
        "c2w": np.stack([frame.c2w for frame in frames]),
        "size_wh": np.array([frame.size for frame in frames], np.int32),
        "frame_number": np.array(numbers, np.int64),
        "timestamp": np.array([frame.timestamp for frame in frames], np.float64),
        "depth_scale": np.array([frame.depth_scale for frame in frames], np.float64),
    }
    details = metadata.get("frames") or [{}] * len(frames)
    about = metadata | {
        "schema": SCENE_SCHEMA,
        "pixel_origin": "corner",
        "depth_encoding": depth_encoding(frames),
        "image_encoding": "png" if lossless else "jpeg_q95_444",
        "frames": [
            detail | {"name": frame.name, "content": content_hash(frame.image)}
            for frame, detail in zip(frames, details, strict=True)
        ],
    }
    return write_arrays(path, tensors, "scene", about)


@lru_cache(maxsize=None)
def hash_once(path: Path, changed: int) -> str:
    """SHA-256 of a file, computed once per process and modification."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Scene:
    """A scene file opened lazily: nothing is decoded before it is asked for.

    id, category, units, metadata (dict) · names (list of frame names) · content (list of content hashes) ·
    frame_number (N,) int64 · size_wh (N, 2) · K (N, 3, 3) and c2w (N, 4, 4) float64, at stored size
    """

    frame_number: np.ndarray
    timestamp: np.ndarray
    depth_scale: np.ndarray
    size_wh: np.ndarray
    K: np.ndarray
    c2w: np.ndarray

    def __init__(self, path: Path, file: safe_open) -> None:
        self.path, self._file = path, file
        self.metadata = json.loads(file.metadata()["scene"])
        if self.metadata["schema"] != SCENE_SCHEMA:
            raise SceneError(
                f"{path} has scene schema {self.metadata['schema']}, this code reads {SCENE_SCHEMA}; run dvc repro."
            )
        self.id, self.category, self.units = (self.metadata[key] for key in ("id", "category", "units"))
        self.names = [entry["name"] for entry in self.metadata["frames"]]
        self.content = [entry["content"] for entry in self.metadata["frames"]]
        for name in ("K", "c2w", "size_wh", "frame_number", "timestamp", "depth_scale"):
            array = file.get_tensor(name)
            if len(array) != len(self):
                raise SceneError(f"{path}: {name} has {len(array)} entries for {len(self)} frames; run dvc repro.")
            setattr(self, name, array)
        self._offsets = {plane: self._read_offsets(plane) for plane in PLANES}
        self._bytes = {plane: file.get_slice(f"{plane}_bytes") for plane in PLANES}
        self._depth_type = ENCODINGS[self.metadata["depth_encoding"]]

    @classmethod
    def open(cls, path: str | Path, sha256: str | None = None) -> "Scene":
        """Open a scene file and check its structure; with `sha256`, also that the file still has that hash.

        raises    FileNotFoundError; SceneError when the file is not a scene file, is damaged, or has another hash
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"scene file {path} is missing; run dvc repro.")
        if sha256 is not None and (found := hash_once(path.resolve(), path.stat().st_mtime_ns)) != sha256:
            raise SceneError(
                f"{path} has SHA-256 {found}, but {sha256} was recorded for it: the scene was changed "
                "afterwards; run dvc repro."
            )
        try:
            return cls(path, safe_open(path, framework="numpy"))
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise SceneError(f"{path} is not a scene file of this project ({error!r}); run dvc repro.") from error

    def __len__(self) -> int:
        return len(self.names)

    def _read_offsets(self, plane: str) -> np.ndarray:
        offsets, size = self._file.get_tensor(f"{plane}_offsets"), self._file.get_slice(f"{plane}_bytes").get_shape()[0]
        if len(offsets) != len(self) + 1 or offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
            raise SceneError(
                f"{self.path}: {plane}_offsets do not divide {size} bytes into {len(self)} frames; run dvc repro."
            )
        return offsets

    def index(self, frame: str | int) -> int:
        """Position of a frame given by name or position."""
        if isinstance(frame, str):
            if frame not in self.names:
                raise SceneError(f"scene {self.id} has no frame {frame!r}; it has {', '.join(self.names[:4])}, …")
            return self.names.index(frame)
        return range(len(self))[frame]

    def _pixels(self, plane: str, index: int) -> np.ndarray | None:
        start, stop = map(int, self._offsets[plane][index : index + 2])
        if start == stop and plane != "image":
            return None
        try:
            pixels = decode(self._bytes[plane][start:stop].tobytes())
        except BadPixels as error:
            raise SceneError(f"{self.path}, frame {self.names[index]}, {plane}: {error} Run dvc repro.") from error
        width, height = self.size_wh[index]
        if pixels.shape != ((height, width, 3) if plane == "image" else (height, width)):
            raise SceneError(
                f"{self.path}, frame {self.names[index]}: {plane} decodes to {pixels.shape}, but the "
                f"frame is {width}x{height}; run dvc repro."
            )
        return pixels

    def frame(self, frame: str | int) -> Frame:
        """A frame as stored, decoded."""
        index = self.index(frame)
        image, depth, fg, flags = (self._pixels(plane, index) for plane in PLANES)
        depth = None if depth is None else depth.view(self._depth_type)
        assert image is not None  # `_pixels` leaves out no image
        return Frame(
            self.names[index],
            image,
            depth,
            float(self.depth_scale[index]),
            fg,
            flags,
            self.K[index],
            self.c2w[index],
            int(self.frame_number[index]),
            float(self.timestamp[index]),
        )

    def view(self, frame: str | int, resolution: tuple[int, int]) -> View:
        """A frame at `resolution` (W, H): cropped around the principal point and resized, never squashed; the stored
        pixels themselves when they already have that size.

        raises    SceneError when an entry is damaged, OffCentre when the principal point does not allow the crop
        """
        stored = self.frame(frame)
        fitted = fit(stored.K, stored.size, resolution)
        image = torch.tensor(fitted.image(stored.image)).permute(2, 0, 1).contiguous().float() / 255
        depth, valid = fitted_depth(stored.depth, stored.depth_scale, stored.flags, fitted)
        fg = None if stored.fg is None else torch.tensor(fitted.area(stored.fg)).float() / 255
        return View(
            stored.name,
            image,
            torch.from_numpy(depth),
            torch.from_numpy(valid),
            fg,
            torch.tensor(fitted.K, dtype=torch.float32),
            torch.from_numpy(self.centred(stored.c2w)).float(),
        )

    def centred(self, c2w: np.ndarray) -> np.ndarray:
        """A pose (4, 4) with the middle of all cameras at the origin."""
        moved = c2w.copy()
        moved[:3, 3] -= self.c2w[:, :3, 3].mean(0)
        return moved

    @property
    def depth_fraction(self) -> float:
        """Share of the frames that have depth."""
        return float(np.mean(np.diff(self._offsets["depth"]) > 0))

    def camera(self, frame: str | int, resolution: tuple[int, int]) -> np.ndarray:
        """K (3, 3) float64 of a frame at `resolution` (W, H)."""
        index = self.index(frame)
        return fit(self.K[index], self.size_wh[index], resolution).K

    def depth(self, frame: str | int, resolution: tuple[int, int]) -> Tensor:
        """z-depth (H, W) of a frame at `resolution` as in its view, without decoding the image."""
        index = self.index(frame)
        fitted = fit(self.K[index], self.size_wh[index], resolution)
        samples = self._pixels("depth", index)
        samples = None if samples is None else samples.view(self._depth_type)
        return torch.from_numpy(fitted_depth(samples, self.depth_scale[index], self._pixels("flag", index), fitted)[0])


def fitted_depth(
    samples: np.ndarray | None, scale: float, flags: np.ndarray | None, fitted: Fit
) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) float32, 0 where absent or unreliable, and photometric validity (H, W) bool, at the fitted size."""
    shape = fitted.size[::-1]
    flags = np.full(shape, VALID | RELIABLE, np.uint8) if flags is None else fitted.nearest(flags)
    depth = np.zeros(shape, np.float32) if samples is None else depth_metres(fitted.nearest(samples), scale)
    return np.where(flags & RELIABLE, depth, np.float32(0)), (flags & VALID) > 0


@dataclass(frozen=True)
class SceneRecord:
    """A line of index.jsonl. file is relative to the index; depth_fraction: share of the frames that have depth."""

    id: str
    file: str
    sha256: str
    n_frames: int
    split: str
    units: str
    depth_fraction: float
    category: str


def write_index(folder: str | Path, records: list[SceneRecord]) -> None:
    """index.jsonl of `folder`, sorted by id."""
    lines = [json.dumps(asdict(record), sort_keys=True) for record in sorted(records, key=lambda record: record.id)]
    (Path(folder) / INDEX).write_text("".join(f"{line}\n" for line in lines), encoding="utf8")


def all_in_metres(records: Iterable[SceneRecord]) -> bool:
    """Whether all scenes are in metres; otherwise their scale means nothing."""
    return all(record.units == "metre" for record in records)


def read_index(folder: str | Path) -> list[SceneRecord]:
    """All scenes of a folder, sorted by id.

    raises    FileNotFoundError without an index; SceneError when a line is not a scene's
    """
    path = Path(folder) / INDEX
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run dvc repro prepare.")
    try:
        return [SceneRecord(**json.loads(line)) for line in path.read_text(encoding="utf8").splitlines()]
    except (json.JSONDecodeError, TypeError) as error:
        raise SceneError(f"{path} is not an index of scenes ({error}); run dvc repro prepare.") from error
