import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from src import sweep
from src.config import load_config
from src.run import STAGE_RECORDS, recorded
from src.sweep import (
    PlannedExperiment,
    combinations,
    last_words,
    main,
    planned_experiments,
    price_words,
    ran_before,
    readable,
    values_of,
    with_seeds,
)
from tests.helpers.publishing import publish
from tests.helpers.repository import ROOT

pytestmark = pytest.mark.usefixtures("handlers")


class FakeJob:
    """A job whose experiments are run by a function (experiment, log) -> whether it succeeded, at once."""

    process = object()

    def __init__(self, run):
        self.run = run

    def begin(self, name: str, overrides: tuple[str, ...], log: Path) -> None:
        self.code = int(not self.run(PlannedExperiment(name, overrides), log))

    def ended(self) -> int:
        return self.code


def run_by(monkeypatch, run) -> None:
    """Experiments are run by a function in place of DVC."""
    monkeypatch.setattr(sweep, "PAUSE", 0)
    monkeypatch.setattr(sweep, "interrupt", lambda jobs: None)
    monkeypatch.setattr(sweep, "make_jobs", lambda count, clones: [FakeJob(run) for _ in range(count)])


@pytest.fixture
def folder(repository, monkeypatch):
    """A repository with a baseline commit, our parameters, and a line of code."""
    for file in ("params.yaml", ".gitignore"):
        shutil.copy(ROOT / file, repository)
    (repository / "src").mkdir()
    (repository / "src/code.py").write_text("pass\n")
    for words in (["add", "-A"], ["commit", "-qm", "parameters"]):
        subprocess.run(["git", "-C", repository, *words], check=True)
    monkeypatch.chdir(repository)
    return repository


@pytest.mark.parametrize(
    ("word", "key", "values"),
    [
        ("model.backbone=none", "model.backbone", ["none"]),
        ("model.backbone=none,dinov2", "model.backbone", ["none", "dinov2"]),
        ("model.backbone_layers=[6],[6,12]", "model.backbone_layers", ["[6]", "[6,12]"]),
        ("seed=range(1,4)", "seed", ["1", "2", "3"]),
        ("model.backbone_layers=null,[6]", "model.backbone_layers", ["null", "[6]"]),
    ],
)
def test_a_word_is_a_key_and_its_values(word, key, values):
    assert values_of(word) == (key, values)


@pytest.mark.parametrize("word", ["model.backbone", "opt.lr=glob(*)", "opt.lr=interval(1,2)", "a=b=c"])
def test_other_words_are_refused(word):
    with pytest.raises(ValueError, match=r"is no override with a list of values; write key=value or key=value,value\."):
        values_of(word)
    for other in ("+new=1", "~seed"):
        with pytest.raises(ValueError, match="adds or deletes a key"):
            values_of(other)


def test_grids_are_products_and_follow_each_other():
    found = combinations(["a=1,2", "b=x,y,z", "+", "c=3"])
    assert found == [{"a": a, "b": b} for a in "12" for b in "xyz"] + [{"c": "3"}]
    with pytest.raises(ValueError, match="A grid without overrides"):
        combinations([])
    with pytest.raises(ValueError, match="A grid without overrides"):
        combinations(["a=1", "+"])
    with pytest.raises(ValueError, match="a stands twice in one grid"):
        combinations(["a=1", "b=1", "a=2"])


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"model.backbone": "none"}, "backbone-none"),
        ({"model.backbone_layers": "[6,12]", "opt.lr": "0.001"}, "backbone_layers-6_12-lr-0.001"),
        ({"model.backbone": "timm\\:vit_tiny.x"}, "backbone-timm_vit_tiny.x"),
        ({"weights.root": ""}, "root-empty"),
        ({"weights.root": "../there"}, "root-there"),
    ],
)
def test_names_are_readable_and_git_takes_them(overrides, name):
    assert readable(overrides) == name
    assert subprocess.run(["git", "check-ref-format", f"refs/exps/{name}-0"]).returncode == 0


