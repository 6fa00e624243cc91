import math

import torch

from src.geometry.cameras import invert_se3
from src.probes.correspondence import epipolar_matches, matches

SIZE, CELLS = 64, 8
K = torch.tensor([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])


def plane(shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth of a wall 2 away for two cameras side by side, and their poses."""
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = shift
    return torch.full((2, SIZE, SIZE), 2.0), poses


def by_loop(maps: torch.Tensor, depth: torch.Tensor, c2w: torch.Tensor) -> tuple[int, int, int, int, int]:
    """visible, within 1, within 2, mutual, precise: cell by cell."""
    middle = maps.mean((0, 2, 3))
    rows = [[(maps[v, :, y, x] - middle).tolist() for y in range(CELLS) for x in range(CELLS)] for v in range(2)]

    def nearest(row: list[float], others: list[list[float]]) -> int:
        def cosine(other: list[float]) -> float:
            lengths = math.sqrt(sum(a * a for a in row)) * math.sqrt(sum(a * a for a in other))
            return sum(a * b for a, b in zip(row, other)) / lengths

        return max(range(len(others)), key=lambda n: cosine(others[n]))

    totals = [0] * 5
    for own, other in ((0, 1), (1, 0)):
        to_other = invert_se3(c2w[other]) @ c2w[own]
        for cell in range(CELLS * CELLS):
            x, y = (cell % CELLS + 0.5) * SIZE / CELLS, (cell // CELLS + 0.5) * SIZE / CELLS
            z = depth[own, int(y), int(x)].item()
            point = to_other @ torch.tensor([(x - 32) / 60 * z, (y - 32) / 60 * z, z, 1.0])
            u, v = (60 * point[k].item() / point[2].item() + 32 for k in range(2))
            if not (0 <= u < SIZE and 0 <= v < SIZE):
                continue
            found = nearest(rows[own][cell], rows[other])
            apart = math.hypot(found % CELLS + 0.5 - u * CELLS / SIZE, found // CELLS + 0.5 - v * CELLS / SIZE)
            mutual = nearest(rows[other][found], rows[own]) == cell
            for k, value in enumerate((True, apart <= 1, apart <= 2, mutual, mutual and apart <= 1)):
                totals[k] += value
    return tuple(totals)


def test_matches_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    depth, c2w = plane(0.53)
    wall = torch.randn(6, CELLS, CELLS + 2, generator=generator)
    noise = 0.6 * torch.randn(2, 6, CELLS, CELLS, generator=generator)
    maps = torch.stack([wall[..., :CELLS], wall[..., 2:]]) + noise
    found = matches(maps, depth, K.expand(2, 3, 3), c2w, 0.1, False)
    assert (found.visible, *found.within, found.mutual, found.precise) == by_loop(maps, depth, c2w)
    assert 0 < found.within[0] < found.visible and 0 < found.precise < found.mutual < found.visible


def test_features_of_the_place_itself_match_wherever_it_is_seen():
    depth, c2w = plane(8 / 60 * 2 * 2)  # two cells
    wall = torch.randn(6, CELLS, CELLS + 2, generator=torch.Generator().manual_seed(1))
    maps = torch.stack([wall[..., :CELLS], wall[..., 2:]])
    found = matches(maps, depth, K.expand(2, 3, 3), c2w, 0.1, False)
    assert found.visible == 2 * CELLS * (CELLS - 2) == found.within[0] == found.precise


def test_features_that_are_the_same_everywhere_match_nothing():
    depth, c2w = plane(0.3)
    assert matches(torch.ones(2, 5, CELLS, CELLS), depth, K.expand(2, 3, 3), c2w, 0.1, False) is None


def test_places_that_are_hidden_or_unknown_do_not_count():
    depth, c2w = plane(0.0)
    depth[1, :, 32:] = 1.0  # something stands before the right half in view 2
    maps = torch.randn(2, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    assert matches(maps, depth, K.expand(2, 3, 3), c2w, 0.1, False).visible == 2 * CELLS * CELLS // 2
    depth[0] = 0
    assert matches(maps, depth, K.expand(2, 3, 3), c2w, 0.1, False).visible == 0


def off_the_line(found: tuple[float, float], x: float, y: float, to_other: torch.Tensor) -> float | None:
    """Distance of a place from the line through two projections of a pixel's ray, near and far; None where no point of
    that line's stretch through the image is inside. All in pixels."""
    ends = []
    for z in (0.9, 40.0):
        point = to_other @ torch.tensor([(x - 32) / 60 * z, (y - 32) / 60 * z, z, 1.0], dtype=torch.float64)
        ends.append([60 * point[k].item() / point[2].item() + 32 for k in range(2)])
    (ax, ay), (bx, by) = ends
    length = math.hypot(bx - ax, by - ay)
    along = [-400 + 0.01 * n for n in range(80_000)]
    if not any(0 < ax + t * (bx - ax) / length < SIZE and 0 < ay + t * (by - ay) / length < SIZE for t in along):
        return None
    return abs((bx - ax) * (found[1] - ay) - (by - ay) * (found[0] - ax)) / length


def test_matches_without_depth_are_held_against_the_line_that_the_ray_is_seen_as():
    generator = torch.Generator().manual_seed(1)
    turn = math.radians(25)
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[1, :3, :3] = torch.tensor(
        [[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]]
    )
    c2w[1, :3, 3] = torch.tensor([0.4, 0.3, 0.1])
    wall = torch.randn(6, CELLS, CELLS + 2, generator=generator)
    maps = torch.stack([wall[..., :CELLS], wall[..., 2:]])
    found = epipolar_matches(maps, (SIZE, SIZE), K.expand(2, 3, 3), c2w)
    seen, within, cell = 0, [0, 0], SIZE / CELLS
    rows = (maps - maps.mean((0, 2, 3), keepdim=True)).flatten(2).mT
    for own, other in ((0, 1), (1, 0)):
        nearest = torch.cosine_similarity(rows[own][:, None], rows[other][None], dim=-1).argmax(1).tolist()
        to_other = (invert_se3(c2w[other]) @ c2w[own]).double()
        for number, match in enumerate(nearest):
            x, y = ((each + 0.5) * cell for each in (number % CELLS, number // CELLS))
            place = tuple((each + 0.5) * cell for each in (match % CELLS, match // CELLS))
            if (apart := off_the_line(place, x, y, to_other)) is not None:
                seen += 1
                within = [count + (apart <= distance * cell) for count, distance in zip(within, (1, 2))]
    assert (found.visible, list(found.within)) == (seen, within) and 0 < within[0] < within[1] < seen < 128
