"""Many experiments with one command, and the table that compares them.

    python -m src.sweep model.backbone=none,dinov2,constant
    python -m src.sweep model.backbone=none + model.dinov2_model=dinov2_vits14,dinov2_vitb14 model.weights=pretrained
    python -m src.sweep --jobs 2 model.backbone=none,dinov2,constant

Words are Hydra overrides with one value or several; their product is a grid, and "+" stands between grids. A grid that
names no seed is trained with the seeds 0, 1 and 2; seed=0 trains once. Every configuration is checked before the first
run, and what all will cost is said. The experiments run one after the other by `dvc exp run --temp`, in copies of
the repository: however one ends, the work tree is as it was and the next one starts. What ran already, with the same
parameters and code, from the same commit, is not run again, so the same command resumes a sweep that was cut short.

--jobs N runs N experiments at a time, each in a clone of the repository with the same DVC cache. The clones share out
the GPUs; on CPU they share the processor.

writes a `dvc exp` experiment each, its output in scratch/sweep/<name>.log, and reports/comparison (see src/compare.py)
"""

import argparse
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException

from src.backbones.registry import refuse_backbone
from src.compare import publish_comparison
from src.config import Config, load_config
from src.experiments.jobs import interrupt, make_jobs
from src.experiments.result import experiment_commits, merge_seeds, read_revision
from src.parameters.rules import ConfigError
from src.reproducible.hashes import params_hash
from src.reproducible.versions import git_output
from src.run import Words, mistakes_explained, override, stage_times

LOGS = Path("scratch/sweep")
CLONES = LOGS / "clones"
CODE = ("src", "dvc.yaml", "data/bundled")  # what an experiment's result depends on besides params.yaml, and Git tracks
SEEDS = "seed=0,1,2"  # where a grid names none: a single training decides little
LONGEST = 100  # characters of the readable part of a name
PAUSE = 0.2  # seconds between two looks at what runs
PROGRESS = re.compile(r"\d+%\|")  # of a progress bar


@dataclass(frozen=True)
class PlannedExperiment:
    """One experiment of a sweep: its name, which ends in a hash of parameters and code, and its overrides."""

    name: str
    overrides: tuple[str, ...]


def values_of(word: str) -> tuple[str, list[str]]:
    """Key and values of an override: "a.b=1,2" -> ("a.b", ["1", "2"]); brackets and quotes hold a value together.

    raises    ValueError  when it is none, or names no values
    """
    try:
        override = OverridesParser.create().parse_override(word)
        if override.type is not OverrideType.CHANGE:
            raise ValueError(f"{word} adds or deletes a key; a sweep changes those that params.yaml has.")
        swept = override.is_sweep_override()
        values = list(override.sweep_string_iterator()) if swept else [override.get_value_element_as_str()]
    except HydraException as error:
        raise ValueError(f"{word} is no override with a list of values; write key=value or key=value,value.") from error
    return override.key_or_group, values


def with_seeds(words: list[str]) -> list[str]:
    """The words of a command line with several seeds in every grid that names none."""
    grids: list[list[str]] = [[]]
    for word in words:
        if word == "+":
            grids.append([])
        else:
            grids[-1].append(word)
    seeded = [grid + [SEEDS] * (bool(grid) and all(values_of(word)[0] != "seed" for word in grid)) for grid in grids]
    return [word for grid in seeded for word in ("+", *grid)][1:]


def price_words(experiments: list[PlannedExperiment], jobs: int = 1) -> str:
    """How many experiments are to run, and what they may cost: as if every stage ran, at the pace of the work tree's."""
    new = sum(ran_before(each) is None for each in experiments)
    seconds = sum(each.seconds for each in stage_times().values())
    cost = (
        f"at most {new * seconds / 60:.0f} min, at {seconds / 60:.1f} min for all stages as last timed here"
        if seconds
        else "no run was timed here yet, dvc repro times one"
    )
    together = f"; {jobs} at a time share this machine" if jobs > 1 else ""
    return f"{len(experiments)} experiments, {new} of them to run: {cost}{together}."


