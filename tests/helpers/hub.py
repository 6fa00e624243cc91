"""A Hugging Face hub on this machine, as its library sees one."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.helpers.serving import Server, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def offer(server: Server, repository: str, file: str, data: bytes, large: bool = True) -> str:
    """Serve a file of a repository at its revision main; its path. A large one is named by its SHA-256 (LFS), a small
    one by Git's SHA-1."""
    path = f"/{repository}/resolve/main/{file}"
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    digest = hashlib.sha256(data).hexdigest() if large else git
    linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
    server.files[path] = data
    server.headers[path] = {"X-Repo-Commit": COMMIT} | linked
    return path


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Server]:
    """A server in the place of the hub, without files; the library's cache is a new folder, `home`/hub."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home/token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield server


def fetches(server: Server) -> list[str]:
    """Paths of the files that were sent, in order; the library asks for other things too."""
    return [path for method, path in server.methods if method == "GET" and "/resolve/" in path]


def cached(folder: Path) -> list[str]:
    """Files in the library's cache, as repositories have them."""
    return sorted(path.name for path in (folder / "home/hub").glob("models--*/snapshots/*/**/*") if path.is_file())
