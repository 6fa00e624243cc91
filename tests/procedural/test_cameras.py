import numpy as np
import pytest

from src.procedural.cameras import NEAREST, directions_around, drawn_intrinsics, free, look_at, progress, ray_directions
from src.procedural.meshes import box, panel, sphere
from src.procedural.world import Layout, Material, Part, World

GREY = Material("plaster", 1.0, np.full((4, 3), 0.5))


@pytest.mark.parametrize("roll", [0.0, 0.2])
def test_look_at_centres_its_target(roll):
    position, target = np.array([2.0, -1.5, 1.2]), np.array([0.1, 0.2, 0.4])
    c2w = look_at(position, target, roll)
    np.testing.assert_allclose(c2w[:3, :3] @ c2w[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(c2w[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(
        (np.linalg.inv(c2w) @ [*target, 1])[:3], [0, 0, np.linalg.norm(target - position)], atol=1e-12
    )
    down = c2w[:3, 1] @ [0, 0, -1]
    assert down > 0  # the image's y axis points down
    tilt = np.arctan2(c2w[2, 0], -c2w[2, 1])
    assert abs(tilt) == pytest.approx(roll, abs=1e-9)


def test_rays_end_where_the_pixels_project():
    rng = np.random.default_rng(0)
    K = drawn_intrinsics(rng, (64, 48))
    field = np.degrees(2 * np.arctan(32 / K[0, 0]))
    assert 48 <= field <= 62 and K[:2, 2].tolist() == [32, 24]
    c2w, pixels = look_at(np.array([1.0, 2, 3]), np.zeros(3), 0.1), rng.uniform(0, 48, (20, 2))
    points = c2w[:3, 3] + 2.5 * ray_directions(K, c2w, pixels)
    camera = (np.linalg.inv(c2w) @ np.c_[points, np.ones(20)].T)[:3]
    np.testing.assert_allclose(camera[2], 2.5)
    np.testing.assert_allclose((K @ camera / camera[2])[:2].T, pixels)


def test_a_camera_is_free_outside_solids_and_away_from_them():
    room = [
        Part(panel(6, 6).turned("x", turn).moved(z=z), GREY, np.zeros(3), np.eye(3), 1)
        for turn, z in ((0, 0), (np.pi, 3))
    ]
    room += [Part(box(0.1, 6, 3), GREY, np.array([x, 0, 0]), np.eye(3), 1) for x in (-3, 3)]
    room += [Part(box(6, 0.1, 3), GREY, np.array([0, y, 0]), np.eye(3), 1) for y in (-3, 3)]
    ball = Part(sphere(0.8), GREY, np.array([0.0, 0, 0.5]), np.eye(3), 1)
    world = World(Layout(np.array([6, 6, 3.0]), [*room, ball]))
    for position, wanted in (
        ((2, 0, 1.5), True),
        ((0, 0, 1.3), False),
        ((0.8 + NEAREST + 0.05, 0, 1.3), True),
        ((0.8 + NEAREST - 0.05, 0, 1.3), False),
        ((0, 0, 4), False),
    ):
        assert free(world, np.array([position], float)) is wanted
        assert free(world, np.array([(2, 0, 1.5), position], float)) is wanted


def test_directions_cover_the_sphere():
    around = directions_around(96)
    np.testing.assert_allclose(np.linalg.norm(around, axis=1), 1)
    rng = np.random.default_rng(1)
    probes = rng.normal(size=(2000, 3))
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    assert np.degrees(np.arccos((probes @ around.T).max(1))).max() < 16


@pytest.mark.parametrize("num_views", [2, 6, 12])
def test_progress_grows_unevenly(num_views):
    places = progress(np.random.default_rng(3), num_views)
    assert len(places) == num_views and places[0] == 0 and (np.diff(places) > 0).all()
    assert places[-1] == pytest.approx(min(1, (num_views - 1) / 8))
    if num_views == 12:
        assert np.diff(places).max() > 4 * np.diff(places).min()
