"""Parts of the page's findings, made up."""

import numpy as np

from src.experiments.comparisons import Verdicts
from src.experiments.result import METRIC, ExperimentResult
from src.page.findings import Experiments


def made_up_result(name: str, gain: float) -> ExperimentResult:
    """Ten targets of five scenes, about `gain` dB above 21."""
    wobble = np.random.default_rng(ord(name)).normal(0, 0.01, 10)
    rows = [
        {
            "episode": str(i),
            "target": "1",
            "scene": f"s{i // 2}",
            "alignment": "aligned",
            "psnr_masked": 20 + i % 3 + gain + wobble[i],
        }
        for i in range(10)
    ]
    return ExperimentResult(
        name, {"protocol": {"seed": 0}, "backbone": {"name": name}}, rows, curves={}, benchmark=None
    )


def beside(results: list[ExperimentResult], verdicts: Verdicts | None = None) -> Experiments:
    """The first result beside the others."""
    return Experiments(results=results, verdicts=verdicts or Verdicts({METRIC: {}}, {}, {}), confidence=0.95)
