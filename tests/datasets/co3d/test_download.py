import hashlib
import json
import shutil
from collections import namedtuple
from functools import partial
from pathlib import Path

import pytest

from src.config import load_config
from src.datasets.co3d.archives import ArchiveError
from src.datasets.co3d.download import fetch_co3d
from src.fetching.fetch import CHUNK, FetchError, download
from tests.helpers.archives import contents, zipped
from tests.helpers.co3d_miniature import SEQUENCES, published, write_dataset
from tests.helpers.repository import ROOT
from tests.helpers.serving import serving

SMALL = {"apple": dict(list(SEQUENCES["apple"].items())[:1]), "vase": dict(list(SEQUENCES["vase"].items())[:1])}
APPLE, PIXELS = "apple_000.zip", "apple_001.zip"  # annotations, pixels


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("co3d"), SMALL)


@pytest.fixture
def server(tree, monkeypatch):
    """The miniature's publisher, asked again without a pause."""
    monkeypatch.setattr("src.datasets.co3d.download.download", partial(download, pause=0.001))
    with serving() as server:
        server.files = published(tree)
        links = server.files["/upstream/links.json"]
        server.files["/upstream/links.json"] = links.replace(b"SERVER", server.url.encode())
        yield server


def block(store: Path, upstream: str, *options: str):
    options = f"store={store}", f"upstream={upstream}", *options
    return load_config(["data.dataset=co3d", *(f"datasets.co3d.source.{option}" for option in options)], ROOT).dataset


def fetch(store: Path, server, *options: str) -> dict:
    return fetch_co3d(block(store, f"{server.url}/upstream", *options), store / "unused", 1)


def filled(store: Path) -> dict[str, bytes]:
    """What lies below the downloads' root, without the notes."""
    return {path: data for path, data in contents(store / "singlesequence").items() if not path.startswith(".")}


def asked(server, name: str) -> list[str | None]:
    """Range headers of the requests for an archive."""
    return [asked for path, asked in server.requests if path.endswith(name.replace(".zip", "_singlesequence.zip"))]


def change(server, file: str, edit) -> None:
    """Edit a JSON list of the publisher's."""
    content = json.loads(server.files[f"/upstream/{file}"])
    edit(content["singlesequence"])
    server.files[f"/upstream/{file}"] = json.dumps(content).encode()


def serve_archive(server, name: str, data: bytes) -> None:
    """Another archive, with its true checksum."""
    server.files[f"/{name.replace('.zip', '_singlesequence.zip')}"] = data
    change(server, "co3d_sha256.json", lambda sums: sums.update({name: hashlib.sha256(data).hexdigest()}))


def test_the_whole_subset_arrives_as_published(tmp_path, tree, server):
    manifest = fetch(tmp_path, server)
    assert filled(tmp_path) == contents(tree)
    assert manifest["categories"] == ["apple", "vase"] and manifest["subset"] == "singlesequence"
    assert manifest["unverified"] == [] and not list(tmp_path.rglob("*.zip")) and not (tmp_path / "unused").exists()
    listed = manifest["files"]["apple/frame_annotations.jgz"]
    data = (tree / "apple/frame_annotations.jgz").read_bytes()
    assert listed == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    stated = json.loads(server.files["/upstream/co3d_sha256.json"])["singlesequence"]
    assert {name: manifest["sources"]["apple"][name] for name in (APPLE, PIXELS)} == {
        name: stated[name] for name in (APPLE, PIXELS)
    }
    assert str(tmp_path) not in json.dumps(manifest)


def test_a_second_run_asks_for_nothing_and_lists_the_same(tmp_path, server):
    first = fetch(tmp_path, server)
    server.requests.clear()
    assert fetch(tmp_path, server) == first and server.requests == []


def test_one_category_is_fetched_alone_and_another_later(tmp_path, server):
    assert fetch(tmp_path, server, "categories=[vase]")["categories"] == ["vase"]
    assert not (tmp_path / "singlesequence/apple").exists()
    server.requests.clear()
    assert fetch(tmp_path, server)["categories"] == ["apple", "vase"]
    assert all("apple" in path for path, _ in server.requests)


def test_a_broken_connection_is_continued_where_it_broke(tmp_path, tree, server):
    server.cuts = [None, None, None, None, 70000]  # two lists, the list of lists, annotations; then the pixels
    fetch(tmp_path, server, "categories=[apple]")
    assert asked(server, PIXELS) == [None, f"bytes={CHUNK}-"]
    assert filled(tmp_path).keys() == {name for name in contents(tree) if not name.startswith("vase")}


def test_a_connection_that_keeps_breaking_is_an_error_that_keeps_the_part(tmp_path, server):
    server.cuts = [None, None, None, None, 70000, *[0] * 20]
    with pytest.raises(FetchError, match=r"apple_001.zip cannot be had: .*kept in .*apple_001.zip.part.*source.mirror"):
        fetch(tmp_path, server, "categories=[apple]")
    assert 0 < (tmp_path / "singlesequence/.archives/apple_001.zip.part").stat().st_size <= 70000
    server.cuts = []
    fetch(tmp_path, server, "categories=[apple]")
    assert asked(server, PIXELS)[-1] == f"bytes={CHUNK}-"


