"""reports/benchmark.json: what it costs to turn a pair of images into Gaussians. The stage `benchmark` writes it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from src.reproducible.files import write_json

BENCHMARK_FILE = "benchmark.json"  # under reports/


@dataclass(frozen=True)
class Timing:
    """Wall-clock milliseconds of one call: median, 10th and 90th percentile of `repeats` calls after the warm-up."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int

    @property
    def per_second(self) -> float:
        return 1000 / self.median_ms

    @property
    def spread(self) -> tuple[float, float, float]:
        """median, 10th and 90th percentile"""
        return self.median_ms, self.p10_ms, self.p90_ms


@dataclass(frozen=True)
class PeakMemory:
    """Largest number of bytes in use during one call, and in use just before it; `what` says how it was measured."""

    peak_bytes: int
    before_bytes: int
    what: str


Number = int | Timing | PeakMemory  # of Costs


@dataclass(frozen=True)
class Costs:
    """All numbers of one resolution, under their names in the file. What does not exist (the features of no backbone)
    is None here and absent there.

    gaussians          predicted from one pair
    render_per_view    of one target; the other timings are of one pair
    *_flops            floating-point operations of one pair
    """

    gaussians: int
    geometry_encoder: Timing
    encode: Timing
    render_per_view: Timing
    encode_flops: int
    inference_memory: PeakMemory
    training_step_memory: PeakMemory
    backbone_features: Timing | None = None
    backbone_flops: int | None = None

    @property
    def timings(self) -> dict[str, Timing]:
        """Those of all pieces that the model has."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Timing)}


def number_in_file(number: Number) -> int | dict:
    """Every timing has the repeats that the file names once."""
    if isinstance(number, Timing):
        median, p10, p90 = number.spread
        return {"median_ms": median, "p10_ms": p10, "p90_ms": p90, "per_second": number.per_second}
    return asdict(number) if isinstance(number, PeakMemory) else number


def number_from_file(entry: int | dict, repeats: int) -> Number:
    if not isinstance(entry, dict):
        return entry
    if "median_ms" in entry:
        return Timing(entry["median_ms"], entry["p10_ms"], entry["p90_ms"], repeats)
    return PeakMemory(**entry)


@dataclass(frozen=True)
class BenchmarkRecord:
    """The content of a file. `params` says which configuration it is of; ask that first, since a file of another one may
    come from another version of this code."""

    content: Mapping

    @property
    def params(self) -> str:
        """Hash of the parameters that were measured."""
        return self.content["params"]

    @property
    def device(self) -> str:
        """cpu or cuda"""
        return self.content["device"]

    @property
    def precision(self) -> str:
        return self.content["precision"]

    @property
    def warmup(self) -> int:
        return self.content["warmup"]

    @property
    def repeats(self) -> int:
        return self.content["repeats"]

    @property
    def hardware(self) -> dict[str, str | int]:
        """As `measure.hardware` found it."""
        return self.content["hardware"]

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers of parameters by group; `trainable` counts those of all groups."""
        return self.content["parameters"]

    @property
    def sides(self) -> list[str]:
        """Of the square images that were measured, in pixels."""
        return list(self.content["resolutions"])

    def costs(self, side: str) -> Costs:
        entry = self.content["resolutions"][side]
        return Costs(**{name: number_from_file(value, self.repeats) for name, value in entry.items()})


def parse_benchmark(text: str) -> BenchmarkRecord:
    return BenchmarkRecord(json.loads(text))


def write_benchmark(
    path: Path,
    *,
    params: str,
    device: str,
    precision: str,
    warmup: int,
    repeats: int,
    hardware: dict[str, str | int],
    parameters: dict[str, int],
    resolutions: dict[str, Costs],
    **origin: str | dict | None,
) -> None:
    """What `BenchmarkRecord` reads. origin: what people may want to know besides, and no code reads."""
    entries = {
        side: {name: number_in_file(value) for name, value in vars(costs).items() if value is not None}
        for side, costs in resolutions.items()
    }
    write_json(
        path,
        origin
        | {
            "params": params,
            "device": device,
            "precision": precision,
            "warmup": warmup,
            "repeats": repeats,
            "unit": "one pair of images; render_per_view: one target",
            "hardware": hardware,
            "parameters": parameters,
            "resolutions": entries,
        },
    )
