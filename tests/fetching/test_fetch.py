import hashlib
import os
import shutil
from types import SimpleNamespace

import pytest

from src.fetching import fetch
from src.fetching.fetch import CHUNK, FetchError, download, remote_size
from tests.helpers.serving import serving

DATA = os.urandom(3_000_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture()
def server():
    with serving(model=DATA) as running:
        yield running


def get(server, path, **options):
    download(f"{server.url}/model", path, pause=0, **options)


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_alone(server, tmp_path):
    get(server, tmp_path / "new" / "file", sha256=SHA)
    assert (tmp_path / "new" / "file").read_bytes() == DATA and left(tmp_path / "new") == ["file"]
    get(server, tmp_path / "new" / "file")
    assert len(server.requests) == 1  # it is there already


def test_progress_is_shown_with_the_files_name(server, tmp_path, capsys):
    server.cuts = [10 * CHUNK]
    get(server, tmp_path / "weights.pth")
    shown = capsys.readouterr().err
    assert "weights.pth" in shown and "100%" in shown and "3.00M/3.00M" in shown


def test_cut_connections_are_continued(server, tmp_path):
    server.cuts = [10 * CHUNK, 5 * CHUNK]
    get(server, tmp_path / "file", sha256=SHA[:8])
    assert (tmp_path / "file").read_bytes() == DATA and left(tmp_path) == ["file"]
    assert [asked for _, asked in server.requests] == [None, f"bytes={10 * CHUNK}-", f"bytes={15 * CHUNK}-"]


def test_a_part_left_by_an_earlier_run_is_continued(server, tmp_path):
    server.cuts = [12 * CHUNK]
    with pytest.raises(FetchError, match="cannot be reached|broke off"):
        get(server, tmp_path / "file", attempts=1)
    assert (tmp_path / "file.part").read_bytes() == DATA[: 12 * CHUNK] and not (tmp_path / "file").exists()
    get(server, tmp_path / "file")
    assert server.requests[-1] == ("/model", f"bytes={12 * CHUNK}-") and (tmp_path / "file").read_bytes() == DATA


def test_a_server_that_sends_everything_again_is_followed(server, tmp_path):
    server.cuts, server.ranges = [1_000_000], False
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_file_that_changed_in_between_is_not_mixed(server, tmp_path):
    server.cuts = [1_000_000]
    with pytest.raises(FetchError):
        get(server, tmp_path / "file", attempts=1)
    server.files["/model"], server.etag = DATA[::-1], '"2"'
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA[::-1]


def test_a_kill_before_the_first_new_byte_leaves_no_old_ones_under_the_new_version(server, tmp_path, monkeypatch):
    server.cuts = [1_000_000]
    with pytest.raises(FetchError):
        get(server, tmp_path / "file", attempts=1)
    server.files["/model"], server.etag = DATA[::-1], '"2"'

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch, "append", killed)
        get(server, tmp_path / "file")
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA[::-1] and server.requests[-1] == ("/model", None)


@pytest.mark.parametrize("named_by", ["etag", "modified"])
@pytest.mark.parametrize("if_range", [True, False])
def test_a_version_is_told_by_its_tag_or_its_date_whatever_the_server_heeds(server, tmp_path, named_by, if_range):
    server.cuts, server.if_range = [1_000_000], if_range
    server.etag, server.modified = ('"1"', "") if named_by == "etag" else ("", "Mon, 01 Jan 2024 00:00:00 GMT")
    with pytest.raises(FetchError):
        get(server, tmp_path / "file", attempts=1)
    server.files["/model"] = DATA[::-1]
    setattr(server, named_by, '"2"' if named_by == "etag" else "Tue, 02 Jan 2024 00:00:00 GMT")
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA[::-1] and left(tmp_path) == ["file"]


