"""Episodes chosen by the real selection."""

from types import SimpleNamespace


def selection(**changes) -> SimpleNamespace:
    values = {
        "view_selection": "coverage",
        "alpha": 0.3,
        "beta": 0.3,
        "temporal_gap_min": 4,
        "temporal_gap_max": 6,
        "num_targets": 3,
        "per_bin": 2,
    }
    return SimpleNamespace(**values | changes)
