import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from src.gaussians import Gaussians
from src.geometry import covariances
from src.ply import property_names, read_ply, vertex_table, write_ply
from tests.conftest import load_fixture
from tests.test_gaussians import random_gaussians


def test_the_table_agrees_with_the_reference():
    data, _ = load_fixture("splatt3r/ply_table.safetensors")
    g = Gaussians(means=data["means"], quats=data["quats_xyzw"].roll(1, -1), scales=data["scales"],
                  opacities=data["opacities"][:, 0], sh=data["sh"].mT)
    np.testing.assert_allclose(vertex_table(g), data["table17"].numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_plyfile_reads_what_we_write(tmp_path, coefficients):
    g = random_gaussians(11, coefficients=coefficients)
    write_ply(tmp_path / "a.ply", g)
    ply = PlyData.read(tmp_path / "a.ply")
    assert not ply.text and ply.byte_order == "<" and len(ply.elements) == 1
    vertex = ply["vertex"]
    assert [p.name for p in vertex.properties] == property_names(coefficients)
    assert {p.val_dtype for p in vertex.properties} == {"f4"}
    for n in range(11):
        assert vertex["y"][n] == pytest.approx(float(g.means[n, 1]))
        assert vertex["scale_2"][n] == pytest.approx(np.log(float(g.scales[n, 2])), rel=1e-5)
        opacity = float(g.opacities[n])
        assert vertex["opacity"][n] == pytest.approx(np.log(opacity / (1 - opacity)), rel=1e-4, abs=1e-5)
        assert vertex["rot_0"][n] == pytest.approx(float(g.quats[n, 0] / g.quats[n].norm()), rel=1e-5)
        for colour in range(3):
            assert vertex[f"f_dc_{colour}"][n] == pytest.approx(float(g.sh[n, 0, colour]))
            for k in range(1, coefficients):
                name = f"f_rest_{colour * (coefficients - 1) + k - 1}"
                assert vertex[name][n] == pytest.approx(float(g.sh[n, k, colour]))


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_reading_returns_what_was_written(tmp_path, coefficients):
    g = random_gaussians(13, coefficients=coefficients)
    write_ply(tmp_path / "a.ply", g)
    back = read_ply(tmp_path / "a.ply")
    for name in ("means", "scales", "opacities", "sh"):
        torch.testing.assert_close(getattr(back, name), getattr(g, name), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(covariances(back.quats, back.scales), covariances(g.quats, g.scales))


def test_extreme_opacities_and_scales_stay_finite(tmp_path):
    g = random_gaussians(2, coefficients=1)
    g.opacities[:] = torch.tensor([0.0, 1.0])
    g.scales[0] = 0
    assert np.isfinite(vertex_table(g)).all()
    write_ply(tmp_path / "a.ply", g)
    torch.testing.assert_close(read_ply(tmp_path / "a.ply").opacities, g.opacities, rtol=0, atol=1e-6)


def test_files_of_other_writers_in_another_order_are_read(tmp_path):
    g = random_gaussians(5)
    write_ply(tmp_path / "a.ply", g)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"].data
    keep = [name for name in reversed(vertex.dtype.names) if name not in ("nx", "ny", "nz")]
    other = np.empty(len(vertex), [(name, "f4") for name in keep])
    for name in keep:
        other[name] = vertex[name]
    PlyData([PlyElement.describe(other, "vertex")], byte_order="<").write(tmp_path / "b.ply")
    a, b = read_ply(tmp_path / "a.ply"), read_ply(tmp_path / "b.ply")
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_broken_files_are_refused_with_their_name(tmp_path):
    path = tmp_path / "a.ply"
    write_ply(path, random_gaussians(5))
    whole = path.read_bytes()
    broken = {
        "cut short": whole[:-4],
        "does not start": b"not a ply file",
        "lacks the vertex properties rot_3": whole.replace(b"rot_3", b"rot_x"),
        "not float32": whole.replace(b"float opacity", b"double opacity"),
        "exactly one": whole.replace(b"end_header", b"element face 0\nend_header"),
        "f_rest": whole.replace(b"f_rest_8", b"g_rest_8"),
    }
    for message, data in broken.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message) as error:
            read_ply(path)
        assert str(path) in str(error.value)


def test_a_batch_is_refused_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.ply"
    write_ply(path, random_gaussians(5))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="batch"):
        write_ply(path, random_gaussians(2, 5))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.ply"]
