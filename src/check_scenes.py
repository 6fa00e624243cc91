"""Linter of datasets: everything that could flatter or spoil a score, one line each; exit status 1 if there is a fault.

python -m src.check_scenes [data/scenes]               a folder that `prepare` wrote
python -m src.check_scenes index.json [SCENES]         an evaluation index of pixelSplat or NoPoSplat, its scenes
python -m src.check_scenes FOLDER SCANNETPP            coverage/ and test_set_*.json of Splatt3R, ScanNet++'s root
"""

import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Iterator

from src.datasets.scannetpp import SCANNETPP_ROOT_HOLDS
from src.datasets.splits import leaks
from src.datasets.usable import Tally, check_frame
from src.episodes.episodes import BROKEN_LINE, Episode, SceneViews, episode_faults, episode_of, file_of, overlap_file
from src.episodes.overlap import overlap_findings, read_overlap
from src.peer_lists.evaluation_index import index_findings
from src.peer_lists.findings import Finding, fault, note
from src.peer_lists.splatt3r_sets import set_findings
from src.reproducible.files import existing_root, read_json
from src.reproducible.hashes import file_hash
from src.run import Words, mistakes_explained
from src.scenes.choices import SCORED_SPLITS, SPLITS
from src.scenes.pixels import content_hash
from src.scenes.scene import INDEX, Scene, SceneError, SceneRecord, read_index

SCENES, REPORT = "data/scenes", "report.json"
StoredImage = tuple[str, str, str]  # split, scene and name, content hash


def frame_findings(scene: Scene, number: int) -> tuple[list[Finding], str | None]:
    """What is wrong with one image, its camera and its depth; the content hash of its pixels as stored."""
    where = f"scene {scene.id}, frame {scene.names[number]}"
    try:
        frame = scene.frame(number)
        content, lossless = content_hash(frame.image), scene.metadata["image_encoding"] == "png"
        found = []
        if lossless and content != scene.content[number]:
            found.append(fault(f"{where}: its pixels are not those whose hash was recorded"))
        if frame.image.any() and (frame.image == frame.image[0, 0]).all():
            found.append(fault(f"{where}: the image is one colour everywhere"))
    except SceneError as error:
        return [fault(error)], None
    try:
        check_frame(frame, Tally())
    except ValueError as error:
        found.append(fault(f"{where}: {error}"))
    return found, content


def record_findings(record: SceneRecord, scene: Scene, digest: str) -> Iterator[Finding]:
    """Where the index and a scene file disagree."""
    if digest != record.sha256:
        yield fault(
            f"{record.file} has SHA-256 {digest}, but {INDEX} says {record.sha256}: the scene was changed "
            "afterwards; run dvc repro prepare"
        )
    about = {
        "id": scene.id,
        "category": scene.category,
        "units": scene.units,
        "n_frames": len(scene),
        "depth_fraction": scene.depth_fraction,
    }
    for key, found in about.items():
        if (told := getattr(record, key)) != found:
            yield fault(f"{record.file}: {key} is {found}, but {INDEX} says {told}")


def scene_findings(
    folder: Path, record: SceneRecord, images: list[StoredImage], resolution: tuple[int, int] | None
) -> Iterator[Finding]:
    """What is wrong with a scene's files; its images are added to those seen. resolution: (W, H) that overlap was
    measured at, where that is known."""
    try:
        scene = Scene.open(folder / record.file)
    except (FileNotFoundError, SceneError) as error:
        yield fault(error)
        return
    first, own = {}, [*record_findings(record, scene, file_hash(folder / record.file))]
    yield from own
    for number, name in enumerate(scene.names):
        found, stored = frame_findings(scene, number)
        yield from found
        own += found
        contents = {scene.content[number], stored} - {None}  # of the image as taken, and as stored
        twins = sorted({first[content] for content in contents if content in first})
        yield from (fault(f"scene {scene.id}: frames {twin} and {name} show the same pixels") for twin in twins)
        for content in sorted(contents):
            first.setdefault(content, name)
            images.append((record.split, f"{record.id} {name}", content))
    try:
        overlap = read_overlap(overlap_file(folder, record.id), scene.names, record.sha256)
        if resolution is not None and not any(finding.fault for finding in own):
            found = overlap_findings(overlap, scene, resolution)
            yield from (fault(f"{overlap_file(folder, record.id)}: {words}; run dvc repro prepare") for words in found)
    except (FileNotFoundError, ValueError) as error:
        yield fault(error)


def leak_findings(records: list[SceneRecord], images: list[StoredImage]) -> Iterator[Finding]:
    """Scenes listed twice; scenes and images that occur in two splits."""
    for id, count in Counter(record.id for record in records).items():
        if count > 1:
            yield fault(f"scene {id} is listed {count} times in {INDEX}")
    scenes = [(record.split, f"scene {record.id}", record.id) for record in records]
    yield from map(fault, dict.fromkeys([*leaks(scenes), *leaks(images)]))


def parsed(path: Path) -> Iterator[Episode | Finding]:
    for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), 1):
        try:
            yield episode_of(line)
        except BROKEN_LINE as error:
            yield fault(f"{path.name}, line {number}, is no episode ({error!r})")


