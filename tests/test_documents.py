"""The documents: they build without a warning, their links lead somewhere, and each command in them is one that works."""

import argparse
import functools
import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from dvc.cli import parse_args
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides

from src.config import Config, load_config
from tests.helpers.repository import ROOT

PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] + sorted(
    path.relative_to(ROOT).as_posix() for folder in ("docs", "data/bundled") for path in (ROOT / folder).glob("*.md")
)
SHELL = {"source", "mkdir", "git", "pre-commit"}  # words that are none of this repository's
TOOLS = {"pip", "sphinx"}  # modules, likewise
OPEN = re.compile(r"[<…]")  # of a placeholder, which nobody types


@dataclass(frozen=True)
class Experiment:
    """What a `dvc exp run` changes: overrides of params.yaml, whether the work tree keeps them, and the name it gets."""

    overrides: tuple[str, ...]
    stays: bool
    name: str | None


@functools.cache
def composed(*overrides: str) -> Config:
    return load_config(overrides, ROOT)


def text(page: str) -> str:
    return (ROOT / page).read_text()


def shell_commands(markdown: str) -> list[list[str]]:
    """Words of every command in the ```sh blocks, in order."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split(" && "):
                if words := shlex.split(command.partition(" > ")[0], comments=True):
                    found.append([word.replace("$PWD", str(ROOT)) for word in words])
    return found


def spans(markdown: str) -> list[str]:
    """Every inline `code`, outside of blocks."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def inline_commands(markdown: str) -> list[list[str]]:
    """Commands in the prose, with all their words, such as `dvc repro -f weights`."""
    starts = re.compile(r"(\.venv/bin/)?(dvc|make) [a-z]|python -m src\.|\.ci/")
    bare = re.compile(r"python -m src\.[\w.]+")  # a mention, without the words that it wants
    found = [span for span in spans(markdown) if starts.match(span) and not OPEN.search(span)]
    return [shlex.split(span) for span in found if not bare.fullmatch(span)]


def overrides_in(markdown: str) -> list[str]:
    """Overrides in the prose, such as `-S eval.lpips=vgg` or `opt.gradient_checkpointing=true`."""
    pattern = re.compile(r"(?:-S )?([a-z_0-9]+(?:\.[a-z_0-9]+)+=\S+)")
    return [found[1] for span in spans(markdown) if (found := pattern.fullmatch(span)) and not OPEN.search(span)]


def experiment(words: list[str]) -> Experiment | None:
    """The experiment that a command runs in the root pipeline, if it does."""
    if words[:3] != ["dvc", "exp", "run"]:
        return None
    asked = parse_args(words[1:])
    changed = to_path_overrides(asked.set_param)
    return Experiment(tuple(changed.get("params.yaml", ())), not (asked.tmp_dir or asked.queue), asked.name)


def piled(commands: list[list[str]]) -> list[Experiment]:
    """Experiments that would not be what they say, since an earlier one left its overrides in params.yaml."""
    kept, wrong = [], []
    for one in filter(None, map(experiment, commands)):
        if kept and composed(*kept, *one.overrides) != composed(*one.overrides):
            wrong.append(one)
        kept += one.overrides if one.stays else ()
    return wrong


def stages() -> set[str]:
    return set(yaml.safe_load(text("dvc.yaml"))["stages"])


def check_dvc(words: list[str], known: set[str], folder: Path) -> None:
    """DVC's own parser takes the words; targets, revisions and parameters are there; known: revisions and experiments."""
    asked = parse_args(words[1:])
    for target in getattr(asked, "targets", None) or []:
        assert target in stages() or (ROOT / target).is_file() or words[1] == "plots", f"no stage or file {target}"
    revisions = [getattr(asked, name, None) for name in ("a_rev", "b_rev", "experiment")]
    revisions = {*filter(None, revisions), *(getattr(asked, "revisions", None) or [])}
    assert revisions <= known, f"{revisions} are not all among {known}"
    for file, overrides in to_path_overrides(getattr(asked, "set_param", [])).items():
        if file == "params.yaml":
            composed(*overrides)
        else:
            shutil.copy(ROOT / file, folder / "params.yaml")
            apply_overrides(folder / "params.yaml", overrides)


class Parsed(Exception):
    """A command has understood its words; what it would do next is not done."""


def parsed(name: str, words: list[str]) -> bool:
    """Whether the command's own parser takes the words; the command itself does not run."""

    def stop(parser: argparse.ArgumentParser, *arguments, **options):
        parse(parser, *arguments, **options)
        raise Parsed

    parse = argparse.ArgumentParser.parse_args
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [name, *words])
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except Parsed:
            return True
        except SystemExit:
            return False
    raise AssertionError(f"{name} ran without a look at its words")


def check_module(words: list[str], known: set[str]) -> None:
    """The module is one that runs, and takes the words that follow it."""
    assert words[1] == "-m"
    name, rest = words[2], words[3:]
    if name in TOOLS:
        assert [word for word in rest if word.endswith(".txt") and not (ROOT / word).is_file()] == []
        return
    assert runnable(name), f"there is no {name} to run"
    assert parsed(name, rest), f"{name} does not take {rest}"
    if name == "src.sweep":
        sweep = importlib.import_module(name)
        for overrides in sweep.combinations(sweep.read_words(rest).words):
            composed(*(f"{key}={value}" for key, value in overrides.items()))
    elif name == "src.compare":
        revisions = {word.rpartition("=")[2] for word in rest if not word.startswith("--")}  # NAME=REV
        assert revisions <= known, f"{revisions} are not all among {known}"
    elif name == "src.transfer":
        composed(*rest[1:])