def test_a_refusal_is_an_error(tmp_path, server):
    del server.files["/apple_001_singlesequence.zip"]
    with pytest.raises(FetchError, match="apple_001.zip cannot be had: .* 404"):
        fetch(tmp_path, server)


def test_a_wrong_archive_is_fetched_once_more_and_then_kept_as_bad(tmp_path, server):
    good = server.files["/apple_001_singlesequence.zip"]
    server.files["/apple_001_singlesequence.zip"] = wrong = good[:-1] + b"x"
    found, stated = (hashlib.sha256(data).hexdigest() for data in (wrong, good))
    with pytest.raises(FetchError, match=rf"apple_001.zip.bad has SHA-256 {found}, but its publisher states {stated}"):
        fetch(tmp_path, server)
    archives = tmp_path / "singlesequence/.archives"
    assert len(asked(server, PIXELS)) == 2 and (archives / "apple_001.zip.bad").read_bytes() == wrong
    assert not (archives / PIXELS).exists() and not list((tmp_path / "singlesequence/apple").glob("110*"))


def test_a_wrong_archive_left_by_an_earlier_run_is_replaced(tmp_path, tree, server):
    path = tmp_path / "singlesequence/.archives" / PIXELS
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of it")
    fetch(tmp_path, server)
    assert filled(tmp_path) == contents(tree)


def test_archives_are_hashed_again_when_they_changed(tmp_path, tree, server):
    fetch(tmp_path, server, "keep_archives=true")
    kept = tmp_path / "singlesequence/.archives" / PIXELS
    assert kept.read_bytes() == server.files["/apple_001_singlesequence.zip"]
    kept.write_bytes(b"another file")
    shutil.rmtree(tmp_path / "singlesequence/apple")
    fetch(tmp_path, server)
    assert filled(tmp_path) == contents(tree)


def test_an_archive_published_anew_is_taken_again(tmp_path, tree, server):
    fetch(tmp_path, server)
    serve_archive(
        server,
        APPLE,
        zipped(
            {
                name: (tree / name).read_bytes()
                for name in contents(tree)
                if name.startswith("apple/") and name.endswith((".jgz", ".json"))
            }
            | {"apple/news.txt": b"2"}
        ),
    )
    other = f"{server.url}/upstream/"  # the first address's lists are kept: a pinned upstream does not change
    fetch_co3d(block(tmp_path, f"{server.url}/upstream"), tmp_path, 1)
    assert not (tmp_path / "singlesequence/apple/news.txt").exists()
    server.files |= {name.replace("/upstream/", "/newer/"): data for name, data in server.files.items()}
    fetch_co3d(block(tmp_path, other.replace("upstream/", "newer")), tmp_path, 1)
    assert (tmp_path / "singlesequence/apple/news.txt").read_bytes() == b"2"


def test_an_unstated_checksum_needs_permission(tmp_path, server):
    change(server, "co3d_sha256.json", lambda sums: sums.pop(PIXELS))
    with pytest.raises(ValueError, match="no checksum of apple_001.zip; .*allow_unverified"):
        fetch(tmp_path, server)
    assert filled(tmp_path) == {} and asked(server, APPLE) == []
    manifest = fetch(tmp_path, server, "allow_unverified=true")
    assert manifest["unverified"] == [PIXELS] and len(manifest["sources"]["apple"][PIXELS]) == 64


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda good: good[:5000], "apple_001.zip is broken"),
        (lambda good: zipped({"../escape": b"x"}), "unsafe_archive: member '../escape' of apple_001.zip"),
    ],
)
def test_archives_not_to_be_trusted_leave_no_trace(tmp_path, server, data, words):
    serve_archive(server, PIXELS, data(server.files["/apple_001_singlesequence.zip"]))
    with pytest.raises(ArchiveError, match=words):
        fetch(tmp_path, server)
    assert not list((tmp_path / "singlesequence/apple").glob("110*")) and not (tmp_path / "escape").exists()
    assert not (tmp_path / "singlesequence/.extracted/apple_001.zip.json").exists()


def test_an_unknown_category_is_answered_with_the_known_ones(tmp_path, server):
    with pytest.raises(ValueError, match="categories names appel, .*singlesequence set.*choose from apple, vase"):
        fetch(tmp_path, server, "categories=[appel,vase]")
    assert filled(tmp_path) == {}


@pytest.mark.parametrize(
    ("file", "edit", "words"),
    [
        ("links.json", lambda links: links.update(apple="no list"), "links.json at /singlesequence/apple: found str"),
        ("links.json", lambda links: links.update(apple=["http://x/../a b.zip"]), "/singlesequence/apple/0.*address"),
        ("links.json", lambda links: links.pop("METADATA"), "entry METADATA is missing"),
        ("co3d_sha256.json", lambda sums: sums.update({APPLE: 7}), "co3d_sha256.json at /singlesequence/apple_000.zip"),
    ],
)
def test_lists_of_another_shape_are_refused_with_the_place(tmp_path, server, file, edit, words):
    change(server, file, edit)
    with pytest.raises(ValueError, match=words):
        fetch(tmp_path, server)
    assert filled(tmp_path) == {}


