import numpy as np
import pytest
import torch
from gsplat import export_splats

from src.geometry.cameras import covariances
from src.renders.splat import read_splat, write_splat
from src.splatting.gaussians import Gaussians
from tests.helpers.gaussians import nearest_of, random_gaussians


def test_a_splat_file_holds_the_same_gaussians_in_32_bytes_each(tmp_path):
    """Read by hand: centre and scales as float32, colour and opacity in bytes, rotation in bytes around 128."""
    g = random_gaussians(40, coefficients=1)
    write_splat(tmp_path / "a.splat", g)
    layout = [("mean", "<f4", 3), ("scale", "<f4", 3), ("colour", "u1", 4), ("quat", "u1", 4)]
    table = np.frombuffer((tmp_path / "a.splat").read_bytes(), layout)
    order = nearest_of(table["mean"], g.means.numpy())
    shown = (g.scales.prod(-1) * g.opacities).numpy()[order]
    assert sorted(order) == list(range(40)) and (np.diff(shown) <= 0).all()
    np.testing.assert_array_equal(table["mean"], g.means.numpy()[order])
    np.testing.assert_allclose(table["scale"], g.scales.numpy()[order], rtol=1e-5)
    colours = np.concatenate([0.5 + 0.28209479177387814 * g.sh[:, 0].numpy(), g.opacities.numpy()[:, None]], 1)
    assert np.abs(table["colour"] / 255 - colours.clip(0, 1)[order]).max() <= 0.5 / 255 + 1e-6
    unit = g.quats.numpy() / np.linalg.norm(g.quats.numpy(), axis=-1, keepdims=True)
    unit = unit.clip(-1, 127 / 128)  # the largest that a byte holds
    assert np.abs((table["quat"] - 128.0) / 128 - unit[order]).max() <= 0.5 / 128 + 1e-6


def test_no_byte_is_low_on_the_whole(tmp_path):
    """Rounding errs to both sides alike, where truncation is half a step low."""
    shares = torch.linspace(0, 1, 4001)
    half = 0.2 + shares[:, None]  # radians, where no number of a quaternion reaches 1
    g = Gaussians(
        torch.arange(4001.0)[:, None].expand(-1, 3),
        torch.cat([half.cos(), half.sin(), 0 * half, 0 * half], -1),
        torch.ones(4001, 3),
        shares,
        ((shares - 0.5) / 0.28209479177387814)[:, None, None].expand(-1, 1, 3),
    )
    write_splat(tmp_path / "a.splat", g)
    found = read_splat(tmp_path / "a.splat")
    order = found.means[:, 0].long()
    errors = {
        "opacity": 255 * (found.opacities - g.opacities[order]),
        "colour": 255 * 0.28209479177387814 * (found.sh - g.sh[order]),
        "rotation": 128 * (found.quats - g.quats[order])[:, :2],
    }
    for name, error in errors.items():
        assert error.mean().abs() < 0.05, name


def test_reading_returns_what_was_written_to_half_a_step(tmp_path):
    g = random_gaussians(60, coefficients=1)
    write_splat(tmp_path / "a.splat", g)
    found = read_splat(tmp_path / "a.splat")
    order = nearest_of(found.means.numpy(), g.means.numpy())
    assert torch.equal(found.means, g.means[order])
    torch.testing.assert_close(found.scales, g.scales[order])
    assert (found.opacities - g.opacities[order]).abs().max() <= 0.5 / 255 + 1e-6
    colours = [0.5 + 0.28209479177387814 * each.sh[:, 0] for each in (found, g)]
    assert (colours[0] - colours[1].clamp(0, 1)[order]).abs().max() <= 0.5 / 255 + 1e-6
    turned = covariances(found.quats, g.scales[order]), covariances(g.quats[order], g.scales[order])
    torch.testing.assert_close(*turned, rtol=0, atol=0.03)


def test_files_of_gsplat_are_read(tmp_path):
    """Which truncates: colours, opacities and rotations are up to a step too low."""
    g = random_gaussians(60, coefficients=1)
    tensors = g.means, g.scales.log(), g.quats, g.opacities.logit(), g.sh, g.sh[:, 1:]
    (tmp_path / "a.splat").write_bytes(export_splats(*tensors, "splat"))
    found = read_splat(tmp_path / "a.splat")
    order = nearest_of(found.means.numpy(), g.means.numpy())
    assert sorted(order) == list(range(60))
    below = g.opacities[order] - found.opacities
    assert below.min() >= -1e-6 and below.max() <= 1 / 255 + 1e-6


def test_what_is_no_multiple_of_32_bytes_is_refused(tmp_path):
    for data in (b"", bytes(33)):
        (tmp_path / "a.splat").write_bytes(data)
        with pytest.raises(ValueError, match=f"a.splat has {len(data)} bytes; a .splat file has 32 for each Gaussian"):
            read_splat(tmp_path / "a.splat")
