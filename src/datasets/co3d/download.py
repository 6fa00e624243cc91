"""CO3D v2 from its publisher: the official lists of links and checksums, every archive verified, unpacked, and noted
as done; or the files of a folder filled by hand. Either way data/raw gets a manifest, never the files.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from src.datasets.co3d.archives import extract
from src.datasets.co3d.layout import CO3D_KEY, SUBSETS, annotation_files, categories_in, chosen_categories, tree_root
from src.datasets.json_node import Node
from src.fetching.fetch import FetchError, download, part_of, remote_size
from src.parameters.datasets import Co3d, Co3dSource
from src.reproducible.files import read_json, write_json
from src.reproducible.hashes import file_hash

LINKS, CHECKSUMS, METADATA = "links.json", "co3d_sha256.json", "METADATA"
SPACE = 2.2  # times the archives' bytes: packed and unpacked at once
INSTEAD = f"place the dataset by hand and name its folder in {CO3D_KEY}.root"


@dataclass(frozen=True)
class Archive:
    """A file that the publisher's links name; name: without the subset's suffix, as the publisher's checksums have it;
    sha256: empty when none is stated."""

    url: str
    name: str
    category: str
    sha256: str


def is_url(place: str) -> bool:
    return "://" in place


def official_list(source: Co3dSource, root: Path, name: str) -> Node:
    """links.json or co3d_sha256.json of the pinned upstream; a download is kept, under its address.

    raises    FetchError when it cannot be had, ValueError when it is no JSON object
    """
    path = Path(source.upstream).expanduser() / name
    if is_url(source.upstream):
        address = f"{source.upstream.rstrip('/')}/{name}"
        path = root / ".upstream" / hashlib.sha256(address.encode()).hexdigest()[:16] / name
        try:
            download(address, path)
        except FetchError as error:
            raise FetchError(
                f"CO3D's {name} cannot be had: {error}; name a folder that holds {LINKS} and {CHECKSUMS} "
                f"in {CO3D_KEY}.upstream, or {INSTEAD}."
            ) from error
    elif not path.is_file():
        raise FetchError(
            f"{CO3D_KEY}.upstream is {source.upstream!r}, where there is no {name}; name a folder or address "
            f"that has {LINKS} and {CHECKSUMS}, or {INSTEAD}."
        )
    return Node.read(path.read_bytes(), name)


def archives_of(links: Node, checksums: Node, category: str) -> list[Archive]:
    """A category's files in the order of their links."""
    found = []
    for link in links[category].items():
        file = link.text().rsplit("/", 1)[-1]
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.(zip|json)", file):
            raise link.fault(f"found {link.value!r}, wanted the address of a .zip or .json file")
        name = file.replace("_singlesequence.", ".")
        stated = checksums.get(name)
        found.append(Archive(link.value, name, category, "" if stated is None else stated.text().lower()))
    return found


def listed_archives(source: Co3dSource, root: Path) -> tuple[Archive, list[Archive]]:
    """The subset's list of lists, and the archives of the categories asked for.

    raises    ValueError for a category that the subset does not have, and for an archive without a checksum
    """
    links, checksums = (official_list(source, root, name)[source.subset] for name in (LINKS, CHECKSUMS))
    there = sorted(set(links.typed(dict)) - {METADATA})
    categories = chosen_categories(source.categories, there, f"CO3D's {source.subset} set")
    archives = [archive for category in categories for archive in archives_of(links, checksums, category)]
    unstated = [archive.name for archive in archives if not archive.sha256]
    if unstated and not source.allow_unverified:
        raise ValueError(
            f"{CHECKSUMS} states no checksum of {', '.join(unstated)}; take it from the same place as "
            f"{LINKS}, or set {CO3D_KEY}.allow_unverified to true to do without."
        )
    (metadata,) = archives_of(links, checksums, METADATA)
    return metadata, archives


def archive_address(source: Co3dSource, archive: Archive) -> str:
    """Where an archive is downloaded from."""
    return f"{source.mirror.rstrip('/')}/{archive.url.rsplit('/', 1)[-1]}" if source.mirror else archive.url


def local_copy(source: Co3dSource, archive: Archive) -> Path | None:
    """Its file in a mirror that is a folder, under its official name or the one that the official tool gives it; None
    when the mirror is none.

    raises    FetchError when the folder lacks it
    """
    if not source.mirror or is_url(source.mirror):
        return None
    folder = Path(source.mirror).expanduser()
    for name in (archive.url.rsplit("/", 1)[-1], archive.name):
        if (folder / name).is_file():
            return folder / name
    raise FetchError(
        f"{CO3D_KEY}.mirror ({source.mirror}) holds no {archive.url.rsplit('/', 1)[-1]}; place it there, or "
        f"leave {CO3D_KEY}.mirror empty to download it."
    )


def note_of(root: Path, archive: Archive) -> Path:
    """What is written when an archive has been unpacked."""
    return root / ".extracted" / f"{archive.name}.json"


def unpacked(root: Path, archive: Archive) -> bool:
    """Whether nothing is left to do: it was unpacked, was the same, and its category is still there."""
    if not (note := note_of(root, archive)).is_file() or not (root / archive.category).is_dir():
        return False
    return archive.sha256 in ("", read_json(note)["sha256"])


def checked_hash(path: Path, note: Path) -> str:
    """SHA-256 of a file; read from `note` where that was written for the file as it is."""
    status = path.stat()
    state = {"bytes": status.st_size, "modified": status.st_mtime_ns}
    if note.is_file() and (known := read_json(note)) == known | state:
        return known["sha256"]
    found = file_hash(path)
    write_json(note, state | {"sha256": found})
    return found


