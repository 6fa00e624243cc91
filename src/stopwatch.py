"""How long each stage took when it last ran here: scratch/stages/<stage>.json, which neither Git nor DVC tracks."""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path("scratch/stages")
STAGES = ("download", "weights", "prepare", "extract_geometry", "extract_backbone", "train", "render", "evaluate",
          "benchmark", "report")


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
    FOLDER.mkdir(parents=True, exist_ok=True)
    measured = StageTime(round(time.monotonic() - start, 2), peak_bytes())
    (FOLDER / f"{stage}.json").write_text(json.dumps(asdict(measured)) + "\n", "utf8")


def stage_times() -> dict[str, StageTime]:
    """The last recorded run of each stage, in the pipeline's order."""
    paths = {stage: FOLDER / f"{stage}.json" for stage in STAGES}
    return {stage: StageTime(**json.loads(path.read_text("utf8"))) for stage, path in paths.items() if path.exists()}