def test_arms_are_named_by_what_varies_and_by_all_that_decides_them(folder):
    arms = planned_experiments(["model.backbone=none,dinov2", "opt.steps=300"])
    assert [re.sub("-[0-9a-f]{6}$", "", arm.name) for arm in arms] == ["backbone-none", "backbone-dinov2"]
    assert arms[1].overrides == ("model.backbone=dinov2", "opt.steps=300")
    assert planned_experiments(["model.backbone=none,dinov2", "opt.steps=300"]) == arms
    digests = {arm.name[-6:] for arm in arms}
    assert (
        planned_experiments(["opt.steps=300,400", "model.backbone=none"])[0].name[-6:] in digests
    )  # whatever it is varied with
    assert not digests & {arm.name[-6:] for arm in planned_experiments(["model.backbone=none,dinov2", "opt.steps=301"])}
    (folder / "src/code.py").write_text("raise\n")
    assert not digests & {arm.name[-6:] for arm in planned_experiments(["model.backbone=none,dinov2", "opt.steps=300"])}
    (folder / "src/code.py").write_text("pass\n")
    (folder / "README.md").write_text("words\n")
    assert planned_experiments(["model.backbone=none,dinov2", "opt.steps=300"]) == arms


def test_equal_configurations_are_one_arm(folder):
    assert len(planned_experiments(["model.fusion_mode=add,addition", "+", "model.fusion_mode=add"])) == 1


def test_every_combination_is_checked_before_anything_runs(folder, monkeypatch, capsys):
    run_by(monkeypatch, lambda *_: pytest.fail("an arm ran"))
    with pytest.raises(SystemExit) as stop:
        main(["model.backbone=none,dinov9", "opt.lr=0.001,-1", "+", "model.backbone_layers=[99]"])
    lines = stop.value.code.splitlines()
    assert lines[0] == "error: Nothing was run, because 4 of 5 combinations are wrong:" and len(lines) == 5
    assert "model.backbone_layers=[99]: model.backbone_layers is [99]" in lines[4]
    assert "model.backbone=none opt.lr=-1: opt.lr is -1.0" in stop.value.code and "did you mean dinov2" in lines[2]


def test_files_that_copies_of_the_repository_would_lack_are_refused(folder):
    (folder / "mine.pth").write_text("weights")
    wanted = f"model.weights names mine.pth, which Git does not track.*write {folder}/mine.pth"
    with pytest.raises(ValueError, match=wanted):
        planned_experiments(["model.weights=mine.pth"])
    assert planned_experiments([f"model.weights={folder}/mine.pth"])
    subprocess.run(["git", "add", "mine.pth"], check=True)
    assert planned_experiments(["model.weights=mine.pth"])
    (folder / "src/new.py").write_text("pass\n")
    with pytest.raises(ValueError, match="Git does not track src/new.py"):
        planned_experiments(["model.backbone=none"])


def test_a_path_that_dvc_cannot_write_is_refused_before_anything_runs(folder, tmp_path, monkeypatch):
    moved = shutil.copytree(folder, tmp_path / "früh")
    monkeypatch.chdir(moved)
    with pytest.raises(ValueError, match="früh, but DVC writes that path in ASCII alone"):
        planned_experiments(["model.backbone=none"])


