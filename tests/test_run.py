import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from src import run
from src.run import STAGES, mistakes_explained, peak_bytes, recorded, stage_times
from tests.helpers.repository import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_last_run_of_each_stage_counts(monkeypatch):
    assert stage_times() == {}
    clock = iter([10, 13, 20, 20.5, 30, 31.25])
    with monkeypatch.context() as patch:
        patch.setattr(run.time, "monotonic", lambda: next(clock))
        for stage in ("train", "download", "train"):
            with recorded(stage):
                pass
    assert list(stage_times()) == ["download", "train"]
    assert stage_times()["train"].seconds == 1.25 and stage_times()["download"].seconds == 0.5


def test_a_stage_takes_as_long_as_its_block():
    with recorded("train"):
        time.sleep(0.2)
    assert 0.2 <= stage_times()["train"].seconds < 60


def test_a_failed_stage_leaves_what_was_recorded():
    with recorded("train"):
        pass
    before = stage_times()
    with pytest.raises(ValueError), recorded("train"):
        raise ValueError("no")
    assert stage_times() == before


def test_peak_memory_grows_with_what_is_held():
    before = peak_bytes()
    held = np.ones(before // 8 + 50_000_000 // 8)
    assert peak_bytes() - before >= 40_000_000 and held.any()


def test_stages_are_those_of_the_pipeline(pytestconfig):
    names = yaml.safe_load((pytestconfig.rootpath / "dvc.yaml").read_text("utf8"))["stages"]
    assert [name for name in names if name != "check"] == list(STAGES)


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("data/raw/manifest.json", "download"),
        ("data/weights/lpips_eval/record.json", "weights"),
        ("data/features/backbone/record.json", "extract_backbone"),
        ("data/renders", "render"),
        ("reports/benchmark_stamp.json", "benchmark"),
        ("reports/metrics.json", "report"),
    ],
)
def test_a_missing_file_is_said_with_the_stage_that_makes_it(path, stage):
    shutil.copy(ROOT / "dvc.yaml", ".")
    for place in (Path(path), Path.cwd() / path):
        with pytest.raises(SystemExit) as stop, mistakes_explained():
            os.stat(place)
        assert stop.value.code.startswith(f"error: {path} is missing; run dvc repro {stage}.")
    with pytest.raises(SystemExit, match=f"dvc repro {stage}"), mistakes_explained():
        safe_open(path, "pt")  # of another library, which raises errors of its own


def test_a_missing_file_of_no_stage_is_said_as_it_was(monkeypatch):
    shutil.copy(ROOT / "dvc.yaml", ".")
    for path in ("data/bundled/params.yaml", "elsewhere/data.txt"):
        with pytest.raises(SystemExit, match=f"No such file or directory: .{path}"), mistakes_explained():
            Path(path).read_text()
    monkeypatch.setenv("BACKSPLAT_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError), mistakes_explained():
        Path("data/raw/manifest.json").read_text()
