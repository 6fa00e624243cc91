"""What a fresh clone installs, and when again; the project as an installed package; the hooks before a commit."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.repository import ROOT

LISTS = ("requirements.txt", "requirements-test.txt", "requirements-viewer.txt")
WEIGHTS = "requirements-weights.txt"  # packages whose files alone are wanted, by tests/fetching/test_packages.py
LOCK = "constraints.txt"
RUN = ["dvc repro", "python -m src.compare"]  # of make repro, once all is installed
INSTALLING = ("Makefile", "pyproject.toml", "README.md", *LISTS, WEIGHTS, LOCK)

# Stands for Python and for each tool that an installation brings; says what it was asked.
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$ASKED"
if [ "$2 $3" = "pip freeze" ]; then
  echo "numpy==1.0"
fi
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"
  for name in python dvc ruff mypy; do cp "$0" "$3/bin/$name"; done
fi
"""


@pytest.fixture
def clone(tmp_path) -> Path:
    for name in INSTALLING:
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "bin/python3"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def make(folder: Path, target: str) -> list[str]:
    """What `make target` asked of Python and of the installed tools, in order."""
    asked = folder / "asked"
    asked.write_text("")
    environment = os.environ | {"ASKED": str(asked), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("MAKEFLAGS", None)
    done = subprocess.run(["make", target], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in asked.read_text().splitlines()]


def installed(asked: list[str]) -> list[str]:
    return [line.split()[-1] for line in asked if " pip install " in line]


def change(folder: Path, name: str) -> None:
    """One list becomes newer than what is installed; the installation was newer than all of them."""
    for other in INSTALLING:
        os.utime(folder / other, (1000, 1000))
    for marker in (folder / ".venv").glob("installed*"):
        os.utime(marker, (2000, 2000))
    os.utime(folder / name, (3000, 3000))


def test_repro_installs_what_a_run_needs_and_again_when_its_list_changed(clone):
    first = make(clone, "repro")
    assert installed(first) == ["requirements.txt", WEIGHTS] and first[-2:] == RUN
    assert all(" --no-deps --require-hashes " in line for line in first if line.endswith(WEIGHTS))
    assert make(clone, "repro") == RUN
    change(clone, "requirements-test.txt")
    assert make(clone, "repro") == RUN
    for name in ("requirements.txt", WEIGHTS, LOCK):
        change(clone, name)
        assert installed(make(clone, "repro")) == ["requirements.txt", WEIGHTS]


def test_test_installs_everything_and_checks_style_and_types_before_the_tests(clone):
    first = make(clone, "test")
    assert installed(first) == ["requirements.txt", WEIGHTS, "requirements-test.txt"]
    checks = ["ruff check", "ruff format --check", "mypy"]
    assert first[-4:-1] == checks and first[-1].startswith("python -m pytest")
    assert make(clone, "test") == first[-4:]
    for name in LISTS[1:]:
        change(clone, name)
        assert installed(make(clone, "test")) == ["requirements-test.txt"]


def test_everything_but_weights_is_installed_at_the_versions_of_the_lock(clone):
    lines = [line for line in make(clone, "test") if " pip install " in line]
    unlocked = [line for line in lines if f" --constraint {LOCK} " not in line]
    assert len(lines) == 3 and [line.split()[-1] for line in unlocked] == [WEIGHTS]


def pinned(name: str) -> dict[str, str]:
    """Packages of a list and their versions, those of the lists that it names included."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("--requirement "):
            found |= pinned(line.split()[1])
        else:
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), f"{name}: {line} is no exact version"
            found |= [line.split("==")]
    return found


def test_the_lists_are_exact_and_the_tests_list_holds_the_others():
    run, test, viewer = (pinned(name).keys() for name in LISTS)
    assert run | viewer < test and not run & viewer and "pytest" not in run


def locked() -> dict[str, str]:
    """Package -> version."""
    lines = [line for line in (ROOT / LOCK).read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[0-9][0-9a-z.]*", line)] == []
    found = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(found) == len(lines)
    return found


def brought_by(names: Iterable[str]) -> set[str]:
    """These packages and all that they need here, as far as they are installed."""
    found, waiting = set(), [Requirement(name) for name in names]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        try:
            needs = map(Requirement, distribution(name).requires or [])
        except PackageNotFoundError:
            continue
        key = (name, *sorted(asked.extras))
        if key not in found:
            found.add(key)
            wanted = [{"extra": extra} for extra in ("", *asked.extras)]
            waiting += [need for need in needs if not need.marker or any(map(need.marker.evaluate, wanted))]
    return {name for name, *_ in found}


def test_the_lock_has_every_requirement_at_its_version_and_all_that_these_bring():
    asked, lock = pinned("requirements-test.txt"), locked()
    assert {name: lock.get(name) for name in asked} == asked
    assert brought_by(asked) - lock.keys() == set()
    assert len(lock) > 2 * len(asked)  # most packages are brought by others


def test_make_lock_writes_what_is_installed(clone):
    make(clone, "lock")
    written = (clone / LOCK).read_text().splitlines()
    assert written[0].startswith("# Exact versions") and "make lock" in written[0]
    assert written[1:] == ["numpy==1.0"]


def environment() -> dict[str, str]:
    """A fresh Python that finds this one's packages, but not what the current folder holds."""
    found = [path for path in sys.path if path.endswith("site-packages")]
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PYTHONPATH": os.pathsep.join(found)
    }


@pytest.fixture
def sources(clone) -> Path:
    shutil.copytree(ROOT / "src", clone / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return clone


PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index"]


def test_an_editable_installation_gives_the_same_imports_elsewhere(sources, tmp_path_factory):
    place = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "env"], check=True)
    python = place / "env/bin/python"
    words = [python, *PIP, "install", *OFFLINE, "--editable", sources]
    subprocess.run(words, check=True, cwd=place, env=environment())
    code = "import src.config, importlib.metadata as m; print(src.config.__file__, m.version('backsplat'))"
    found = subprocess.run([python, "-c", code], cwd=place, env=environment(), capture_output=True, text=True)
    assert found.stdout.split() == [str(sources / "src/config.py"), version()], found.stderr


def version() -> str:
    return re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]


def test_the_package_holds_every_file_of_the_sources(sources, tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, *PIP, "wheel", *OFFLINE, "--wheel-dir", place, sources]
    subprocess.run(words, check=True, cwd=place, env=environment())
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("src/")}
        about = archive.read(f"backsplat-{version()}.dist-info/METADATA").decode()
    there = {p.relative_to(ROOT).as_posix() for p in (ROOT / "src").rglob("*") if p.is_file()}
    assert held == {name for name in there if "__pycache__" not in name}
    needed = set(re.findall(r"^Requires-Dist: ([\w-]+)==[\w.]+$", about, re.M))
    assert needed == pinned("requirements.txt").keys()


def test_the_hooks_before_a_commit_are_tools_that_the_tests_list_installs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    tools = Path(sys.executable).parent
    for hook in hooks[0]["hooks"]:
        assert (tools / hook["entry"].split()[0]).exists(), hook["entry"]
    checked = subprocess.run([tools / "pre-commit", "validate-config", ROOT / ".pre-commit-config.yaml"])
    assert checked.returncode == 0
