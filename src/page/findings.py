"""Everything the page shows, in four parts."""

from dataclasses import dataclass

import numpy as np

from src.experiments.comparisons import Verdicts
from src.experiments.result import METRIC, ExperimentResult, protocol_differences
from src.page.numbers import level_words
from src.page.pictures import Chosen, SecondRenders
from src.page.viewer import ViewerScene
from src.results.statistics import Comparison, Interval
from src.results.tables import Row
from src.run import StageTime


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What `evaluate` measured of this run.

    summary         data/eval/summary.json
    rows            data/eval/records.csv, all methods
    mean            mean aligned masked PSNR, None where no target has one
    by_bin          overlap bin -> method -> interval of the aligned masked PSNR, None without scores
    over_baselines  this run against each baseline that needs no training, by the baseline's name
    moved           Chamfer distance of the Gaussians minus that of the frozen points, aligned; None without depth
    probes          data/probe/summary.json
    """

    summary: dict
    rows: list[Row]
    mean: Interval | None
    by_bin: dict[str, dict[str, Interval | None]]
    over_baselines: dict[str, Comparison]
    moved: Interval | None
    probes: dict


@dataclass(frozen=True, kw_only=True)
class Experiments:
    """This run beside others.

    results     this run first
    verdicts    on results against the MASt3R-only one and against constant features, where these are there
    confidence  of all intervals, eval.confidence
    """

    results: list[ExperimentResult]
    verdicts: Verdicts
    confidence: float

    @property
    def against_reference(self) -> dict[str, Comparison]:
        """Results against the MASt3R-only one in masked PSNR, by name."""
        return self.verdicts.differences[METRIC]

    @property
    def against_control(self) -> dict[str, Comparison]:
        """Results against constant features in masked PSNR, by name."""
        return self.verdicts.controlled

    @property
    def current(self) -> ExperimentResult:
        return self.results[0]

    @property
    def comparable(self) -> list[ExperimentResult]:
        """Those measured in the same way as this run, this run first."""
        return [each for each in self.results if not protocol_differences(self.current, each)]

    @property
    def level(self) -> str:
        return level_words(self.confidence)


@dataclass(frozen=True)
class RealPair:
    """What the stage `real_pair` found. summary: data/real_pair/summary.json; picture: bytes of a PNG"""

    summary: dict
    picture: bytes


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What there is to look at.

    targets        chosen targets and their panels by name, (H, W, 3) uint8
    second         another experiment's renders of them, where this machine has any
    viewer_scenes  scenes to look around in
    real_pair      one real pair of photographs
    """

    targets: list[tuple[Chosen, dict[str, np.ndarray]]]
    second: SecondRenders | None
    viewer_scenes: list[ViewerScene]
    real_pair: RealPair


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the numbers come from. provenance: heading -> (name, value) pairs; stages: stage -> its time when it last ran
    here."""

    provenance: dict[str, list[tuple[str, str]]]
    stages: dict[str, StageTime]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The parts of the page."""

    scores: Scores
    experiments: Experiments
    pictures: Pictures
    origin: Origin
