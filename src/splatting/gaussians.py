"""The one form in which Gaussians travel between files: activated, wxyz, gsplat's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

SH_COEFFICIENTS = (1, 4, 9, 16)  # (degree + 1)^2 for degrees 0 to 3


@dataclass(frozen=True, eq=False)
class Gaussians:
    """N coloured 3D Gaussians, or a batch of such sets with leading dimensions shared by all five tensors.

    means      (..., N, 3)     centres, scene units, in the frame the maker states (view 1's camera for predictions)
    quats      (..., N, 4)     wxyz, not necessarily unit; rotates Gaussian axes into the frame of `means`
    scales     (..., N, 3)     standard deviations, scene units, > 0 (not their logarithms)
    opacities  (..., N)        in [0, 1] (not logits)
    sh         (..., N, d, 3)  spherical-harmonic coefficients of R, G, B; d = (degree + 1)^2, degree 0 to 3
    raises     ValueError      when a shape does not fit the others
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor

    def __post_init__(self):
        lead = tuple(self.opacities.shape)
        wanted = {"means": (*lead, 3), "quats": (*lead, 4), "scales": (*lead, 3), "opacities": lead}
        for name, shape in wanted.items():
            if not lead or tuple(getattr(self, name).shape) != shape:
                raise ValueError(
                    f"Gaussians.{name} has shape {tuple(getattr(self, name).shape)}; with opacities "
                    f"{lead} it must be {shape or '(N,)'}."
                )
        shape = tuple(self.sh.shape)
        if shape[:-2] != lead or shape[-1] != 3 or shape[-2] not in SH_COEFFICIENTS:
            raise ValueError(
                f"Gaussians.sh has shape {shape}; with opacities {lead} it must be {(*lead, 'd', 3)}, "
                f"d one of {SH_COEFFICIENTS}."
            )

    def __len__(self) -> int:
        """Number of Gaussians N, of each set when batched."""
        return self.opacities.shape[-1]

    def __getitem__(self, index: int | slice) -> Gaussians:
        """The set (or sets) number `index` along the first batch dimension."""
        if self.opacities.ndim < 2:
            raise IndexError("Gaussians without a batch dimension cannot be indexed by batch.")
        return self._map(lambda tensor: tensor[index])

    @property
    def finite(self) -> Tensor:
        """(..., N) whether all numbers of a Gaussian are finite and its quaternion turns anything."""
        per_gaussian = (self.means, self.quats, self.scales, self.opacities[..., None], self.sh.flatten(-2))
        numbers = torch.cat(per_gaussian, -1)  # (..., N, 11 + 3 d)
        return numbers.isfinite().all(-1) & (self.quats != 0).any(-1)

    def chosen(self, mask: Tensor) -> Gaussians:
        """Those of one set where mask (N,) is true."""
        return self._map(lambda tensor: tensor[mask])

    @property
    def sh_degree(self) -> int:
        return SH_COEFFICIENTS.index(self.sh.shape[-2])

    @classmethod
    def cat(cls, parts: Sequence[Gaussians]) -> Gaussians:
        """All Gaussians of `parts`, in order, as one set; batch dimensions and SH degree must agree."""
        lead = parts[0].opacities.ndim - 1  # N is the dimension after the batch dimensions
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts], lead) for f in fields(cls)})

    def scaled(self, factor: float | Tensor) -> Gaussians:
        """The same scene in other units: means and scales times `factor` > 0, a number or one per batch element."""
        if isinstance(factor, Tensor) and factor.ndim:
            factor = factor[..., None, None]
        return replace(self, means=self.means * factor, scales=self.scales * factor)

    def to(self, *args: Any, **kwargs: Any) -> Gaussians:
        """Moved or cast as `Tensor.to` would."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Gaussians:
        return self._map(Tensor.detach)

    def _map(self, function) -> Gaussians:
        return Gaussians(**{f.name: function(getattr(self, f.name)) for f in fields(self)})
