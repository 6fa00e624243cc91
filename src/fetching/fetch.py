"""One file from its address: resumed, retried, verified, put in place whole."""

import os
import shutil
import time
from pathlib import Path

import requests
from filelock import FileLock
from tqdm import tqdm

from src.reproducible.hashes import file_hash

CHUNK = 1 << 16  # bytes; what came of an unfinished piece is lost when a connection breaks
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP states that another try may cure
DROPPED = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


class FetchError(ValueError):
    """A file that could not be had; one sentence with its address and what happened."""


class Interrupted(Exception):
    """The transfer stopped early; another try continues it."""


def verify(path: Path, sha256: str, origin: str) -> None:
    """raises FetchError when the file's SHA-256 does not begin with `sha256`"""
    if sha256 and not (found := file_hash(path)).startswith(sha256):
        raise FetchError(
            f"{origin} has SHA-256 {found}, but its publisher states {sha256}…; delete it and fetch it "
            "again, from another mirror if it came from one."
        )


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def open_stream(url: str, start: int, version: str) -> requests.Response:
    """Ask for the bytes from `start` on, provided the file is still the one that `version` names."""
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes, so that offsets mean something
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)


def version_of(reply: requests.Response) -> str:
    """What names this version of the file: its ETag, or its date where that is weak (such may not be used to continue)
    or missing; empty where the server tells neither."""
    tag = reply.headers.get("ETag", "W/")
    return reply.headers.get("Last-Modified", "") if tag.startswith("W/") else tag


def whole_size(reply: requests.Response, start: int) -> int | None:
    """Bytes of the whole file that `reply` holds from `start` on; None where the server does not tell."""
    total, length = reply.headers.get("Content-Range", "").rpartition("/")[2], reply.headers.get("Content-Length", "")
    if reply.status_code == 206 and total.isdecimal():  # it may send less than the rest
        return int(total)
    return start + int(length) if length.isdecimal() else None


def receive(url: str, part: Path) -> None:
    """Append to `part` what it lacks, or start it anew where the server does not continue; returns when it is whole.

    raises    FetchError    the server refuses, or answers with a web page, or the disk is too small
              Interrupted   the transfer broke off, or the server asked for patience
    """
    start = part.stat().st_size if part.exists() else 0
    version_file = part.with_name(part.name + ".etag")
    version = version_file.read_text() if version_file.exists() else ""
    try:
        with open_stream(url, start, version) as reply:
            span = reply.headers.get("Content-Range", "")  # "bytes 5-9/10", or "bytes */10" with state 416
            if reply.status_code == 416:
                if span.rpartition("/")[2] == str(start):
                    return
                part.unlink()
                raise Interrupted(f"{url} is not the file whose first {start} bytes were kept")
            if reply.status_code in PASSING:
                raise Interrupted(f"{url} answers {reply.status_code} {reply.reason}")
            if reply.status_code not in (200, 206):
                raise FetchError(f"{url} answers {reply.status_code} {reply.reason}")
            if reply.headers.get("Content-Type", "").startswith("text/html"):
                raise FetchError(f"{url} answers with a web page, as sign-in pages of networks do")
            if reply.status_code == 206 and not span.startswith(f"bytes {start}-"):
                part.unlink(missing_ok=True)
                raise Interrupted(f"{url} continues at another byte ({span!r}) than asked ({start})")
            if reply.status_code == 206 and version and version_of(reply) not in ("", version):
                part.unlink()
                raise Interrupted(f"{url} continues another version of the file than was begun")
            if reply.status_code == 200:
                start = 0
                part.unlink(missing_ok=True)  # before the version: old bytes must never stand under a new one
            version_file.write_text(version_of(reply))
            append(reply, part, start, whole_size(reply, start))
    except DROPPED as error:
        raise Interrupted(f"{url} cannot be reached ({cause_of(error)})") from error
    except requests.RequestException as error:  # such as an address that is none
        raise FetchError(f"{url} cannot be fetched ({cause_of(error)})") from error


def remote_size(url: str) -> int | None:
    """Bytes that `url` would deliver; None when the server does not tell."""
    try:
        reply = requests.head(url, headers={"Accept-Encoding": "identity"}, allow_redirects=True, timeout=TIMEOUT)
    except DROPPED:
        return None
    length = reply.headers.get("Content-Length", "")
    return int(length) if reply.ok and length.isdecimal() else None


def append(reply: requests.Response, part: Path, start: int, total: int | None) -> None:
    """Write the reply to `part` from byte `start` on; `total` is the whole file's size where the server tells it."""
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise FetchError(
            f"{reply.url} needs {(total - start) >> 20} MB in {part.parent}, which has {free >> 20} MB left"
        )
    with (
        open(part, "r+b" if start else "wb") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, mininterval=1) as bar,
    ):
        file.seek(start)
        file.truncate()
        for piece in reply.iter_content(CHUNK):
            file.write(piece)
            bar.update(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if total is not None and part.stat().st_size != total:
        raise Interrupted(f"{reply.url} broke off after {part.stat().st_size} of {total} bytes")


def cause_of(error: Exception) -> str:
    """The innermost cause of a connection's failure, in its own words, without object addresses."""
    while (inner := getattr(error, "reason", None) or error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error).rpartition(">: ")[2] or type(error).__name__


def download(url: str, path: Path, sha256: str = "", attempts: int = 5, pause: float = 1.0) -> None:
    """Fetch `url` to `path`, which appears only when it is whole and verified; `path`.part keeps what came so far.

    attempts  tries in a row that bring nothing new before giving up
    pause     seconds before the second try, doubled before each further one
    raises    FetchError, its message without a full stop, for the caller to add what the user can do
    """
    part = part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(part) + ".lock"):
        if path.exists():  # another process was faster
            return
        failures, kept = 0, part.stat().st_size if part.exists() else 0
        while True:
            try:
                receive(url, part)
                break
            except Interrupted as error:
                size = part.stat().st_size if part.exists() else 0
                failures, kept = (1 if size > kept else failures + 1), max(size, kept)
                if failures >= attempts:
                    raise FetchError(str(error)) from error
                time.sleep(pause * 2 ** (failures - 1))
        part.with_name(part.name + ".etag").unlink(missing_ok=True)
        if sha256 and not (found := file_hash(part)).startswith(sha256):
            part.unlink()
            raise FetchError(f"{url} delivered a file with SHA-256 {found}, but its publisher states {sha256}…")
        os.replace(part, path)
    Path(str(part) + ".lock").unlink(missing_ok=True)


def offline() -> bool:
    """Whether the user forbade all downloads, by the Hugging Face hub's own variable and its spellings of yes."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
