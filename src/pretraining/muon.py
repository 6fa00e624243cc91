"""Muon: momentum made nearly orthogonal, matrix by matrix, before each step (Keller Jordan et al. 2024).

torch.optim.Muon iterates in bfloat16, which processors without units for it emulate: there it takes longer than the
network's whole backward pass. This one multiplies as autocast says, by itself in the matrices' own precision, those of one
shape at once.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic iteration: steep at 0, within about 0.3 of 1 after 5 steps
ITERATIONS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (B, n, m) with their singular values brought to about 1, by Newton-Schulz iterations."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, with updates as large as AdamW's (Liu et al. 2025, arXiv 2502.16982, eq. 4);
    decoupled weight decay.

    params    matrices (n, m)
    raises    ValueError  for a parameter of another shape
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        shapes = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim != 2]
        if shapes:
            raise ValueError(f"Muon turns matrices; found a parameter of shape {shapes[0]}, give that to AdamW.")

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape].append(p)
            for shape, params in alike.items():
                updates = orthogonalised(torch.stack([self.momentum(p, group["momentum"]) for p in params]))
                for p, update in zip(params, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(update, alpha=0.2 * max(shape) ** 0.5 * group["lr"])

    def momentum(self, p: nn.Parameter, decay: float) -> Tensor:
        if not self.state[p]:
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        average = self.state[p]["momentum_buffer"]
        average.lerp_(p.grad, 1 - decay)
        return p.grad.lerp(average, decay)
