import pytest
import torch
from torch import nn

from src.mast3r.initialise import initialise

LAYERS = [
    lambda: nn.Linear(7, 5),
    lambda: nn.Conv2d(6, 4, 3),
    lambda: nn.ConvTranspose2d(6, 4, 2),
    lambda: nn.Conv2d(6, 4, 1, bias=False),
]


@pytest.mark.parametrize("build", LAYERS)
def test_the_distribution_is_pytorchs_own(build):
    layer, generator = build(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    drawn, theirs = [], []
    for _ in range(200):
        initialise(layer, generator)
        drawn.append(nn.utils.parameters_to_vector(layer.parameters()).detach().clone())
        layer.reset_parameters()
        theirs.append(nn.utils.parameters_to_vector(layer.parameters()).detach().clone())
    drawn, theirs = torch.stack(drawn), torch.stack(theirs)
    assert drawn.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.01)
    assert drawn.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
    assert abs(drawn.mean().item()) < 0.05 * drawn.std().item()


def test_draws_depend_on_the_generator_alone():
    a, b, meta = nn.Linear(7, 5), nn.Linear(7, 5), nn.Linear(7, 5, device="meta")
    generators = [torch.Generator().manual_seed(3) for _ in range(3)]
    for layer, generator in zip((a, b, meta), generators):
        initialise(layer, generator)
        torch.rand(1)
    assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)
    assert torch.equal(generators[0].get_state(), generators[2].get_state())
