"""Experiments side by side, run by DVC itself in a small repository."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src import sweep
from src.experiments.jobs import HOME, Job, make_clone, make_jobs, shared_devices, take_experiment
from src.experiments.result import experiment_commits
from src.reproducible.versions import git_output
from src.sweep import PlannedExperiment, run_all

pytestmark = pytest.mark.usefixtures("handlers")
STAGE = (
    "python -c \"import time, yaml; seed = yaml.safe_load(open('params.yaml'))['seed']; assert seed < 5, 'error: too many'; "
    "time.sleep(0.3); open('made.txt', 'w').write(f'{seed * seed}')\""
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A DVC repository with one stage, whose output is in Git: the square of the seed. One edit is not committed."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "somebody")
        monkeypatch.setenv(f"{name}_EMAIL", "somebody@example.org")
    (here / ".gitignore").write_text("scratch\n")
    (here / "params.yaml").write_text("seed: 0\n")
    stage = {"cmd": STAGE, "params": ["seed"], "deps": ["words.txt"], "outs": [{"made.txt": {"cache": False}}]}
    (here / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    (here / "words.txt").write_text("committed\n")
    for words in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(words, check=True)
    subprocess.run(["git", "commit", "-qm", "begin"], check=True)
    (here / "words.txt").write_text("edited\n")
    return here


def results() -> dict[str, dict[str, str]]:
    """name -> file -> contents, of this commit's experiments."""
    return {
        name: {file: git_output(".", "show", f"{commit}:{file}") for file in ("made.txt", "words.txt", "dvc.lock")}
        for name, commit in experiment_commits(".")
    }


def test_experiments_side_by_side_give_what_they_give_one_by_one_and_leave_the_work_tree(folder):
    planned = [PlannedExperiment(f"seed-{seed}", (f"seed={seed}",)) for seed in (1, 2, 7)]
    status = git_output(".", "status", "--short")
    found = {}
    for count in (2, 1):
        done, failed = run_all(planned, count)
        assert done == ["seed-1", "seed-2"] and "error: too many" in "".join(failed.pop("seed-7"))
        assert not failed and git_output(".", "status", "--short") == status and not sweep.CLONES.exists()
        found[count] = results()
        for name in done:
            subprocess.run([sys.executable, "-m", "dvc", "exp", "remove", "-q", name], check=True)
    assert found[1] == found[2] and [found[2][f"seed-{n}"]["made.txt"] for n in (1, 2)] == ["1", "4"]
    assert found[2]["seed-1"]["words.txt"] == "edited\n"


def test_a_clone_has_the_edits_the_settings_and_the_cache(folder):
    Path(".dvc/config.local").write_text("[core]\n    autostage = true\n")
    make_clone(Path("scratch/clone"))
    settings = Path("scratch/clone/.dvc/config.local").read_text()
    assert "autostage = true" in settings and f"dir = {folder}/.dvc/cache" in settings
    assert Path("scratch/clone/words.txt").read_text() == "edited\n"
    with pytest.raises(ValueError, match="git fetch .* failed in .*couldn't find remote ref refs/exps/"):
        take_experiment(Path("scratch/clone"), "nobody")
    subprocess.run(["git", "checkout", "-q", "words.txt"], check=True)
    make_clone(Path("scratch/clone"))  # in place of the first
    assert Path("scratch/clone/words.txt").read_text() == "committed\n"


@pytest.mark.parametrize(
    "visible, count, wanted",
    [
        ("0,1,2,3", 2, ["0,2", "1,3"]),
        ("4,GPU-x", 2, ["4", "GPU-x"]),
        ("1", 3, ["1", "1", "1"]),
        ("", 2, [None, None]),
    ],
)
def test_jobs_share_out_the_devices_in_turn(monkeypatch, visible, count, wanted):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [each.get("CUDA_VISIBLE_DEVICES") for each in shared_devices(count)] == wanted


def test_without_a_setting_the_machine_says_which_devices_it_has(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert shared_devices(2) == [{"CUDA_VISIBLE_DEVICES": "0,2"}, {"CUDA_VISIBLE_DEVICES": "1"}]


@pytest.mark.parametrize("here", [signal.default_int_handler, signal.SIG_IGN])
def test_the_processes_of_experiments_end_with_an_interruption(tmp_path, monkeypatch, here):
    """In place of DVC a process that waits; the interruption reaches both, and they are waited for. A background job of a
    script ignores SIGINT."""
    monkeypatch.chdir(tmp_path)
    signal.signal(signal.SIGINT, here)
    (tmp_path / "dvc.py").write_text(
        "import time\ntry:\n    print('begun', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.2)\n    print('cleared away', flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sweep, "make_jobs", lambda count, clones: [Job(HOME, {}) for _ in range(count)])
    planned = [PlannedExperiment(name, ("seed=1",)) for name in "xy"]
    logs = [sweep.LOGS / f"{each.name}.log" for each in planned]

    def sleep(seconds: float) -> None:
        if all(log.exists() and "begun" in log.read_text() for log in logs):
            raise KeyboardInterrupt

    monkeypatch.setattr(sweep.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        run_all(planned, 2)
    assert [log.read_text() for log in logs] == ["begun\ncleared away\n"] * 2


def test_one_job_is_the_repository_itself():
    assert [job.folder for job in make_jobs(1, Path("elsewhere"))] == [HOME] and run_all([]) == ([], {})
