"""Stage `prepare`: raw data to checked scenes of one format, split by scene, and the episodes everything is scored on.

reads data/raw; writes data/scenes: index.jsonl, scenes/, overlaps/, episodes_{train,val,test}.jsonl, report.json
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Iterator

import numpy as np

from src.config import Config, Episodes, Procedural, run
from src.crop import fit, fit_published, fit_stored
from src.datasets.co3d import co3d_scenes
from src.datasets.scannetpp import listed_rooms
from src.datasets.transforms import listed_captures
from src.episodes import BINS, SceneViews, draw_training_episode, evaluation_episodes, write_episodes
from src.folders import fresh_folder
from src.overlap import covisibility, write_overlap
from src.processes import in_processes
from src.provenance import fix_computation, read_json, write_json
from src.recording import Catalogue, Recording
from src.scene import Frame, Scene, SceneRecord, write_index, write_scene
from src.splits import SPLITS, check_no_leak
from src.validation import SceneDropped, Tally, check_scene, usable_frames

RAW, SCENES = Path("data/raw"), Path("data/scenes")
CONVERTER = 1  # raise when the same raw data would give other scene files


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


@dataclass(frozen=True, eq=False)
class Converted:
    """What became of one recording: its views, or the reason why it was dropped; and the tally of its photographs."""

    views: SceneViews | None
    dropped: str | None
    tally: Tally


def convert(rules: Catalogue, folder: Path, resolution: tuple[int, int], recording: Recording) -> Converted:
    """Worker: check and write one scene, and the overlap of its views at `resolution`."""
    tally = Tally(rules.on_bad_frame)
    try:
        frames = [shrunk(frame, rules.crop, resolution) for frame in usable_frames(recording.frames(tally), tally)]
        frames = check_scene(frames, tally, rules.min_frames)
    except SceneDropped as error:
        return Converted(None, error.reason, tally)
    tally.count("upscaled", sum(fit(frame.K, frame.size, resolution).upscaled for frame in frames))
    assert len(frames) + tally.total_skipped == recording.listed, f"{recording.id}: a photograph is unaccounted for"
    return Converted(write_views(rules.dataset, folder, resolution, recording, frames, tally), None, tally)


def write_views(dataset: str, folder: Path, resolution: tuple[int, int], recording: Recording, frames: list[Frame],
                tally: Tally) -> SceneViews:
    """The scene file of checked frames and its overlap file, in `folder`."""
    about = {"dataset": dataset, "id": recording.id, "category": recording.category, "units": recording.units,
             "converter": {"version": CONVERTER, "pillow": version("pillow")}, "listed": recording.listed,
             "kept": len(frames), "skipped": tally.skipped, "counts": dict(tally.counts),
             "frames": [recording.details.get(frame.name, {}) for frame in frames]}
    file = f"scenes/{recording.id}.safetensors"
    digest = write_scene(folder / file, frames, recording.metadata | about, lossless=recording.split != "train")
    scene = Scene.open(folder / file)
    overlap = covisibility(scene, resolution, recording.points)
    if overlap.source == "depth":
        tally.count("no_valid_depth", int((overlap.usable == 0).sum()))
    write_overlap(folder / "overlaps" / f"{recording.id}.safetensors", overlap, digest)
    record = SceneRecord(recording.id, file, digest, len(frames), recording.split, recording.units,
                         scene.depth_fraction, recording.category)
    return SceneViews.of(record, scene, overlap)


def convert_all(catalogue: Catalogue, folder: Path, resolution: tuple[int, int], workers: int
                ) -> tuple[dict[str, SceneViews], dict]:
    """Every recording as a scene in `folder`, and the accounting: listed = kept + skipped by reason, all named. The
    result does not depend on the number of worker processes.

    raises    ValueError when two scenes share an id, or none or too few are left
    """
    counts = Counter(recording.id for recording in catalogue.recordings)
    if doubled := sorted(id for id, count in counts.items() if count > 1):
        raise ValueError(f"scene {', '.join(doubled)} is listed more than once; repair the raw data's lists.")
    recordings, rules = catalogue.recordings, replace(catalogue, recordings=[], skipped={}, excluded={})
    job = partial(convert, rules, folder, resolution)
    results = in_processes(job, recordings, workers, "prepare scenes")
    skipped = {reason: list(ids) for reason, ids in catalogue.skipped.items()}
    for recording, result in zip(recordings, results):
        if result.dropped:
            skipped.setdefault(result.dropped, []).append(recording.id)
    scenes = {recording.id: result.views for recording, result in zip(recordings, results) if result.views}
    check_enough(len(scenes), skipped, catalogue.max_dropped)
    reports = {recording.id: scene_report(recording, result) for recording, result in zip(recordings, results)}
    listed = len(scenes) + sum(map(len, skipped.values()))
    return scenes, {"listed": listed, "kept": len(scenes), "skipped": skipped, "excluded": catalogue.excluded,
                    "scenes": reports}


def scene_report(recording: Recording, result: Converted) -> dict:
    """The photographs of one scene: listed = kept + skipped, every skipped one named."""
    views = result.views
    return {"split": recording.split, "category": recording.category, "listed": recording.listed,
            "kept": views.record.n_frames if views else 0, "dropped": result.dropped, "skipped": result.tally.skipped,
            "counts": dict(result.tally.counts), "overlap_source": views.overlap.source if views else None}


def check_enough(kept: int, skipped: dict[str, list[str]], limit: float) -> None:
    """raises ValueError when no scene was kept, or a larger share than `limit` was not"""
    dropped = sum(map(len, skipped.values()))
    if not kept or dropped > limit * (kept + dropped):
        reasons = "; ".join(f"{reason}: {', '.join(ids)}" for reason, ids in sorted(skipped.items()))
        raise ValueError(f"{dropped} of {kept + dropped} listed scenes cannot be used, at most {limit:.0%} may "
                         f"({reasons}); repair the raw data and run dvc repro again.")


def choose_episodes(scenes: dict[str, SceneViews], selection: Episodes, folder: Path, required: tuple[str, ...]) -> dict:
    """Write the frozen episodes of every split; per split and bin, how many pairs there were and how many were taken.

    raises    ValueError when a required split offers no episode, or a training scene no draw
    """
    report = {}
    for split in SPLITS:
        episodes, available = [], Counter({bin: 0 for bin in BINS})
        members = [views for views in scenes.values() if views.record.split == split]
        for views in members:
            chosen, pairs = evaluation_episodes(views, selection)
            episodes += chosen
            available.update(pairs)
            if split == "train":  # a scene without any draw must stop us here, not in the middle of training
                draw_training_episode(views, selection, np.random.default_rng(0))
        if not episodes and split in required:
            raise ValueError(f"The {len(members)} {split} scenes offer no episode with {selection.num_targets} "
                             "targets; lower episodes.num_targets of the datasets block, or take more scenes or views.")
        write_episodes(folder, split, episodes, scenes)
        taken = Counter(item.bin for item in episodes)
        report[split] = {bin: {"pairs": available[bin], "episodes": taken[bin]} for bin in available}
    return report


def prepare(catalogue: Catalogue, folder: Path, resolution: tuple[int, int], selection: Episodes, workers: int) -> None:
    """Fill `folder` with scenes, index, episodes and report."""
    scenes, report = convert_all(catalogue, folder, resolution, workers)
    check_no_leak((views.record.split, f"{views.record.id} {name}", content)
                  for views in scenes.values() for name, content in zip(views.names, views.content))
    write_index(folder, [views.record for views in scenes.values()])
    report |= {"dataset": catalogue.dataset, "resolution": list(resolution),
               "episodes": choose_episodes(scenes, selection, folder, catalogue.required)}
    write_json(folder / "report.json", report)


def rendered_frames(path: Path, sha256: str, tally: Tally) -> Iterator[Frame]:
    """All photographs of a rendered scene; its file is checked against the manifest first."""
    scene = Scene.open(path, sha256)
    for index in range(len(scene)):
        yield scene.frame(index)


def rendered_scenes(dataset: Procedural, raw: Path, manifest: dict) -> Catalogue:
    """The procedural scenes that `download` rendered."""
    recordings = [
        Recording(scene["id"], scene["category"], scene["split"], "metre", manifest["views"],
                  partial(rendered_frames, raw / scene["file"], scene["sha256"]),
                  {"license": "none", "source": {"seed": scene["seed"]}})
        for scene in manifest["scenes"]]
    return Catalogue("procedural", recordings, min_frames=manifest["views"])


CATALOGUES = {  # (datasets block, raw folder, its manifest) -> Catalogue
    "procedural": rendered_scenes,
    "co3d": co3d_scenes,
    "scannetpp": listed_rooms,
    "transforms": listed_captures,
}


def read_manifest(raw: Path, dataset: str) -> dict:
    """What `download` listed.

    raises    FileNotFoundError without a manifest; ValueError when it is another dataset's
    """
    path = raw / "manifest.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run dvc repro download.")
    manifest = read_json(path)
    if manifest["dataset"] != dataset:
        raise ValueError(f"{raw} holds dataset {manifest['dataset']}, but data.dataset is {dataset}; run dvc repro "
                         "download.")
    return manifest


def main(config: Config) -> None:
    fix_computation(config.threads)
    name = config.data.dataset
    catalogue = CATALOGUES[name](config.dataset, RAW, read_manifest(RAW, name))
    with fresh_folder(SCENES) as folder:
        prepare(replace(catalogue, crop=config.data.crop), folder, tuple(config.dataset.resolution),
                config.dataset.episodes, config.threads)


if __name__ == "__main__":
    run(main, "prepare")