def combinations(words: list[str]) -> list[dict[str, str]]:
    """Overrides of every combination, key -> value: grid after grid, the last word varying fastest.

    raises    ValueError  when a grid is empty or names a key twice
    """
    grids, found = [[]], []
    for word in words:
        if word == "+":
            grids.append([])
        else:
            grids[-1].append(values_of(word))
    for grid in grids:
        keys = [key for key, _ in grid]
        if not keys:
            raise ValueError("A grid without overrides; say what to vary, for example model.backbone=none,dinov2.")
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice in one grid; list all its values in one word.")
        found += [dict(zip(keys, values)) for values in product(*(values for _, values in grid))]
    return found


def readable(overrides: dict[str, str]) -> str:
    """{"model.backbone_layers": "[6,12]"} -> "backbone_layers-6_12", fit for a Git reference and a file name."""
    parts = [
        f"{key.rpartition('.')[2]}-{re.sub(r'[^A-Za-z0-9.]+|[.]{2,}', '_', value).strip('_.') or 'empty'}"
        for key, value in overrides.items()
    ]
    return "-".join(parts)[:LONGEST].rstrip("-_.")


def local_files(config: Config) -> dict[str, str]:
    """Keys whose values name files or folders, where they do."""
    family, _, path = config.model.backbone.partition(":")
    named = {
        "weights.root": config.weights.root,
        "model.weights": config.model.weights,
        "model.backbone": path if family == "file" else None,
        f"geometries.{config.model.geometry}.file": config.geometries[config.model.geometry].file,
        f"datasets.{config.data.dataset}.source.root": getattr(config.dataset.source, "root", None),
    }
    return {key: value for key, value in named.items() if value and Path(value).expanduser().exists()}


def checked_configuration(overrides: tuple[str, ...]) -> Config:
    """The configuration of an experiment, whose backbone can be built.

    raises    ValueError, FileNotFoundError  when it is wrong, or names a relative path that an experiment's copy of the
                                             repository will not have
    """
    config = load_config(overrides)
    for key, path in local_files(config).items():
        if not Path(path).expanduser().is_absolute() and not git_output(".", "ls-files", "--", path):
            raise ConfigError(
                f"{key} names {path}, which Git does not track: experiments run in copies of the repository "
                f"without it; write {Path(path).resolve()}."
            )
    refuse_backbone(config.model)
    return config


def planned_experiments(words: list[str]) -> list[PlannedExperiment]:
    """The experiments of a command line, each configuration checked; equal ones once.

    raises    ValueError  when words or configurations are wrong (each configuration is named), or Git does not know a
                          file of the code
    """
    if not git_output(".", "rev-parse", "--verify", "--quiet", "HEAD"):
        raise ValueError("There is no Git commit for experiments to grow from; commit the repository first.")
    if unknown := (git_output(".", "ls-files", "--others", "--exclude-standard", "--", *CODE) or "").split("\n")[:-1]:
        raise ValueError(
            f"Git does not track {', '.join(unknown)}, but experiments run in copies of what it tracks; git add or "
            "remove it."
        )
    if not str(Path.cwd()).isascii():
        raise ValueError(
            f"This repository lies in {Path.cwd()}, but DVC writes that path in ASCII alone when it makes an experiment's "
            "copy; move the repository to a path without other letters, or run dvc exp run without --temp in it."
        )
    edits = git_output(".", "diff", "HEAD", "--full-index", "--", *CODE)
    found, wrong = combinations(words), []
    varied = {key for each in found for key in each if len({other.get(key) for other in found}) > 1}
    experiments = {}
    for each in found:
        overrides = tuple(f"{key}={value}" for key, value in each.items())
        try:
            digest = params_hash(asdict(checked_configuration(overrides)), edits)[:6]
        except (ValueError, FileNotFoundError) as error:
            wrong.append(f"{' '.join(overrides)}: {error}")
            continue
        shown = {key: value for key, value in each.items() if key in varied} or each
        experiments.setdefault(digest, PlannedExperiment(f"{readable(shown)}-{digest}", overrides))
    if wrong:
        head = f"Nothing was run, because {len(wrong)} of {len(found)} combinations are wrong:"
        raise ValueError("\n    ".join([head, *wrong]))
    return list(experiments.values())


