"""The hub's own library against a hub on this machine; no other is ever asked."""

import hashlib
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants

from src.fetching.fetch import FetchError
from src.fetching.store import obtain
from src.pretrained.source import HUB, Source
from tests.helpers.hub import cached, fetches, hub, offer
from tests.helpers.repository import ROOT
from tests.helpers.serving import serving

REPOSITORY, FILE = "somebody/network", "model.safetensors"
DATA = os.urandom(300_000)
WANTED = "model.weights=pretrained", "set model.weights=random"
assert hub  # a fixture


def source(**changes) -> Source:
    about = {"url": f"{HUB}/{REPOSITORY}/resolve/main/{FILE}", "licence": "MIT", "megabytes": 1}
    return Source(**about | {"file": f"{REPOSITORY}/{FILE}"} | changes)


def get(folder, mirror=None, root=None, **changes):
    return obtain(source(**changes), root, mirror, folder / "downloads", *WANTED)


def failure(folder, **changes) -> str:
    with pytest.raises(FetchError) as caught:
        get(folder, **changes)
    message = str(caught.value)
    assert message.startswith("model.weights=pretrained needs") and "\n" not in message and message.endswith(".")
    for remedy in ("by hand at", "weights.root", "weights.mirror", "model.weights=random"):
        assert remedy in message
    return message


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_an_address_on_the_hub_is_told_from_others():
    assert source().on_hub == (REPOSITORY, "main", FILE)
    assert Source(f"{HUB}/a/b/resolve/v1/c/d=e.ckpt", "MIT", 1).on_hub == ("a/b", "v1", "c/d=e.ckpt")
    assert Source("https://example.org/a/b/resolve/main/c", "MIT", 1).on_hub is None


def test_a_file_is_fetched_once_into_the_librarys_cache(hub, tmp_path, capsys):
    path = offer(hub, REPOSITORY, FILE, DATA)
    found = get(tmp_path)
    assert found.read_bytes() == DATA and found.name == FILE and found.is_relative_to(tmp_path / "home/hub")
    assert f"fetching {HUB}/{REPOSITORY}/resolve/main/{FILE} (about 1 MB)" in capsys.readouterr().out
    asked = len(hub.methods)
    assert get(tmp_path) == found and fetches(hub) == [path] and len(hub.methods) == asked
    assert not (tmp_path / "downloads").exists()


def test_a_cached_file_serves_offline_and_another_one_is_refused(hub, tmp_path, monkeypatch):
    offer(hub, REPOSITORY, FILE, DATA)
    get(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.methods)
    assert get(tmp_path).read_bytes() == DATA
    other = failure(tmp_path, url=f"{HUB}/{REPOSITORY}/resolve/main/other.bin")
    assert "HF_HUB_OFFLINE is set" in other and len(hub.methods) == asked


def test_a_connection_that_breaks_is_taken_up_again(hub, tmp_path, no_pauses):
    path = offer(hub, REPOSITORY, FILE, DATA)
    hub.cuts = [100_000]
    assert get(tmp_path).read_bytes() == DATA and fetches(hub) == [path, path]


def test_a_damaged_file_is_noticed_by_the_hash_that_the_hub_states(hub, tmp_path):
    offer(hub, REPOSITORY, FILE, DATA)
    found = get(tmp_path)
    found.resolve().write_bytes(DATA[:-1] + b"x")
    assert hashlib.sha256(DATA).hexdigest() in failure(tmp_path)
    found.resolve().unlink()
    assert get(tmp_path).read_bytes() == DATA and len(fetches(hub)) == 2
    with pytest.raises(FetchError, match="its publisher states 00ff"):
        get(tmp_path, sha256="00ff")
    offer(hub, REPOSITORY, "config.json", b"{}", large=False)  # named by another hash
    assert get(tmp_path, url=f"{HUB}/{REPOSITORY}/resolve/main/config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("state", [401, 403])
def test_gated_weights_want_their_terms_accepted_and_a_token(hub, tmp_path, monkeypatch, state):
    path = offer(hub, REPOSITORY, FILE, DATA)
    hub.refusals[path], hub.token = (state, "GatedRepo"), "hf_good"
    words = failure(tmp_path)
    assert f"is gated; accept its terms at {HUB}/{REPOSITORY} and set HF_TOKEN" in words and fetches(hub) == []
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    assert "is gated" in failure(tmp_path) and cached(tmp_path) == []
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert get(tmp_path).read_bytes() == DATA


def test_what_is_not_there_is_named(hub, tmp_path):
    path = offer(hub, REPOSITORY, FILE, DATA)
    hub.refusals = {path: (404, "EntryNotFound")}
    assert f"is not on the hub: {REPOSITORY} has no {FILE} at its revision main" in failure(tmp_path)
    hub.refusals = {path: (404, "RevisionNotFound")}
    assert "at its revision main" in failure(tmp_path)
    for state in (401, 404):  # without a token the hub answers 401 for what it does not know
        hub.refusals = {path: (state, "RepoNotFound")}
        words = failure(tmp_path)
        assert f"no repository {REPOSITORY} for you" in words and "set HF_TOKEN" in words
    hub.refusals = {path: (403, "")}
    assert "answers 403 Forbidden; your HF_TOKEN may not read it" in failure(tmp_path)


def test_a_hub_in_trouble_or_out_of_reach_is_said(hub, tmp_path, monkeypatch, no_pauses):
    path = offer(hub, REPOSITORY, FILE, DATA)
    hub.refusals = {path: (503, "")}
    assert "answers 503 Service Unavailable" in failure(tmp_path)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    assert "cannot be fetched (" in (words := failure(tmp_path)) and "refused" in words


def test_a_server_that_is_no_hub_is_said(hub, tmp_path):
    path = offer(hub, REPOSITORY, FILE, DATA)
    del hub.headers[path]
    assert "X-Repo-Commit" in failure(tmp_path)


def test_a_copy_by_hand_a_mirror_and_a_folder_go_before_the_hub(hub, tmp_path):
    offer(hub, REPOSITORY, FILE, DATA)
    with serving(**{f"files/{REPOSITORY}/{FILE}": b"of the mirror"}) as mirror:
        found = get(tmp_path, mirror=f"{mirror.url}/files/")
    assert found == tmp_path / "downloads" / REPOSITORY / FILE and found.read_bytes() == b"of the mirror"
    assert get(tmp_path) == found  # now a copy in scratch/downloads
    with pytest.raises(FetchError, match="is not in weights.root"):
        get(tmp_path, root=tmp_path)
    assert get(tmp_path, root=tmp_path / "downloads") == found
    assert hub.methods == []


def test_two_clones_share_one_cache_of_hf_home_at_hf_endpoint(hub, tmp_path):
    """The library's own variables, which it reads when it is imported."""
    path = offer(hub, REPOSITORY, FILE, DATA)
    script = (
        "from src.fetching.hugging_face import from_hub; from src.pretrained.source import Source;"
        f"source = Source({source().url!r}, 'MIT', 1); print(from_hub(source, *source.on_hub))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "shared"), "HF_ENDPOINT": hub.url}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, "-c", script]
    said = [
        subprocess.run(command, cwd=ROOT, env=environment, check=True, text=True, capture_output=True).stdout.split(
            "\n"
        )
        for _ in ("first clone", "second clone")
    ]
    (first, found, _), (again, _) = said
    assert first.startswith("fetching") and found == again and fetches(hub) == [path]
    assert again.startswith(str(tmp_path / "shared/hub/models--somebody--network/"))
