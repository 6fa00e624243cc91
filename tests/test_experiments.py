import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from src.experiments import (against_baseline, experiments, gather, protocol_differences, read_folder, read_revision)
from src.provenance import write_json
from src.records import write_rows

HASH = "a" * 64


def publish(folder: Path, backbone: str, gain: float, seed: int = 0, **protocol) -> None:
    """What the stage report leaves in a folder `reports`, for 8 scenes of 3 targets."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    rows = [{"episode": f"s{scene}", "scene": f"s{scene}", "category": "rooms", "bin": "wide", "target": str(target),
             "method": "render", "alignment": alignment,
             "psnr_masked": 20 + shared.normal() + gain + 0.05 * rng.normal(), "ssim_masked": 0.5 + gain / 10}
            for scene in range(8) for target in range(3) for alignment in ("raw", "aligned")]
    write_rows(folder / "reports/records.csv", rows)
    write_json(folder / "reports/metrics.json", {"psnr_masked": 20 + gain})
    write_json(folder / "reports/experiment.json", {
        "schema": 1, "label": {"none": "MASt3R only (no backbone)"}.get(backbone, backbone), "detail": "",
        "benchmark_params": "this configuration",
        "backbone": {"name": backbone, "weights": "random"}, "curves": ["train_loss"],
        "protocol": {"scenes": HASH, "opt": {"steps": 300}} | protocol})
    (folder / "reports/plots").mkdir(exist_ok=True)
    (folder / "reports/plots/train_loss.csv").write_text(f"step,loss\n0,{gain}\n")


@pytest.fixture
def repository(tmp_path):
    """A committed baseline, two of its experiments, one of an older commit, and another backbone in the work tree."""
    def git(*words):
        words = ["git", "-C", tmp_path, *words]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def experiment(name, parent, *arguments, **protocol):
        publish(tmp_path, *arguments, **protocol)
        git("add", "-A")
        git("commit", "-qm", name)
        git("update-ref", f"refs/exps/{parent[:2]}/{parent[2:]}/{name}", "HEAD")
        git("reset", "-q", "--hard", parent)

    git("init", "-q", "-b", "main")
    git("config", "user.email", "a@example.org")
    git("config", "user.name", "A")
    git("commit", "-q", "--allow-empty", "-m", "start")
    experiment("old", git("rev-parse", "HEAD"), "vit", 9.0)
    publish(tmp_path, "none", 0.0)
    (tmp_path / "reports/benchmark.json").write_text('{"params": "of another configuration"}')
    git("add", "-A")
    git("commit", "-qm", "baseline")
    head = git("rev-parse", "HEAD")
    experiment("better", head, "clip", 0.5, seed=1)
    experiment("long", head, "clip", 0.7, seed=2, opt={"steps": 900})
    publish(tmp_path, "vit", 0.0, seed=3)
    return tmp_path


def test_this_run_its_commit_and_the_experiments_of_that_commit_are_found(repository):
    results = gather(repository, repository / "reports")
    assert [each.name for each in results] == ["this run", "main", "better", "long"]
    assert [each.label for each in results] == ["vit", "MASt3R only (no backbone)", "clip", "clip"]
    assert results[1].is_baseline and not results[0].is_baseline
    assert results[1].benchmark == {"params": "of another configuration"}
    assert results[2].curves == {"train_loss": "step,loss\n0,0.5\n"}
    assert len(results[0].scores()) == 24 and results[0].scores("lpips") == {}


def test_the_work_tree_equal_to_an_experiment_is_one_row(repository):
    publish(repository, "clip", 0.5, seed=1)
    assert [each.name for each in gather(repository, repository / "reports")] == ["this run (better)", "main", "long"]


def test_revisions_are_found_by_any_name(repository):
    assert read_revision(repository, "better", "x").metrics == {"psnr_masked": 20.5}
    assert read_revision(repository, "main", "x").is_baseline
    assert read_revision(repository, "main~1", "x") is None and read_revision(repository, "nowhere", "x") is None
    assert [name for name, _ in experiments(repository, "main~1")] == ["old"]


def test_results_of_another_version_are_left_out_with_a_sentence(repository, capsys, monkeypatch):
    monkeypatch.setattr("src.experiments.SCHEMA", 2)
    publish(repository, "vit", 0.0)
    about = json.loads((repository / "reports/experiment.json").read_text())
    write_json(repository / "reports/experiment.json", about | {"schema": 2})
    assert [each.name for each in gather(repository, repository / "reports")] == ["this run"]
    assert capsys.readouterr().err.count("another version of this code (schema 1, this is 2)") == 3


def test_without_git_or_results_there_is_only_this_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run dvc repro"):
        gather(tmp_path, tmp_path / "reports")
    publish(tmp_path, "vit", 0.0)
    assert [each.name for each in gather(tmp_path, tmp_path / "reports")] == ["this run"]
    assert experiments(tmp_path) == []


def test_what_differs_is_named(repository):
    current, baseline, better, longer = gather(repository, repository / "reports")
    assert protocol_differences(current, baseline) == protocol_differences(current, better) == []
    assert protocol_differences(current, longer) == ["opt.steps 900 instead of 300"]
    publish(repository, "vit", 0.0, scenes="b" * 64)
    assert protocol_differences(current, read_folder(repository / "reports", "x")) == ["other scenes"]
    current.rows.pop()
    assert protocol_differences(current, baseline) == ["other scored targets"]


def test_differences_are_paired_with_the_baseline_and_refused_runs_left_out(repository):
    results = gather(repository, repository / "reports")
    found = against_baseline(results, 500, 0.95, 0)
    assert set(found) == {"this run", "better"}
    assert found["better"].interval.mean == pytest.approx(0.5, abs=0.05) and found["better"].distinguishable
    by_hand = [row["psnr_masked"] - results[1].scores()[key]["psnr_masked"] for key, row in results[0].scores().items()]
    assert found["this run"].interval.mean == pytest.approx(np.mean(by_hand)) and found["this run"].interval.n == 24
    assert against_baseline(results[:1], 500, 0.95, 0) == against_baseline(results[1:2], 500, 0.95, 0) == {}