def ran_before(experiment: PlannedExperiment) -> str | None:
    """Name of this commit's experiment with the same parameters and code, whatever the rest of its name."""
    digest = experiment.name.rpartition("-")[2]
    return next((name for name, _ in experiment_commits(".") if name.rpartition("-")[2] == digest), None)


def last_words(log: Path, count: int = 3) -> list[str]:
    """The last lines of an output that speak of an error, or else its last lines; each once, no progress bars."""
    found = dict.fromkeys(line.strip() for line in re.split(r"[\r\n]+", log.read_text("utf8", "replace")))
    lines = [line for line in found if line and not PROGRESS.search(line)]
    return ([line for line in lines if re.search("error", line, re.IGNORECASE)] or lines)[-count:]


def run_waiting(waiting: dict[str, PlannedExperiment], count: int) -> Iterator[tuple[PlannedExperiment, bool]]:
    """Run experiments, so many at a time, and yield each with whether it succeeded, as it ends.

    raises    ValueError  when several are to run at a time and a clone for them cannot be made
    """
    queue, running, jobs = list(waiting.items()), {}, []
    try:
        jobs = make_jobs(min(count, len(queue)), CLONES) if queue else []
        while queue or running:
            for job in jobs:
                if queue and job not in running:
                    title, experiment = queue.pop(0)
                    log = LOGS / f"{experiment.name}.log"
                    print(f"{title}: running, see {log.as_posix()}", flush=True)
                    job.begin(experiment.name, experiment.overrides, log)
                    running[job] = title, experiment, time.monotonic()
            time.sleep(PAUSE)
            for job in [each for each in running if each.process]:
                if (code := job.ended()) is not None:
                    title, experiment, start = running.pop(job)
                    seconds = time.monotonic() - start
                    print(f"{title}: {'FAILED' if code else 'done'} after {seconds:.0f} s", flush=True)
                    yield experiment, code == 0
    finally:
        interrupt(jobs)
        shutil.rmtree(CLONES, ignore_errors=True)


def run_all(experiments: list[PlannedExperiment], jobs: int = 1) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the experiments there are at the end, in order, and what the experiments that failed said last, by name.

    raises    ValueError  as run_waiting
    """
    there, failed, waiting = {}, {}, {}
    LOGS.mkdir(parents=True, exist_ok=True)
    for number, experiment in enumerate(experiments, 1):
        title = f"[{number}/{len(experiments)}] {experiment.name}"
        if name := ran_before(experiment):
            print(f"{title}: there already{'' if name == experiment.name else f', as {name}'}", flush=True)
            there[experiment] = name
        else:
            waiting[title] = experiment
    for experiment, succeeded in run_waiting(waiting, jobs):
        if succeeded:
            there[experiment] = experiment.name
        else:
            failed[experiment.name] = last_words(LOGS / f"{experiment.name}.log")
    return [there[each] for each in experiments if each in there], failed


def positive(word: str) -> int:
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"{word!r} is no number from 1 on")
    return int(word)


def main(words: list[str], jobs: int = 1) -> None:
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:  # as nohup asks
            signal.signal(ending, signal.default_int_handler)
    with mistakes_explained():
        planned_experiments(words)  # names a mistake once, not once a seed
        config, experiments = load_config(), planned_experiments(with_seeds(words))
        print(price_words(experiments, jobs), flush=True)
        done, failed = run_all(experiments, jobs)
        results = merge_seeds([read_revision(".", name, name) for name in done])
    refused = publish_comparison(results, config).refused if results else {}
    for name, lines in failed.items():
        print(f"FAILED: {name}", *lines, sep="\n    ", file=sys.stderr)
    sys.exit(1 if failed or refused else 0)


def read_words(words: list[str]) -> argparse.Namespace:
    """The words of a command line: `words`, the grids, and `jobs`."""
    parser = Words("sweep")
    parser.add_argument(
        "words", nargs="+", metavar="key=value,...", type=lambda word: word if word == "+" else override(word)
    )
    parser.add_argument("--jobs", type=positive, default=1, metavar="N")
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_words(sys.argv[1:])
    main(arguments.words, arguments.jobs)
