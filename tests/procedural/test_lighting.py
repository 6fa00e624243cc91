import numpy as np
import pytest

from src.procedural.lighting import LAMP_SOFTENING, disc, radiance, received, spots, stored_light
from src.procedural.meshes import box, panel
from src.procedural.world import MEAN_SHARES, Lamp, Layout, Material, Part, World

GREY = Material("plaster", 1e4, np.full((4, 3), 0.5), 0.0)  # so large a pattern is one colour everywhere


def world(*parts: tuple, lamps: tuple = (), ambient: float = 1.0, material: Material = GREY) -> World:
    layout = Layout(np.ones(3), lamps=list(lamps), ambient=np.full(3, ambient))
    layout.parts = [Part(mesh, material, np.array(place, float), np.eye(3), 1) for mesh, place in parts]
    return World(layout)


def lamp(x: float, y: float, z: float, radius: float = 0.0, sharp: bool = True) -> Lamp:
    return Lamp(np.array([x, y, z]), np.array([2.0, 1.0, 0.5]), radius, sharp)


def test_disc_is_even():
    points = disc(400)
    radii = np.linalg.norm(points, axis=1)
    assert radii.max() < 1 and (radii < np.sqrt(0.5)).mean() == pytest.approx(0.5, abs=0.01)
    assert np.abs(points.mean(0)).max() < 0.01
    round_lamp = spots(lamp(1, 2, 3, 0.5), 50) - (1, 2, 3)
    assert np.linalg.norm(round_lamp, axis=1).max() < 0.5 and np.abs(round_lamp @ [1, 2, 3]).max() < 1e-9


def test_light_of_a_lamp_equals_the_formula_and_stops_at_a_blocker():
    floor = (panel(4, 4), (0, 0, 0))
    points = np.array([[0.0, 0, 0.01], [1, 0, 0.01], [0, -1.5, 0.01]])
    up, light = np.tile([0.0, 0, 1], (3, 1)), lamp(0, 0, 2)
    free = received(world(floor), light, points, up, light.position[None])
    for point, share in zip(points, free):
        away = light.position - point
        cosine = away[2] / np.linalg.norm(away)
        assert share == pytest.approx(cosine / (away @ away + LAMP_SOFTENING), rel=1e-6)
    shaded = received(world(floor, (box(0.4, 0.4, 0.1), (0, 0, 1))), light, points, up, light.position[None])
    assert shaded[0] == 0 and shaded[1:].tolist() == free[1:].tolist()
    below = received(world(floor), light, points, -up, light.position[None])
    assert (below == 0).all()


def test_half_of_a_round_lamp_behind_an_edge_gives_half_its_light():
    light = Lamp(np.array([0.0, 0, 2]), np.ones(3), 0.3)
    point, up = np.array([[0.0, 0, 0.0]]), np.array([[0.0, 0, 1]])
    edge = world((panel(4, 4), (0, 0, -0.5)), (box(4, 4, 0.01), (2.0, 0, 1.0)))
    places = spots(light, 400)
    free = received(world((panel(4, 4), (0, 0, -0.5))), light, point, up, places)
    assert received(edge, light, point, up, places)[0] == pytest.approx(0.5 * free[0], rel=0.05)


def test_open_ground_gets_the_whole_ambient_light_and_a_wall_takes_half():
    ground = panel(20, 20, 1.0)
    np.testing.assert_allclose(stored_light(world((ground, (0, 0, 0)))), 1.0)
    scene = world((ground, (0, 0, 0)), (box(20, 0.1, 20, 5.0), (0, 0.05, -1)))
    light = stored_light(scene)
    row = (scene.normals[:, 2] > 0.99) & (np.abs(scene.vertices[:, 1] + 1) < 1e-3) & (np.abs(scene.vertices[:, 0]) < 3)
    assert row.sum() > 3
    # beside a wall half of a cosine-weighted sky is hidden; the wall sends back a share of the ambient light
    reflected = 0.55 * (0.4 + GREY.colours[0, 0] * MEAN_SHARES.sum())
    assert light[row, 0].mean() == pytest.approx(0.5 + 0.5 * reflected, abs=0.06)


def test_vertices_within_a_solid_take_their_neighbours_light():
    scene = world((panel(2, 2, 0.1), (0, 0, 0)), (box(0.5, 0.5, 0.5), (0, 0, -0.1)))
    light = stored_light(scene)
    hidden = (np.abs(scene.vertices[:, :2]).max(1) < 0.2) & (np.abs(scene.vertices[:, 2]) < 1e-5)
    assert hidden.any() and light[hidden].min() > 0.2


def test_diffuse_surfaces_look_the_same_from_everywhere_and_glossy_ones_do_not():
    floor, target = panel(4, 4, 0.3), np.array([0.3, 0.2, 0.0])
    for gloss in (0.0, 0.8):
        scene = world(
            (floor, (0, 0, 0)),
            lamps=(lamp(0, 1.2, 1.5, 0.05),),
            material=Material("plaster", 1e4, np.full((4, 3), 0.5), 0.0, gloss),
        )
        light = stored_light(scene)
        seen = [
            radiance(scene, light, np.array(eye), (target - eye)[None], 1e-3, 0, 1)[0]
            for eye in ([0.5, -0.7, 1.2], [1.5, 0.4, 0.9], [-1.0, 0.2, 1.8])
        ]
        spread = np.ptp(seen, axis=0).max()
        assert spread < 1e-4 if gloss == 0 else spread > 0.01


def test_radiance_is_reflectance_times_light():
    scene = world((panel(4, 4, 0.3), (0, 0, 0)), lamps=(lamp(0.5, 0.3, 1.5),), ambient=0.4)
    eye, target = np.array([0.2, -0.8, 1.1]), np.array([-0.2, 0.1, 0.0])
    colour = radiance(scene, stored_light(scene), eye, (target - eye)[None], 1e-3, 0, 1)[0]
    away = np.array([0.5, 0.3, 1.5]) - target
    share = away[2] / np.linalg.norm(away) / (away @ away + LAMP_SOFTENING)
    np.testing.assert_allclose(colour, 0.5 * (0.4 + share * np.array([2, 1, 0.5])), rtol=0.01)
