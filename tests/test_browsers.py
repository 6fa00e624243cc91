"""Whether the end of a test run says that no browser was there, in a process of its own."""

import os
import subprocess
import sys

import yaml

from tests.helpers import browser
from tests.helpers.repository import ROOT

MARKED = """from tests.helpers import browser

@browser.needed
def test_a_page():
    pass

def test_another():
    pass
"""


def test_skipped_browser_tests_are_the_last_words_of_a_run(tmp_path):
    def said(name: str) -> str:
        """The end of a run on a machine whose only program has this name."""
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).touch(0o755)
        (folder / "test_marked.py").write_text(MARKED)
        words = [sys.executable, "-m", "pytest", "-p", "tests.helpers.browser", "-p", "no:cacheprovider", "-q", folder]
        here = os.environ | {"PATH": str(folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=folder, env=here, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    *_, title, count, remedy, _ = said("firefox").splitlines()
    assert "BROWSER TESTS WERE SKIPPED" in title
    assert count == "1 of the tests did not run: no page was opened in a browser, since Chromium is not installed."
    assert "apt-get install chromium" in remedy
    assert "SKIPPED" not in said("chromium") and "2 passed" in said("google-chrome")


def test_the_workflow_brings_a_browser_that_the_tests_find():
    steps = yaml.safe_load((ROOT / ".github/workflows/benchmark.yml").read_text())["jobs"]["tests"]["steps"]
    place, install = next((place, step["run"]) for place, step in enumerate(steps) if "chromium" in step.get("run", ""))
    looked_for = {word for line in install.split("||") for word in line.split() if line.split()[0] == "command"}
    assert looked_for == {"command", "-v", *browser.PROGRAMS} and place < [step.get("run") for step in steps].index(
        ".ci/run"
    )
