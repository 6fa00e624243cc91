"""What reports/benchmark.json says of a result: frames per second, memory, parameters, as words for tables."""

from collections.abc import Sequence

from src.experiments.result import ExperimentResult
from src.page.numbers import with_limits
from src.run import StageTime
from src.timing.benchmark_file import BenchmarkRecord, Costs, Timing

PIECES = {
    "backbone_features": "backbone features of two images",
    "geometry_encoder": "geometry encoder, two images",
    "encode": "two images to Gaussians, all of it",
    "render_per_view": "one render",
}
STALE = "reports/benchmark.json is of another configuration; dvc repro benchmark measures this one"
CPU_ONLY = "this run was timed on a CPU; dvc repro -f benchmark times it on a GPU where torch finds one"
MISSING = "there is no reports/benchmark.json; dvc repro benchmark measures it"


def timings(result: ExperimentResult) -> BenchmarkRecord | None:
    """The benchmark of a result, if it was measured on the configuration that the result describes."""
    found = result.benchmark
    return found if found and found.params == result.about["benchmark_params"] else None


def why_absent(result: ExperimentResult) -> str:
    return MISSING if result.benchmark is None else STALE


def at_resolution(result: ExperimentResult) -> tuple[str, Costs] | None:
    """Side in pixels and numbers at the resolution the scores were made at, else at the first one measured."""
    benchmark = timings(result)
    if benchmark is None:
        return None
    side = result.about["protocol"]["resolution"].split("x")[0]
    side = side if side in benchmark.sides else benchmark.sides[0]
    return side, benchmark.costs(side)


def conditions(result: ExperimentResult) -> tuple[dict, str, str, str]:
    """What the timings of a result hold for: hardware, device, precision, side."""
    benchmark = timings(result)
    return benchmark.hardware, benchmark.device, benchmark.precision, f"{at_resolution(result)[0]} px"


def unlike(result: ExperimentResult, like: ExperimentResult) -> list[str]:
    """In what `result` was timed otherwise than `like`, in words; empty where their timings may stand side by side."""
    return [
        ours if isinstance(ours, str) else "other hardware"
        for ours, theirs in zip(conditions(result), conditions(like))
        if ours != theirs
    ]


def machine_differences(first: ExperimentResult, second: ExperimentResult) -> list[str]:
    """In what the machine that timed the second differs from the first's, as far as both said what they are: processor,
    instruction set, threads."""
    ours, theirs = (found.hardware if (found := timings(each)) else {} for each in (first, second))
    return [
        f"{words} {theirs[key]} instead of {ours[key]}"
        for key, words in (("cpu", "processor"), ("instructions", "instruction set"), ("threads", "threads"))
        if key in ours and key in theirs and ours[key] != theirs[key]
    ]


def bracketed(words: Sequence[str]) -> str:
    """A space and (other hardware, cuda); nothing without words."""
    return f" ({', '.join(words)})" if words else ""


def bytes_words(count: int) -> str:
    return f"{count / 2**30:.2f} GB" if count >= 2**29 else f"{count / 2**20:.0f} MB"


def flops_words(count: int) -> str:
    return f"{count / 1e9:.1f} GFLOP"


def fps_and_memory(result: ExperimentResult, like: ExperimentResult) -> tuple[str, str] | None:
    """Pairs turned into Gaussians per second and peak memory, with words where `like` was timed otherwise or not."""
    found = at_resolution(result)
    if found is None:
        return None
    note = bracketed(unlike(result, like) if timings(like) else conditions(result)[1:])
    return (
        f"{found[1].encode.per_second:.1f}{note}",
        bytes_words(found[1].inference_memory.peak_bytes) + note,
    )


def milliseconds(timing: Timing | None) -> str:
    """50.1 [45.0, 61.2]"""
    return "–" if timing is None else with_limits(*timing.spread, digits=1)


def time_table(benchmark: BenchmarkRecord) -> dict:
    """A row per piece of the model, a column per resolution: median milliseconds with the 10th to 90th percentile."""
    numbers, rows = [benchmark.costs(side) for side in benchmark.sides], []
    for piece, name in PIECES.items():
        entries = [costs.timings.get(piece) for costs in numbers]
        if any(entries):
            rows.append([name, *map(milliseconds, entries)])
    rows.append(["pairs per second", *(f"{each.encode.per_second:.2f}" for each in numbers)])
    rows.append(["arithmetic of a pair", *(flops_words(each.encode_flops) for each in numbers)])
    rows.append(["peak memory, inference", *(bytes_words(each.inference_memory.peak_bytes) for each in numbers)])
    rows.append(
        ["peak memory, training step", *(bytes_words(each.training_step_memory.peak_bytes) for each in numbers)]
    )
    return {
        "head": ["milliseconds, median [10 %, 90 %]", *(f"{side} × {side}" for side in benchmark.sides)],
        "rows": rows,
    }


def time_bars(results: list[ExperimentResult]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """piece -> result -> median, 10th and 90th percentile in milliseconds, of results that have timings."""
    rows = {}
    for piece, name in PIECES.items():
        entries = {each.name: at_resolution(each)[1].timings.get(piece) for each in results}
        found = {key: entry.spread for key, entry in entries.items() if entry}
        if found:
            rows[name] = found
    return rows


def stage_table(times: dict[str, StageTime]) -> dict:
    """A row per stage of the pipeline, and their sum."""
    rows = [[stage, f"{each.seconds:.1f}", bytes_words(each.peak_bytes)] for stage, each in times.items()]
    rows.append(
        [
            "all of these",
            f"{sum(each.seconds for each in times.values()):.1f}",
            bytes_words(max(each.peak_bytes for each in times.values())),
        ]
    )
    return {"head": ["stage, when it last ran here", "seconds", "largest process"], "rows": rows}


def speed_facts(benchmark: BenchmarkRecord) -> list[tuple[str, str]]:
    """What the timings hold for."""
    hardware = benchmark.hardware
    device = hardware.get("gpu", hardware["cpu"]) if benchmark.device == "cuda" else hardware["cpu"]
    counts = benchmark.parameters.items()
    parameters = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts if count)
    memory = benchmark.costs(benchmark.sides[0]).inference_memory.what
    return [
        ("measured on", f"{device}, {hardware['cpu_cores']} CPU cores, {hardware['threads']} threads"),
        (
            "method",
            f"{benchmark.repeats} synchronised repeats after {benchmark.warmup} to warm up, batch of "
            f"one, precision {benchmark.precision}",
        ),
        (
            "repeats",
            "one process, one run: on two CPU cores, others differ by about 3 % in memory and 15 % in milliseconds",
        ),
        ("memory", memory),
        ("parameters", parameters),
    ]
