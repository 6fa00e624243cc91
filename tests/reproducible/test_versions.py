import subprocess

import pytest

from src.reproducible.versions import git_output


def test_git_s_refusal_of_another_user_s_repository_is_passed_on(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert git_output(tmp_path, "rev-parse", "HEAD") is None  # no commit: nothing to tell
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    with pytest.raises(ValueError, match="Git refuses this repository: detected dubious ownership .*safe.directory"):
        git_output(tmp_path, "rev-parse", "HEAD")
