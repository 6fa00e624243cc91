"""The entry of every command: its words, its mistakes as one sentence; and of a stage, its time and memory.

Times lie in scratch/stages/<stage>.json, which neither Git nor DVC tracks.
"""

import argparse
import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, NoReturn

import yaml

from src.config import Config, load_config

STAGE_RECORDS = Path("scratch/stages")
STAGES = (
    "download",
    "weights",
    "prepare",
    "extract_geometry",
    "extract_backbone",
    "probe",
    "train",
    "render",
    "evaluate",
    "real_pair",
    "benchmark",
    "report",
)
SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory")  # CUDA; the CPU's allocator; the system
ADVICE = (
    "data.batch_size=1, a smaller backbone such as model.dinov2_model=dinov2_vits14, "
    "opt.gradient_checkpointing=true, a smaller resolution, or on a GPU opt.precision=bf16-mixed"
)


@dataclass(frozen=True)
class StageTime:
    """Wall-clock seconds of a stage after its imports, and the largest resident set (bytes) of any of its processes."""

    seconds: float
    peak_bytes: int


def peak_bytes() -> int:
    """Largest resident set so far of this process or of one that it has waited for."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


@contextmanager
def recorded(stage: str) -> Iterator[None]:
    """Record the block's time and memory under the stage's name, if it ends without an error."""
    start = time.monotonic()
    yield
    STAGE_RECORDS.mkdir(parents=True, exist_ok=True)
    measured = StageTime(round(time.monotonic() - start, 2), peak_bytes())
    (STAGE_RECORDS / f"{stage}.json").write_text(json.dumps(asdict(measured)) + "\n", "utf8")


def stage_times() -> dict[str, StageTime]:
    """The last recorded run of each stage, in the pipeline's order."""
    paths = {stage: STAGE_RECORDS / f"{stage}.json" for stage in STAGES}
    return {stage: StageTime(**json.loads(path.read_text("utf8"))) for stage, path in paths.items() if path.exists()}


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turn running out of memory, on the GPU or the CPU, into a ValueError of one sentence that says what takes less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        words = str(error).strip().partition("\n")[0]
        if not isinstance(error, MemoryError) and not any(sign in words.lower() for sign in SIGNS):
            raise
        raise ValueError(
            f"Memory ran out ({words.rstrip('.') or 'the system gave no more'}); what takes less: {ADVICE}."
        ) from error


class Words(argparse.ArgumentParser):
    """Reads the words of a command. Wrong ones end it with one sentence and exit status 2; `--help` is answered by
    src/__init__.py."""

    def __init__(self, command: str):
        super().__init__(f"python -m src.{command}", add_help=False, allow_abbrev=False)

    def overrides(self) -> None:
        """Take any number of Hydra's overrides."""
        self.add_argument("overrides", nargs="*", type=override, metavar="key=value")

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        self.exit(2, f"{usage}: {message}; {self.prog} --help says more.\n")


def override(word: str) -> str:
    if "=" not in word and not word.startswith("~"):
        raise argparse.ArgumentTypeError(f"{word!r} is not of the form key=value")
    return word


def producer(path: str) -> str | None:
    """The stage whose output in dvc.yaml is `path` or holds it."""
    for name, stage in yaml.safe_load(Path("dvc.yaml").read_text("utf8"))["stages"].items():
        outs = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"] + stage.get("metrics", [])]
        if any(Path(path).is_relative_to(out) for out in outs):
            return name
    return None


def explained(error: Exception) -> str:
    """What went wrong, in one sentence; of a missing file, the stage that makes it."""
    found = "No such file" in str(error) and re.search(r"(?:data|reports)/[^\s'\":;,]+", str(error))
    if not found or not Path("dvc.yaml").is_file() or not (stage := producer(found[0])):
        return str(error)
    return f"{found[0]} is missing; run dvc repro {stage}."


@contextmanager
def mistakes_explained() -> Iterator[None]:
    """Turn the user's mistakes into one sentence on stderr, and exit status 1."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("BACKSPLAT_TRACEBACK"):
            raise
        sys.exit(f"error: {explained(error)}  (BACKSPLAT_TRACEBACK=1 shows where)")


def run(main: Callable[[Config], None], stage: str, overrides: list[str] | None = None) -> None:
    """Entry point of a stage: load the parameters, changed by `overrides` (None = by the command's words), time it, and
    turn the user's mistakes into one sentence."""
    if overrides is None:
        words = Words(stage)
        words.overrides()
        overrides = words.parse_args().overrides
    with mistakes_explained(), recorded(stage):
        main(load_config(overrides))
