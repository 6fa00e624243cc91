"""Commands (`python -m src.<name>`) and the rooms that they share.

What every command does alike is done here, before it loads torch, which takes seconds: `--help` prints the text at the
top of its file; Ctrl-C ends it with one line that says how to go on.
"""

import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

MOVED = {
    "src.catalogue": "src.backbones",
    "src.lint": "src.check_scenes",
    "src.render_targets": "src.render",
    "src.statistics": "src.results.simulate",
}


OVERRIDES = """key=value changes a parameter of params.yaml for this call alone, as in opt.steps=50; its grammar is Hydra's.
dvc repro runs all stages in order; dvc exp run -S key=value does so with a changed parameter."""


def usage(command: str) -> str | None:
    """The text at the top of the file that `python -m <command>` runs; None where there is no such file."""
    path = Path(__file__).resolve().parents[1].joinpath(*command.split("."))
    files = [file for file in (path.with_suffix(".py"), path / "__main__.py") if file.is_file()]
    if not files:
        return None
    text = ast.get_docstring(ast.parse(files[0].read_text("utf8")))
    return f"{text}\n\n{OVERRIDES}" if "[key=value ...]" in text else text


def parameters_changed() -> bool:
    """Whether params.yaml differs from the last commit."""
    words = ["git", "diff", "--quiet", "HEAD", "--", "params.yaml"]
    try:
        return subprocess.run(words, capture_output=True, timeout=10).returncode == 1
    except (OSError, subprocess.TimeoutExpired):
        return False


def way_on(command: str, words: list[str]) -> str:
    """What to type after an interruption: what was typed before, which of DVC's commands it was included."""
    if "DVC_STAGE" not in os.environ:
        return f"{shlex.join(['python', '-m', command, *words])} goes on."
    if "DVC_EXP_NAME" not in os.environ:
        return "dvc repro goes on."
    on = "the same dvc exp run goes on"
    if ".dvc/tmp" not in Path.cwd().as_posix() and parameters_changed():  # a queued one has a folder of its own
        on += "; git checkout params.yaml takes its -S changes back"
    return f"{on}."


def begin_command(command: str, words: list[str]) -> None:
    """Answer `--help`, and from here on Ctrl-C."""
    if command in MOVED:
        sys.exit(f"error: python -m {command} is now python -m {MOVED[command]}.")
    if {"-h", "--help"} & set(words) and (text := usage(command)):
        print(text)
        sys.exit()

    def end(kind, error, trace) -> None:
        if not issubclass(kind, KeyboardInterrupt) or "BACKSPLAT_TRACEBACK" in os.environ:
            return sys.__excepthook__(kind, error, trace)
        shown = "\n" if sys.stderr.isatty() else ""  # after ^C, and what a progress bar left of its line
        print(f"{shown}{command}: interrupted; {way_on(command, words)}", file=sys.stderr)
        sys.exit(130)

    sys.excepthook = end


if sys.argv[0] == "-m" and "-m" in sys.orig_argv:  # as Python begins python -m src.<name>
    place = sys.orig_argv.index("-m") + 1
    if sys.orig_argv[place].startswith("src."):
        begin_command(sys.orig_argv[place], sys.orig_argv[place + 1 :])
