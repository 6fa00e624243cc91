"""Conversion as a process of its own: killed and started again, and with ten times as many scenes."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from src import download, prepare
from src.config import load_config
from tests.helpers.miniatures import ROOT, computing_as_before, opengl, save, snapshot, write

PHOTOGRAPHS = 10
STAGE = """import sys
import time
from src import prepare
from src.datasets import conversion
from src.config import load_config

def first_ten(*arguments):  # the others wait for the process to be killed
    if "held" in sys.argv and int(arguments[-1].id) >= 10:
        time.sleep(600)
    return conversion.convert(*arguments)

prepare.convert = first_ten
if __name__ == "__main__":
    prepare.main(load_config([word for word in sys.argv[1:] if word != "held"]))
"""


def capture(folder: Path, seed: int) -> None:
    """Noise, photographed by a camera that turns around it."""
    rng, frames = np.random.default_rng(seed), []
    for number in range(PHOTOGRAPHS):
        angle = 0.1 * number
        c2w = np.eye(4)
        c2w[:3, :3] = [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
        c2w[:3, 3] = 3 * np.sin(angle), 0, -3 * np.cos(angle)
        save(folder / f"images/{number}.png", rng.integers(0, 256, (32, 48, 3), np.uint8))
        frames.append({"file_path": f"images/{number}.png", "transform_matrix": opengl(c2w)})
    write(folder / "transforms.json", {"fl_x": 50.0, "frames": frames})


def listed(monkeypatch, folder: Path, count: int) -> list[str]:
    """Captures in folder/captures, listed by `download` in folder/run; the parameters."""
    for number in range(count):
        capture(folder / f"captures/{number:03d}", number)
    (folder / "run").mkdir()
    shutil.copy(ROOT / "params.yaml", folder / "run")
    values = [
        "data.dataset=transforms",
        f"datasets.transforms.source.root={folder}/captures",
        "threads=1",
        "datasets.transforms.resolution=[48,32]",
        "datasets.transforms.episodes.per_bin=1",
    ]
    monkeypatch.chdir(folder / "run")
    with computing_as_before():
        download.main(load_config(values, ROOT))
    return values


def started(folder: Path, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )


def done(folder: Path) -> dict[str, int]:
    """Scene and inode of what an unfinished run has made."""
    notes = (folder / "scratch/prepare").glob("*/converted.json")
    return {note.parent.name: (note.parent / "scene.safetensors").stat().st_ino for note in notes}


def test_a_killed_conversion_goes_on_and_ends_with_the_same_bytes(monkeypatch, tmp_path):
    """kill -9 at a moment that differs from run to run, half way at the latest; what was done is not done again."""
    values, run, cut = listed(monkeypatch, tmp_path, 20), tmp_path / "run", tmp_path / "cut"
    shutil.copytree(run, cut)
    with computing_as_before():
        prepare.main(load_config(values, ROOT))
    (tmp_path / "stage.py").write_text(STAGE)
    process = started(cut, "../stage.py", *values, "threads=2", "held")
    while not done(cut):
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (cut / "data/scenes").exists()
    before = done(cut)
    assert started(cut, "../stage.py", *values).wait() == 0
    assert snapshot(cut / "data/scenes") == snapshot(run / "data/scenes") and not (cut / "scratch/prepare").exists()
    after = {id: (cut / f"data/scenes/scenes/{id}.safetensors").stat().st_ino for id in before}
    assert before == after and 0 < len(before) <= 10


def test_ten_times_as_many_scenes_need_no_more_memory_and_two_files_each(monkeypatch, tmp_path):
    peaks = []
    for count in (20, 200):
        folder = tmp_path / str(count)
        assert started(folder / "run", "-m", "src.prepare", *listed(monkeypatch, folder, count)).wait() == 0
        peaks.append(json.loads((folder / "run/scratch/stages/prepare.json").read_text())["peak_bytes"])
        assert len(snapshot(folder / "run/data/scenes")) == 2 * count + 6  # index, report, four lists of episodes
        assert len(snapshot(folder / "run/data/raw")) == count + 1
    assert peaks[1] < 1.1 * peaks[0]
