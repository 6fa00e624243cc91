"""Records of experiments that Git keeps: reports/experiments/<name>/, whose comparison anyone can make again.

A folder holds what `parse_result` reads of a run, and its metrics.json; the tables are compressed. No remote, no DVC
cache and no reference of `dvc exp` is needed to read them.
"""

import gzip
import re
from pathlib import Path

from src.experiments.result import (
    METRICS_FILE,
    PROBES_FILE,
    READ_FILES,
    RECORDS_FILE,
    REPORTS,
    ExperimentResult,
    OtherSchema,
    Read,
    curve_file,
    parse_result,
)
from src.reproducible.files import fresh_folder, write_whole

ARCHIVE = REPORTS / "experiments"
COMPRESSED = {file: f"{file}.gz" for file in (RECORDS_FILE, PROBES_FILE)}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a folder


def check_name(name: str) -> None:
    """raises ValueError for a name that is no folder's"""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a folder of {ARCHIVE.as_posix()}; take letters, digits and . _ - (compare --publish "
            "takes NAME=REV)."
        )


def keep_result(archive: Path, name: str, read: Read) -> None:
    """Keep the result that `read` reads (see `parse_result`) under a name, in place of one of that name.

    raises    ValueError for a name that is no folder's, or where `read` finds no result; OtherSchema
    """
    check_name(name)
    result = parse_result(name, read)
    if result is None:
        raise ValueError(f"{name} has no results in {REPORTS.as_posix()}; `dvc exp show -A` lists the experiments.")
    files = (*READ_FILES, METRICS_FILE, *(curve_file(curve) for curve in result.curves))
    with fresh_folder(archive / name) as folder:
        for file in files:
            if (text := read(file)) is None:
                continue
            if file in COMPRESSED:
                write_whole(folder / COMPRESSED[file], gzip.compress(text.encode(), 9, mtime=0))
            else:
                write_whole(folder / file, text.encode())


def read_kept(folder: Path) -> ExperimentResult:
    """The result that one folder of the archive keeps, under the folder's name.

    raises    OtherSchema, ValueError for a folder that keeps none
    """

    def read(file: str) -> str | None:
        path = folder / COMPRESSED.get(file, file)
        if not path.exists():
            return None
        data = path.read_bytes()
        return (gzip.decompress(data) if file in COMPRESSED else data).decode()

    if (result := parse_result(folder.name, read)) is None:
        raise ValueError(f"{folder.as_posix()} keeps no result; git checkout or git rm -r it.")
    return result


def kept_results(archive: Path) -> tuple[list[ExperimentResult], list[OtherSchema]]:
    """All results that an archive keeps, by name; and of those that another version of this code published, why not."""
    results, others = [], []
    for folder in sorted(path for path in archive.glob("*") if path.is_dir() and NAME.fullmatch(path.name)):
        try:
            results.append(read_kept(folder))
        except OtherSchema as error:
            others.append(error)
    return results, others
