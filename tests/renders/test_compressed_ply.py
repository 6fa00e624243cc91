import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from src.geometry.cameras import covariances
from src.renders.compressed_ply import is_compressed, write_compressed_ply
from src.renders.gaussian_file import read_gaussians
from src.renders.ply import open_ply
from src.splatting.gaussians import Gaussians
from tests.helpers.gaussians import nearest_of, random_gaussians


def unpacked(word: np.ndarray, *bits: int) -> np.ndarray:
    """(N, len(bits)) numbers in [0, 1] of packed unsigned integers, the first in the highest bits."""
    shifts = np.cumsum((0, *bits[:0:-1]))[::-1]
    words = word.astype(np.int64)
    return np.stack([(words >> shift) % 2**width / (2**width - 1) for shift, width in zip(shifts, bits)], -1)


@pytest.mark.parametrize("coefficients", [1, 4])
def test_a_compressed_ply_holds_the_same_gaussians_quantised(tmp_path, coefficients):
    """PlayCanvas's form, read by plyfile and unpacked by hand: bounds per 256 Gaussians, then 11, 10 and 11 bits."""
    g = random_gaussians(300, coefficients=coefficients)
    g.scales[:] = g.scales.clamp(0.01, 1)
    g.scales[:, 0] = 0.25  # a chunk without extent
    g.opacities[:] = g.opacities.clamp_min(0.01)
    g.opacities[0] = 0.001  # too faint to be written
    write_compressed_ply(tmp_path / "a.compressed.ply", g)
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


def drawn(count: int, coefficients: int) -> Gaussians:
    g = random_gaussians(count, coefficients=coefficients)
    g.scales[:] = g.scales.clamp(0.01, 1)
    g.opacities[:] = g.opacities.clamp_min(0.01)
    g.sh[:] = g.sh.clamp(-3.9, 3.9)  # what the bytes span
    return g


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_reading_returns_what_gsplat_wrote_to_within_a_step(tmp_path, coefficients):
    g = drawn(700, coefficients)
    path = tmp_path / "a.compressed.ply"
    write_compressed_ply(path, g)
    found = read_gaussians(path)
    order = nearest_of(found.means.numpy(), g.means.numpy())
    assert sorted(order) == list(range(700)) and found.sh.shape == (700, coefficients, 3)
    assert (found.means - g.means[order]).abs().max() <= 0.51 * np.ptp(g.means.numpy(), 0).max() / 1023
    torch.testing.assert_close(found.scales, g.scales[order], rtol=0.003, atol=0)
    assert (found.opacities - g.opacities[order]).abs().max() <= 0.51 / 255
    assert (found.sh - g.sh[order])[:, 0].abs().max() <= 0.51 * np.ptp(g.sh[:, 0].numpy(), 0).max() / 255
    assert coefficients == 1 or (found.sh - g.sh[order])[:, 1:].abs().max() <= 4 / 256 + 1e-6
    turned = covariances(found.quats, g.scales[order]), covariances(g.quats[order], g.scales[order])
    torch.testing.assert_close(*turned, rtol=0, atol=0.005)
    torch.testing.assert_close(found.quats.norm(dim=-1), torch.ones(700))


def by_hand(path, chunk: dict[str, float], words: list[tuple[int, ...]], sh: list[list[int]] = ()) -> None:
    chunks = np.array([tuple(chunk.values())], [(name, "<f4") for name in chunk])
    packed = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
    elements = [("chunk", chunks), ("vertex", np.array(words, [(name, "<u4") for name in packed]))]
    if sh:
        elements.append(("sh", np.array([tuple(row) for row in sh], [(f"f_rest_{i}", "u1") for i in range(9)])))
    PlyData([PlyElement.describe(data, name) for name, data in elements], byte_order="<").write(path)


BOUNDS = {f"{end}_{name}": value for end, value in (("min", -1), ("max", 3)) for name in "xyz"}
BOUNDS |= {f"{end}_scale_{name}": value for end, value in (("min", -2), ("max", 0)) for name in "xyz"}


def test_a_file_written_by_hand_is_read_bit_by_bit(tmp_path):
    """The layout as PlayCanvas documents it: 11, 10 and 11 bits; two bits and thrice ten; four bytes."""
    place, scale = (2047 << 21) | (0 << 11) | 2047, (0 << 21) | (1023 << 11) | 0
    rotation = (2 << 30) | (1023 << 20) | (512 << 10) | 511  # y is the largest; w = 1/sqrt(2)
    colours = BOUNDS | {f"{end}_{name}": value for end, value in (("min", 0), ("max", 0.5)) for name in "rgb"}
    path = tmp_path / "a.compressed.ply"
    by_hand(path, colours, [(place, rotation, scale, 0xFF0033FF)], [[0, 255, 128, 127, 64, 192, 1, 254, 100]])
    g = read_gaussians(path)
    assert g.means[0].tolist() == [3, -1, 3] and g.opacities.tolist() == [1]
    assert g.scales[0].tolist() == pytest.approx([np.exp(-2), 1, np.exp(-2)])
    assert g.quats[0].tolist() == pytest.approx([0.5**0.5, 0, 0.5**0.5, 0], abs=0.001)
    assert (0.5 + 0.28209479177387814 * g.sh[0, 0]).tolist() == pytest.approx([0.5, 0, 0.1])
    assert g.sh[0, 1:, 0].tolist() == pytest.approx([-4, 4, 0.015625])  # red's three coefficients come first
    assert g.sh[0, 1:, 2].tolist() == pytest.approx([(1.5 / 32 - 4), (254.5 / 32 - 4), (100.5 / 32 - 4)])
    by_hand(path, BOUNDS, [(place, rotation, scale, 0xFF0033FF)])  # of the format's first version
    assert (0.5 + 0.28209479177387814 * read_gaussians(path).sh[0, 0]).tolist() == pytest.approx([1, 0, 0.2])


def test_files_that_contradict_themselves_are_refused(tmp_path):
    path = tmp_path / "a.compressed.ply"
    by_hand(path, BOUNDS, [(0, 0, 0, 0)] * 257)
    with pytest.raises(ValueError, match="a.compressed.ply has 1 chunks where its 257 Gaussians need 2"):
        read_gaussians(path)
    by_hand(path, {name: value for name, value in BOUNDS.items() if name != "max_y"}, [(0, 0, 0, 0)])
    with pytest.raises(ValueError, match="lacks the chunk properties max_y"):
        read_gaussians(path)
    by_hand(path, BOUNDS, [(0, 0, 0, 0)] * 2, [[0] * 9])
    with pytest.raises(ValueError, match="SH coefficients of 1 Gaussians where it holds 2"):
        read_gaussians(path)


def test_what_gsplat_writes_without_higher_coefficients_is_read_as_it_is(tmp_path):
    """It announces an element without properties then."""
    from gsplat import export_splats

    g = drawn(3, 1)
    tensors = g.means, g.scales.log(), g.quats, g.opacities.logit(), g.sh, g.sh[:, 1:]
    (tmp_path / "a.ply").write_bytes(export_splats(*tensors, "ply_compressed"))
    assert b"element sh 3\nend_header" in (tmp_path / "a.ply").read_bytes()
    assert is_compressed(open_ply(tmp_path / "a.ply")) and len(read_gaussians(tmp_path / "a.ply")) == 3


def test_gaussians_too_faint_for_the_format_are_refused(tmp_path):
    g = drawn(3, 1)
    g.opacities[:] = 0.001
    with pytest.raises(ValueError, match="too faint"):
        write_compressed_ply(tmp_path / "a.compressed.ply", g)
    assert list(tmp_path.iterdir()) == []