def wrong_hash(path: Path, archive: Archive, found: str, remedy: str) -> FetchError:
    return FetchError(f"{path} has SHA-256 {found}, but its publisher states {archive.sha256}; {remedy}.")


def fetched_archive(source: Co3dSource, root: Path, archive: Archive) -> tuple[Path, str]:
    """A verified copy of an archive and its SHA-256; one that arrives wrong is fetched once more.

    raises    FetchError; a download that is wrong twice stays beside it as .bad
    """
    note = root / ".archives" / f"{archive.name}.json"
    if (path := local_copy(source, archive)) is not None:
        if archive.sha256 not in ("", found := checked_hash(path, note)):
            raise wrong_hash(path, archive, found, "replace it")
        return path, found
    path, url = root / ".archives" / archive.name, archive_address(source, archive)
    for last in (False, True):
        try:
            download(url, path)
        except FetchError as error:
            raise FetchError(
                f"CO3D's {archive.name} cannot be had: {error}; what came of it is kept in "
                f"{part_of(path)}: run dvc repro again, name another server or a folder in {CO3D_KEY}.mirror, "
                f"or {INSTEAD}."
            ) from error
        if archive.sha256 in ("", found := checked_hash(path, note)):
            return path, found
        note.unlink()
        if not last:
            path.unlink()
    bad = path.with_name(path.name + ".bad")
    os.replace(path, bad)
    raise wrong_hash(
        bad, archive, found, f"{url} gave it twice: try later, or name another server in {CO3D_KEY}.mirror"
    )


def check_space(source: Co3dSource, root: Path, missing: list[Archive]) -> None:
    """raises FetchError when the disk has less than the missing archives need, as far as the server tells sizes"""
    sizes = []
    for archive in missing:
        local = local_copy(source, archive)
        sizes.append(local.stat().st_size if local else remote_size(archive_address(source, archive)) or 0)
    kept = [part_of(root / ".archives" / archive.name) for archive in missing]
    needed = int(SPACE * sum(sizes)) - sum(part.stat().st_size for part in kept if part.is_file())
    if needed > (free := shutil.disk_usage(root).free):
        raise FetchError(
            f"CO3D's {len(missing)} archives need {needed} bytes in {root}, which has {free} free; free "
            f"some space, name another folder in {CO3D_KEY}.store, or fewer {CO3D_KEY}.categories."
        )


def fetch_metadata(source: Co3dSource, root: Path, metadata: Archive) -> None:
    """The subset's list of lists, which has no checksum: in place once it is whole and read."""
    if (root / SUBSETS).is_file():
        return
    new = root / ".archives" / SUBSETS
    new.parent.mkdir(exist_ok=True)
    if (path := local_copy(source, metadata)) is None:
        try:
            download(archive_address(source, metadata), path := new)
        except FetchError as error:
            raise FetchError(f"CO3D's {SUBSETS} cannot be had: {error}; run dvc repro again, or {INSTEAD}.") from error
    data = path.read_bytes()
    try:
        Node.read(data, SUBSETS)
    except ValueError:
        new.unlink(missing_ok=True)
        raise
    new.write_bytes(data)
    os.replace(new, root / SUBSETS)


def fill_root(source: Co3dSource, root: Path) -> list[Archive]:
    """Make `root` hold the categories asked for, continuing what an earlier run left unfinished."""
    root.mkdir(parents=True, exist_ok=True)
    metadata, archives = listed_archives(source, root)
    fetch_metadata(source, root, metadata)
    missing = [archive for archive in archives if not unpacked(root, archive)]
    check_space(source, root, missing)
    for archive in tqdm(missing, "archives", disable=not missing):
        path, sha256 = fetched_archive(source, root, archive)
        about = extract(path, root)
        write_json(note_of(root, archive), about | {"sha256": sha256, "verified": bool(archive.sha256)})
        if path.parent == root / ".archives" and not source.keep_archives:
            path.unlink()
            path.with_name(path.name + ".json").unlink()
    return archives


def tree_hash(root: Path, category: str) -> str:
    """SHA-256 of the list of a category's files, their paths and sizes."""
    lines = sorted(
        f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n"
        for path in (root / category).rglob("*")
        if path.is_file()
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def manifest_of(root: Path, subset: str, categories: list[str], archives: list[Archive]) -> dict:
    """What `prepare` needs to know, and what it will change with: files, with size and SHA-256, are the annotations;
    sources, by category, the SHA-256 of the archives, or of the list of files where there were none."""
    files, sources = {}, {}
    for category in categories:
        sources[category] = {"files": tree_hash(root, category)}
        for archive in archives:
            if archive.category == category:
                sources[category] |= {archive.name: read_json(note_of(root, archive))["sha256"]}
        for name in annotation_files(root, category):
            if not (path := root / name).is_file():
                raise FileNotFoundError(f"CO3D's {name} is missing in {root}; take it from its publisher.")
            files[name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    unverified = [archive.name for archive in archives if not archive.sha256]
    return {
        "dataset": "co3d",
        "subset": subset,
        "categories": categories,
        "files": files,
        "sources": sources,
        "unverified": unverified,
    }


def fetch_co3d(block: Co3d, folder: Path, workers: int) -> dict:
    """Find or fetch the dataset; the manifest says what was found. Nothing is written to `folder`, and one connection
    serves, whatever the number of workers.

    raises    FetchError, ArchiveError, ValueError, FileNotFoundError: one sentence
    """
    source, archives = block.source, []
    root = tree_root(source)
    if source.root:
        categories = chosen_categories(source.categories, categories_in(root), f"{CO3D_KEY}.root ({source.root})")
    else:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            archives = fill_root(source, root)
        categories = sorted({archive.category for archive in archives})
    return manifest_of(root, source.subset, categories, archives)
