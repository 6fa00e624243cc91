"""Zip archives from elsewhere: looked through before anything is extracted, then put in place whole or not at all."""

import errno
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

RATIO = 200  # unpacked over packed size above which a member is taken for a bomb
GROWTH = 3  # unpacked over packed size of a whole archive
SMALL_ARCHIVE = 1 << 28  # bytes an archive may always grow to: lists in JSON pack well
ENCRYPTED = 1  # bit of a member's flags
PIECE = 1 << 20  # bytes
BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError)


class ArchiveError(ValueError):
    """An archive that is broken or not to be trusted; nothing of it was kept."""


def name_fault(name: str) -> str:
    """Why a member of that name may not be extracted; empty when it may."""
    if "\0" in name or "\\" in name:
        return "holds a backslash or a zero byte"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is absolute"
    if {"", ".", ".."} & set(name.removesuffix("/").split("/")):
        return "holds an empty part, . or .."
    return ""


class Names:
    """The names of an archive's members so far, to find those that would overwrite each other on some file system."""

    def __init__(self):
        self.spelled, self.files, self.folders = {}, set(), set()  # keys without case

    def fault(self, name: str, folder: bool) -> str:
        """What is wrong with adding this name; empty when nothing is."""
        path = name.removesuffix("/")
        parents = [path[: match.start()] for match in re.finditer("/", path)]
        for part in (*parents, path):
            if self.spelled.setdefault(part.casefold(), part) != part:
                return "differs from another in case alone"
        key, above = path.casefold(), {parent.casefold() for parent in parents}
        if key in self.files or not folder and key in self.folders:
            return "occurs twice"
        if above & self.files:
            return "lies inside another member that is a file"
        self.folders |= above | ({key} if folder else set())
        self.files |= set() if folder else {key}
        return ""


def check_members(members: list[zipfile.ZipInfo], archive: str) -> None:
    """raises ArchiveError, naming the member, when one is unsafe, encrypted or a bomb"""
    names = Names()
    for member in members:
        name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
        renamed = "" if member.filename == name else f"would be extracted as {member.filename!r}"
        link = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or a device"
        if fault := name_fault(name) or renamed or link or names.fault(name, member.is_dir()):
            raise ArchiveError(
                f"unsafe_archive: member {name!r} of {archive} {fault}; nothing was extracted, take the "
                "archive from its publisher."
            )
        if member.flag_bits & ENCRYPTED:
            raise ArchiveError(
                f"member {name!r} of {archive} is encrypted; nothing was extracted, take the archive "
                "from its publisher."
            )
        if member.file_size > RATIO * max(1, member.compress_size):
            raise ArchiveError(
                f"member {name!r} of {archive} would grow from {member.compress_size} to "
                f"{member.file_size} bytes, more than {RATIO} times; nothing was extracted, take the "
                "archive from its publisher."
            )


def check_size(total: int, packed: int, archive: str, folder: Path) -> None:
    """raises ArchiveError when `total` unpacked bytes are absurd for `packed` ones, or more than the disk has free"""
    free = shutil.disk_usage(folder).free
    if total > max(SMALL_ARCHIVE, GROWTH * packed):
        raise ArchiveError(
            f"{archive} would grow from {packed} to {total} bytes, more than {GROWTH} times (free: "
            f"{free}); nothing was extracted, take the archive from its publisher."
        )
    if total > free:
        raise ArchiveError(
            f"{archive} needs {total} bytes unpacked, but {folder} has {free} free; nothing was "
            "extracted, free some space and run again."
        )


def write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """One file, never longer than the archive's directory says.

    raises    zipfile.BadZipFile when it is
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with archive.open(member) as source, open(path, "xb") as target:
        while piece := source.read(PIECE):
            if (left := left - len(piece)) < 0:
                raise zipfile.BadZipFile(f"member {member.filename!r} is longer than announced")
            target.write(piece)


def extract(path: Path, folder: Path) -> dict:
    """Unpack a zip archive into `folder`, beside what is there: into a temporary sibling first, from which the files
    are moved once all of them are whole.

    returns   members, bytes: number and unpacked size of its files
    raises    ArchiveError before anything in `folder` changes
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_members(members, path.name)
            files = [member for member in members if not member.is_dir()]
            total = sum(member.file_size for member in files)
            check_size(total, path.stat().st_size, path.name, folder)
            for member in files:
                write_member(archive, member, temporary / member.filename)
        for member in files:
            (folder / member.filename).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / member.filename, folder / member.filename)
    except (*BROKEN_ARCHIVE, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise ArchiveError(
                f"{path.name} needs {total} bytes unpacked, but {folder} has only "
                f"{shutil.disk_usage(folder).free} free; nothing of it was kept, free some space and "
                "run again."
            ) from error
        if getattr(error, "errno", errno.EINVAL) != errno.EINVAL:  # EINVAL: an offset before the file's beginning
            raise
        raise ArchiveError(
            f"{path.name} is broken ({error}); nothing of it was extracted, delete it and run again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {"members": len(files), "bytes": total}
