"""Where a file is looked for, and what is said when it is nowhere."""

import hashlib
import os

import pytest

from src.fetching.fetch import FetchError
from src.fetching.store import obtain
from src.pretrained.source import Source
from tests.helpers.serving import serving

DATA = os.urandom(3_000_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture()
def server():
    with serving(model=DATA) as running:
        yield running


def source(server, **changes) -> Source:
    return Source(**{"url": f"{server.url}/model", "licence": "MIT", "megabytes": 3, "sha256": SHA[:8]} | changes)


def test_a_copy_placed_by_hand_is_used_and_verified(server, tmp_path):
    for folder in (tmp_path / "root", tmp_path / "cache"):
        folder.mkdir()
        (folder / "model").write_bytes(DATA)
        root = folder if folder.name == "root" else None
        assert obtain(source(server), root, None, tmp_path / "cache", "key", "other") == folder / "model"
        (folder / "model").write_bytes(b"else")
        with pytest.raises(FetchError, match="its publisher states"):
            obtain(source(server), root, None, tmp_path / "cache", "key", "other")
    assert server.requests == []


def test_a_filled_folder_replaces_the_network(server, tmp_path):
    words = f"model.weights=pretrained needs model, which is not in weights.root .*{server.url}"
    with pytest.raises(FetchError, match=words):
        obtain(source(server), tmp_path, server.url, tmp_path, "model.weights=pretrained", "do that")
    assert server.requests == []


def test_a_mirror_serves_the_same_names(server, tmp_path):
    server.files["/mirror/ours.bin"] = DATA
    wanted = source(server, url="http://127.0.0.1:9/theirs", file="ours.bin")
    path = obtain(wanted, None, f"{server.url}/mirror/", tmp_path, "key", "other")
    assert path == tmp_path / "ours.bin" and path.read_bytes() == DATA


def test_failure_names_the_key_and_all_remedies(server, tmp_path, monkeypatch):
    wanted = "model.weights=pretrained", "set model.weights=random for the untrained control"
    with pytest.raises(FetchError) as failure:
        obtain(source(server, url=f"{server.url}/gone", gated=True), None, None, tmp_path, *wanted)
    for words in (
        "model.weights=pretrained needs gone",
        "accept its terms",
        "404",
        str(tmp_path / "gone"),
        "weights.root",
        "weights.mirror",
        "model.weights=random",
    ):
        assert words in str(failure.value)
    assert "\n" not in str(failure.value) and str(failure.value).endswith(".")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE is set"):
        obtain(source(server), None, None, tmp_path, *wanted)
    assert ("/model", None) not in server.requests
