import numpy as np
import pytest
import torch

from src.matching.matches import centred, matched_pixels

SIZE = (80, 60)


def smooth(places: np.ndarray) -> torch.Tensor:
    """Features (C, h, w) of a smooth field at places (h, w, 2)."""
    generator = np.random.default_rng(0)
    waves, phases = 0.05 * generator.normal(size=(60, 2)), generator.uniform(0, 2 * np.pi, 60)
    return torch.from_numpy(np.cos(places @ waves.T + phases)).movedim(-1, 0).float()


def cells(rows: int, columns: int) -> np.ndarray:
    """Pixels (rows, columns, 2) of the cells' centres."""
    y, x = (np.arange(rows) + 0.5) * SIZE[1] / rows, (np.arange(columns) + 0.5) * SIZE[0] / columns
    return np.stack(np.meshgrid(x, y), -1)


@pytest.mark.parametrize("stride", [1, 3])
def test_matches_of_a_moved_picture_are_finer_than_its_cells(stride):
    shift = np.array([13.0, -7.0])  # pixels; cells are 5 x 5
    maps = torch.stack([smooth(cells(12, 16)), smooth(cells(12, 16) + shift)])
    first, second = matched_pixels(maps, SIZE, stride).double().numpy()
    off = np.linalg.norm(second + shift - first, axis=1)
    inside = ((second > 10) & (second < np.array(SIZE) - 10) & (first > 10) & (first < np.array(SIZE) - 10)).all(1)
    assert inside.sum() > 60 / stride**2 and np.median(off[inside]) < 1 and np.median(np.abs(shift % 5 - 2.5)) < 1


def test_matches_are_mutual_nearest_neighbours():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 7, 5, 6, generator=generator)
    first, second = matched_pixels(maps, (6, 5)).numpy()  # a cell is a pixel
    flat = maps.flatten(2).numpy()
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    wanted = set()
    for one in range(30):
        likes = [unit[0][:, one] @ unit[1][:, other] for other in range(30)]
        back = [unit[1][:, int(np.argmax(likes))] @ unit[0][:, other] for other in range(30)]
        if int(np.argmax(back)) == one:
            wanted.add((one, int(np.argmax(likes))))
    half = len(first) // 2
    number = lambda place: int(place[1]) * 6 + int(place[0])
    assert {number(place) for place in first[:half]} == {one for one, _ in wanted} and half == len(wanted) > 0
    assert {number(place) for place in second[half:]} == {other for _, other in wanted}
    for exact, near in ((first[half:], first[:half]), (second[:half], second[half:])):
        assert (np.abs(exact - near) <= 0.5 + 1e-6).all()  # between the cells, at most half a cell off


def test_features_that_are_the_same_everywhere_say_nothing():
    assert centred(torch.ones(2, 3, 4, 4)) is None
    maps = centred(torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(maps.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
