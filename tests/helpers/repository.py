"""The work tree's modules and what they import; a fresh repository of its files."""

import ast
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A new key, or how a stage is timed, decides no byte of a result; `check` alone depends on the first.
UNHASHED = {"src/config.py", "src/parameters/datasets.py", "src/parameters/rules.py", "src/run.py"}


def module_file(name: str) -> str | None:
    """Project file of a dotted module name, relative to the root; None for other modules and for names inside one."""
    path = ROOT / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate.relative_to(ROOT).as_posix()
    return None


@functools.cache
def imports(file: str) -> set[str]:
    """Project files that `file` imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively; write src.…"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {found for name in names if name.split(".")[0] == "src" and (found := module_file(name))} - {file}


def reached(file: str, beyond: frozenset[str] | set[str] = frozenset()) -> set[str]:
    """Project files that `file` imports, directly or not, and itself; not what those of `beyond` import, nor these."""
    seen, waiting = set(), [file]
    while waiting:
        if (current := waiting.pop()) not in seen and current not in beyond:
            seen.add(current)
            waiting += imports(current)
    return seen


def room(file: str) -> str:
    """src/<room> of a file in a room; a command is its own."""
    parts = file.split("/")
    return file if len(parts) == 2 else "/".join(parts[:2])


SHORT_RUN = [  # of the whole pipeline, on a dataset as small; neither network nor weights are needed
    "eval.lpips=none",
    "loss.lpips_loss_weight=0",
    "threads=1",
    "model.backbone=rgb",
    "probe.pairs=4",
    "opt.steps=4",
    "opt.val_every=2",
    "opt.log_every=1",
    "eval.num_plys=1",
]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def start_repository(folder: Path) -> None:
    """A new Git repository, with an author, in a folder that may hold files."""
    for words in (
        ["init", "-q", "-b", "main"],
        ["config", "user.email", "a@example.org"],
        ["config", "user.name", "A"],
    ):
        say(folder, "git", *words)


def empty_repository(folder: Path) -> None:
    """A new repository of Git and DVC in a folder that may hold files."""
    start_repository(folder)
    say(folder, "dvc", "init", "-q")


def say(folder: Path, *words: str) -> str:
    """What a command answers that must succeed."""
    done = run(folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fresh_repository(folder: Path) -> Path:
    """A new Git repository in `folder`, with the files of the work tree."""
    files = run(ROOT, "git", "ls-files", "-co", "--exclude-standard").stdout.split()
    for file in files:
        if (ROOT / file).exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    for path in (ROOT / "src").rglob("*.nb[ic]"):  # what Numba has compiled already
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / path.relative_to(ROOT))
    start_repository(folder)
    for words in (["add", "-A"], ["commit", "-qm", "start"]):
        say(folder, "git", *words)
    return folder