def runnable(name: str) -> bool:
    file = ROOT / Path(*name.split("."))
    return file.with_suffix(".py").is_file() or (file / "__main__.py").is_file()


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w./$()-]+):", text("Makefile"), re.MULTILINE)
    assert words[1:] and set(words[1:]) <= set(targets), f"{words[1:]} are not all among {targets}"


def check(words: list[str], known: set[str], folder: Path) -> None:
    program = words[0].removeprefix(".venv/bin/")
    if program == "dvc":
        check_dvc(["dvc", *words[1:]], known, folder)
    elif program == "python":
        check_module(words, known)
    elif program == "make":
        check_make(words)
    elif "/" in program:
        assert os.access(ROOT / program, os.X_OK), f"there is no program {program}"
    else:
        assert program in SHELL, f"{program} is no command that this test knows"


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_a_page_is_one_that_works_in_the_order_it_stands(page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    known = {"main", "HEAD"}
    for words in shell_commands(text(page)):
        check(words, known, tmp_path)
        if (run := experiment(words)) and run.name:
            known.add(run.name)
    for words in inline_commands(text(page)):
        check(words, known, tmp_path)
    for override in overrides_in(text(page)):
        composed(override)


@pytest.mark.parametrize("page", PAGES)
def test_documented_experiments_each_start_from_the_parameters_of_the_work_tree(page):
    assert piled(shell_commands(text(page)) + inline_commands(text(page))) == []


def test_experiments_that_leave_their_overrides_behind_are_noticed():
    block = "```sh\ndvc exp run -n base -S model.backbone=none\ndvc exp run -n add -S model.fusion_mode=add\n```\n"
    assert [one.name for one in piled(shell_commands(block))] == ["add"]
    assert piled(shell_commands(block.replace("exp run", "exp run --temp"))) == []
    assert piled(shell_commands(block.replace("exp run", "exp run --queue"))) == []


@pytest.mark.parametrize(
    "command, words",
    [
        ("dvc exp run --temp -S model.backbon=none", "backbon"),
        ("dvc repro trian", "trian"),
        ("dvc exp apply other", "other"),
        ("dvc metrics diff main other", "other"),
        ("python -m src.trian", "src.trian"),
        ("python -m src.compare main other", "other"),
        ("python -m src.benchmark --rasteriser", "--rasteriser"),
        ("python -m src.view", "src.view"),
        ("python -m src.sweep model.fusion_mode=add,ad", "'ad'"),
        ("make repo", "repo"),
        (".ci/coment main", "coment"),
        ("rm -r data", "rm"),
    ],
)
def test_a_command_that_does_not_work_is_noticed(command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, ValueError), match=words):
        check(shlex.split(command), {"main"}, tmp_path)


def site_pages() -> list[Path]:
    return [path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")]


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path / "html")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert {path.stem for path in (tmp_path / "html").glob("*.html")} >= {path.stem for path in site_pages()}


def test_each_page_is_reachable_from_the_index():
    toctrees = re.findall(r"```\{toctree\}\n(.*?)```", text("docs/index.md"), re.DOTALL)
    listed = [line for tree in toctrees for line in tree.splitlines() if line and not line.startswith(":")]
    assert sorted(listed) == sorted(path.stem for path in site_pages() if path.stem != "index")


def test_readme_is_short_and_names_each_page():
    readme = text("README.md")
    assert len(readme.splitlines()) <= 150
    own = set(site_pages()) - {ROOT / "docs/index.md"}
    included = {path for path in own if "{include}" in path.read_text()}  # linked where they lie
    assert {path.name for path in own - included} <= set(re.findall(r"\(docs/(\w+\.\w+)\)", readme))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text(page))]
    files = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in files if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_and_modules_of_the_repository_that_a_page_names_exist(page):
    modules = [span.split()[2] for span in spans(text(page)) if re.match(r"python -m src\.\w", span)]
    assert [name for name in modules if not runnable(name)] == []
    path = re.compile(r"(src|tests|docs|\.github|\.ci|data/bundled|data/distilled)/[^\s<…]*")
    assert [span for span in spans(text(page)) if path.fullmatch(span) and not (ROOT / span).exists()] == []


def test_names_that_contributing_places_in_a_file_stand_there():
    rows = re.findall(r"^\| (`src/[^|]*) \| ([^|]*) \|$", text("CONTRIBUTING.md"), re.MULTILINE)
    placed = [
        (file, name)
        for files, what in rows
        for file in spans(files)
        if not OPEN.search(file)
        for name in spans(what)
        if re.fullmatch(r"[A-Z]\w+", name)
    ]
    missing = [(file, name) for file, name in placed if not re.search(rf"^(class )?{name}\b", text(file), re.M)]
    assert placed and missing == []


def test_the_architecture_names_each_command_and_each_room():
    there = {
        f"src/{path.name}" + "/" * path.is_dir()
        for path in (ROOT / "src").iterdir()
        if path.suffix == ".py" and path.name != "__init__.py" or (path / "__init__.py").is_file()
    }
    assert there - set(spans(text("ARCHITECTURE.md"))) == set()


def test_the_citation_has_what_its_format_wants_and_the_version_of_the_package():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"## {citation['version']}" in text("CHANGELOG.md")
