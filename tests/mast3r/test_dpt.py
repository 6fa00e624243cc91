import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from src.mast3r.dpt import DPT, ResidualUnit

DIMS = dict(token_dims=(12, 10, 10, 10), layer_dims=(4, 6, 8, 10), feature_dim=8, last_dim=4, out_channels=5)


@pytest.mark.parametrize("grid", [(2, 3), (3, 5), (1, 1)])
def test_output_covers_every_pixel_of_any_grid(grid):
    tokens = [torch.randn(2, grid[0] * grid[1], width) for width in DIMS["token_dims"]]
    assert DPT(**DIMS)(tokens, grid).shape == (2, 5, 16 * grid[0], 16 * grid[1])


def test_residual_unit_adds_its_unrectified_input():
    unit = ResidualUnit(3)
    x = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    inner = conv2d(x.clamp(min=0), unit.conv1.weight, unit.conv1.bias, padding=1)
    expected = x + conv2d(inner.clamp(min=0), unit.conv2.weight, unit.conv2.bias, padding=1)
    torch.testing.assert_close(unit(x), expected)


def test_a_refinement_equals_upsampling_first():
    refinement = DPT(**DIMS).scratch.refinenet2
    x, finer = torch.randn(2, 1, 8, 4, 6, generator=torch.Generator().manual_seed(1))
    merged = refinement.resConfUnit2(x + refinement.resConfUnit1(finer))
    large = interpolate(merged, size=(8, 12), mode="bilinear", align_corners=True)
    torch.testing.assert_close(refinement(x, finer), refinement.out_conv(large), rtol=1e-5, atol=1e-6)


def test_the_coarsest_units_skip_connection_is_never_used():
    head = DPT(**DIMS)
    head([torch.randn(1, 6, width) for width in DIMS["token_dims"]], (2, 3)).sum().backward()
    unused = {name for name, parameter in head.named_parameters() if parameter.grad is None}
    assert unused == {f"scratch.refinenet4.resConfUnit1.conv{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
