"""Muon against PyTorch's own, against singular values, and refusing what is no matrix."""

import pytest
import torch
from torch import nn

from src.pretraining.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 12, 20), (2, 20, 12), (1, 16, 16)])
def test_singular_values_become_about_one_and_singular_vectors_stay(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrices)
    assert found.shape == shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    for before, after in zip(matrices.double(), found.double()):
        U, _, Vh = torch.linalg.svd(before, full_matrices=False)
        core = U.mT @ after @ Vh.mT
        torch.testing.assert_close(core, torch.diag(core.diagonal()), atol=1e-4, rtol=0)


def test_steps_are_those_of_pytorch_up_to_its_bfloat16():
    generator = torch.Generator().manual_seed(1)
    starts = [torch.randn(shape, generator=generator) for shape in ((8, 24), (24, 8), (8, 24))]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    optimisers = (
        Muon(ours, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        gradients = [torch.randn(start.shape, generator=generator) for start in starts]
        for params, optimiser in zip((ours, theirs), optimisers):
            for p, gradient in zip(params, gradients):
                p.grad = gradient.clone()
            optimiser.step()
    for start, p, q in zip(starts, ours, theirs):
        assert (p - q).norm() < 0.02 * (q - start).norm()


def test_under_autocast_matrices_multiply_in_bfloat16_and_stay_float32():
    matrices = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(2))
    plain = orthogonalised(matrices)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = orthogonalised(matrices)
    assert mixed.dtype == torch.float32
    assert 1e-4 < (mixed - plain).norm() / plain.norm() < 0.05


def test_it_takes_matrices_only():
    with pytest.raises(ValueError, match=r"\(4,\)"):
        Muon([nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))], lr=0.1)