def test_a_weak_tag_names_no_version(server, tmp_path):
    server.cuts, server.etag = [10 * CHUNK], 'W/"1"'
    get(server, tmp_path / "file", sha256=SHA)
    assert (tmp_path / "file").read_bytes() == DATA and server.requests[1] == ("/model", f"bytes={10 * CHUNK}-")


def test_a_server_that_sends_less_than_the_rest_is_asked_again(server, tmp_path):
    server.cuts, server.piece = [10 * CHUNK], 1_000_000
    get(server, tmp_path / "file", attempts=2)
    assert (tmp_path / "file").read_bytes() == DATA and len(server.requests) == 4


@pytest.mark.parametrize("address", ["no address", "ftp://127.0.0.1/x", "http://"])
def test_what_is_no_address_is_named(tmp_path, address):
    with pytest.raises(FetchError, match=f"^{address} cannot be fetched"):
        download(address, tmp_path / "file")


def test_a_whole_part_is_finished_and_a_longer_one_begun_anew(server, tmp_path):
    (tmp_path / "file.part").write_bytes(DATA)
    get(server, tmp_path / "file", sha256=SHA)
    assert server.requests == [("/model", f"bytes={len(DATA)}-")] and (tmp_path / "file").read_bytes() == DATA
    (tmp_path / "other.part").write_bytes(DATA + b"more")
    get(server, tmp_path / "other", sha256=SHA)
    assert (tmp_path / "other").read_bytes() == DATA


def test_a_part_from_the_wrong_byte_is_not_used(server, tmp_path):
    (tmp_path / "file.part").write_bytes(DATA[:1000])
    server.shift = 7
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(FetchError, match=f"SHA-256 {SHA}, but its publisher states 00ff"):
        get(server, tmp_path / "file", sha256="00ff")
    assert "file" not in left(tmp_path) and "file.part" not in left(tmp_path)


def test_passing_troubles_are_waited_for_and_lasting_ones_are_not(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=waits.append))
    server.states = [503, 429, 500]
    download(f"{server.url}/model", tmp_path / "file", pause=1.0)
    assert waits == [1, 2, 4] and (tmp_path / "file").read_bytes() == DATA
    server.states = [503] * 9
    with pytest.raises(FetchError, match="503 Service Unavailable"):
        download(f"{server.url}/model", tmp_path / "second", attempts=3)
    assert len(server.states) == 6 and len(waits) == 5
    server.states = []
    with pytest.raises(FetchError, match="/absent answers 404"):
        download(f"{server.url}/absent", tmp_path / "third")
    assert [path for path, _ in server.requests].count("/absent") == 1


def test_progress_renews_the_patience(server, tmp_path):
    server.cuts = [500_000] * 5
    get(server, tmp_path / "file", attempts=2)
    assert (tmp_path / "file").read_bytes() == DATA and len(server.requests) == 6


def test_a_server_that_never_sends_the_whole_file_ends_the_patience(server, tmp_path):
    server.cuts, server.ranges = [700_000, 200_000] * 9, False
    with pytest.raises(FetchError, match="cannot be reached"):
        get(server, tmp_path / "file", attempts=3)
    assert len(server.requests) == 3


def test_web_pages_are_no_files(server, tmp_path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(FetchError, match="web page"):
        get(server, tmp_path / "file")


def test_a_full_disk_is_noticed_first(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(FetchError, match="needs 2 MB .* has 1 MB left"):
        get(server, tmp_path / "file")


def test_nobody_listens(tmp_path):
    with pytest.raises(FetchError, match=r"^http://127.0.0.1:9/x cannot be reached \(.*refused.*\)$"):
        download("http://127.0.0.1:9/x", tmp_path / "file", attempts=2, pause=0)


def test_a_file_has_a_size_before_it_is_fetched(server):
    name = next(iter(server.files))
    assert remote_size(server.url + name) == len(server.files[name])
    assert remote_size(f"{server.url}/absent") is None and remote_size("http://127.0.0.1:9/x") is None
