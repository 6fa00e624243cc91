import hashlib

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from src.geometry.cameras import covariances
from src.renders.ply import property_names, read_ply, vertex_table, write_ply
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


GOLDEN = {  # SHA-256 of files that this repository wrote before plyfile did
    1: "a6e067b14bb9127c85c768aeabeeb97e428a81de34484f5db00f871882b9eb94",
    4: "a444ba78fd45c957c732f3f4f6dac3c6fd565b86182c0c2bd7337bf783961133",
    9: "64410694be880333197864db83b55750464df93955f906b95aa7959b7a8854b4",
    16: "eb3c967aa0bbb09e33155ddbd719a6351eb9b9474ada511987b19dcf4590cfa0",
}


@pytest.mark.parametrize("coefficients", GOLDEN)
def test_the_bytes_of_a_file_stay_the_same(tmp_path, coefficients):
    def numbers(*shape: int) -> torch.Tensor:
        return (torch.arange(np.prod(shape)) % 97 / 64).reshape(shape)

    g = Gaussians(
        numbers(12, 3) - 0.5,
        numbers(12, 4) - 0.75,
        numbers(12, 3) / 8 + 0.125,
        numbers(12) / 2,
        numbers(12, coefficients, 3) - 0.75,
    )
    write_ply(tmp_path / "a.ply", g)
    assert hashlib.sha256((tmp_path / "a.ply").read_bytes()).hexdigest() == GOLDEN[coefficients]


def test_a_file_without_gaussians_is_written_and_read(tmp_path):
    write_ply(tmp_path / "a.ply", random_gaussians(0))
    assert b"element vertex 0\n" in (tmp_path / "a.ply").read_bytes() and len(read_ply(tmp_path / "a.ply")) == 0


def same(a: Gaussians, b: Gaussians) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))


@pytest.fixture
def ours(tmp_path):
    """A file, its header's lines and its vertices."""
    write_ply(tmp_path / "a.ply", random_gaussians(5))
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    return tmp_path / "a.ply", header + b"end_header\n", body


def test_line_endings_of_windows_and_texts_of_other_writers_are_read(ours):
    path, header, body = ours
    expected = read_ply(path)
    path.write_bytes(header.replace(b"\n", b"\r\n") + body)
    assert same(read_ply(path), expected)
    remarks = b"1.0\ncomment Generated by hand\nobj_info frame 7\n"
    path.write_bytes(header.replace(b"1.0\n", remarks) + body)
    assert same(read_ply(path), expected)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_file_in_letters_is_read(ours, ending):
    """Numbers with nine digits are float32 exactly."""
    path, header, body = ours
    expected, table = read_ply(path), np.frombuffer(body, "<f4").reshape(5, -1)
    lines = [" ".join(f"{value:.9g}" for value in row).encode() for row in table]
    text = header.replace(b"binary_little_endian", b"ascii") + b"\n".join(lines) + b"\n"
    path.write_bytes(text.replace(b"\n", ending))
    assert same(read_ply(path), expected)


@pytest.mark.parametrize(("kind", "order"), [("f4", ">"), ("f8", "<"), ("f8", ">")])
def test_doubles_and_the_other_byte_order_are_read(ours, kind, order):
    path, header, body = ours
    expected, table = read_ply(path), np.frombuffer(body, "<f4")
    header = header.replace(b"float", b"double") if kind == "f8" else header
    header = header.replace(b"little", b"big") if order == ">" else header
    path.write_bytes(header + table.astype(order + kind).tobytes())
    assert same(read_ply(path), expected)


def test_more_properties_and_elements_are_passed_over(ours):
    path, _, body = ours
    expected = read_ply(path)
    vertex = PlyData.read(path)["vertex"].data
    more = np.empty(5, [("label", "u1"), *vertex.dtype.descr, ("confidence", "f8")])
    more["label"], more["confidence"] = 7, 0.5
    for name in vertex.dtype.names:
        more[name] = vertex[name]
    faces = np.empty(2, [("vertex_indices", "i4", 3)])
    faces["vertex_indices"] = 1
    camera = np.zeros(1, [("fov", "f4")])
    named = (("camera", camera), ("vertex", more), ("face", faces))
    PlyData([PlyElement.describe(data, name) for name, data in named], byte_order="<").write(path)
    assert len(PlyData.read(path).elements) == 3 and same(read_ply(path), expected)


def test_numbers_that_are_not_finite_are_handed_on(ours):
    path, header, body = ours
    table = np.frombuffer(body, "<f4").reshape(5, -1).copy()
    table[1, 0], table[3, property_names(4).index("scale_1")] = np.nan, 1000
    path.write_bytes(header + table.tobytes())
    assert read_ply(path).finite.tolist() == [True, False, True, False, True]


def test_broken_files_are_refused_with_their_name(ours):
    path, header, body = ours
    whole = header + body
    broken = {
        "early end-of-file": whole[:-4],
        "expected 'ply'": b"not a ply file",
        "no whole PLY file": b"",
        "lacks the vertex properties rot_3": whole.replace(b"rot_3", b"rot_x"),
        "lacks the vertex properties opacity": header.replace(b"float opacity", b"list uchar float opacity")
        .replace(b"binary_little_endian", b"ascii")
        .replace(b"vertex 5", b"vertex 0"),
        "must hold the PLY element vertex; its elements are: point": whole.replace(b"element vertex", b"element point"),
        "expected integer count": whole.replace(b"vertex 5", b"vertex five"),
        "negative": whole.replace(b"vertex 5", b"vertex -5"),
        "export it again": whole.replace(b"vertex 5", b"vertex 99999999999999"),
        "two properties with same name": whole.replace(b"float nx", b"float ny"),
        "f_rest": whole.replace(b"f_rest_8", b"g_rest_8"),
    }
    for message, data in broken.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message) as error:
            read_ply(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_batch_is_refused_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.ply"
    write_ply(path, random_gaussians(5))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="batch"):
        write_ply(path, random_gaussians(2, 5))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.ply"]
