import numpy as np
import pytest

from src.splatting.cpu.composite import Passage, Picture, TileLists, add_rows, composite, composite_backward, deal
from src.splatting.cpu.project import COLUMNS, GRADIENTS, HALF_XX, HALF_YY, RADIUS_Y, XY, X, Y

COLUMNS_OF_TILES, ROWS_OF_TILES, WIDTH, HEIGHT = 3, 2, 45, 30


def lists(count: int = 200, seed: int = 0):
    rng = np.random.default_rng(seed)
    left, top = rng.integers(0, 3, count), rng.integers(0, 2, count)
    right, bottom = np.minimum(left + rng.integers(0, 3, count), 3), np.minimum(top + rng.integers(0, 3, count), 2)
    tiles = np.stack([left, top, right, bottom], 1).astype(np.int32)
    order = rng.permutation(count)
    return tiles, order, *deal(order, tiles, COLUMNS_OF_TILES, ROWS_OF_TILES)


@pytest.mark.parametrize("count", [2, 200])
def test_each_tile_s_list_is_in_order(count):
    tiles, order, offsets, ids = lists(count)
    assert len(ids) == offsets[-1]
    for row in range(ROWS_OF_TILES):
        for column in range(COLUMNS_OF_TILES):
            tile = row * COLUMNS_OF_TILES + column
            wanted = [i for i in order if tiles[i, 0] <= column < tiles[i, 2] and tiles[i, 1] <= row < tiles[i, 3]]
            assert ids[offsets[tile] : offsets[tile + 1]].tolist() == wanted


def test_no_gaussians_give_empty_lists():
    offsets, ids = deal(np.empty(0, np.int64), np.empty((0, 4), np.int32), 3, 2)
    assert offsets.tolist() == [0] * 7 and len(ids) == 0


def drawn(workers: int):
    """Everything that compositing and its gradient write for one random view, with a number of workers."""
    rng = np.random.default_rng(3)
    tiles, _, offsets, ids = lists()
    prints = rng.random((len(tiles), COLUMNS)).astype(np.float32)
    prints[:, X] *= WIDTH
    prints[:, Y] *= HEIGHT
    prints[:, [HALF_XX, HALF_YY]] *= 0.05
    prints[:, XY] *= 0.02
    prints[:, RADIUS_Y] = 99
    order, background = np.arange(6), np.array([0.2, 0.5, 0.9], np.float32)
    lists_of_tiles = TileLists(offsets, ids)
    planes = np.full((7, HEIGHT, WIDTH), np.nan, np.float32)
    passage = Passage(planes[5], planes[6], np.full(6, -1, np.int64))
    composite(prints, lists_of_tiles, order, workers, background, Picture(planes[:3], planes[3], planes[4]), passage)
    starts = np.concatenate([[0], np.cumsum(passage.reached)])
    rows = np.full((starts[-1], GRADIENTS), np.nan, np.float32)
    to_picture = Picture(
        *(rng.normal(size=shape).astype(np.float32) for shape in ((3, HEIGHT, WIDTH), (HEIGHT, WIDTH), (HEIGHT, WIDTH)))
    )
    backwards = order[::-1].copy()
    composite_backward(prints, lists_of_tiles, backwards, workers, background, passage, to_picture, starts, rows)
    sums = np.zeros((len(tiles), GRADIENTS), np.float32)
    add_rows(lists_of_tiles, 0, 6, workers, starts, rows, sums)
    return {"planes": planes, "reached": passage.reached, "rows": rows, "sums": sums}, starts, offsets, ids


def test_the_number_of_workers_changes_no_bit():
    once, *_ = drawn(1)
    for workers in (2, 3, 8):
        again, *_ = drawn(workers)
        for name in once:
            assert np.isfinite(once[name]).all()
            np.testing.assert_array_equal(once[name], again[name], err_msg=name)


def test_rows_are_added_up_per_gaussian():
    result, starts, offsets, ids = drawn(2)
    wanted = np.zeros_like(result["sums"], dtype=np.float64)
    for tile in range(6):
        for k in range(starts[tile + 1] - starts[tile]):
            wanted[ids[offsets[tile] + k]] += result["rows"][starts[tile] + k]
    np.testing.assert_allclose(result["sums"], wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(wanted).max() > 0.1


def test_opaque_tiles_end_early():
    result, _, offsets, _ = drawn(1)
    assert (0 < result["reached"]).all() and (result["reached"] < np.diff(offsets)).any()
    assert (result["planes"][5] > 1e-4).all()  # light left at every pixel
