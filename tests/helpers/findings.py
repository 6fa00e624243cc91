"""Parts of the page's findings, made up."""

import numpy as np

from src.experiments.result import ExperimentResult
from src.page.findings import Experiments
from src.results.statistics import Comparison


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
    return ExperimentResult(name, {"protocol": {"seed": 0}}, rows, curves={}, benchmark=None)


def beside(
    results: list[ExperimentResult],
    against_reference: dict[str, Comparison] | None = None,
    against_control: dict[str, Comparison] | None = None,
) -> Experiments:
    """The first result beside the others."""
    return Experiments(
        results=results,
        against_reference=against_reference or {},
        against_control=against_control or {},
        confidence=0.95,
    )
