"""Ridge regression and principal axes from second moments, which are collected in one pass over data of any length.

Hoerl & Kennard 1970, Ridge Regression: Biased Estimation for Nonorthogonal Problems. Hotelling 1933, Analysis of a
Complex of Statistical Variables into Principal Components.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-5, 4))  # of standardised inputs, per row of data
CONSTANT = 1e-9  # of its largest value: what varies less does not vary


@dataclass(frozen=True)
class Solution:
    """y = ((x - mean) * inverse_sd) @ weight + bias, of the named inputs' columns in order; float64.

    mean, inverse_sd  (P,), inverse_sd 0 for an input that does not vary
    weight, bias      (P, K), (K,)
    penalty           the chosen one
    """

    inputs: tuple[str, ...]
    mean: Tensor
    inverse_sd: Tensor
    weight: Tensor
    bias: Tensor
    penalty: float = 0.0

    def __call__(self, rows: Mapping[str, Tensor]) -> Tensor:
        """(N, K) for named columns (N, each). Inputs that do not vary take no part, not even in rounding."""
        inputs = torch.cat([rows[name].double() for name in self.inputs], -1)
        read = self.inverse_sd != 0
        standard = ((inputs - self.mean) * self.inverse_sd)[:, read]
        return standard @ self.weight[read] + self.bias

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("mean", "inverse_sd", "weight", "bias")}


@dataclass
class Moments:
    """Sums of products of all pairs of named columns, with a column of ones before them; float64."""

    slices: dict[str, slice] = field(default_factory=dict)
    products: Tensor | None = None

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Take in rows: name -> (N, columns), all finite, the same names and widths each time."""
        if not self.slices:
            start = 1
            for name, columns in rows.items():
                self.slices[name] = slice(start, start + columns.shape[1])
                start += columns.shape[1]
        joined = torch.cat([columns.double() for columns in rows.values()], 1)
        joined = torch.cat([torch.ones_like(joined[:, :1]), joined], 1)
        found = joined.mT @ joined
        self.products = found if self.products is None else self.products + found

    @property
    def count(self) -> float:
        assert self.products is not None
        return self.products[0, 0].item()

    def part(self, rows: Sequence[str], columns: Sequence[str]) -> Tensor:
        """Covariance of named columns with named columns."""
        assert self.products is not None
        first, second = self.columns(rows), self.columns(columns)
        means = self.products[0] / self.count
        return self.products[first][:, second] / self.count - means[first, None] * means[second]

    def mean(self, names: Sequence[str]) -> Tensor:
        assert self.products is not None
        return self.products[0, self.columns(names)] / self.count

    def columns(self, names: Sequence[str]) -> Tensor:
        return torch.cat([torch.arange(self.slices[name].start, self.slices[name].stop) for name in names])

    def variance(self, target: str) -> float:
        """Of all columns of `target` together."""
        return self.part([target], [target]).trace().item()

    def inverse_deviation(self, names: Sequence[str]) -> Tensor:
        """One over the standard deviation of named columns, 0 for a column that does not vary."""
        assert self.products is not None
        chosen = self.columns(names)
        largest = (self.products[chosen, chosen] / self.count).sqrt()
        deviation = self.part(names, names).diagonal().clamp_min(0).sqrt()
        return torch.where(deviation > CONSTANT**0.5 * largest, 1 / deviation.clamp_min(1e-300), 0)

    def projected(self, name: str, axes: Tensor, onto: str) -> "Moments":
        """These and those of the columns of `name` times `axes` (columns, k), which are called `onto`."""
        assert self.products is not None
        width, count = len(self.products), axes.shape[1]
        mixed = torch.cat([torch.eye(width, dtype=axes.dtype), axes.new_zeros(width, count)], 1)
        mixed[self.columns([name]), width:] = axes
        return Moments(self.slices | {onto: slice(width, width + count)}, mixed.mT @ self.products @ mixed)


def principal_axes(moments: Moments, name: str, count: int) -> Tensor:
    """(columns, at most count): what the columns of `name` are multiplied by for their principal components, once they
    are standardised; those of largest variance."""
    inverse = moments.inverse_deviation([name])
    correlation = moments.part([name], [name]) * inverse[:, None] * inverse
    return inverse[:, None] * torch.linalg.eigh(correlation).eigenvectors.flip(1)[:, :count]


def solve(moments: Moments, inputs: Sequence[str], target: str, penalty: float) -> Solution:
    """The ridge regression of `target` on standardised `inputs`."""
    mean, bias = moments.mean(inputs), moments.mean([target])
    covariance = moments.part(inputs, inputs)
    inverse = moments.inverse_deviation(inputs)
    read = inverse.nonzero()[:, 0]
    scaled = inverse[read]
    system = covariance[read][:, read] * scaled[:, None] * scaled
    system.diagonal().add_(penalty)
    found = torch.linalg.solve(system, moments.part(inputs, [target])[read] * scaled[:, None])
    weight = found.new_zeros(len(mean), found.shape[1])
    weight[read] = found
    return Solution(tuple(inputs), mean, inverse, weight, bias, penalty)


def squared_error(moments: Moments, solution: Solution, target: str) -> float:
    """Mean over the rows of `moments` of the squared length of the error, all columns together."""
    scaled = solution.inverse_sd[:, None] * solution.weight  # (P, K)
    apart = moments.mean(solution.inputs) - solution.mean
    shift = moments.mean([target]) - solution.bias - apart @ scaled  # (K,)
    inputs, both = moments.part(solution.inputs, solution.inputs), moments.part(solution.inputs, [target])
    spread = moments.variance(target) - 2 * (scaled * both).sum() + (scaled * (inputs @ scaled)).sum()
    return (spread + shift.square().sum()).item()


def fit_ridge(training: Moments, validation: Moments, inputs: Sequence[str], target: str) -> Solution:
    """The regression on `training` whose penalty leaves the least error on `validation`."""
    solutions = [solve(training, inputs, target, penalty) for penalty in PENALTIES]
    return min(solutions, key=lambda solution: squared_error(validation, solution, target))
