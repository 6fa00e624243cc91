import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from src.splatting.cpu.simd import any_lane, blend, broadcast, centres, exp_minus, load, store, total

A = np.linspace(-3, 5, 16, dtype=np.float32)
B = np.roll(np.geomspace(0.1, 40, 16), 5).astype(np.float32)


@njit
def arithmetic(a, b, factor, out):
    x, y = load(a, 0), load(b, 0)
    for index, value in enumerate((x + y, x - y, x * y, x / y, factor * x, y - factor, factor / y, x + factor)):
        store(out, 16 * index, value)


def test_arithmetic_acts_lane_by_lane():
    out, factor = np.empty(8 * 16, np.float32), np.float32(1.7)
    arithmetic(A, B, factor, out)
    wanted = np.stack([A + B, A - B, A * B, A / B, factor * A, B - factor, factor / B, A + factor])
    np.testing.assert_allclose(out.reshape(8, 16), wanted, rtol=1e-7)


@njit
def comparisons(a, b, out):
    x, y = load(a, 0), load(b, 0)
    store(out, 0, blend(x < y, x, y))
    store(out, 16, blend(x <= y, np.float32(1), np.float32(0)))
    store(out, 32, blend((x > y) & (x > np.float32(2)), x, np.float32(0)))
    store(out, 48, blend(np.float32(1) >= x, broadcast(np.float32(7)), y))


def test_comparisons_and_selections():
    out = np.empty(64, np.float32)
    b = B.copy()
    b[3] = A[3]  # equal lanes
    comparisons(A, b, out)
    np.testing.assert_array_equal(
        out.reshape(4, 16),
        np.stack([np.minimum(A, b), A <= b, np.where((A > b) & (A > 2), A, 0), np.where(A <= 1, 7, b)]).astype(
            np.float32
        ),
    )


@njit
def any_above(a, bound):
    return any_lane(load(a, 0) > bound)


@pytest.mark.parametrize("lane", range(16))
def test_any_lane_finds_each_lane(lane):
    a = np.zeros(16, np.float32)
    a[lane] = 2
    assert any_above(a, np.float32(1)) and not any_above(a, np.float32(2))


@njit
def shifted(a, out):
    store(out, 3, load(a, 5) + centres())


def test_loads_and_stores_need_no_alignment_and_touch_sixteen_numbers():
    a, out = np.arange(24, dtype=np.float32), np.full(24, -1, np.float32)
    shifted(a, out)
    np.testing.assert_array_equal(out[3:19], a[5:21] + np.arange(16) + 0.5)
    assert (out[:3] == -1).all() and (out[19:] == -1).all()


@njit
def sum_of(a):
    return total(load(a, 0))


def test_total_is_the_pairwise_sum():
    def pairwise(values):
        return values if len(values) == 1 else pairwise(values[: len(values) // 2] + values[len(values) // 2 :])

    assert sum_of(B) == pairwise(B)[0]
    assert sum_of(B) == pytest.approx(float(B.astype(np.float64).sum()), rel=1e-6)


@njit
def exponentials(a, out):
    for i in range(0, len(a), 16):
        store(out, i, exp_minus(load(a, i)))


def test_exponential_agrees_with_numpy():
    a = np.concatenate([np.linspace(0, 8, 32000), np.linspace(8, 80, 32000)]).astype(np.float32)
    out = np.empty_like(a)
    exponentials(a, out)
    np.testing.assert_allclose(out, np.exp(-a.astype(np.float64)), rtol=2e-7)


def test_exponential_of_numbers_outside_its_range():
    a = np.array([-1, -np.inf, 81, np.inf, np.nan, 0] + [0] * 10, np.float32)
    out = np.empty_like(a)
    exponentials(a, out)
    smallest = np.float32(np.exp(-80.0))
    np.testing.assert_allclose(out[:6], [1, 1, smallest, smallest, smallest, 1], rtol=2e-7)


def test_a_double_beside_lanes_is_refused():
    @njit
    def mixed(a):
        return load(a, 0) + 1.5

    with pytest.raises(TypingError, match="lanes, float64"):
        mixed(A)
