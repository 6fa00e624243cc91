"""The whole pipeline on a miniature configuration."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.helpers.repository import fresh_repository, run

MINIATURE = [
    "threads=1",
    "datasets.procedural.source.scenes.train=2",
    "datasets.procedural.source.scenes.val=1",
    "datasets.procedural.source.scenes.test=1",
    "datasets.procedural.source.views=6",
    "datasets.procedural.source.samples=1",
    "datasets.procedural.resolution=[64,64]",
    "datasets.procedural.episodes.per_bin=1",
    "probe.pairs=4",
    "opt.steps=4",
    "opt.val_every=2",
    "opt.log_every=1",
    "eval.num_plys=1",
    "benchmark.resolutions=[64]",
    "benchmark.repeats=3",
    "benchmark.warmup=1",
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of the work tree with the miniature parameters, reproduced once."""
    folder = fresh_repository(tmp_path_factory.mktemp("clone") / "backsplat")
    result = run(folder, "dvc", "exp", "run", "-q", *(word for value in MINIATURE for word in ("-S", value)))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert run(folder, "git", "add", "-A").returncode == 0
    assert run(folder, "git", "commit", "-qm", "miniature").returncode == 0
    return folder


def metrics(folder: Path) -> dict:
    return json.loads((folder / "reports/metrics.json").read_text())


def test_the_miniature_pipeline_runs_and_is_then_up_to_date(clone):
    assert run(clone, "dvc", "status", "-q").returncode == 0
    assert "up to date" in run(clone, "dvc", "repro").stdout


def test_a_dry_run_lists_the_stages_of_a_fresh_clone(tmp_path):
    """With -f, as DVC wants to hash what is not there otherwise."""
    folder = fresh_repository(tmp_path / "backsplat")
    wanted = set(yaml.safe_load((folder / "dvc.yaml").read_text())["stages"])
    for words in (["repro"], ["exp", "run", "-S", "model.fusion_mode=add"]):
        done = run(folder, "dvc", *words, "--dry", "-f")
        assert done.returncode == 0 and stages_run(done.stdout) == wanted, done.stderr
    assert not (folder / "checked.txt").exists() and not (folder / "data/raw").exists()


def test_the_plan_foretells_what_renders_take(clone):
    told = run(clone, "python", "-m", "src.plan").stdout
    (line,) = [line for line in told.splitlines() if line.endswith("data/renders")]
    taken = sum(path.stat().st_size for path in (clone / "data/renders").glob("*.safetensors"))
    assert float(line.split()[1]) * 1e9 == pytest.approx(taken, rel=0.05, abs=1e6)


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '(\w+)'", output))


HELD = """import time
from src import train
from src.config import load_config

def held(fit):
    if fit.trainer.global_step:
        time.sleep(600)
    begin(fit)

begin, train.TrainingModule.on_train_epoch_start = train.TrainingModule.on_train_epoch_start, held
train.main(load_config([]))
"""