def test_a_list_of_lists_that_is_a_web_page_is_not_kept(tmp_path, server):
    server.files["/category_to_subset_name_list_singlesequence.json"] = b"<html>Sign in</html>"
    with pytest.raises(ValueError, match="category_to_subset_name_list.json is not JSON"):
        fetch(tmp_path, server)
    assert filled(tmp_path) == {}


def test_mirrors_serve_the_same_names(tmp_path, tree, server):
    archives = {name: data for name, data in server.files.items() if not name.startswith("/upstream")}
    with serving() as other:
        other.files = {f"/co3d{name}": data for name, data in archives.items()}
        fetch(tmp_path / "1", server, f"mirror={other.url}/co3d/")
        assert {path for path, _ in server.requests} == {"/upstream/links.json", "/upstream/co3d_sha256.json"}
    official, tool = tmp_path / "official", tmp_path / "tool"  # the official tool drops the suffix
    for name, data in archives.items():
        for folder, file in ((official, name[1:]), (tool, name[1:].replace("_singlesequence", ""))):
            folder.mkdir(exist_ok=True)
            (folder / file).write_bytes(data)
    for number, folder in enumerate((official, tool), 2):
        fetch(tmp_path / str(number), server, f"mirror={folder}")
        assert len(list(folder.iterdir())) == len(archives)
    assert all(filled(tmp_path / str(number)) == contents(tree) for number in (1, 2, 3))
    (tool / PIXELS).write_bytes(b"damaged")
    with pytest.raises(FetchError, match="apple_001.zip has SHA-256 .*replace it"):
        fetch(tmp_path / "4", server, f"mirror={tool}")
    (tool / PIXELS).unlink()
    with pytest.raises(FetchError, match="holds no apple_001_singlesequence.zip; place it there"):
        fetch(tmp_path / "4", server, f"mirror={tool}")


def test_the_lists_may_lie_in_a_folder(tmp_path, server):
    folder = tmp_path / "lists"
    folder.mkdir()
    with pytest.raises(FetchError, match="source.upstream is .*there is no links.json"):
        fetch_co3d(block(tmp_path, str(folder)), tmp_path, 1)
    for name in ("links.json", "co3d_sha256.json"):
        (folder / name).write_bytes(server.files[f"/upstream/{name}"])
    assert fetch_co3d(block(tmp_path, str(folder)), tmp_path, 1)["categories"] == ["apple", "vase"]


def test_the_disk_is_looked_at_first(tmp_path, server, monkeypatch):
    usage = namedtuple("usage", "total used free")
    size = sum(len(data) for name, data in server.files.items() if name.endswith(".zip"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 2 * size))
    with pytest.raises(FetchError, match=rf"4 archives need {int(2.2 * size)} bytes in .* has {2 * size} free"):
        fetch(tmp_path, server)
    assert filled(tmp_path).keys() == {"category_to_subset_name_list.json"}


def test_an_unreachable_upstream_says_what_else_can_be_done(tmp_path, server):
    del server.files["/upstream/links.json"]
    with pytest.raises(FetchError, match="links.json cannot be had: .* 404 .*source.upstream, or .*source.root"):
        fetch(tmp_path, server)


def test_a_folder_filled_by_hand_is_listed_and_left_alone(tmp_path, tree):
    source = block(tmp_path / "store", "nowhere", f"root={tree}")
    before = contents(tree)
    manifest = fetch_co3d(source, tmp_path, 1)
    assert manifest["categories"] == ["apple", "vase"] and manifest["sources"]["apple"].keys() == {"files"}
    assert contents(tree) == before and not (tmp_path / "store").exists()
    one = fetch_co3d(block(tmp_path, "nowhere", f"root={tree}", "categories=[vase]"), tmp_path, 1)
    assert one["categories"] == ["vase"] and one["sources"]["vase"] == manifest["sources"]["vase"]
    with pytest.raises(ValueError, match="names banana, .*choose from apple, vase"):
        fetch_co3d(block(tmp_path, "nowhere", f"root={tree}", "categories=[banana]"), tmp_path, 1)


def test_what_a_folder_lacks_is_named(tmp_path, tree):
    with pytest.raises(FileNotFoundError, match="datasets.co3d.source.root is .*absent.*frame_annotations.jgz"):
        fetch_co3d(block(tmp_path, "nowhere", f"root={tmp_path / 'absent'}"), tmp_path, 1)
    with pytest.raises(ValueError, match="holds no category; datasets.co3d.source.root must name"):
        (tmp_path / "empty").mkdir()
        fetch_co3d(block(tmp_path, "nowhere", f"root={tmp_path / 'empty'}"), tmp_path, 1)
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    (copy / "vase/sequence_annotations.jgz").unlink()
    with pytest.raises(FileNotFoundError, match="vase/sequence_annotations.jgz is missing"):
        fetch_co3d(block(tmp_path, "nowhere", f"root={copy}"), tmp_path, 1)
