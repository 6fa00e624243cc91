import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from src.geometry.cameras import covariances
from src.renders.ply import property_names, read_ply, vertex_table, write_ply, write_splats
from src.splatting.gaussians import Gaussians
from tests.conftest import load_fixture
from tests.helpers.gaussians import random_gaussians


def test_the_table_agrees_with_the_reference():
    data, _ = load_fixture("splatt3r/ply_table.safetensors")
    g = Gaussians(
        means=data["means"],
        quats=data["quats_xyzw"].roll(1, -1),
        scales=data["scales"],
        opacities=data["opacities"][:, 0],
        sh=data["sh"].mT,
    )
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


def unpacked(word: np.ndarray, *bits: int) -> np.ndarray:
    """(N, len(bits)) numbers in [0, 1] of packed unsigned integers, the first in the highest bits."""
    shifts = np.cumsum((0, *bits[:0:-1]))[::-1]
    words = word.astype(np.int64)
    return np.stack([(words >> shift) % 2**width / (2**width - 1) for shift, width in zip(shifts, bits)], -1)


def nearest_of(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each written centre the number of the Gaussian it is."""
    return np.linalg.norm(found[:, None] - wanted[None], axis=-1).argmin(1)


def test_a_splat_file_holds_the_same_gaussians_in_32_bytes_each(tmp_path):
    """Read by hand: centre and scales as float32, colour and opacity in bytes, rotation in bytes around 128."""
    g = random_gaussians(40, coefficients=1)
    write_splats(tmp_path / "a.splat", g)
    layout = [("mean", "<f4", 3), ("scale", "<f4", 3), ("colour", "u1", 4), ("quat", "u1", 4)]
    table = np.frombuffer((tmp_path / "a.splat").read_bytes(), layout)
    order = nearest_of(table["mean"], g.means.numpy())
    assert sorted(order) == list(range(40))
    np.testing.assert_array_equal(table["mean"], g.means.numpy()[order])
    np.testing.assert_allclose(table["scale"], g.scales.numpy()[order], rtol=1e-5)
    colours = np.concatenate([0.5 + 0.28209479177387814 * g.sh[:, 0].numpy(), g.opacities.numpy()[:, None]], 1)
    assert np.abs(table["colour"] / 255 - colours.clip(0, 1)[order]).max() <= 1 / 255 + 1e-6
    unit = g.quats.numpy() / np.linalg.norm(g.quats.numpy(), axis=-1, keepdims=True)
    assert np.abs((table["quat"] - 128.0) / 128 - unit[order]).max() <= 1 / 128 + 1e-6


@pytest.mark.parametrize("coefficients", [1, 4])
def test_a_compressed_ply_holds_the_same_gaussians_quantised(tmp_path, coefficients):
    """PlayCanvas's form, read by plyfile and unpacked by hand: bounds per 256 Gaussians, then 11, 10 and 11 bits."""
    g = random_gaussians(300, coefficients=coefficients)
    g.scales[:] = g.scales.clamp(0.01, 1)
    g.scales[:, 0] = 0.25  # a chunk without extent
    g.opacities[:] = g.opacities.clamp_min(0.01)
    g.opacities[0] = 0.001  # too faint to be written
    write_splats(tmp_path / "a.compressed.ply", g)
    ply = PlyData.read(tmp_path / "a.compressed.ply")
    assert [element.name for element in ply.elements] == ["chunk", "vertex"] + ["sh"] * (coefficients > 1)
    chunk, vertex = ply["chunk"].data, ply["vertex"].data
    assert len(vertex) == 299 and len(chunk) == 2
    own = chunk[np.arange(299) // 256]

    def between(low: str, high: str, names: str, share: np.ndarray) -> np.ndarray:
        ends = (np.stack([own[f"{end}_{name}"] for name in names.split()], -1) for end in (low, high))
        low, high = ends
        return low + (high - low) * share

    means = between("min", "max", "x y z", unpacked(vertex["packed_position"], 11, 10, 11))
    order = nearest_of(means, g.means.numpy())
    assert len(set(order)) == 299 and 0 not in order
    span = np.ptp(g.means.numpy(), 0).max()
    assert np.abs(means - g.means.numpy()[order]).max() <= 0.51 * span / 1023
    scales = np.exp(between("min", "max", "scale_x scale_y scale_z", unpacked(vertex["packed_scale"], 11, 10, 11)))
    np.testing.assert_allclose(scales, g.scales.numpy()[order], rtol=0.003)
    colour = unpacked(vertex["packed_color"], 8, 8, 8, 8)
    wanted = 0.5 + 0.28209479177387814 * g.sh[:, 0].numpy()[order]
    assert np.abs(between("min", "max", "r g b", colour[:, :3]) - wanted).max() <= 0.51 * np.ptp(wanted, 0).max() / 255
    assert np.abs(colour[:, 3] - g.opacities.numpy()[order]).max() <= 0.51 / 255
    for word, number in zip(vertex["packed_rotation"], order):
        rest = list((unpacked(np.array([word % 2**30]), 10, 10, 10)[0] - 0.5) * 2**0.5)
        rest.insert(word >> 30, (1 - sum(value**2 for value in rest)) ** 0.5)
        unit = g.quats[number].numpy() / np.linalg.norm(g.quats[number].numpy())
        assert abs(np.dot(rest, unit)) > 1 - 1e-4


def test_endings_that_name_no_format_and_empty_compressed_files_are_refused(tmp_path):
    g = random_gaussians(3)
    write_splats(tmp_path / "a.PLY", g)
    assert len(read_ply(tmp_path / "a.PLY")) == 3
    with pytest.raises(ValueError, match="must end in .ply, .splat or .compressed.ply"):
        write_splats(tmp_path / "a.obj", g)
    with pytest.raises(ValueError, match="no Gaussian"):
        write_splats(tmp_path / "a.splat", random_gaussians(0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.PLY"]
