"""The pull-request workflow cannot run here: what it names must exist, and its own script is run on two revisions."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.cli import parse_args
from PIL import Image

from src.results.tables import read_rows, write_rows
from tests.helpers.repository import ROOT

WORKFLOW = ROOT / ".github/workflows/benchmark.yml"
COMMENT = ROOT / ".ci/comment"
RELEASED = {
    "actions/checkout@v6",
    "actions/setup-python@v6",
    "actions/cache@v5",
    "actions/upload-artifact@v6",
    "iterative/setup-cml@v2",
}


def workflow() -> dict:
    return yaml.safe_load(WORKFLOW.read_text())


def steps() -> list[dict]:
    return [step for job in workflow()["jobs"].values() for step in job["steps"]]


def commands() -> list[str]:
    """Every line of shell that the workflow runs."""
    return [line.strip() for step in steps() if "run" in step for line in step["run"].splitlines()]


def test_the_workflow_runs_on_pushes_and_pull_requests_with_few_rights():
    content = workflow()
    assert set(content[True]) == {"push", "pull_request", "workflow_dispatch"}  # YAML 1.1 reads the key `on` as true
    assert content["permissions"] == {"contents": "read"}
    assert content["jobs"]["pipeline"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert set(re.findall(r"secrets\.(\w+)", WORKFLOW.read_text())) == {"GITHUB_TOKEN"}
    assert {step["uses"] for step in steps() if "uses" in step} == RELEASED


def test_every_command_of_the_workflow_exists():
    targets = set(re.findall(r"^(\S+):", (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv"), re.M))
    for words in (line.split() for line in commands()):
        if words[0] == "make":
            assert words[1] in targets
        elif words[0].startswith(".ci/"):
            assert os.access(ROOT / words[0], os.X_OK)
        elif words[0] == "dvc":
            assert words[1:3] == ["exp", "run"] and parse_args([*words[1:3], "-S", "seed=1"]).set_param == ["seed=1"]
        elif words[0] == "python":
            assert words[1] == "-m" and (ROOT / Path(*words[2].split("."))).with_suffix(".py").exists()
        elif words[0] == "cml":
            assert words[1:] == ["comment", "create", "--target=pr", "--publish", "comment.md"]
        else:
            assert words[0] in ("export", "cat", "command")


def test_every_command_of_the_comment_exists():
    text = COMMENT.read_text()
    for module in re.findall(r"python -m (src\.\w+)", text):
        assert (ROOT / Path(*module.split("."))).with_suffix(".py").exists()
    for what in ("metrics", "params"):
        assert parse_args([what, "diff", "main", "--md"]).markdown
    assert parse_args(["plots", "diff", "main", "--out", "dvc_plots"]).revisions == ["main"]
    for script in (text, *(step["run"] for step in steps() if "run" in step)):
        assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""


@pytest.fixture
def pull_request(tmp_path) -> Path:
    """A clone of the committed results, whose work tree has better scores, another parameter and one other picture."""

    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    for name in (".ci", ".dvc", "src", "reports"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    git("init", "-q", "-b", "main")
    git("config", "user.email", "a@example.org")
    git("config", "user.name", "A")
    git("add", "-A")
    git("commit", "-qm", "start")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    rows = read_rows((tmp_path / "reports/records.csv").read_text())
    write_rows(
        tmp_path / "reports/records.csv",
        [row | {"psnr_masked": row["psnr_masked"] and row["psnr_masked"] + 0.5} for row in rows],
    )
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())
    (tmp_path / "reports/metrics.json").write_text(json.dumps(metrics | {"psnr_masked": 16.25}))
    params = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("fusion_mode: concat", "fusion_mode: add"))
    picture = tmp_path / "reports/images/rooms_median.png"
    with Image.open(picture) as image:
        image.rotate(180).save(picture)
    return tmp_path


def comment(folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [".ci/comment", "origin/main"], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_comment_holds_verdict_numbers_and_the_picture_that_changed(pull_request):
    text = comment(pull_request)
    assert text.startswith("## Compared with origin/main") and "| Run |" in text
    assert re.search(r"^- this run: .*\+0\.50", text, re.M) and "No verdict" not in text
    assert re.search(r"\| psnr_masked +\| [\d.]+ +\| 16\.25 ", text)
    assert re.search(r"model\.fusion_mode +\| concat +\| add ", text)
    pictures = re.findall(r"!\[\w+\]\((.+)\)", text)
    assert [Path(picture).name for picture in pictures] == [
        "origin_main_reports_images_rooms_median.png",
        "workspace_reports_images_rooms_median.png",
    ]
    assert all((pull_request / picture).exists() for picture in pictures)


def test_results_measured_in_another_way_get_no_verdict_but_a_reason(pull_request):
    """The same scores, but under other masks."""
    about = json.loads((pull_request / "reports/experiment.json").read_text())
    about["protocol"]["eval.masks"] = "splatt3r"
    (pull_request / "reports/experiment.json").write_text(json.dumps(about))
    text = comment(pull_request)
    assert "No verdict" in text and re.search(r"^- Refused: .*eval.masks", text, re.M)
