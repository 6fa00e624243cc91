import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from src.splatting.sh import basis, colours, dc_to_rgb, rgb_to_dc
from tests.conftest import load_fixture


def directions(count: int = 50) -> torch.Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_basis_agrees_with_scipys_complex_harmonics(degree):
    d = directions()
    x, y, z = torch.nn.functional.normalize(d, dim=-1).numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    wanted = []
    for l in range(degree + 1):
        for m in range(-l, l + 1):
            Y = sph_harm_y(l, abs(m), polar, azimuth)
            wanted.append(Y.real if m == 0 else np.sqrt(2) * (Y.imag if m < 0 else Y.real))
    torch.testing.assert_close(basis(d, degree), torch.from_numpy(np.stack(wanted, -1)), rtol=0, atol=1e-13)


def test_basis_agrees_with_gsplat():
    from gsplat.cuda._torch_impl import _eval_sh_bases_fast

    d = torch.nn.functional.normalize(directions(), dim=-1)
    torch.testing.assert_close(basis(d, 3), _eval_sh_bases_fast(16, d), rtol=0, atol=1e-12)


def test_other_degrees_are_refused():
    with pytest.raises(ValueError, match="degree 4"):
        basis(directions(), 4)


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_colours_agree_with_a_loop(coefficients):
    g = torch.Generator().manual_seed(1)
    sh = torch.randn(6, coefficients, 3, dtype=torch.float64, generator=g)
    means = torch.randn(6, 3, dtype=torch.float64, generator=g)
    cameras = torch.randn(2, 3, dtype=torch.float64, generator=g)
    found = colours(sh, means, cameras)
    assert found.shape == (2, 6, 3) and (found == 0).any() and (found > 0).any()
    degree = {1: 0, 4: 1, 9: 2, 16: 3}[coefficients]
    for v in range(2):
        for n in range(6):
            value = sum(basis(means[n] - cameras[v], degree)[k] * sh[n, k] for k in range(coefficients)) + 0.5
            torch.testing.assert_close(found[v, n], value.clamp(min=0))


def test_degree_0_is_colour_from_everywhere_and_agrees_with_the_reference():
    data, _ = load_fixture("splatt3r/covariance_sh.safetensors")
    rgb = data["image"].permute(0, 2, 3, 1)
    torch.testing.assert_close(rgb_to_dc(rgb), data["rgb2sh"], rtol=0, atol=1e-6)
    torch.testing.assert_close(dc_to_rgb(data["sh_residual"][..., 0]), data["sh2rgb_of_residual_dc"], rtol=0, atol=1e-6)
    torch.testing.assert_close(dc_to_rgb(rgb_to_dc(rgb)), rgb)
