import pytest
import torch

from src.splatting.gaussians import Gaussians
from tests.helpers.gaussians import random_gaussians


@pytest.mark.parametrize(
    "name, shape",
    [
        ("means", (5, 4)),
        ("quats", (5, 3)),
        ("scales", (4, 3)),
        ("opacities", (5, 1)),
        ("sh", (5, 3, 4)),
        ("sh", (5, 5, 3)),
    ],
)
def test_a_wrong_shape_is_refused_by_name(name, shape):
    tensors = dict(vars(random_gaussians(5)))
    tensors[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match="Gaussians"):
        Gaussians(**tensors)


def test_cat_keeps_the_order_with_and_without_a_batch():
    for lead in [(), (2,), (2, 3)]:
        a, b = random_gaussians(*lead, 5, seed=1), random_gaussians(*lead, 7, seed=2)
        both = Gaussians.cat([a, b])
        assert len(both) == 12
        assert torch.equal(both.means[..., :5, :], a.means) and torch.equal(both.opacities[..., 5:], b.opacities)
        assert torch.equal(both.sh[..., 5:, :, :], b.sh)


def test_indexing_a_batch():
    batch = random_gaussians(3, 5)
    one = batch[1]
    assert len(one) == 5 and torch.equal(one.quats, batch.quats[1]) and torch.equal(one.sh, batch.sh[1])
    with pytest.raises(IndexError):
        one[0]


def test_scaling_changes_lengths_only():
    batch = random_gaussians(2, 5)
    factor = torch.tensor([2.0, 3.0])
    scaled = batch.scaled(factor)
    for i in range(2):
        assert torch.equal(scaled[i].means, batch[i].means * factor[i])
        assert torch.equal(scaled[i].scales, batch[i].scaled(float(factor[i])).scales)
        assert torch.equal(scaled[i].opacities, batch[i].opacities) and torch.equal(scaled[i].quats, batch[i].quats)


def test_gaussians_that_cannot_be_drawn_are_told_and_left_out():
    g = random_gaussians(7, coefficients=4)
    g.means[1, 2], g.scales[2, 0], g.opacities[3] = float("nan"), float("inf"), float("nan")
    g.sh[4, 3, 1], g.quats[5] = -float("inf"), 0
    assert g.finite.tolist() == [True, False, False, False, False, False, True]
    assert torch.equal(g.chosen(g.finite).sh, g.sh[[0, 6]]) and torch.equal(g.chosen(g.finite).quats, g.quats[[0, 6]])
    assert random_gaussians(2, 5).finite.shape == (2, 5)


def test_degree_dtype_and_detaching():
    for degree, coefficients in enumerate((1, 4, 9, 16)):
        assert random_gaussians(2, coefficients=coefficients).sh_degree == degree
    g = random_gaussians(2)
    g.means.requires_grad_()
    assert not g.detach().means.requires_grad
    assert g.to(torch.float64).sh.dtype == torch.float64
