"""The points of a reconstruction, and which views observed them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Points:
    """What a reconstruction is made of: xyz (P, 3) float64 in world coordinates, and, where it tells, the numbers of the
    points that each frame (by name) observed."""

    xyz: np.ndarray
    observed: dict[str, np.ndarray] | None = None

    def table(self, names: list[str]) -> np.ndarray | None:
        """(V, P) bool: which of the points each named frame observed; None when that is not known."""
        if self.observed is None:
            return None
        table = np.zeros((len(names), len(self.xyz)), bool)
        for row, name in zip(table, names):
            row[self.observed.get(name, [])] = True
        return table
