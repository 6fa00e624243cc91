import time

import numpy as np
import pytest
import yaml

from src.stopwatch import STAGES, peak_bytes, recorded, stage_times


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_last_run_of_each_stage_counts():
    assert stage_times() == {}
    for stage, pause in (("train", 0.3), ("download", 0.0), ("train", 0.05)):
        with recorded(stage):
            time.sleep(pause)
    assert list(stage_times()) == ["download", "train"]
    assert 0.05 <= stage_times()["train"].seconds < 0.3


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
