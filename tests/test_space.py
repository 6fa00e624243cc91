"""The composed folder of a Space: what Hugging Face reads in it, and that its app starts from its own files."""

import os
import re
import subprocess
import sys
import urllib.request

import pytest
import yaml

from src import space
from tests.helpers.repository import ROOT, reached


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spaces") / "space"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        space.main([str(folder)])
    return folder


def header(folder) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---")[1])


def test_what_a_space_reads_is_there_and_agrees(composed):
    about, dockerfile = header(composed), (composed / "Dockerfile").read_text()
    assert about["sdk"] == "docker" and {"title", "emoji", "colorFrom", "colorTo", "license"} <= about.keys()
    assert re.fullmatch(r"\W", about["emoji"]) and len(about["short_description"]) <= 60
    assert (
        f"EXPOSE {about['app_port']}\n" in dockerfile and f'"{about["app_port"]}"' in (composed / "app.py").read_text()
    )
    for line in re.findall(r"^(?:COPY|RUN).*", dockerfile, re.M):
        for name in re.findall(r"requirements[\w-]*\.txt", line):
            assert (composed / name).read_bytes() == (ROOT / name).read_bytes()
    assert all((composed / file).is_file() for file in reached("src/demo.py"))
    large = [path for path in composed.rglob("*") if path.is_file() and path.stat().st_size > 10 * 2**20]
    assert {path.suffix for path in large} == {".safetensors"}  # which .gitattributes gives to LFS, as the hub asks
    assert "*.safetensors filter=lfs" in (composed / ".gitattributes").read_text()


def test_its_app_starts_from_its_own_files_and_answers(composed):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PORT": "0"}
    words = [sys.executable, "app.py"]
    process = subprocess.Popen(words, cwd=composed, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        said = ""
        while not (found := re.search(r"http://0\.0\.0\.0:(\d+) shows", said)):
            line = process.stdout.readline()
            assert line, f"the app ended: {said}"
            said += line
        assert "The model is the one that comes with this repository." in said
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/") as page:
            assert page.status == 200 and b"<html" in page.read().lower()
    finally:
        process.terminate()
        process.wait()


def test_an_existing_folder_and_a_place_without_git_are_refused(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="error: kept exists; name a folder that does not"):
        space.main(["kept"])
    with pytest.raises(SystemExit, match="error: Git lists no files of a Space here; run from the top folder"):
        space.main(["new"])
    assert not (tmp_path / "new").exists()
