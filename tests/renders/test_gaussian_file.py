import pytest
import torch

from src.renders.gaussian_file import read_gaussians, write_gaussians
from src.renders.ply import write_ply
from tests.helpers.gaussians import random_gaussians


@pytest.mark.parametrize("name", ["a.ply", "a.splat", "a.compressed.ply", "A.COMPRESSED.PLY"])
def test_what_is_written_is_read_whatever_the_format(tmp_path, name):
    g = random_gaussians(20, coefficients=1)
    g.scales[:], g.opacities[:] = g.scales.clamp(0.01, 1), g.opacities.clamp_min(0.01)
    write_gaussians(tmp_path / name, g)
    found = read_gaussians(tmp_path / name)
    assert len(found) == 20 and found.finite.all()
    torch.testing.assert_close(found.means.sort(0).values, g.means.sort(0).values, rtol=0, atol=0.005)


def test_a_compressed_file_under_the_plain_ending_is_recognised(tmp_path):
    write_gaussians(tmp_path / "a.compressed.ply", random_gaussians(20).scaled(0.5))
    (tmp_path / "a.compressed.ply").rename(tmp_path / "b.ply")
    assert read_gaussians(tmp_path / "b.ply").sh.shape[1:] == (4, 3)
    write_ply(tmp_path / "c.compressed.ply", random_gaussians(7))  # and the other way round
    assert len(read_gaussians(tmp_path / "c.compressed.ply")) == 7


@pytest.mark.parametrize("name", ["a.splat", "a.compressed.ply"])
def test_numbers_that_are_not_finite_go_into_a_plain_ply_alone(tmp_path, name):
    g = random_gaussians(5)
    g.opacities[2], g.quats[3] = float("nan"), 0
    with pytest.raises(ValueError, match=f"2 of 5 Gaussians .* not finite, or no rotation; .*{name} cannot hold"):
        write_gaussians(tmp_path / name, g)
    assert list(tmp_path.iterdir()) == []
    write_gaussians(tmp_path / "a.ply", g)
    assert read_gaussians(tmp_path / "a.ply").finite.tolist() == [True, True, False, False, True]


def test_endings_that_name_no_format_and_empty_compressed_files_are_refused(tmp_path):
    g = random_gaussians(3)
    write_gaussians(tmp_path / "a.PLY", g)
    assert len(read_gaussians(tmp_path / "a.PLY")) == 3
    with pytest.raises(ValueError, match="must end in .ply, .splat or .compressed.ply"):
        write_gaussians(tmp_path / "a.obj", g)
    with pytest.raises(ValueError, match="no Gaussian"):
        write_gaussians(tmp_path / "a.splat", random_gaussians(0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.PLY"]
