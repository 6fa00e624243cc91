"""A sweep of the whole pipeline in miniature: an arm that fails, one that does not, and the same command again."""

import subprocess
import sys
from pathlib import Path

from tests.test_pipeline import MINIATURE, fresh_repository, run


def untouched(folder: Path) -> tuple[bytes, str]:
    """What a sweep must leave alone: params.yaml, and what Git says of all but the comparison that it writes."""
    status = run(folder, "git", "status", "--porcelain", ".", ":!reports/comparison")
    return (folder / "params.yaml").read_bytes(), status.stdout


def test_a_sweep_goes_on_after_a_failure_leaves_the_work_tree_alone_and_resumes(tmp_path):
    folder = fresh_repository(tmp_path / "backsplat")
    (folder / "params.yaml").write_text("# mine\n" + (folder / "params.yaml").read_text())
    before = untouched(folder)
    (tmp_path / "weights").mkdir()
    grids = [*MINIATURE, "model.weights=pretrained", f"weights.root={tmp_path}/weights", "+", *MINIATURE,
             "model.backbone=rgb"]
    result = run(folder, sys.executable, "-m", "src.sweep", *grids)
    assert result.returncode == 1, result.stderr[-3000:]
    failed = result.stderr[result.stderr.index("FAILED: weights-pretrained-root-"):]
    assert "dinov2_vits14_pretrain.pth, which is not in weights.root" in failed and "failed to reproduce" in failed
    assert "| backbone-rgb-" in result.stdout and (folder / "reports/comparison/index.html").exists()
    assert untouched(folder) == before
    assert not list((folder / ".dvc").rglob("standalone/tmp*"))

    again = run(folder, sys.executable, "-m", "src.sweep", *MINIATURE, "model.backbone=rgb")
    assert again.returncode == 0 and "there already" in again.stdout and "running" not in again.stdout
    names = subprocess.run(["git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps"], cwd=folder, check=True,
                           capture_output=True, text=True).stdout.split()
    assert len(names) == 1 and names[0].startswith("backbone-rgb-")