def test_a_killed_training_run_ends_with_the_same_bytes(clone):
    """kill -9 at the first checkpoint, after which it waits; start again: trained tensors and curves as without the
    interruption."""
    results = [clone / "data/model/trained.safetensors", *sorted((clone / "data/train/plots").rglob("*.tsv"))]
    expected = [path.read_bytes() for path in results]
    process = subprocess.Popen(
        [sys.executable, "-c", HELD], cwd=clone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list((clone / "scratch").glob("train-*/last.ckpt")):
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    resumed = run(clone, sys.executable, "-m", "src.train")
    assert "resuming" in resumed.stdout, resumed.stderr[-2000:]
    assert [path.read_bytes() for path in results] == expected
    assert not list((clone / "scratch").glob("train-*"))


def untouched(folder: Path) -> tuple[bytes, str]:
    """What a sweep must leave alone: params.yaml, and what Git says of all but the comparison that it writes."""
    status = run(folder, "git", "status", "--porcelain", ".", ":!reports/comparison")
    return (folder / "params.yaml").read_bytes(), status.stdout


@pytest.fixture(scope="module")
def swept(clone, tmp_path_factory) -> subprocess.CompletedProcess:
    """How a sweep over an arm that fails and another fusion mode ended, with an edit of params.yaml not committed."""
    parameters = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text("# mine\n" + parameters)
    before, weights = untouched(clone), tmp_path_factory.mktemp("weights")
    result = run(
        clone,
        sys.executable,
        "-m",
        "src.sweep",
        "model.weights=pretrained",
        f"weights.root={weights}",
        "seed=0",
        "+",
        "model.fusion_mode=add",
        "seed=0",
    )
    assert untouched(clone) == before
    (clone / "params.yaml").write_text(parameters)
    return result


@pytest.fixture(scope="module")
def added(clone, swept) -> str:
    """Name of the other fusion mode's experiment."""
    [log] = (clone / "scratch/sweep").glob("fusion_mode-add-*.log")
    return log.stem


def test_a_sweep_goes_on_after_a_failure(clone, swept):
    assert swept.returncode == 1, swept.stderr[-3000:]
    failed = swept.stderr[swept.stderr.index("FAILED: weights-pretrained-root-") :]
    assert "dinov2_vits14_pretrain.pth, which is not in weights.root" in failed and "failed to reproduce" in failed
    assert "| fusion_mode-add-" in swept.stdout and (clone / "reports/comparison/index.html").exists()
    assert not list((clone / ".dvc").rglob("standalone/tmp*"))


def test_a_sweep_does_not_repeat_what_is_there(clone, added):
    again = run(clone, sys.executable, "-m", "src.sweep", "model.fusion_mode=add", "seed=0")
    assert again.returncode == 0 and "there already" in again.stdout and "running" not in again.stdout
    names = run(clone, "git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").stdout.split()
    assert [name for name in names if name.startswith(("fusion", "weights"))] == [added]


def test_another_fusion_mode_runs_again_from_train_on(clone, added):
    assert stages_run(run(clone, "dvc", "repro", "--dry").stdout) == set()
    stages = stages_run((clone / f"scratch/sweep/{added}.log").read_text())
    assert stages == {"check", "train", "render", "evaluate", "real_pair", "benchmark", "report"}


def test_another_backbone_runs_neither_prepare_nor_the_geometry_features(clone):
    parameters = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(re.sub("backbone: dinov2\\b", "backbone: none", parameters))
    stale = json.loads(run(clone, "dvc", "status", "--json").stdout)
    (clone / "params.yaml").write_text(parameters)
    changed = {
        stage
        for stage, causes in stale.items()
        if any("params.yaml" in cause.get("changed deps", {}) for cause in causes if isinstance(cause, dict))
    }
    assert {"check", "weights", "extract_backbone", "train"} <= changed
    assert not changed & {"download", "prepare", "extract_geometry"}


def test_experiments_are_shown_and_compared(clone, added):
    shown = run(clone, "dvc", "exp", "show", "--csv").stdout
    assert added in shown and "psnr" in shown
    words = "dvc", "exp", "show", "--no-pager", "--only-changed", "--drop"
    table = run(clone, "env", "COLUMNS=400", *words, "^(data|src)/|Created|alex|^(psnr|ssim|lpips|scale_error)$").stdout
    assert "model.fusion_mode" in table
    # so few steps may leave some scores alike, and these columns out: the widest table has all
    dropped = "psnr", "ssim", "lpips", "scale_error", "lpips_alex_masked"
    scores = [name for name in metrics(clone) if name not in dropped and f" {name} " not in table]
    assert "psnr_masked" in [*scores, *table.split()]
    assert max(map(len, table.splitlines())) + sum(3 + max(len(name), 8) for name in scores) <= 160
    reference = run(clone, "git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{added}").stdout.strip()
    timings = [run(clone, "git", "show", f"{commit}:reports/benchmark.json").stdout for commit in (reference, "HEAD")]
    assert all(timings) and timings[0] != timings[1]  # no metrics, but a part of the experiment
    difference = run(clone, "dvc", "metrics", "diff", "HEAD", added, "--all", "--json")
    assert difference.returncode == 0 and json.loads(difference.stdout)
    plots = run(clone, "dvc", "plots", "diff", "HEAD", added, "-o", "plots")
    assert plots.returncode == 0 and list((clone / "plots").rglob("*.png"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.backbone=dinov9", "did you mean dinov2"),
        ("model.dinov2_dim=100", "model.dinov2_dim"),
        ("datasets.procedural.resolution=[100,128]", "resolution"),
    ],
)
def test_a_wrong_parameter_stops_the_pipeline_before_it_starts(clone, override, words):
    result = run(clone, sys.executable, "-m", "src.check", override)
    assert result.returncode != 0 and words in result.stderr and len(result.stderr.strip().splitlines()) == 1
