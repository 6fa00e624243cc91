"""Solid textures: colour as a function of a point on an object, band-limited to the size of a pixel there.

Noise is hashed value noise in octaves (Perlin 1985, An Image Synthesizer); cells are Worley's (1996, A Cellular Texture
Basis Function). Patterns fade to their mean where their wavelength nears the pixel's footprint, so that small images do
not alias. A pattern answers with three shares and a tone: colour = mix(mix(mix(c0, c1), c2), c3) * tone.

One file on purpose: Numba's cache is renewed when the file of `albedo` changes, not when a file it calls does.
"""

import math

import numba
import numpy as np

KINDS = (
    "plaster",
    "wood",
    "planks",
    "marble",
    "bricks",
    "tiles",
    "checker",
    "stripes",
    "plaid",
    "dots",
    "terrazzo",
    "stones",
    "blotches",
    "mosaic",
    "print",
    "label",
    "painting",
    "scenery",
)
FIXED = KINDS.index("label")  # from here on a pattern's origin means something
OCTAVES = 5
Shares = tuple[float, float, float, float]

inner = numba.njit(cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@inner
def _hash(i: int, j: int, k: int, seed: int) -> float:
    """A number in [0, 1) for an integer lattice point."""
    h = (i * 374761393 + j * 668265263 + k * 2147483647 + seed * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 2246822519) & 0xFFFFFFFF
    return ((h ^ (h >> 15)) & 0xFFFFFF) / 16777216.0


@inner
def _draw(i: int, j: int, seed: int) -> float:
    """A number in [0, 1) for an integer place in the plane."""
    return _hash(i, j, seed, seed)


@inner
def _ease(t: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    t = min(1.0, max(0.0, t))
    return t * t * (3 - 2 * t)


@inner
def _noise(x: float, y: float, z: float, seed: int) -> float:
    """Value noise in [-1, 1], smooth, one feature per unit."""
    i, j, k = int(math.floor(x)), int(math.floor(y)), int(math.floor(z))
    u, v, w = _ease(x - i), _ease(y - j), _ease(z - k)
    total = 0.0
    for a in range(2):
        for b in range(2):
            for c in range(2):
                weight = (u if a else 1 - u) * (v if b else 1 - v) * (w if c else 1 - w)
                total += weight * _hash(i + a, j + b, k + c, seed)
    return 2 * total - 1


@inner
def _fade(wavelength: float, footprint: float) -> float:
    """1 where a wavelength is resolved (3.5 footprints), 0 where it is not (1.2 footprints)."""
    return _ease((wavelength / footprint - 1.2) / 2.3)


@inner
def _fractal(x: float, y: float, z: float, footprint: float, seed: int) -> float:
    """OCTAVES of noise, about [-1, 1]; those too fine for `footprint` (in units of x) are left out."""
    total, amplitude = 0.0, 0.6
    for octave in range(OCTAVES):
        weight = _fade(1.0, footprint)
        if weight == 0:
            break
        total += amplitude * weight * _noise(x, y, z, seed + octave)
        amplitude *= 0.6
        x, y, z, footprint = 2.03 * x + 7.1, 2.03 * y + 3.7, 2.03 * z + 5.3, 2.03 * footprint
    return total


@inner
def _step(distance: float, footprint: float) -> float:
    """Anti-aliased step from 0 to 1 at distance 0."""
    return min(1.0, max(0.0, 0.5 + distance / max(footprint, 1e-6)))


@inner
def _cell(u: float) -> tuple[int, float]:
    """Number of a unit cell and the place within it."""
    i = math.floor(u)
    return int(i), u - i


@inner
def _border(fu: float, fv: float) -> float:
    """Distance from a place in the unit square to its edge."""
    return min(min(fu, 1 - fu), min(fv, 1 - fv))


@inner
def _worley(u: float, v: float, seed: int) -> tuple[float, float]:
    """Voronoi cells in the plane: the nearest one's own number in [0, 1), and about the distance to its border."""
    i, j = int(math.floor(u)), int(math.floor(v))
    first, second, own = 9.0, 9.0, 0.0
    for ca in range(i - 1, i + 2):
        for cb in range(j - 1, j + 2):
            du, dv = ca + 0.15 + 0.7 * _draw(ca, cb, seed + 1) - u, cb + 0.15 + 0.7 * _draw(ca, cb, seed + 2) - v
            distance = math.sqrt(du * du + dv * dv)
            if distance < first:
                first, second, own = distance, first, _draw(ca, cb, seed + 3)
            elif distance < second:
                second = distance
    return own, 0.5 * (second - first)


@inner
def _three(number: float) -> tuple[float, float, float]:
    """One of four colours, chosen by a number in [0, 1), as shares."""
    return (1.0 if number >= 0.4 else 0.0), (1.0 if number >= 0.65 else 0.0), (1.0 if number >= 0.85 else 0.0)


@inner
def _plaster(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    stain = _fractal(0.7 * x, 0.7 * y, 0.7 * z, 0.7 * f, seed)
    speck = _fractal(3.1 * x, 3.1 * y, 3.1 * z, 3.1 * f, seed + 7)
    return _ease(0.5 + 0.9 * stain), _ease(1.6 * (speck - 0.3)) * 0.8, 0.0, 1.0


@inner
def _wood(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Rings around the x axis, stretched along it, and fine fibres."""
    bend = _fractal(0.25 * x, 0.8 * y, 0.8 * z, 0.8 * f, seed)
    rings = 3.2 * math.sqrt(y * y + (z + 0.7) * (z + 0.7)) + 1.3 * bend + 0.07 * x
    fibre = _fractal(0.9 * x, 11 * y, 11 * z, 11 * f, seed + 9)
    ring = rings - math.floor(rings)
    share = _ease(ring / 0.8) * (1 - _step(ring - 0.8, 3.2 * f)) * _fade(0.3, f) + 0.4 * (1 - _fade(0.3, f))
    return 0.85 * share, _ease(0.9 * fibre), 0.0, 1 + 0.25 * bend


@inner
def _planks(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Rows of boards five units long, each cut from another place of the wood."""
    row, fv = _cell(v)
    number, fu = _cell(u / 5 + _draw(row, row, seed + 5))
    joint = (1 - _step(min(min(fv, 1 - fv), 5 * min(fu, 1 - fu)) - 0.025, f)) * _fade(0.35, f)
    shift = 17 * _draw(row, number, seed + 8)
    grain = _fractal(0.6 * u + shift, 5 * v, shift, 5 * f, seed)
    streak = _fractal(0.25 * u + shift, 1.8 * v, shift, 1.8 * f, seed + 5)
    return _ease(0.45 + 0.9 * grain), 0.5 * _ease(streak), 0.85 * joint, 0.72 + 0.5 * _draw(row, number, seed + 6)


@inner
def _marble(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    a = _fractal(0.6 * x, 0.6 * y, 0.6 * z, 0.6 * f, seed)
    b = _fractal(0.8 * x + 4, 0.8 * y, 0.8 * z, 0.8 * f, seed + 31)
    vein = 1 - min(1.0, abs(a + 0.08) * 9) * _fade(0.25, f)
    thin = 1 - min(1.0, abs(b) * 16)
    return _ease(0.5 + 0.8 * b), 0.9 * vein * vein, 0.5 * thin * thin * _fade(0.2, f), 1.0


@inner
def _bricks(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    row, fv = _cell(2.6 * v)
    number, fu = _cell(u + 0.5 * (row & 1))
    edge = min(min(fu, 1 - fu), min(fv, 1 - fv) / 2.6)
    rough = 0.012 * _noise(9 * u, 9 * v, 0.0, seed)
    joint = (1 - _step(edge - 0.03 - rough, f)) * _fade(0.45, f) + 0.2 * (1 - _fade(0.45, f))
    tone = 0.68 + 0.55 * _draw(number, row, seed + 5)
    pits = _fractal(5 * x, 5 * y, 5 * z, 5 * f, seed)
    return _ease(1.4 * _draw(number, row, seed + 6) - 0.3), _ease(0.8 * pits - 0.1), joint, tone


@inner
def _tiles(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Glazed tiles, some with a ring or a diamond."""
    i, fu = _cell(u)
    j, fv = _cell(v)
    joint = (1 - _step(_border(fu, fv) - 0.025, f)) * _fade(0.5, f)
    du, dv = abs(fu - 0.5), abs(fv - 0.5)
    shape = du + dv if seed & 1 else math.sqrt(du * du + dv * dv)
    motif = _step(0.34 - shape, f) - _step(0.2 - shape, f) + _step(0.09 - shape, f)
    if seed & 2 and (i + j) & 1:
        motif = 0.0
    cloud = _fractal(2 * x, 2 * y, 2 * z, 2 * f, seed)
    return (
        motif * _fade(0.35, f) + 0.35 * (1 - _fade(0.35, f)),
        0.35 * _ease(0.4 + cloud),
        joint,
        0.82 + 0.3 * _draw(i, j, seed + 4),
    )


@inner
def _checker(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    i, fu = _cell(u)
    j, fv = _cell(v)
    blend = 0.5 + 0.5 * min(1.0, 2 * _border(fu, fv) / max(f, 1e-6)) * _fade(1.0, f)
    wear = _fractal(2.3 * x, 2.3 * y, 2.3 * z, 2.3 * f, seed)
    return (blend if (i + j) & 1 else 1 - blend), 0.5 * _ease(1.3 * wear), 0.0, 0.85 + 0.25 * _draw(i, j, seed + 4)


@inner
def _stripes(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Stripes of uneven widths, three to a unit, with a thin line between some."""
    number, fu = _cell(u)
    number %= 3
    a, b = 0.25 + 0.2 * _draw(number, number, seed + 1), 0.62 + 0.2 * _draw(number, number, seed + 2)
    fade = _fade(0.5, f)
    first = _step(fu - a, f) - _step(fu - b, f)
    line = (_step(fu - 0.08, f) - _step(fu - 0.14, f)) * _fade(0.3, f)
    thread = _fractal(1.5 * u, 14 * v, 14 * z, 14 * f, seed)
    return first * fade + 0.4 * (1 - fade), line, 0.0, 1 + 0.15 * thread


@inner
def _plaid(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    _, fu = _cell(u)
    _, fv = _cell(v)
    fade = _fade(0.5, f)
    wide = 0.5 * (_step(0.42 - abs(fu - 0.5), f) - _step(0.2 - abs(fu - 0.5), f))
    wide += 0.5 * (_step(0.42 - abs(fv - 0.5), f) - _step(0.2 - abs(fv - 0.5), f))
    thin = max(_step(0.035 - abs(fu - 0.5), f), _step(0.035 - abs(fv - 0.5), f)) * _fade(0.3, f)
    edge = 0.6 * max(_step(0.03 - abs(fu - 0.12), f), _step(0.03 - abs(fv - 0.12), f)) * _fade(0.3, f)
    weave = 0.12 * math.sin(12 * math.pi * (u + v)) * _fade(0.16, f)
    return wide * fade + 0.4 * (1 - fade), thin, edge, 1 + weave + 0.1 * _fractal(3 * x, 3 * y, 3 * z, 3 * f, seed)


@inner
def _dots(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Discs in two colours on a shifted grid, some with a hole."""
    row, fv = _cell(v)
    number, fu = _cell(u + 0.5 * (row & 1))
    du, dv = fu - 0.5, fv - 0.5
    away = math.sqrt(du * du + dv * dv)
    radius, other = 0.2 + 0.2 * _draw(number, row, seed + 3), _draw(number, row, seed + 4)
    disc = _step(radius - away, f) * _fade(0.6, f) + 0.25 * (1 - _fade(0.6, f))
    if other > 0.7:
        disc *= 1 - _step(0.45 * radius - away, f)
    cloud = _fractal(2.5 * x, 2.5 * y, 2.5 * z, 2.5 * f, seed)
    return (disc if other < 0.45 else 0.0), (disc if other >= 0.45 else 0.0), 0.25 * _ease(cloud + 0.2), 1.0


@inner
def _terrazzo(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Chips of four colours, large and small, in a pale ground."""
    first, second, third = 0.0, 0.0, 0.0
    for level in range(2):
        size = 2.0 + 2.7 * level
        own, border = _worley(size * u + 5 * level, size * v, seed + level)
        chip = _step(border - 0.09, size * f) * _fade(1 / size, f) * (1.0 if own > 0.35 else 0.0)
        a, b, c = _three((own - 0.35) / 0.65)
        first += chip * (1 - first) * (0.4 + 0.6 * a)
        second = (1 - chip) * second + chip * b
        third = (1 - chip) * third + chip * c
    return first, second, third, 1 + 0.1 * _fractal(6 * x, 6 * y, 6 * z, 6 * f, seed)


@inner
def _stones(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    warp = 0.12 * _fractal(2 * u, 2 * v, 0.0, 2 * f, seed + 3)
    own, border = _worley(u + warp, v - warp, seed)
    joint = (1 - _step(border - 0.05, f)) * _fade(0.5, f)
    cloud = _fractal(4 * x, 4 * y, 4 * z, 4 * f, seed)
    return own, 0.6 * _ease(0.2 + cloud), joint, 0.8 + 0.4 * _ease(border / 0.25) - 0.15


@inner
def _blotches(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    share = _fractal(x, y, z, f, seed)
    other = _fractal(1.3 * x + 9, 1.3 * y, 1.3 * z, 1.3 * f, seed + 40)
    width = max(2 * f, 0.05)
    return _step(share, width), _step(other - 0.12, width), _step(other * share - 0.09, width), 1.0


@inner
def _mosaic(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Small squares in colours that drift over the surface."""
    i, fu = _cell(3 * u)
    j, fv = _cell(3 * v)
    drift = 0.5 + 0.6 * _noise(0.2 * i, 0.2 * j, 0.0, seed)
    a, b, c = _three(0.6 * drift + 0.4 * _draw(i, j, seed + 1))
    fade = _fade(0.45, f)
    joint = (1 - _step(_border(fu, fv) - 0.06, 3 * f)) * _fade(0.3, f)
    tone = (0.7 + 0.6 * _draw(i, j, seed + 2)) * fade + (1 - fade)
    return a * fade + 0.5 * (1 - fade), b * fade + 0.3 * (1 - fade), c * fade, tone * (1 - 0.6 * joint)


@inner
def _print(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """A page: lines of words made of small marks, a headline and a coloured block here and there."""
    i, fu = _cell(u)
    j, fv = _cell(v)
    framed = _step(_border(fu, fv) - 0.07, f)
    if _draw(i, j, seed + 1) > 0.6:
        spot = _step(0.3 - max(abs(fu - 0.5), abs(fv - 0.5)), f)
        return framed * 0.15, framed * spot, 0.0, 1.0
    line, fl = _cell(9 * fv)
    word = _noise(7 * u, 3.0 * line, 1.0 * j, seed) > -0.35
    mark = _draw(int(math.floor(34 * u)), line + 16 * j, seed + 2) * 0.5 + 0.5
    fine = _fade(0.09, f)
    ink = (mark * (_step(fl - 0.25, 9 * f) - _step(fl - 0.75, 9 * f)) * fine + 0.25 * (1 - fine)) if word else 0.0
    bold = 1.0 if line == 8 else 0.75
    return framed * ink * bold, (1 - framed) * 0.25, 0.0, 1.0


@inner
def _label(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Bands across the height and a badge, as on tins and the backs of books; v runs over the height, 0 to 1."""
    low, high = 0.12 + 0.1 * _draw(seed, seed, seed + 1), 0.72 + 0.15 * _draw(seed, seed, seed + 2)
    band = _step(v - low, f) - _step(v - high, f)
    line = _step(0.018 - abs(v - low + 0.04), f) + _step(0.018 - abs(v - high - 0.05), f)
    i, fu = _cell(2 * u)
    middle = 0.5 * (low + high)
    du, dv = (fu - 0.5) / 2, v - middle
    badge = _step(0.16 - math.sqrt(du * du + dv * dv), f) if seed & 1 else _step(0.13 - max(abs(du), abs(dv)), f)
    mark = _draw(int(math.floor(24 * u)), int(math.floor(22 * v)), seed + 4) > 0.5
    letters = band * (1 - badge) * _fade(0.08, f) * (0.7 if mark and abs(dv) > 0.19 else 0.0)
    return band, max(badge * band, line), letters, 1 + 0.1 * _fractal(5 * x, 5 * y, 5 * z, 5 * f, seed)


@inner
def _painting(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """A picture over a unit square around the origin: hills under a sun, blocks of colour, or brush marks."""
    style = seed % 3
    if style == 0:
        ridge = 0.05 + 0.35 * _fractal(1.7 * u, 0.0, 0.5, 1.7 * f, seed)
        front = -0.2 + 0.35 * _fractal(2.3 * u, 3.0, 0.5, 2.3 * f, seed + 4)
        sun = _step(0.11 - math.sqrt((u - 0.2) * (u - 0.2) + (v - 0.27) * (v - 0.27)), f)
        brush = _fractal(4 * u, 9 * v, 0.0, 9 * f, seed + 9)
        return _step(ridge - v, f), max(sun, _step(front - v, f)), _step(front - v, f) * 0.8, 1 + 0.25 * brush
    if style == 1:
        left, right, low, high, number = -0.5, 0.5, -0.5, 0.5, 1
        for level in range(5):
            cut = 0.3 + 0.4 * _draw(number, level, seed)
            wide = right - left > high - low
            place = left + cut * (right - left) if wide else low + cut * (high - low)
            beyond = u > place if wide else v > place
            left, right = (place if wide and beyond else left), (place if wide and not beyond else right)
            low, high = (place if not wide and beyond else low), (place if not wide and not beyond else high)
            number = 2 * number + (1 if beyond else 0)
        border = min(min(u - left, right - u), min(v - low, high - v))
        a, b, c = _three(_draw(number, number, seed + 7))
        line = 1 - _step(border - 0.012, f)
        return a, b, c, 1 - 0.85 * line * _fade(0.06, f)
    stroke = _fractal(1.5 * u, 4 * v, 0.0, 4 * f, seed)
    other = _fractal(4 * u, 1.7 * v, 2.0, 4 * f, seed + 5)
    return _step(stroke, 0.1), _step(other - 0.15, 0.1), _step(stroke * other - 0.06, 0.1), 1 + 0.3 * other


@inner
def _scenery(u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """A painted horizon: clouds in a sky, two rows of hills, trees. The horizon lies at v = 1."""
    cloud = _ease(1.4 * _fractal(1.1 * x, 1.1 * y, 2.6 * z, 2.6 * f, seed) - 0.05)
    far = 1.15 + 0.4 * _fractal(1.3 * x, 1.3 * y, 0.0, 1.3 * f, seed + 20)
    near = 0.72 + 0.3 * _fractal(1.9 * x, 1.9 * y, 3.0, 1.9 * f, seed + 30)
    leaves = _fractal(5 * x, 5 * y, 5 * z, 5 * f, seed + 40)
    hill = _step(far - v, f)
    wood = _step(near + 0.12 * leaves - v, f)
    return cloud * (1 - hill), hill, wood, (1 + 0.5 * leaves * max(hill, wood))


@inner
def _pattern(kind: int, u: float, v: float, x: float, y: float, z: float, f: float, seed: int) -> Shares:
    """Shares and tone of texture number `kind` of KINDS at surface coordinates u, v and space coordinates x, y, z."""
    if kind == 0:
        return _plaster(u, v, x, y, z, f, seed)
    if kind == 1:
        return _wood(u, v, x, y, z, f, seed)
    if kind == 2:
        return _planks(u, v, x, y, z, f, seed)
    if kind == 3:
        return _marble(u, v, x, y, z, f, seed)
    if kind == 4:
        return _bricks(u, v, x, y, z, f, seed)
    if kind == 5:
        return _tiles(u, v, x, y, z, f, seed)
    if kind == 6:
        return _checker(u, v, x, y, z, f, seed)
    if kind == 7:
        return _stripes(u, v, x, y, z, f, seed)
    if kind == 8:
        return _plaid(u, v, x, y, z, f, seed)
    if kind == 9:
        return _dots(u, v, x, y, z, f, seed)
    if kind == 10:
        return _terrazzo(u, v, x, y, z, f, seed)
    if kind == 11:
        return _stones(u, v, x, y, z, f, seed)
    if kind == 12:
        return _blotches(u, v, x, y, z, f, seed)
    if kind == 13:
        return _mosaic(u, v, x, y, z, f, seed)
    if kind == 14:
        return _print(u, v, x, y, z, f, seed)
    if kind == 15:
        return _label(u, v, x, y, z, f, seed)
    if kind == 16:
        return _painting(u, v, x, y, z, f, seed)
    return _scenery(u, v, x, y, z, f, seed)


@inner
def _surface(x: float, y: float, z: float, nx: float, ny: float, nz: float, around: float) -> tuple[float, float]:
    """Coordinates along the surface: around the z axis in `around` repeats, or by the normal's main axis."""
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    if around > 0 and az < 0.75:
        return around * math.atan2(y, x) / (2 * math.pi), z
    if az >= ax and az >= ay:
        return x, y
    if ay >= ax:
        return x, z
    return y, z


@numba.njit(cache=True)
def albedo(
    points: np.ndarray,
    normals: np.ndarray,
    part: np.ndarray,
    footprint: np.ndarray,
    kind: np.ndarray,
    scale: np.ndarray,
    seed: np.ndarray,
    colours: np.ndarray,
    grain: np.ndarray,
    wrap: np.ndarray,
) -> np.ndarray:
    """Linear RGB reflectance of surface points.

    points, normals (N, 3)  in each part's own frame; part (N,) row of the tables; footprint (N,) metres per sample
    kind, seed (P,)         pattern number of KINDS, noise seed;  scale (P,) metres per pattern unit
    colours (P, 4, 3)       of each part;  grain (P,) strength of the fine noise over everything, in [0, 1]
    wrap (P,)               metres from the part's z axis at which the pattern is wrapped around it; 0 = projected
    returns (N, 3)          in [0, 0.95]
    """
    out = np.empty((len(points), 3))
    for n in range(len(points)):
        p = part[n]
        s, k = scale[p], kind[p]
        x, y, z = points[n, 0] / s, points[n, 1] / s, points[n, 2] / s
        around = max(1.0, float(round(2 * math.pi * wrap[p] / s))) if wrap[p] > 0 else 0.0
        u, v = _surface(x, y, z, normals[n, 0], normals[n, 1], normals[n, 2], around)
        if k < FIXED:  # the others have a place of their own on their part
            u, v = u + 5 * _draw(p, p, seed[p] + 3), v + 5 * _draw(p, p, seed[p] + 4)
        one, two, three, tone = _pattern(k, u, v, x, y, z, footprint[n] / s, seed[p])
        fine = 1 + grain[p] * _fractal(
            8 * points[n, 0], 8 * points[n, 1], 8 * points[n, 2], 8 * footprint[n], seed[p] + 77
        )
        for c in range(3):
            mixed = colours[p, 0, c] + one * (colours[p, 1, c] - colours[p, 0, c])
            mixed += two * (colours[p, 2, c] - mixed)
            mixed += three * (colours[p, 3, c] - mixed)
            out[n, c] = min(0.95, max(0.0, mixed * tone * fine))
    return out
