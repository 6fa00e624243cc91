"""Places where experiments run: the repository itself, or clones of it side by side, as DVC runs one experiment at a time
in a repository.

A job is such a place. What runs in it does not see the terminal's Ctrl-C: `interrupt` passes that on once, so that DVC
clears its copy of the repository away.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from src.experiments.result import experiment_prefix

HOME = Path()
DVC = sys.executable, "-m", "dvc"


def quiet(folder: Path, *command: str, given: str | None = None) -> str:
    """Standard output of a command.

    raises    ValueError  with the first line that the command complains with
    """
    ended = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True)
    if ended.returncode:
        words = (ended.stderr.strip() or ended.stdout.strip()).partition("\n")[0].rstrip(".")
        raise ValueError(f"{' '.join(command[:4])} failed in {folder.resolve().as_posix()}: {words}.")
    return ended.stdout


def make_clone(folder: Path) -> None:
    """A clone of the repository, new each time: its commit, its edits of what Git tracks, its local settings of DVC and
    its cache, so that what one clone computed is there for the others.

    raises    ValueError  when Git or DVC cannot
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    quiet(HOME, "git", "clone", "--quiet", "--no-tags", ".", str(folder))
    if edits := quiet(HOME, "git", "diff", "HEAD", "--binary"):
        quiet(folder, "git", "apply", "--index", "--whitespace=nowarn", given=edits)
    if (settings := Path(".dvc/config.local")).exists():
        shutil.copy(settings, folder / settings)
    quiet(folder, *DVC, "config", "--local", "cache.dir", quiet(HOME, *DVC, "cache", "dir").strip())


def take_experiment(folder: Path, name: str) -> None:
    """Bring an experiment of the commit that a clone was made of into the repository.

    raises    ValueError  when the clone has none of that name
    """
    reference = f"{experiment_prefix(folder)}{name}"
    quiet(HOME, "git", "fetch", "--quiet", "--no-tags", str(folder), f"{reference}:{reference}")


def shared_devices(count: int) -> list[dict[str, str]]:
    """Environment of each job: its share of the GPUs, in turn; where jobs are more than GPUs, several use one."""
    from torch.cuda import device_count  # here, as it takes a second

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(device_count()))))
    devices = visible.split(",") if visible else []
    shares = [devices[job::count] or [devices[job % len(devices)]] for job in range(count)] if devices else []
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares] or [{}] * count


def hear_interruptions() -> None:
    """For a process just forked: a background job of a script ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Job:
    """A repository's folder in which one experiment runs at a time, with environment variables of its own."""

    def __init__(self, folder: Path, variables: dict[str, str]):
        self.folder, self.variables, self.name = folder, variables, ""
        self.process: subprocess.Popen | None = None

    def begin(self, name: str, overrides: Iterable[str], log: Path) -> None:
        """Start an experiment, whose output goes to a log."""
        settings = [word for override in overrides for word in ("-S", override)]
        compiled = {"NUMBA_CACHE_DIR": str(Path("src/splatting/cpu/__pycache__").resolve())}  # once for all experiments
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        with open(log, "w") as output:
            self.process = subprocess.Popen(
                [*DVC, "exp", "run", "--temp", "--name", name, *settings],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=compiled | os.environ | path | self.variables,
                start_new_session=True,
                preexec_fn=hear_interruptions,
            )
        self.name = name

    def ended(self) -> int | None:
        """Exit status of the experiment, once it has ended; the repository then knows it, and the job is free."""
        code = self.process.poll() if self.process else None
        if code is not None:
            self.process = None
        if code == 0 and self.folder != HOME:
            take_experiment(self.folder, self.name)
        return code


def interrupt(jobs: list[Job]) -> None:
    """Interrupt the experiments that still run, and wait until they have cleared away."""
    running = [job.process for job in jobs if job.process]
    for process in running:
        os.killpg(process.pid, signal.SIGINT)
    for process in running:
        process.wait()


def make_jobs(count: int, clones: Path) -> list[Job]:
    """One job in the repository itself, or several in new clones, made in the folder `clones`.

    raises    ValueError  when a clone cannot be made
    """
    if count == 1:
        return [Job(HOME, {})]
    jobs = [Job(clones / str(number), variables) for number, variables in enumerate(shared_devices(count))]
    for job in jobs:
        make_clone(job.folder)
    return jobs
