import numpy as np
import pytest
import trimesh

from src.procedural import meshes
from src.procedural.meshes import (
    box,
    capsule,
    cone,
    cylinder,
    drape,
    extruded,
    join,
    lathe,
    panel,
    prism,
    ring,
    rounded_box,
    sphere,
    superquadric,
    tube,
    vessel,
)

TURN = 2 * np.pi * np.arange(80) / 80
FLOWER = np.stack([np.cos(TURN), np.sin(TURN)], 1) * (0.1 + 0.03 * np.cos(5 * TURN))[:, None]
KNOT = 0.05 * np.stack(
    [(2 + np.cos(3 * TURN)) * np.cos(2 * TURN), (2 + np.cos(3 * TURN)) * np.sin(2 * TURN), np.sin(3 * TURN)], 1
)
SOLIDS = {  # with their volumes; None where there is no short formula
    "box": (box(0.3, 0.2, 0.4), 0.024),
    "cylinder": (cylinder(0.1, 0.3, 200), np.pi * 0.003),
    "cone": (cone(0.1, 0.3, 0.0, 200), np.pi * 0.001),
    "frustum": (cone(0.1, 0.3, 0.05, 200), np.pi * 0.1 * 0.0175),
    "sphere": (sphere(0.2, 160, 80), 4 / 3 * np.pi * 0.008),
    "ring": (ring(0.2, 0.05, 200), 2 * np.pi**2 * 0.2 * 0.0025),
    "capsule": (capsule(0.1, 0.4, 200), np.pi * 0.01 * 0.2 + 4 / 3 * np.pi * 0.001),
    "hexagon": (prism(0.1, 0.3, 6), 1.5 * np.sqrt(3) * 0.01 * 0.3),
    "pyramid": (prism(0.1, 0.3, 4, 0), 0.02 * 0.3 / 3),
    "ellipsoid": (superquadric(0.1, 0.2, 0.15, 1, 1), 4 / 3 * np.pi * 0.003),
    "pillow": (superquadric(0.1, 0.2, 0.15, 0.5, 1.3), None),
    "cushion": (rounded_box(0.3, 0.2, 0.4, 0.05), None),
    "ball": (rounded_box(0.2, 0.2, 0.2, 0.2), None),
    "pot": (vessel([(0.08, 0), (0.12, 0.1), (0.1, 0.2)], 0.01), None),
    "hoop": (lathe([(0.2, 0), (0.3, 0), (0.3, 0.1), (0.2, 0.1), (0.2, 0)], 200), np.pi * 0.05 * 0.1),
    "pipe": (tube(np.array([(0, 0, 0), (0, 0, 0.2), (0, 0, 0.5)]), 0.02, 100), np.pi * 0.0002),
    "bent pipe": (tube(np.array([(0, 0, 0), (0, 0, 0.2), (0.1, 0.05, 0.3)]), 0.02), None),
    "knot": (tube(KNOT, 0.02, closed=True), None),
    "flower": (extruded(FLOWER, 0.1), None),
    "curtain": (drape(1.0, 2.0, 6, 0.05), 0.04),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_closed_and_face_outwards(name):
    """Checked by trimesh, which merges the vertices that share a place."""
    mesh, volume = SOLIDS[name]
    whole = trimesh.Trimesh(np.round(mesh.vertices, 7), mesh.faces, process=False)
    whole.merge_vertices(merge_norm=True, merge_tex=True)
    whole.update_faces(whole.nondegenerate_faces())
    assert whole.is_watertight and whole.is_winding_consistent and whole.volume > 0
    if volume is not None:
        assert whole.volume == pytest.approx(volume, rel=0.03)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-9)
    faces = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).face_normals
    assert (faces * mesh.normals[mesh.faces].mean(1)).sum(1).min() > 0.5


@pytest.mark.parametrize("name", [name for name in SOLIDS if name not in ("knot", "bent pipe")])
def test_solids_stand_on_the_ground(name):
    assert SOLIDS[name][0].vertices[:, 2].min() == pytest.approx(0, abs=1e-9)


def test_smooth_normals_are_those_of_the_sphere_and_creases_stay_sharp():
    ball = sphere(0.2)
    inside = np.abs(ball.vertices[:, 2] - 0.2) < 0.19  # the poles are fans
    expected = (ball.vertices - (0, 0, 0.2)) / 0.2
    assert (ball.normals * expected).sum(1)[inside].min() > 0.995
    can = cylinder(0.1, 0.3)
    tilt = np.abs(can.normals[:, 2])
    assert ((tilt < 1e-9) | (tilt > 1 - 1e-9)).all()


def test_no_edge_of_a_wall_is_longer_than_the_spacing():
    sheet = panel(4.0, 3.0, 0.2)
    corners = sheet.vertices[sheet.faces]
    assert np.abs(corners - np.roll(corners, 1, axis=1)).max() < 0.2 + 1e-9
    assert (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0).all()
    assert np.ptp(sheet.vertices, axis=0).tolist() == [4, 3, 0]


def test_turning_and_moving_carry_the_normals_along():
    mesh = cone(0.1, 0.3).turned("xz", 0.4, 1.1)
    again = mesh.turned("z", -1.1).turned("x", -0.4)
    np.testing.assert_allclose(again.vertices, cone(0.1, 0.3).vertices, atol=1e-12)
    np.testing.assert_allclose(again.normals, cone(0.1, 0.3).normals, atol=1e-12)
    both = join(mesh.grounded(), box(0.1, 0.1, 0.1).moved(z=0.5))
    assert both.height == pytest.approx(0.6) and both.vertices[:, 2].min() == pytest.approx(0)
    assert len(both.faces) == len(mesh.faces) + len(box(0.1, 0.1, 0.1).faces)


def test_subdivision_keeps_the_line():
    line = meshes.subdivide(np.array([[0.0, 0], [1, 0], [1, 0.25]]), 0.3)
    assert np.linalg.norm(np.diff(line, axis=0), axis=1).max() <= 0.3
    assert [1, 0] in line.tolist() and np.linalg.norm(np.diff(line, axis=0), axis=1).sum() == pytest.approx(1.25)
