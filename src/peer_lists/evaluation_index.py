"""Evaluation indices of pixelSplat and NoPoSplat: JSON, scene -> {"context": [positions], "target": [positions]} or null.

Their scenes are listed in the index.json of a folder of .torch files: scene -> file. Positions count the images of a
scene from 0.
"""

from pathlib import Path
from typing import Iterator

from src.datasets.chunks import CHUNK_INDEX, IndexEntry, chunk_files, entry_of, load_chunk
from src.datasets.json_node import Node
from src.peer_lists.findings import Finding, fault, note
from src.scenes.scene import INDEX, read_index


def entry_faults(entry: IndexEntry, count: int | None) -> list[str]:
    """What is wrong with the views of a scene of `count` images (None = not known)."""
    both = sorted(set(entry.contexts) & set(entry.targets))
    views = sorted({*entry.contexts, *entry.targets})
    outside = [view for view in views if view < 0 or (count is not None and view >= count)]
    faults = {
        f"targets {both} are contexts": bool(both),
        f"contexts {entry.contexts} repeat a view": len(set(entry.contexts)) < len(entry.contexts),
        f"targets {entry.targets} repeat a view": len(set(entry.targets)) < len(entry.targets),
        f"{len(entry.contexts)} contexts, two are needed": len(entry.contexts) < 2,
        "no target": not entry.targets,
        f"views {outside} are not among the scene's {'' if count is None else f'{count} '}images": bool(outside),
    }
    return [message for message, present in faults.items() if present]


def image_counts(folder: Path) -> dict[str, int]:
    """Images per scene of a folder that `prepare` wrote, or of a folder of .torch files.

    raises    FileNotFoundError, ValueError
    """
    if (folder / INDEX).exists():
        return {record.id: record.n_frames for record in read_index(folder)}
    if not (folder / CHUNK_INDEX).exists():
        raise FileNotFoundError(f"{folder} holds neither {INDEX} nor {CHUNK_INDEX}; name a folder of scenes.")
    counts = {}
    for file, scenes in sorted(chunk_files(folder.parent, folder.name).items()):
        found = {scene["key"]: len(scene["images"]) for scene in load_chunk(folder.parent / file, file)}
        counts |= {scene: found[scene] for scene in scenes if scene in found}
    return counts


def index_findings(path: Path, folder: Path | None) -> Iterator[Finding]:
    """What an evaluation index holds, and everything wrong with it; with a folder of its scenes, also whether they have
    the images.

    raises    ValueError, FileNotFoundError when a file cannot be read at all
    """
    top = Node.read(path.read_bytes(), path.name)
    counts = None if folder is None else image_counts(folder)
    entries, empty = [], []
    for scene, value in top.value.items():
        if value is None:
            empty.append(scene)
            continue
        if counts is not None and scene not in counts:
            yield fault(f"{path.name}: scene {scene} is not in {folder}")
        try:
            entry = entry_of(top[scene])
        except ValueError as error:
            yield fault(error)
            continue
        entries.append(entry)
        for message in entry_faults(entry, counts and counts.get(scene)):
            yield fault(f"{path.name}: scene {scene}: {message}")
    yield from totals(path.name, entries, empty)


def totals(name: str, entries: list[IndexEntry], empty: list[str]) -> Iterator[Finding]:
    if empty:
        yield note(f"{name}: {len(empty)} scenes are null and not scored: {', '.join(empty)}")
    spans = [(min(entry.contexts), max(entry.contexts)) for entry in entries if entry.contexts]
    targets = [target for entry in entries for target in entry.targets]
    beyond = sum(
        not min(entry.contexts) < target < max(entry.contexts)
        for entry in entries
        if entry.contexts
        for target in entry.targets
    )
    yield note(
        f"{name}: {len(entries)} scenes with {len(targets)} targets, {beyond} of them not between their contexts"
    )
    if spans:
        gaps = sorted(last - first for first, last in spans)
        yield note(f"{name}: contexts lie {gaps[0]} to {gaps[-1]} positions apart, median {gaps[len(gaps) // 2]}")
