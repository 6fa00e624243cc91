"""Stage `prepare`: raw data to checked scenes of one format, split by scene, and the episodes everything is scored on.

    python -m src.prepare [key=value ...]

reads data/raw; writes data/scenes: index.jsonl, scenes/, overlaps/, episodes_{train,val,test,dev}.jsonl, report.json

Scenes that an interrupted run finished are kept in scratch/prepare and not made again.
"""

import os
import shutil
from collections import Counter
from dataclasses import astuple, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Iterator

import numpy as np

from src.config import Config
from src.datasets.captures import listed_captures
from src.datasets.chunks import listed_chunk_scenes
from src.datasets.co3d.scenes import co3d_scenes
from src.datasets.colmap import COLMAP
from src.datasets.conversion import OVERLAP, SCENE, Converted, code_hash, convert
from src.datasets.processes import in_processes
from src.datasets.recording import Catalogue, ListedEpisode, Recording
from src.datasets.scannetpp import listed_rooms
from src.datasets.splits import check_no_leak
from src.datasets.transforms import TRANSFORMS
from src.datasets.usable import Tally
from src.episodes.bins import OVERLAP_BINS
from src.episodes.episodes import (
    EpisodeError,
    SceneViews,
    draw_training_episode,
    evaluation_episodes,
    listed_episode,
    overlap_file,
    write_episodes,
)
from src.parameters.datasets import Episodes, Procedural
from src.reproducible.files import fresh_folder, read_json, write_json
from src.reproducible.seeds import fix_computation
from src.run import run
from src.scenes.choices import SPLITS
from src.scenes.scene import Frame, Scene, SceneRecord, write_index

RAW, SCENES = Path("data/raw"), Path("data/scenes")
SCRATCH = Path("scratch/prepare")  # of an interrupted run: the scenes that were done


def convert_all(
    catalogue: Catalogue, folder: Path, resolution: tuple[int, int], workers: int, scratch: Path
) -> tuple[list[SceneRecord], dict]:
    """Every recording as a scene in `folder`, by way of `scratch`, and the accounting: listed = kept + skipped by
    reason, all named. The result does not depend on the number of worker processes, nor on what is in `scratch`.

    raises    ValueError when two scenes share an id, and when none or too few are left
    """
    counts = Counter(recording.id for recording in catalogue.recordings)
    if doubled := sorted(id for id, count in counts.items() if count > 1):
        raise ValueError(f"scene {', '.join(doubled)} is listed more than once; repair the raw data's lists.")
    recordings, rules = catalogue.recordings, replace(catalogue, recordings=[], skipped={}, excluded={}, index=None)
    job = partial(convert, rules, scratch, resolution, code_hash())
    results = in_processes(job, recordings, workers, "prepare scenes")
    skipped = {reason: list(ids) for reason, ids in catalogue.skipped.items()}
    for recording, result in zip(recordings, results):
        if result.dropped:
            skipped.setdefault(result.dropped, []).append(recording.id)
    records = [result.record for result in results if result.record]
    reports = {recording.id: scene_report(recording, result) for recording, result in zip(recordings, results)}
    accounts = {
        "listed": len(records) + sum(map(len, skipped.values())),
        "kept": len(records),
        "skipped": skipped,
        "excluded": catalogue.excluded,
        "scenes": reports,
    }
    try:
        check_enough(len(records), skipped, catalogue.max_dropped, reports)
    except ValueError as error:
        write_json(scratch / "report.json", accounts)  # the stage's folder will not be there
        raise ValueError(f"{error} All of them: {scratch / 'report.json'}.") from None
    for record in records:
        place_file(scratch / record.id / SCENE, folder / record.file)
        place_file(scratch / record.id / OVERLAP, overlap_file(folder, record.id))
    return records, accounts


