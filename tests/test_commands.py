"""Every `python -m src.X`: its usage text, wrong words, and Ctrl-C."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

FILES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "src").rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]
HEAVY = re.compile(r"\b(torch|numpy|hydra|timm|lightning|viser)\b")


def command(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__main__").replace("/", ".")


def test_commands_are_known():
    assert {"src.train", "src.backbones", "src.results.simulate"} <= set(map(command, FILES))


@pytest.mark.parametrize("file", FILES)
def test_help_is_the_text_at_the_top_of_the_file_at_once(file):
    """At once: nothing heavy is imported, which Python lists on stderr."""
    words = [sys.executable, "-X", "importtime", "-m", command(file), "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and HEAVY.findall(done.stderr) == []
    summary, usage = done.stdout.split("\n\n")[:2]
    assert summary.endswith(".") and f"python -m {command(file)}" in usage
    options = re.findall(r'add_argument\(((?:"-+\w+"(?:, )?)+)', (ROOT / file).read_text())
    for option in re.findall(r"-+\w+", " ".join(options)):
        assert option in done.stdout
    assert ("[key=value ...]" in usage) == ("dvc exp run -S key=value" in done.stdout)


@pytest.mark.parametrize("file", FILES)
def test_wrong_words_end_with_one_sentence(file, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["command", "--nonsense"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert err.startswith(f"usage: python -m {command(file)}") and err.count("\n") == 1 and "--help" in err


@pytest.mark.parametrize(
    ("file", "words", "wanted"),
    [
        ("src/train.py", ["steps"], "'steps' is not of the form key=value"),
        ("src/extract.py", ["tokens"], "choose from"),
        ("src/extract.py", [], "required: kind"),
        ("src/distill.py", [], "required: NAME"),
        ("src/sweep.py", ["seed"], "'seed' is not of the form key=value"),
        ("src/check_scenes.py", ["a", "b", "c"], "unrecognized arguments: c"),
    ],
)
def test_wrong_words_are_named(file, words, wanted, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert stop.value.code == 2 and wanted in capsys.readouterr().err


def test_a_moved_command_says_where_it_went():
    done = subprocess.run([sys.executable, "-m", "src.lint", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "error: python -m src.lint is now python -m src.check_scenes.\n"


@pytest.fixture
def slow(tmp_path) -> Path:
    """A repository with a command that is interrupted as soon as it runs."""
    (tmp_path / "src").mkdir()
    shutil.copy(ROOT / "src/__init__.py", tmp_path / "src")
    (tmp_path / "src/slow.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('not reached')\n"
    )
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def interrupted(folder: Path, *words: str, **variables: str) -> str:
    """What the interrupted command says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "BACKSPLAT_"))}
    call = [sys.executable, "-m", "src.slow", *words]
    done = subprocess.run(call, cwd=folder, env=environment | variables, capture_output=True, text=True)
    assert done.returncode == 130 and done.stdout == ""
    return done.stderr


def test_an_interrupted_command_says_how_to_go_on(slow):
    assert interrupted(slow, "a b") == "src.slow: interrupted; python -m src.slow 'a b' goes on.\n"
    assert interrupted(slow, DVC_STAGE="slow") == "src.slow: interrupted; dvc repro goes on.\n"


def test_an_interrupted_experiment_says_how_to_take_its_changes_back(slow):
    experiment = {"DVC_STAGE": "slow", "DVC_EXP_NAME": "mine"}
    assert interrupted(slow, **experiment) == "src.slow: interrupted; the same dvc exp run goes on.\n"
    (slow / "params.yaml").write_text("seed: 1\n")
    assert "git checkout params.yaml takes its -S changes back" in interrupted(slow, **experiment)
    queued = slow / ".dvc" / "tmp" / "exps" / "1"
    shutil.copytree(slow, queued, ignore=shutil.ignore_patterns(".dvc"))
    assert "params.yaml" not in interrupted(queued, **experiment)


def test_an_interruption_can_be_traced(slow):
    environment = os.environ | {"BACKSPLAT_TRACEBACK": "1"}
    call = [sys.executable, "-m", "src.slow"]
    assert "KeyboardInterrupt" in subprocess.run(call, cwd=slow, env=environment, capture_output=True, text=True).stderr
