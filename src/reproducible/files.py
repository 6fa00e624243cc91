"""Folders and files that appear whole or not at all."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator


@contextmanager
def fresh_folder(path: str | Path) -> Iterator[Path]:
    """An empty sibling of `path` to write into; it takes the place of `path` when the block ends well, and is removed,
    `path` untouched, when the block raises."""
    path = Path(path)
    temporary, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    if old.exists() and not path.exists():  # a run was killed between the two renames below
        os.replace(old, path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary)
        raise
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def usual_mode(path: str | Path) -> None:
    """Give a file the mode that a new one has by the umask; safetensors makes its own readable to their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A sibling of `path` with its suffix to write to; it takes the place of `path` when the block ends well, and is
    removed, `path` untouched, when the block raises."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial.{path.name}")
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    usual_mode(partial)
    os.replace(partial, path)


def write_whole(path: str | Path, data: bytes) -> None:
    """A file, or in the place of an existing one, only once all of it is written."""
    with whole_file(path) as partial:
        partial.write_bytes(data)


def existing_root(root: str | None, key: str, holds: str) -> Path:
    """The folder that parameter `key` names, which must exist and `holds` what the sentence says.

    raises    ValueError when the parameter is empty, FileNotFoundError when there is no such folder
    """
    if not root:
        raise ValueError(f"{key} is empty; set it in params.yaml to the folder that holds {holds}.")
    if not (path := Path(root).expanduser()).is_dir():
        raise FileNotFoundError(f"{key} is {root!r}, but there is no such folder; it must hold {holds}.")
    return path


def write_json(path: str | Path, content: object) -> None:
    """Canonical JSON (sorted keys, no NaN), in place atomically."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")


def read_json(path: str | Path) -> dict:
    return json.loads(Path(path).read_text(encoding="utf8"))