def place_file(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no second names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def scene_report(recording: Recording, result: Converted) -> dict:
    """The images of one scene: listed = kept + skipped, every skipped one named."""
    return {
        "split": recording.split,
        "category": recording.category,
        "listed": recording.listed,
        "kept": result.record.n_frames if result.record else 0,
        "dropped": result.dropped,
        "skipped": result.skipped,
        "counts": result.counts,
        "overlap_source": result.overlap_source,
    } | ({"examples": result.examples} if result.examples else {})


def check_enough(kept: int, skipped: dict[str, list[str]], limit: float, reports: dict[str, dict]) -> None:
    """reports: of `scene_report`, by scene.

    raises ValueError when no scene was kept, or a larger share than `limit` was not
    """
    dropped = sum(map(len, skipped.values()))
    if not kept or dropped > limit * (kept + dropped):
        reasons = "; ".join(f"{reason}: {', '.join(ids)}" for reason, ids in sorted(skipped.items()))
        faults = Counter()
        examples: dict[str, str] = {}
        for id in sum(skipped.values(), []):
            report = reports.get(id, {"skipped": {}})
            faults.update({reason: len(names) for reason, names in report["skipped"].items()})
            examples = {reason: f"{id}, {words}" for reason, words in report.get("examples", {}).items()} | examples
        images = "; ".join(
            f"{count} {reason}, such as {examples.get(reason, '')}" for reason, count in faults.most_common()
        )
        raise ValueError(
            f"{dropped} of {kept + dropped} listed scenes cannot be used, at most {limit:.0%} may ({reasons})"
            f"{f': of their images {images}' if images else ''}; repair the raw data, then run "
            "dvc repro --force download and dvc repro."
        )


def choose_episodes(
    records: list[SceneRecord],
    selection: Episodes,
    folder: Path,
    required: tuple[str, ...],
    listed: dict[str, ListedEpisode],
) -> dict:
    """Write the frozen episodes of every split; per split and bin, how many pairs there were and how many were taken.

    listed    by scene, what an evaluation index scores; such a scene has no other episode
    raises    ValueError when a required split offers no episode
    """
    report, by_id = {}, {record.id: record for record in records}
    views_of = lru_cache(maxsize=1)(lambda id: SceneViews.read(folder, by_id[id]))  # one scene in memory at a time
    refused: dict[str, list[str]] = {}
    leaked = 0
    for split in SPLITS:
        episodes, available = [], Counter({bin: 0 for bin in OVERLAP_BINS})
        members = [record.id for record in records if record.split == split]
        for id in members:
            if id in listed:
                chosen, reason, count = listed_episode(views_of(id), *astuple(listed[id]))
                leaked += count
                if chosen is None:
                    refused.setdefault(reason, []).append(id)
                    continue
                episodes.append(chosen)
                available[chosen.bin] += 1
            else:
                found, pairs = evaluation_episodes(views_of(id), selection)
                episodes += found
                available.update(pairs)
        if not episodes and split in required:
            raise ValueError(
                f"The {len(members)} {split} scenes offer no episode with {selection.num_targets} "
                "targets; lower episodes.num_targets of the datasets block, or take more scenes or views."
            )
        write_episodes(folder, split, episodes, views_of)
        taken = Counter(item.bin for item in episodes)
        report[split] = {bin: {"pairs": available[bin], "episodes": taken[bin]} for bin in available}
    return {"episodes": report} | ({"index": {"refused": refused, "leaked_targets": leaked}} if listed else {})


def drop_scenes_without_draws(
    records: list[SceneRecord], selection: Episodes, folder: Path, accounts: dict, limit: float
) -> list[SceneRecord]:
    """The scenes without the training scenes that no episode can be drawn from, which must not stop us in the middle of
    training; `accounts` is told.

    raises    ValueError when a larger share than `limit` of the training scenes offers none
    """
    lost: dict[str, str] = {}
    training = [record for record in records if record.split == "train"]
    for record in training:
        try:
            draw_training_episode(SceneViews.read(folder, record), selection, np.random.default_rng(0))
        except EpisodeError as error:
            lost[record.id] = str(error)
    if len(lost) > limit * len(training):
        raise ValueError(
            f"{len(lost)} of {len(training)} training scenes offer no draw, at most {limit:.0%} may: "
            f"{next(iter(lost.values()))}"
        )
    for record in [record for record in training if record.id in lost]:
        (folder / record.file).unlink()
        overlap_file(folder, record.id).unlink()
        accounts["skipped"].setdefault("no_draw", []).append(record.id)
        accounts["scenes"][record.id] |= {"dropped": "no_draw", "examples": {"no_draw": lost[record.id]}}
    accounts["kept"] -= len(lost)
    return [record for record in records if record.id not in lost]


def contents(folder: Path, records: list[SceneRecord]) -> Iterator[tuple[str, str, str]]:
    """(split, scene and name, content hash) of every image."""
    for record in records:
        scene = Scene.open(folder / record.file)
        for name, content in zip(scene.names, scene.content):
            yield record.split, f"{record.id} {name}", content


def prepare(
    catalogue: Catalogue, folder: Path, resolution: tuple[int, int], selection: Episodes, workers: int, scratch: Path
) -> None:
    """Fill `folder` with scenes, index, episodes and report; `scratch` keeps finished scenes until then."""
    records, report = convert_all(catalogue, folder, resolution, workers, scratch)
    records = drop_scenes_without_draws(records, selection, folder, report, catalogue.max_dropped)
    check_no_leak(contents(folder, records))
    write_index(folder, records)
    listed = {recording.id: recording.episode for recording in catalogue.recordings if recording.episode}
    report |= {"dataset": catalogue.dataset, "resolution": list(resolution)}
    report |= choose_episodes(records, selection, folder, catalogue.required, listed)
    if catalogue.index is not None:
        report["index"] = catalogue.index | report.get("index", {})
    write_json(folder / "report.json", report)


def rendered_frames(path: Path, sha256: str, tally: Tally) -> Iterator[Frame]:
    """All images of a rendered scene; its file is checked against the manifest first."""
    scene = Scene.open(path, sha256)
    for index in range(len(scene)):
        yield scene.frame(index)


def rendered_scenes(dataset: Procedural, raw: Path, manifest: dict) -> Catalogue:
    """The procedural scenes that `download` rendered."""
    recordings = [
        Recording(
            scene["id"],
            scene["category"],
            scene["split"],
            "metre",
            manifest["views"],
            partial(rendered_frames, raw / scene["file"], scene["sha256"]),
            {"license": "none", "source": {"seed": scene["seed"]}},
            fingerprint=partial(str, scene["sha256"]),
        )
        for scene in manifest["scenes"]
    ]
    required = tuple(dict.fromkeys(scene["split"] for scene in manifest["scenes"]))
    return Catalogue("procedural", recordings, min_frames=manifest["views"], required=required)


CATALOGUES = {  # (datasets block, raw folder, its manifest) -> Catalogue
    "procedural": rendered_scenes,
    "co3d": co3d_scenes,
    "scannetpp": listed_rooms,
    "transforms": partial(listed_captures, TRANSFORMS),
    "colmap": partial(listed_captures, COLMAP),
    "chunks": listed_chunk_scenes,
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
        raise ValueError(
            f"{raw} holds dataset {manifest['dataset']}, but data.dataset is {dataset}; run dvc repro download."
        )
    return manifest


def main(config: Config) -> None:
    fix_computation(config.threads)
    name = config.data.dataset
    catalogue = CATALOGUES[name](config.dataset, RAW, read_manifest(RAW, name))
    with fresh_folder(SCENES) as folder:
        prepare(
            replace(catalogue, crop=config.data.crop),
            folder,
            tuple(config.dataset.resolution),
            config.dataset.episodes,
            config.threads,
            SCRATCH,
        )
    shutil.rmtree(SCRATCH)


if __name__ == "__main__":
    run(main, "prepare")
