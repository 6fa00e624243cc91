"""One recording to one scene file and the overlap file of its views, kept until the whole dataset is done.

A finished scene lies in a folder of its own with a note of what it was made from. A run that follows an interrupted one
takes it from there, if it would be made from the same and its files still have the hashes noted.
"""

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from src.datasets.recording import Catalogue, Recording
from src.datasets.usable import SceneDropped, Tally, check_scene, usable_frames
from src.episodes.overlap import covisibility, write_overlap
from src.reproducible.files import read_json, write_json
from src.reproducible.hashes import file_hash, module_hashes, params_hash
from src.reproducible.versions import versions
from src.scenes.crop import fit, fit_published, fit_stored
from src.scenes.scene import Frame, Scene, SceneRecord, write_scene

CONVERTER = 2  # raise when the same raw data would give other scene files
SCENE, OVERLAP, NOTE = "scene.safetensors", "overlap.safetensors", "converted.json"


def shrunk(frame: Frame, crop: str, resolution: tuple[int, int]) -> Frame:
    """A frame at stored size: cut around the principal point, short side at most 512 pixels, small ones unchanged; with
    crop `splatt3r` at `resolution` (W, H), as the published experiments cut it."""
    published = crop == "splatt3r"
    fitted = fit_published(frame.K, frame.size, resolution) if published else fit_stored(frame.K, frame.size)
    planes = {"image": fitted.image(frame.image), "K": fitted.K}
    for name, resize in (("depth", fitted.nearest), ("fg", fitted.area), ("flags", fitted.nearest)):
        pixels = getattr(frame, name)
        planes[name] = None if pixels is None else resize(pixels)
    return replace(frame, **planes)


@dataclass(frozen=True)
class Converted:
    """What became of one recording: its scene, or the reason why it was dropped; of its photographs those skipped, by
    reason and name, with the first one's fault in words, and what was noticed, as numbers. Nothing here grows with a
    photograph's size."""

    record: SceneRecord | None
    overlap_source: str | None
    dropped: str | None
    skipped: dict[str, list[str]]
    counts: dict[str, int]
    examples: dict[str, str]

    @classmethod
    def of(
        cls,
        tally: Tally,
        record: SceneRecord | None = None,
        overlap_source: str | None = None,
        dropped: str | None = None,
    ) -> "Converted":
        return cls(record, overlap_source, dropped, tally.skipped, dict(tally.counts), tally.examples)


def code_hash() -> str:
    """A name for the project's modules that are loaded, and the versions of what computes."""
    return params_hash(module_hashes("src."), versions() | {"pillow": version("pillow")})


def origin(rules: Catalogue, resolution: tuple[int, int], code: str, recording: Recording) -> str | None:
    """A name for everything that decides a recording's files; None when its raw data have no name."""
    if recording.fingerprint is None:
        return None
    return params_hash(
        code,
        rules.dataset,
        rules.min_frames,
        recording.min_frames,
        rules.on_bad_frame,
        rules.crop,
        list(resolution),
        recording.id,
        recording.split,
        recording.metadata,
        recording.fingerprint(),
    )


def finished(place: Path, made_from: str | None) -> Converted | None:
    """What an interrupted run left of a recording, when it was made from the same and is undamaged."""
    if made_from is None or not (place / NOTE).exists():
        return None
    note = read_json(place / NOTE)
    if note["made_from"] != made_from:
        return None
    if any(not (place / name).exists() or file_hash(place / name) != digest for name, digest in note["files"].items()):
        return None
    about = note["converted"]
    return Converted(**about | {"record": about["record"] and SceneRecord(**about["record"])})


def convert(rules: Catalogue, scratch: Path, resolution: tuple[int, int], code: str, recording: Recording) -> Converted:
    """Worker: check and write one scene, and the overlap of its views at `resolution`, into scratch/<id>; or find that
    an interrupted run has done it."""
    place, made_from = scratch / recording.id, origin(rules, resolution, code, recording)
    if done := finished(place, made_from):
        return done
    place.mkdir(parents=True, exist_ok=True)
    (place / NOTE).unlink(missing_ok=True)
    converted = checked_and_written(rules, place, resolution, recording)
    names = (SCENE, OVERLAP) if converted.record else ()
    write_json(
        place / NOTE,
        {
            "made_from": made_from,
            "converted": asdict(converted),
            "files": {name: file_hash(place / name) for name in names},
        },
    )
    return converted


def checked_and_written(rules: Catalogue, place: Path, resolution: tuple[int, int], recording: Recording) -> Converted:
    """raises    ValueError for what no dataset may have"""
    tally = Tally(rules.on_bad_frame)
    try:
        frames = [shrunk(frame, rules.crop, resolution) for frame in usable_frames(recording.frames(tally), tally)]
        least = rules.min_frames if recording.min_frames is None else recording.min_frames
        frames, dropped = check_scene(frames, tally, least), None
    except SceneDropped as error:
        frames, dropped = [], error.reason
    assert len(frames) + tally.total_skipped == recording.listed, f"{recording.id}: a photograph is unaccounted for"
    if dropped:
        return Converted.of(tally, dropped=dropped)
    tally.count("upscaled", sum(fit(frame.K, frame.size, resolution).upscaled for frame in frames))
    return write_views(rules.dataset, place, resolution, recording, frames, tally)


def write_views(
    dataset: str, place: Path, resolution: tuple[int, int], recording: Recording, frames: list[Frame], tally: Tally
) -> Converted:
    """The scene file of checked frames and its overlap file, in `place`."""
    about = {
        "dataset": dataset,
        "id": recording.id,
        "category": recording.category,
        "units": recording.units,
        "converter": {"version": CONVERTER, "pillow": version("pillow")},
        "listed": recording.listed,
        "kept": len(frames),
        "skipped": tally.skipped,
        "counts": dict(tally.counts),
        "frames": [recording.details.get(frame.name, {}) for frame in frames],
    }
    digest = write_scene(place / SCENE, frames, recording.metadata | about, lossless=recording.split != "train")
    scene = Scene.open(place / SCENE)
    overlap = covisibility(scene, resolution, recording.points)
    if overlap.source == "depth":
        tally.count("no_valid_depth", int((overlap.usable == 0).sum()))
    write_overlap(place / OVERLAP, overlap, digest)
    record = SceneRecord(
        recording.id,
        f"scenes/{recording.id}.safetensors",
        digest,
        len(frames),
        recording.split,
        recording.units,
        scene.depth_fraction,
        recording.category,
    )
    return Converted.of(tally, record, overlap.source)