def episode_findings(folder: Path, records: list[SceneRecord], split: str) -> Iterator[Finding]:
    """What is wrong with the frozen episodes of one split."""
    path, members = file_of(folder, split), [record.id for record in records if record.split == split]
    if not path.exists():
        yield fault(f"{path} is missing; run dvc repro prepare")
        return
    by_id = {record.id: record for record in records}
    views_of = lru_cache(maxsize=1)(lambda id: readable_views(folder, by_id[id]))
    ids = Counter()
    for item in parsed(path):
        if isinstance(item, Finding):
            yield item
            continue
        ids[item.id] += 1
        if item.scene not in by_id:
            yield fault(f"episode {item.id} of {path.name} names scene {item.scene}, which is not in {INDEX}")
            continue
        if views := views_of(item.scene):
            found = episode_faults(item, views, split)
        else:  # the scene's own fault is told already
            found = ["cannot be checked against its scene"]
        yield from (fault(f"episode {item.id} of {path.name} {words}") for words in found)
    yield from (fault(f"episode {id} occurs {count} times in {path.name}") for id, count in ids.items() if count > 1)
    if not members and split not in SCORED_SPLITS:
        yield note(f"split {split} has no scenes")
    elif members and not ids:
        yield fault(f"split {split} has {len(members)} scenes and no episode")


def readable_views(folder: Path, record: SceneRecord) -> SceneViews | None:
    try:
        return SceneViews.read(folder, record)
    except (FileNotFoundError, ValueError):
        return None


def measured_at(folder: Path) -> tuple[int, int] | None:
    """The resolution (W, H) that the report tells; None where it does not, which is a fault of its own."""
    try:
        width, height = read_json(folder / REPORT)["resolution"]
        return int(width), int(height)
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def report_findings(folder: Path, records: list[SceneRecord]) -> Iterator[Finding]:
    """Whether every listed scene and image is accounted for: listed = kept + skipped."""
    try:
        report = read_json(folder / REPORT)
        yield from sums("scenes", report)
        kept = {id: about for id, about in report["scenes"].items() if about["dropped"] is None}
        for id, about in report["scenes"].items():
            yield from sums(f"images of scene {id}", about)
        frames = {record.id: record.n_frames for record in records}
        for id in sorted(frames.keys() | kept.keys()):
            told = kept[id]["kept"] if id in kept else None
            if frames.get(id) != told:
                yield fault(f"{REPORT}: scene {id} keeps {told} images, but {INDEX} says {frames.get(id)}")
        if report["kept"] != len(kept):
            yield fault(f"{REPORT}: {report['kept']} scenes were kept, but it describes {len(kept)}")
    except FileNotFoundError:
        yield fault(f"{folder / REPORT} is missing; run dvc repro prepare")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        yield fault(f"{folder / REPORT} is not an account of scenes ({error!r}); run dvc repro prepare")


def sums(what: str, about: dict) -> Iterator[Finding]:
    skipped = sum(map(len, about["skipped"].values()))
    if about["listed"] != about["kept"] + skipped:
        yield fault(f"{REPORT}: {about['listed']} {what} were listed, but {about['kept']} kept and {skipped} skipped")


def file_findings(folder: Path, records: list[SceneRecord]) -> Iterator[Finding]:
    """Files that nothing lists."""
    known = {folder / INDEX, folder / REPORT, *(file_of(folder, split) for split in SPLITS)}
    for record in records:
        known |= {folder / record.file, overlap_file(folder, record.id)}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in known:
            yield fault(f"{path} belongs to no scene of {INDEX}; remove it")


def folder_findings(folder: Path) -> Iterator[Finding]:
    """Everything wrong with a folder that `prepare` wrote."""
    try:
        records = read_index(folder)
    except (FileNotFoundError, SceneError) as error:
        yield fault(error)
        return
    images, resolution = [], measured_at(folder)
    for record in records:
        yield from scene_findings(folder, record, images, resolution)
    yield from leak_findings(records, images)
    for split in SPLITS:
        yield from episode_findings(folder, records, split)
    yield from report_findings(folder, records)
    yield from file_findings(folder, records)
    splits = Counter(record.split for record in records)
    if not any(splits[split] for split in SCORED_SPLITS):
        yield fault(f"no scene is of {' or '.join(SCORED_SPLITS)}, so there is nothing to score")
    yield note(
        f"{folder}: {sum(record.n_frames for record in records)} images in {len(records)} scenes, of these "
        + ", ".join(f"{splits[split]} {split}" for split in SPLITS if splits[split])
    )


def findings(path: Path, beside: str | None) -> Iterator[Finding]:
    """What the files at `path` are is seen from what is there.

    raises    FileNotFoundError, ValueError when there is nothing to look at
    """
    if path.is_file():
        return index_findings(path, None if beside is None else Path(beside))
    if any(path.glob("test_set_*.json")):
        return set_findings(existing_root(beside, "the second argument", SCANNETPP_ROOT_HOLDS), path)
    return folder_findings(path)


def main(path: str = SCENES, beside: str | None = None) -> bool:
    """Print all findings; is there a fault?"""
    faults = 0
    for finding in findings(Path(path), beside):
        print(finding, flush=True)
        faults += finding.fault
    print(f"{faults} {'fault' if faults == 1 else 'faults'}")
    return faults > 0


if __name__ == "__main__":
    words = Words("check_scenes")
    words.add_argument("path", nargs="?", default=SCENES)
    words.add_argument("beside", nargs="?")
    asked = words.parse_args()
    with mistakes_explained():
        sys.exit(int(main(asked.path, asked.beside)))
