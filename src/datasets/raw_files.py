"""Datasets that stay where the user keeps them: `download` lists their files with size and SHA-256, `prepare` reads
them only if they still are what was listed."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Iterable

from src.datasets.json_node import Node
from src.reproducible.files import read_json, write_json
from src.reproducible.hashes import file_hash


def relative_path(path: str, where: str) -> str:
    """A path of a dataset's list with forward slashes and without "./".

    raises    ValueError when it is absolute or climbs out with ".."
    """
    parts = PurePosixPath(forward := path.replace("\\", "/")).parts
    if not parts or forward.startswith("/") or re.match("[A-Za-z]:", forward) or ".." in parts:
        raise ValueError(
            f"{where} names {path!r}; a path must be relative to the dataset and stay inside it: write it that way."
        )
    return "/".join(parts)


def check_inside(path: Path, root: Path) -> None:
    """raises ValueError when `path`, its symbolic links followed, lies outside `root`"""
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} is a link that leads out of the dataset's folder {root.name}; copy the file into it.")


@dataclass(frozen=True, eq=False)
class RawFiles:
    """Files below `root`: listed[path relative to root] = [size in bytes, SHA-256]."""

    root: Path
    listed: dict[str, list]

    @classmethod
    def found(cls, root: Path, paths: Iterable[str]) -> "RawFiles":
        """Those of the paths that exist, read and hashed."""
        files = {path: root / path for path in sorted(set(paths)) if (root / path).is_file()}
        return cls(root, {path: [file.stat().st_size, file_hash(file)] for path, file in files.items()})

    @classmethod
    def of_list(cls, root: Path, list_file: Path) -> "RawFiles":
        return cls(root, read_json(list_file))

    def write_list(self, list_file: Path) -> None:
        write_json(list_file, self.listed)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the list: equal for equal files, wherever their root is."""
        return hashlib.sha256(json.dumps(self.listed, sort_keys=True).encode()).hexdigest()

    def __contains__(self, path: str) -> bool:
        return path in self.listed

    def read(self, path: str) -> bytes:
        """raises ValueError when the file is gone or is another one than was listed"""
        try:
            data = (self.root / path).read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path} cannot be read any more ({error.strerror}); restore it, or run dvc repro --force download."
            ) from error
        if [len(data), hashlib.sha256(data).hexdigest()] != self.listed[path]:
            raise ValueError(f"{path} changed after it was listed; restore it, or run dvc repro --force download.")
        return data

    def json(self, path: str) -> Node:
        return Node.read(self.read(path), path)
