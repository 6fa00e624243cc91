import numpy as np
import pytest

from src.procedural import furniture, layouts, materials, things
from src.procedural.layouts import Stage, scattered
from src.procedural.materials import Style, linear
from src.procedural.textures import KINDS
from src.procedural.vectors import turn

FURNITURE = (
    furniture.chair,
    furniture.stool,
    furniture.sofa,
    furniture.bed,
    furniture.shelf,
    furniture.cabinet,
    furniture.wardrobe,
    furniture.floor_lamp,
    furniture.oddment,
    furniture.door,
)


def points_of(pieces: things.Pieces) -> np.ndarray:
    stage = Stage(np.random.default_rng(0), np.ones(3))
    stage.add(pieces)
    return np.concatenate([turn(part.mesh.vertices, part.rotation) + part.position for part in stage.layout.parts])


@pytest.mark.parametrize("maker", sorted({*things.THINGS, *things.SMALL_THINGS}, key=lambda maker: maker.__name__))
def test_things_stand_on_their_ground_and_keep_to_their_size(maker):
    for seed in range(6):
        points = points_of(maker(Style(np.random.default_rng(seed)), 0.3))
        assert np.isfinite(points).all()
        assert -0.012 < points[:, 2].min() < 0.02
        assert 0.07 < np.ptp(points, axis=0).max() < 0.45
        assert np.abs(points[:, :2]).max() < 0.3  # around their own axis


@pytest.mark.parametrize("maker", FURNITURE)
def test_furniture_stands_on_the_floor(maker):
    for seed in range(3):
        points = points_of(maker(Style(np.random.default_rng(seed))))
        assert points[:, 2].min() == pytest.approx(0, abs=0.01)
        assert 0.2 < points[:, 2].max() < 2.6 and np.ptp(points[:, :2], axis=0).max() < 2.6


def test_materials_reflect_less_than_they_get():
    for seed in range(4):
        style = Style(np.random.default_rng(seed))
        made = [
            style.wall(),
            style.floor(),
            style.cloth(),
            style.wood(),
            style.metal(),
            style.leaf(),
            style.label(0.3),
            style.painting(0.5),
            style.paint(),
        ]
        made += [style.of(kind, 0.2) for kind in KINDS] + [style.toy(0.3) for _ in range(9)]
        for material in made:
            assert material.kind in KINDS and material.colours.shape == (4, 3) and material.scale > 0
            assert material.colours.min() > 0 and material.colours.max() <= 0.9


def test_linear_equals_the_standards_samples():
    np.testing.assert_allclose(linear("ffffff 000000 808080")[:, 0], [1, 0, 0.2158605], atol=1e-6)
    assert all(len(linear(palette)) == 6 for palette in materials.PALETTES)


def test_pieces_against_a_wall_face_the_room():
    stage = Stage(np.random.default_rng(0), np.array([4.0, 6.0, 2.5]))
    for side, (x, y) in enumerate(((0.5, -2.8), (1.8, 0.5), (-0.5, 2.8), (-1.8, -0.5))):
        found = stage.against(side, 0.5, 0.2)
        np.testing.assert_allclose(found[:2], (x, y), atol=1e-12)
        forward = np.array([-np.sin(found[2]), np.cos(found[2])])  # where +y goes
        assert forward @ found[:2] < -1


def test_scattered_places_keep_clear_of_each_other():
    places = scattered(np.random.default_rng(0), 9, 0.6, (0.15, 0.45))
    assert len(places) >= 4 and [size for *_, size in places] == sorted((size for *_, size in places), reverse=True)
    for number, (x, y, size) in enumerate(places):
        assert np.hypot(x, y) <= 0.6
        for ox, oy, other in places[:number]:
            assert np.hypot(x - ox, y - oy) > 0.5 * (size + other)


@pytest.mark.parametrize("make", [layouts.objects, layouts.rooms])
def test_everything_stands_in_the_room(make):
    for seed in range(3):
        layout = make(np.random.default_rng(seed))
        assert len(layout.parts) > 25 and any(lamp.sharp for lamp in layout.lamps)
        for part in layout.parts[layout.shell :]:
            points = turn(part.mesh.vertices, part.rotation) + part.position
            assert (np.abs(points[:, :2]) < layout.room[:2] / 2 + 0.35).all()
            assert points[:, 2].min() > -0.02 and points[:, 2].max() < layout.room[2] + 0.3
        for lamp in layout.lamps:
            assert (np.abs(lamp.position[:2]) < layout.room[:2] / 2).all() and 0 < lamp.position[2] < layout.room[2]
