import numpy as np

from src.procedural.layouts import objects
from src.procedural.meshes import box, lathe
from src.procedural.world import Layout, Material, Part, World, _meet, apart

PAINT = Material("plaster", 1.0, np.full((4, 3), 0.5))


def part(mesh, *position: float) -> Part:
    return Part(mesh, PAINT, np.array(position), np.eye(3), 0)


def test_hits_solve_the_ray_s_equation_to_double_precision():
    """origin + t way = a + u (b - a) + v (c - a), solved by LAPACK for the triangles that embree names."""
    world = World(Layout(np.ones(3), [part(lathe([(0, 0), (0.5, 0), (0.3, 0.7), (0, 0.8)]), 0.1, 0.2, 0.3)]))
    rng = np.random.default_rng(0)
    origin, ways = np.array([2.0, -1.5, 1.1]), rng.normal(0, 0.2, (400, 3)) + (-1.9, 1.7, -0.6)
    hits = world.trace(origin, ways)
    seen = hits["primID"] >= 0
    assert 40 < seen.sum() < 400 and np.isinf(hits["tfar"][~seen]).all()
    a, b, c = world.vertices[world.faces[hits["primID"][seen]]].swapaxes(0, 1)
    u, v, t = np.linalg.solve(np.stack([b - a, c - a, -ways[seen]], -1), (origin - a)[..., None])[..., 0].T
    for key, wanted in (("u", u), ("v", v), ("tfar", t)):
        assert np.abs(hits[key][seen] - wanted).max() < 1e-10
    assert (t > 0).all() and min(u.min(), v.min(), (1 - u - v).min()) > -1e-5


def test_what_stands_on_another_part_shares_no_plane_with_it():
    """Boxes on each other, as they are put and as they are traced: no lid is as high as the next one's underside."""
    stack = [part(box(1, 1, 0.5), 0, 0, 0.5 * number) for number in range(4)]
    world = World(Layout(np.ones(3), stack))
    own = [world.vertices[np.unique(world.faces[world.part_of_face == n]), 2] for n in range(4)]
    gaps = [upper.min() - lower.max() for lower, upper in zip(own, own[1:])]
    assert all(3e-6 < abs(gap) < 1e-3 for gap in gaps)
    moves = apart(300, 10)
    assert (moves[:10] == 0).all() and np.abs(moves).max() < 2e-3
    assert np.linalg.norm(np.diff(moves[10:], axis=0), axis=1).min() > 1e-4


def test_the_room_itself_is_not_taken_apart():
    layout = objects(np.random.default_rng(3))
    world = World(layout)
    for number in range(layout.shell):
        assert (world.positions[number] == layout.parts[number].position).all()
    assert (world.positions[layout.shell] != layout.parts[layout.shell].position).any()


def test_a_ray_in_the_plane_of_a_triangle_meets_it_nowhere():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    origins, ways = np.array([[-1.0, 0.2, 0], [-1, 0.2, 1]]), np.array([[1.0, 0, 0], [1.25, 0, -1]])
    t, u, v = _meet(origins, ways, np.zeros(2, np.int32), np.array([[0, 1, 2]]), corners)
    assert np.isinf(t[0]) and np.allclose([t[1], u[1], v[1]], [1, 0.25, 0.2])