def test_without_a_commit_there_is_nothing_to_grow_from(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no Git commit"):
        planned_experiments(["model.backbone=none"])


def experiment(folder: Path, name: str, backbone: str, gain: float, seed: int = 0) -> None:
    """What a run of an arm leaves: an experiment of HEAD."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    publish(folder, backbone, gain, noise=len(name) + seed, seed=seed)
    reference = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    for words in (
        ["add", "-A"],
        ["commit", "-qm", name],
        ["update-ref", reference, "HEAD"],
        ["reset", "-q", "--hard", head],
    ):
        subprocess.run(["git", *words], check=True)


def test_a_failing_arm_is_named_and_the_rest_goes_on_and_is_compared(folder, monkeypatch, capsys):
    """run_arm is replaced: the arm `rgb` fails, others publish results."""
    ran = []

    def run_arm(arm: PlannedExperiment, log: Path) -> bool:
        ran.append(arm.name)
        config = load_config(arm.overrides)
        log.write_text("train: 10%|#   | 1/10 Error\rerror: the rest is silence\nERROR: failed to reproduce 'train'\n")
        if config.model.backbone == "rgb":
            return False
        experiment(folder, arm.name, config.model.backbone, 0.1 * len(config.model.backbone))
        return True

    run_by(monkeypatch, run_arm)
    words = ["model.backbone=rgb,none,clip", "seed=0"]
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and len(ran) == 3
    assert out.count("| backbone-") == 2 and f"PSNR - {ran[1]}" in out
    assert err.endswith(f"FAILED: {ran[0]}\n    error: the rest is silence\n    ERROR: failed to reproduce 'train'\n")
    assert Path("reports/comparison/table.csv").is_file()

    with pytest.raises(SystemExit) as stop:
        main(["model.backbone=none,clip", "seed=0"])
    out, _ = capsys.readouterr()
    assert stop.value.code == 0 and len(ran) == 3 and out.count("there already") == 2
    assert ran_before(planned_experiments(words)[1]) == ran[1] and ran_before(planned_experiments(words)[0]) is None


def test_a_grid_without_seeds_has_three():
    assert with_seeds(["a=1", "+", "b=1", "seed=4"]) == ["a=1", "seed=0,1,2", "+", "b=1", "seed=4"]
    assert with_seeds(["a=1", "+"]) == ["a=1", "seed=0,1,2", "+"] and with_seeds([]) == []  # refused as before


def test_the_price_is_said_before_anything_runs(folder, monkeypatch):
    planned = [PlannedExperiment(name, ()) for name in ("a-123456", "b-abcdef", "c-fedcba")]
    monkeypatch.setattr(sweep, "ran_before", lambda each: each.name if each is planned[1] else None)
    assert price_words(planned) == "3 experiments, 2 of them to run: no run was timed here yet, dvc repro times one."
    for stage, seconds in (("train", 120.0), ("render", 30.0)):
        with recorded(stage):
            pass
        path = STAGE_RECORDS / f"{stage}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": seconds}))
    words = "2 of them to run: at most 5 min, at 2.5 min for all stages as last timed here"
    assert price_words(planned).endswith(f"{words}.")
    assert price_words(planned, jobs=4).endswith(f"{words}; 4 at a time share this machine.")


def test_arms_that_differ_in_their_seed_are_one_row(folder, monkeypatch, capsys):
    def run_arm(arm: PlannedExperiment, log: Path) -> bool:
        config = load_config(arm.overrides)
        experiment(folder, arm.name, config.model.backbone, 0.1 * len(config.model.backbone), config.seed)
        return True

    run_by(monkeypatch, run_arm)
    with pytest.raises(SystemExit) as stop:
        main(["model.backbone=none,clip"])
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and out.count("| backbone-") == 2 and out.count("3 seeds") == 2
    assert "n = 24 in 8 scenes, 3 seeds" in err


def test_last_words_prefer_errors_and_skip_progress_bars(tmp_path):
    log = tmp_path / "log"
    log.write_text("a\nb\n\ntrain: 50%|###  | 5/10\r\nc\nd\n")
    assert last_words(log) == ["b", "c", "d"]
    log.write_text("a\nValueError: x\nb\nERROR: y\nERROR: y\n")
    assert last_words(log) == ["ValueError: x", "ERROR: y"]


def test_a_sweep_under_nohup_outlives_its_terminal(folder, monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    found = []
    monkeypatch.setattr(
        sweep, "run_all", lambda *_: found.extend(map(signal.getsignal, (signal.SIGHUP, signal.SIGTERM))) or ([], {})
    )
    with pytest.raises(SystemExit):
        main(["model.backbone=none"])
    assert found == [signal.SIG_IGN, signal.default_int_handler]
