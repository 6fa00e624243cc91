import json

from src.timing.benchmark_file import BenchmarkRecord, Costs, PeakMemory, Timing, parse_benchmark, write_benchmark

FAST, SLOW = Timing(4.0, 3.5, 5.0, 7), Timing(200.0, 190.0, 250.0, 7)
MEMORY = PeakMemory(3 * 2**29, 2**29, "resident set")
BARE = Costs(32768, FAST, SLOW, FAST, 2_500_000_000, MEMORY, MEMORY)
FUSED = Costs(100352, FAST, SLOW, FAST, 36_000_000_000, MEMORY, MEMORY, FAST, 0)
ABOUT = {
    "params": "p",
    "device": "cpu",
    "precision": "32-true",
    "warmup": 2,
    "repeats": 7,
    "hardware": {"cpu": "Some CPU", "threads": 2},
    "parameters": {"encoder": 1200, "trainable": 3},
}


def test_what_was_written_is_read(tmp_path):
    write_benchmark(tmp_path / "b.json", **ABOUT, resolutions={"128": BARE, "224": FUSED}, backbone="DINOv2")
    found = parse_benchmark((tmp_path / "b.json").read_text())
    assert {name: getattr(found, name) for name in ABOUT} == ABOUT
    assert found.sides == ["128", "224"] and (found.costs("128"), found.costs("224")) == (BARE, FUSED)


def test_the_file_says_each_number_by_its_unit_and_leaves_out_what_does_not_exist(tmp_path):
    write_benchmark(tmp_path / "b.json", **ABOUT, resolutions={"128": BARE}, backbone="DINOv2", git_revision=None)
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["backbone"] == "DINOv2" and content["git_revision"] is None
    entry = content["resolutions"]["128"]
    assert entry["encode"] == {"median_ms": 200.0, "p10_ms": 190.0, "p90_ms": 250.0, "per_second": 5.0}
    assert entry["inference_memory"] == {"peak_bytes": 3 * 2**29, "before_bytes": 2**29, "what": "resident set"}
    assert entry["encode_flops"] == 2_500_000_000 and not any(name.startswith("backbone") for name in entry)


def test_the_pieces_that_a_model_has_are_its_timings():
    assert list(BARE.timings) == ["geometry_encoder", "encode", "render_per_view"]
    assert list(FUSED.timings) == [*BARE.timings, "backbone_features"]


def test_a_file_of_another_version_still_says_which_configuration_it_is_of():
    assert BenchmarkRecord({"params": "of another configuration"}).params == "of another configuration"
