"""Footprints composited tile by tile, a row of sixteen pixels at a time, and the gradient of that.

Each tile has its own list of footprints and draws it front to back (Kerbl et al. 2023, with gsplat's thresholds). The
gradient walks the list back to front and writes one row per footprint and tile; the rows are then added up, Gaussian by
Gaussian, in the order of the tiles. Nothing is accumulated concurrently: any number of threads gives the same bits.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from src.splatting.cpu.jit import COMPILED
from src.splatting.cpu.project import (
    BLUE,
    DEPTH,
    GRAD_BLUE,
    GRAD_DEPTH,
    GRAD_GREEN,
    GRAD_RED,
    GRADIENTS,
    GREEN,
    HALF_XX,
    HALF_YY,
    OPACITY,
    RADIUS_Y,
    RED,
    SUM,
    SUM_X,
    SUM_XX,
    SUM_XY,
    SUM_Y,
    SUM_YY,
    XY,
    X,
    Y,
)
from src.splatting.cpu.simd import any_lane, blend, broadcast, centres, exp_minus, load, store, total
from src.splatting.thresholds import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, TILE

LEAST, MOST, DARK = np.float32(MIN_ALPHA), np.float32(MAX_ALPHA), np.float32(MIN_TRANSMITTANCE)

PIXELS = TILE * TILE
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)

# Planes of a tile's state while it is drawn, 256 floats each, row after row.
TRANSMITTANCE, R, G, B, Z, OPEN, LAST = range(7)
# Planes of it in the gradient: the light after a footprint, the gradients of the pixel's colour and depth, the loss's
# share in what lies behind the footprint, and how far down the list the pixel was drawn.
AFTER, TO_R, TO_G, TO_B, TO_Z, BEHIND, DRAWN = range(7)


class TileLists(NamedTuple):
    """Which Gaussians each tile draws, nearest first.

    offsets  (tiles + 1,)      int64, where each tile's list starts
    ids      (intersections,)  int32, the lists end to end
    """

    offsets: np.ndarray
    ids: np.ndarray


class Picture(NamedTuple):
    """One view's image (3, H, W), alpha (H, W) and accumulated z-depth (H, W), or the loss's gradients of the three."""

    image: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray


class Passage(NamedTuple):
    """How far light came, which the gradient needs again.

    transmittance  (H, W)    float32, 1 - alpha
    last           (H, W)    float32, how far down its tile's list each pixel's last contribution stands, from 1; 0
                             where there is none
    reached        (tiles,)  int64, the largest `last` of each tile
    """

    transmittance: np.ndarray
    last: np.ndarray
    reached: np.ndarray


@njit(**COMPILED)
def deal(order, tiles, columns, rows):
    """Each tile's list of the Gaussians that may touch it, in `order`.

    order   (M,)    Gaussians, nearest first
    tiles   (N, 4)  see project.project_gaussians
    returns TileLists
    """
    offsets = np.zeros(columns * rows + 1, np.int64)
    for i in order:
        for row in range(tiles[i, 1], tiles[i, 3]):
            for column in range(tiles[i, 0], tiles[i, 2]):
                offsets[row * columns + column + 1] += 1
    for tile in range(columns * rows):
        offsets[tile + 1] += offsets[tile]
    ids, places = np.empty(offsets[-1], np.int32), offsets[:-1].copy()
    for i in order:
        for row in range(tiles[i, 1], tiles[i, 3]):
            for column in range(tiles[i, 0], tiles[i, 2]):
                ids[places[row * columns + column]] = i
                places[row * columns + column] += 1
    return TileLists(offsets, ids)


@njit(**COMPILED)
def rows_within(y, radius):
    """First row, and one past the last, of a tile that a footprint at tile height y can reach."""
    first = min(max(np.ceil(y - radius - HALF), ZERO), np.float32(TILE))
    last = max(min(np.floor(y + radius - HALF), np.float32(TILE - 1)), np.float32(-1))
    return int(first), int(last) + 1


@njit(**COMPILED)
def some_open(state):
    """Whether any pixel of the tile still lets light through."""
    most = load(state, OPEN * PIXELS)
    for y in range(1, TILE):
        row = load(state, OPEN * PIXELS + y * TILE)
        most = blend(row > most, row, most)
    return any_lane(most > ZERO)


@njit(**COMPILED)
def composite_tile(footprints, ids, left, top, state):
    """Draw the footprints `ids`, nearest first, on the tile whose corner is pixel (left, top)."""
    for position in range(len(ids)):
        if position % TILE == 0 and not some_open(state):  # looked at now and then: it costs as much as a footprint
            break
        splat = footprints[ids[position]]
        dx = (splat[X] - left) - centres()
        y = splat[Y] - top
        first, last = rows_within(y, splat[RADIUS_Y])
        for row in range(first, last):
            dy = y - (np.float32(row) + HALF)
            sigma = dx * (splat[HALF_XX] * dx + splat[XY] * dy) + splat[HALF_YY] * dy * dy
            at = row * TILE
            is_open = load(state, OPEN * PIXELS + at)
            # How much of the light each of the sixteen pixels' footprint stops.
            alpha = splat[OPACITY] * exp_minus(sigma)
            alpha = blend(alpha < MOST, alpha, MOST)
            drawn = (is_open > ZERO) & (sigma >= ZERO) & (alpha >= LEAST)
            if not any_lane(drawn):
                continue
            # A pixel that this would leave in the dark is closed without it.
            transmittance = load(state, TRANSMITTANCE * PIXELS + at)
            left_over = transmittance * (ONE - alpha)
            store(state, OPEN * PIXELS + at, blend(drawn & (left_over <= DARK), ZERO, is_open))
            drawn = drawn & (left_over > DARK)
            # Colour and depth are added by the share of light that got here and is stopped here.
            weight = blend(drawn, alpha * transmittance, ZERO)
            store(state, TRANSMITTANCE * PIXELS + at, blend(drawn, left_over, transmittance))
            store(state, R * PIXELS + at, load(state, R * PIXELS + at) + weight * splat[RED])
            store(state, G * PIXELS + at, load(state, G * PIXELS + at) + weight * splat[GREEN])
            store(state, B * PIXELS + at, load(state, B * PIXELS + at) + weight * splat[BLUE])
            store(state, Z * PIXELS + at, load(state, Z * PIXELS + at) + weight * splat[DEPTH])
            store(state, LAST * PIXELS + at, blend(drawn, np.float32(position + 1), load(state, LAST * PIXELS + at)))


@njit(parallel=True, **COMPILED)
def composite(footprints, lists, order, workers, background, picture, passage):
    """All tiles of one view, written to `picture` and `passage`.

    lists, picture, passage  TileLists, Picture, Passage
    order                    tiles, the busiest first
    background               (3,)
    """
    offsets, ids = lists  # taken apart here: Numba's parallel loops get named tuples of arrays wrong
    image, alpha, depth = picture
    transmittance, last, reached = passage
    height, width = alpha.shape
    columns = (width + TILE - 1) // TILE
    for worker in prange(workers):
        state = np.empty(7 * PIXELS, np.float32)
        planes = state.reshape(7, TILE, TILE)
        for turn in range(worker, len(order), workers):
            tile = order[turn]
            left, top = tile % columns * TILE, tile // columns * TILE
            w, h = min(TILE, width - left), min(TILE, height - top)
            planes[:] = ZERO
            planes[TRANSMITTANCE] = ONE
            planes[OPEN, :h, :w] = ONE  # pixels outside the image are closed from the start
            composite_tile(footprints, ids[offsets[tile] : offsets[tile + 1]], np.float32(left), np.float32(top), state)
            farthest = ZERO
            for y in range(h):
                for x in range(w):
                    through = planes[TRANSMITTANCE, y, x]
                    for channel in range(3):
                        image[channel, top + y, left + x] = planes[R + channel, y, x] + through * background[channel]
                    alpha[top + y, left + x] = ONE - through
                    depth[top + y, left + x] = planes[Z, y, x]
                    transmittance[top + y, left + x] = through
                    last[top + y, left + x] = planes[LAST, y, x]
                    farthest = max(farthest, planes[LAST, y, x])
            reached[tile] = int(farthest)


@njit(**COMPILED)
def composite_tile_backward(footprints, ids, left, top, state, rows):
    """Gradient rows (len(ids), GRADIENTS) of the footprints `ids` of one tile, the farthest first."""
    for position in range(len(ids) - 1, -1, -1):
        splat = footprints[ids[position]]
        dx = (splat[X] - left) - centres()
        y = splat[Y] - top
        first, last = rows_within(y, splat[RADIUS_Y])
        none = broadcast(ZERO)
        s, s_y, s_yy, red, green, blue, far = none, none, none, none, none, none, none
        for row in range(first, last):
            dy = y - (np.float32(row) + HALF)
            sigma = dx * (splat[HALF_XX] * dx + splat[XY] * dy) + splat[HALF_YY] * dy * dy
            at = row * TILE
            # The same alphas as forwards, of the footprints that were drawn then.
            unclamped = splat[OPACITY] * exp_minus(sigma)
            alpha = blend(unclamped < MOST, unclamped, MOST)
            drawn = (load(state, DRAWN * PIXELS + at) > np.float32(position)) & (sigma >= ZERO) & (alpha >= LEAST)
            if not any_lane(drawn):
                continue
            # What was before this footprint follows from what was after it: T before = T after / (1 - alpha).
            behind = load(state, BEHIND * PIXELS + at)
            to_red, to_green = load(state, TO_R * PIXELS + at), load(state, TO_G * PIXELS + at)
            to_blue, to_far = load(state, TO_B * PIXELS + at), load(state, TO_Z * PIXELS + at)
            after = load(state, AFTER * PIXELS + at)
            inverse = ONE / (ONE - alpha)
            before = after * inverse
            weight = blend(drawn, alpha * before, ZERO)
            own = to_red * splat[RED] + to_green * splat[GREEN] + to_blue * splat[BLUE] + to_far * splat[DEPTH]
            # More alpha shows more of this one, and less of all that lies behind it.
            to_alpha = before * own - behind * inverse
            to_sigma = blend(drawn & (unclamped <= MOST), ZERO - unclamped * to_alpha, ZERO)
            store(state, BEHIND * PIXELS + at, behind + weight * own)
            store(state, AFTER * PIXELS + at, blend(drawn, before, after))
            s, s_y, s_yy = s + to_sigma, s_y + to_sigma * dy, s_yy + to_sigma * (dy * dy)
            red, green, blue = red + weight * to_red, green + weight * to_green, blue + weight * to_blue
            far = far + weight * to_far
        # Sixteen lanes become one number each; the sums times dx are taken here, as dx is the same in all rows.
        rows[position, SUM], rows[position, SUM_X], rows[position, SUM_Y] = total(s), total(s * dx), total(s_y)
        rows[position, SUM_XX], rows[position, SUM_XY], rows[position, SUM_YY] = (
            total(s * dx * dx),
            total(s_y * dx),
            total(s_yy),
        )
        rows[position, GRAD_RED], rows[position, GRAD_GREEN] = total(red), total(green)
        rows[position, GRAD_BLUE], rows[position, GRAD_DEPTH] = total(blue), total(far)


@njit(parallel=True, **COMPILED)
def composite_backward(footprints, lists, order, workers, background, passage, to_picture, starts, rows):
    """Gradient rows of the tiles `order`: rows[starts[t]:starts[t + 1]] for the first entries of tile t's list; the
    others were drawn by no pixel."""
    offsets, ids = lists
    to_image, to_alpha, to_depth = to_picture
    transmittance, last, _ = passage
    height, width = last.shape
    columns = (width + TILE - 1) // TILE
    for worker in prange(workers):
        state = np.empty(7 * PIXELS, np.float32)
        planes = state.reshape(7, TILE, TILE)
        for turn in range(worker, len(order), workers):
            tile = order[turn]
            left, top = tile % columns * TILE, tile // columns * TILE
            planes[:] = ZERO
            for y in range(min(TILE, height - top)):
                for x in range(min(TILE, width - left)):
                    through = transmittance[top + y, left + x]
                    light = -to_alpha[top + y, left + x]
                    for channel in range(3):
                        planes[TO_R + channel, y, x] = to_image[channel, top + y, left + x]
                        light += background[channel] * to_image[channel, top + y, left + x]
                    planes[AFTER, y, x] = through
                    planes[BEHIND, y, x] = through * light
                    planes[TO_Z, y, x] = to_depth[top + y, left + x]
                    planes[DRAWN, y, x] = last[top + y, left + x]
            count = starts[tile + 1] - starts[tile]
            composite_tile_backward(
                footprints,
                ids[offsets[tile] : offsets[tile] + count],
                np.float32(left),
                np.float32(top),
                state,
                rows[starts[tile] : starts[tile + 1]],
            )


@njit(parallel=True, **COMPILED)
def add_rows(lists, first, last, workers, starts, rows, sums):
    """Add the gradient rows of tiles first..last to their Gaussians' sums (N, GRADIENTS), tile after tile."""
    offsets, ids = lists
    for worker in prange(workers):
        low, high = worker * len(sums) // workers, (worker + 1) * len(sums) // workers
        for tile in range(first, last):
            for k in range(starts[tile + 1] - starts[tile]):
                i = ids[offsets[tile] + k]
                if low <= i < high:
                    for column in range(GRADIENTS):
                        sums[i, column] += rows[starts[tile] + k, column]
