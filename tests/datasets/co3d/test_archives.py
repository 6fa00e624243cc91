import errno
import shutil
import stat
import zipfile
from collections import namedtuple

import numpy as np
import pytest

from src.datasets.co3d import archives
from src.datasets.co3d.archives import ArchiveError, extract
from tests.helpers.archives import contents, zipped

NOISE = np.random.default_rng(0).bytes(5000)
GOOD = {"apple/seq/images/a.jpg": NOISE, "apple/list.json": b"[1, 2]", "apple/seq/": b""}


def raw_name(wanted: bytes, data: bytes = b"x") -> bytes:
    """An archive whose one member has a name that zipfile would not write as it is."""
    placeholder = b"P" * len(wanted)
    return zipped({placeholder.decode(): data}).replace(placeholder, wanted)


def special(kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("apple/link")
    info.external_attr = (kind | 0o777) << 16
    return info


def encrypted() -> bytes:
    data = bytearray(zipped({"a": b"x"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def refused(folder, data: bytes, words: str) -> None:
    path = folder.parent / "some.zip"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=words):
        extract(path, folder)
    assert contents(folder) == {"apple/before": b"old"}
    assert {entry.name for entry in folder.parent.iterdir()} == {"root", "some.zip"}


def test_a_sound_archive_is_unpacked_beside_what_is_there(folder):
    path = folder.parent / "some.zip"
    path.write_bytes(zipped(GOOD))
    assert extract(path, folder) == {"members": 2, "bytes": 5006}
    assert contents(folder) == {name: data for name, data in GOOD.items() if data} | {"apple/before": b"old"}
    assert extract(path, folder) == {"members": 2, "bytes": 5006}  # a second time replaces the same files


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"../out": b"x"}, r"'\.\./out'"),
        ({"apple/../../out": b"x"}, "out"),
        ({"/etc/out": b"x"}, "/etc/out"),
        ({"C:/out": b"x"}, "C:/out"),
        ({"c:out": b"x"}, "c:out"),
        ({"apple//a": b"x"}, "apple//a"),
        ({"./a": b"x"}, r"'\./a'"),
        ({"apple/a": b"x", "apple/A": b"y"}, "'apple/A' .* case alone"),
        ({"apple/a": b"x", "Apple/b": b"y"}, "'Apple/b' .* case alone"),
        ({"a": b"x", "a/b": b"y"}, "inside another"),
        ({"a/b": b"x", "a": b"y"}, "'a' .* twice"),
        ([("a", b"x"), ("a", b"x")], "'a' .* twice"),
        ([(special(stat.S_IFLNK), b"/etc/passwd")], "'apple/link' .* link"),
        ([(special(stat.S_IFCHR), b"")], "device"),
        ([(special(stat.S_IFIFO), b"")], "device"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_unsafe_member_condemns_the_whole_archive_before_anything_is_extracted(folder, members, name):
    rest = list(GOOD.items())  # before it in the archive: they must not have been extracted either
    refused(
        folder,
        zipped(rest + (list(members.items()) if isinstance(members, dict) else members)),
        f"unsafe_archive.*{name}",
    )


def test_backslashes_and_zero_bytes_in_names_are_unsafe(folder):
    refused(folder, raw_name(b"apple\\..\\out"), "unsafe_archive.*backslash")
    refused(folder, raw_name(b"apple/a\0.jpg"), "unsafe_archive.*zero byte")


def test_a_member_that_extra_fields_name_otherwise_is_unsafe(folder, monkeypatch):
    """As newer Pythons read the name from Info-ZIP's field: what was looked through is not what would be written."""

    def renamed(archive, members=zipfile.ZipFile.infolist):
        members = members(archive)
        members[-1].filename = "../out"
        return members

    monkeypatch.setattr(zipfile.ZipFile, "infolist", renamed)
    refused(
        folder,
        zipped(GOOD | {"apple/b": b"x"}),
        r"unsafe_archive: member 'apple/b' of some.zip would be extracted as '\.\./out'; nothing was extracted",
    )


def test_encrypted_members_and_bombs_are_refused(folder, monkeypatch):
    refused(folder, encrypted(), "'a' of some.zip is encrypted")
    refused(folder, zipped({"zeros": bytes(10**6)}), "'zeros' of some.zip would grow from .* to 1000000 bytes")
    mild = zipped({"a": NOISE[:50] * 100})  # 20 times or so
    monkeypatch.setattr(archives, "SMALL_ARCHIVE", 1000)
    refused(folder, mild, "some.zip would grow .* to 5000 bytes, more than 3 times .free: [0-9]+")


def test_a_full_disk_is_noticed_first(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**4, 6000, 4000))
    refused(folder, zipped(GOOD), "needs 5006 bytes unpacked, but .* has 4000 free")


def test_a_disk_that_fills_meanwhile_leaves_no_part(folder, monkeypatch):
    def full(archive, member, path, write=archives.write_member):
        write(archive, member, path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "write_member", full)
    refused(folder, zipped(GOOD), "needs 5006 bytes unpacked, but .* has only [0-9]+ free")


@pytest.mark.parametrize("damage", ["no directory", "crc", "short member", "not a zip", "understated size"])
def test_broken_archives_leave_nothing(folder, damage):
    data = bytearray(zipped(GOOD, zipfile.ZIP_STORED))
    start = data.index(NOISE[:20])
    if damage == "no directory":
        data = data[:3000]
    elif damage == "crc":
        data[start + 100] ^= 255
    elif damage == "short member":
        del data[start + 100 : start + 200]
    elif damage == "not a zip":
        data = b"<html>Not found</html>"
    else:  # the directory says 4000 bytes, the member has 5000
        packed = bytearray(zipped(GOOD))
        entry = packed.index(b"PK\x01\x02")
        packed[entry + 24 : entry + 28] = (4000).to_bytes(4, "little")
        data = packed
    refused(folder, bytes(data), "some.zip is broken")


@pytest.fixture
def folder(tmp_path):
    """A root that holds something already, which no broken archive may touch."""
    root = tmp_path / "root"
    (root / "apple").mkdir(parents=True)
    (root / "apple/before").write_bytes(b"old")
    return root
