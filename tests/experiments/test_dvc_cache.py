import shutil
from pathlib import Path

import pytest

from src.experiments.dvc_cache import cached_files, second_experiment
from src.experiments.result import ExperimentResult
from tests.helpers.repository import empty_repository, say
from tests.helpers.serving import serving

STAGES = """stages:
  render:
    cmd: mkdir -p data/renders && cp word.txt data/renders/a.ply && echo b > data/renders/b.ply
    deps: [word.txt]
    outs: [data/renders]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> tuple[Path, list[str]]:
    """A DVC repository with two commits whose data/renders differ, and the commits."""
    folder, commits = tmp_path_factory.mktemp("repository"), []
    empty_repository(folder)
    (folder / "dvc.yaml").write_text(STAGES)
    (folder / ".gitignore").write_text("/data\n")
    for word in ("old", "new"):
        (folder / "word.txt").write_text(word)
        say(folder, "dvc", "repro", "-q")
        say(folder, "git", "add", "-A")
        say(folder, "git", "commit", "-qm", word)
        commits.append(say(folder, "git", "rev-parse", "HEAD"))
    return folder, commits


def result(name: str, revision: str | None, backbone: str = "vit", steps: int = 3) -> ExperimentResult:
    about = {"backbone": {"name": backbone}, "protocol": {"steps": steps, "seed": 0}}
    return ExperimentResult(name, about, rows=[], curves={}, benchmark=None, revision=revision)


def test_files_of_another_revision_come_from_the_cache(repository):
    folder, (old, new) = repository
    found = cached_files(folder, old, "data/renders")
    assert {name: path.read_text().strip() for name, path in found.items()} == {
        "data/renders/a.ply": "old",
        "data/renders/b.ply": "b",
    }
    assert cached_files(folder, new, "data/renders")["data/renders/a.ply"].read_text() == "new"


def test_what_the_cache_or_the_revision_does_not_hold_is_absent(repository, tmp_path):
    folder, (old, _) = repository
    assert cached_files(folder, None, "data/renders") == {}
    assert cached_files(folder, old, "data/model") == {}
    assert set(cached_files(folder, old, "data/model", "data/renders")) == {"data/renders/a.ply", "data/renders/b.ply"}
    assert cached_files(folder, "0" * 40, "data/renders") == {}
    say(tmp_path, "git", "clone", "-q", str(folder), "clone")
    assert cached_files(tmp_path / "clone", old, "data/renders") == {}
    shutil.rmtree(tmp_path / "clone/.dvc")
    assert cached_files(tmp_path / "clone", old, "data/renders") == {}


def test_a_file_that_the_cache_lost_is_absent_and_another_cache_is_found(repository, tmp_path):
    folder, (old, _) = repository
    shutil.copytree(folder / ".dvc/cache", tmp_path / "shared")
    say(tmp_path, "git", "clone", "-q", str(folder), "clone")
    say(tmp_path / "clone", "dvc", "cache", "dir", "--local", str(tmp_path / "shared"))
    found = cached_files(tmp_path / "clone", old, "data/renders")
    assert set(found) == {"data/renders/a.ply", "data/renders/b.ply"}
    assert found["data/renders/a.ply"].is_relative_to(tmp_path / "shared")
    found["data/renders/b.ply"].unlink()
    assert set(cached_files(tmp_path / "clone", old, "data/renders")) == {"data/renders/a.ply"}


def test_no_remote_is_asked(repository, tmp_path):
    folder, (old, _) = repository
    say(tmp_path, "git", "clone", "-q", str(folder), "clone")
    with serving() as server:
        say(tmp_path / "clone", "dvc", "remote", "add", "--local", "-d", "far", server.url)
        assert cached_files(tmp_path / "clone", old, "data/renders") == {}
        assert server.requests == []


def test_the_second_arm_is_the_baseline_or_else_the_first_comparable_one(repository):
    folder, (old, new) = repository
    current, other, base = result("this run", None), result("add", old), result("base", new, "none")
    longer = result("long", new, "none", steps=9)
    assert second_experiment(folder, [current, longer, other, base], "data/renders")[0] is base
    found = second_experiment(folder, [current, longer, other], "data/renders")
    assert found[0] is other and set(found[1]) == {"a.ply", "b.ply"}
    assert second_experiment(folder, [current, longer], "data/renders") is None
