from dataclasses import replace

import pytest

from src.experiments.result import ExperimentResult
from src.page.speed import (
    MISSING,
    STALE,
    bytes_words,
    fps_and_memory,
    speed_facts,
    stage_table,
    time_table,
    timings,
    unlike,
    why_absent,
)
from src.page.tradeoffs import timed_alike
from src.run import StageTime
from src.timing.benchmark_file import BenchmarkRecord
from tests.helpers.publishing import BENCHMARK


def result(benchmark: dict | None, params: str = "p", resolution: str = "224x224") -> ExperimentResult:
    about = {"benchmark_params": params, "protocol": {"resolution": resolution, "seed": 0}}
    return ExperimentResult("this run", about, rows=[], curves={}, benchmark=benchmark and BenchmarkRecord(benchmark))


def test_timings_of_another_configuration_are_not_shown():
    assert timings(result(BENCHMARK)) == BenchmarkRecord(BENCHMARK)
    assert timings(result(BENCHMARK, "q")) is timings(result(None)) is None
    assert why_absent(result(BENCHMARK, "q")) == STALE and why_absent(result(None)) == MISSING
    assert fps_and_memory(result(None), result(BENCHMARK)) is None


def test_the_table_shows_the_speed_at_the_scored_resolution():
    assert fps_and_memory(result(BENCHMARK), result(BENCHMARK)) == ("5.0", "1.50 GB")
    assert fps_and_memory(result(BENCHMARK, resolution="512x384"), result(BENCHMARK, resolution="512x384"))[0] == "20.0"


def test_other_hardware_is_said_to_be_other():
    gpu = BENCHMARK | {"device": "cuda", "hardware": {"cpu": "x", "cpu_cores": 8, "threads": 8, "gpu": "H100"}}
    assert fps_and_memory(result(gpu), result(BENCHMARK))[0] == "5.0 (other hardware, cuda)"
    note = " (cuda, 32-true, 224 px)"
    assert fps_and_memory(result(gpu), result(None)) == (f"5.0{note}", f"1.50 GB{note}")
    for content, device in ((gpu, "H100"), (BENCHMARK, "Some CPU")):
        assert speed_facts(BenchmarkRecord(content))[0][1].startswith(device)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"device": "cuda"}, ["cuda"]),
        ({"precision": "16-mixed"}, ["16-mixed"]),
        ({"hardware": BENCHMARK["hardware"] | {"threads": 1}}, ["other hardware"]),
        ({"resolutions": {"128": BENCHMARK["resolutions"]["128"]}}, ["128 px"]),
    ],
)
def test_timings_are_set_side_by_side_only_where_all_but_the_model_was_alike(changed, words):
    first, second = result(BENCHMARK), replace(result(BENCHMARK | changed), name="other")
    assert unlike(second, first) == words
    assert fps_and_memory(second, first)[1] == "1.50 GB" + (f" ({words[0]})" if words else "")
    kept, others = timed_alike([result(None), first, second])
    assert (kept, others) == (([first], {"other": words}) if words else ([first, second], {}))


def test_times_have_a_spread_and_absent_pieces_no_row():
    table = time_table(BenchmarkRecord(BENCHMARK))
    assert table["head"][1:] == ["128 × 128", "224 × 224"] and all(len(row) == 3 for row in table["rows"])
    rows = {row[0]: row[1] for row in table["rows"]}
    assert rows["one render"] == "50.0 [45.0, 61.0]" and rows["arithmetic of a pair"] == "2.5 GFLOP"
    assert not any("backbone" in name for name in rows)


def test_figures_of_one_run_are_said_to_vary():
    words = dict(speed_facts(BenchmarkRecord(BENCHMARK)))["repeats"]
    assert words.startswith("one process, one run") and "3 % in memory and 15 % in milliseconds" in words


def test_memory_is_in_the_unit_that_fits():
    assert [bytes_words(count) for count in (5 * 2**20, 2**29, 10**10)] == ["5 MB", "0.50 GB", "9.31 GB"]


def test_a_row_per_stage_with_their_sum_and_the_largest_process():
    table = stage_table({"prepare": StageTime(12.5, 3 * 2**29), "train": StageTime(200.0, 2**30)})
    assert table["rows"] == [
        ["prepare", "12.5", "1.50 GB"],
        ["train", "200.0", "1.00 GB"],
        ["all of these", "212.5", "1.50 GB"],
    ]
