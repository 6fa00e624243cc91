"""Solid textures: colour as a function of a point in an object, band-limited to the size of a pixel there.

Noise is hashed value noise (Perlin 1985, An Image Synthesizer, without gradients); the patterns fade to their mean where
their wavelength nears the pixel's footprint, so that small images do not alias.
"""

import math

import numba
import numpy as np

KINDS = ("plain", "checker", "stripes", "wood", "marble", "bricks", "dots", "cells", "blotches")
TextureArrays = np.ndarray


@numba.njit(cache=True)
def _hash(i: int, j: int, k: int, seed: int) -> float:
    """A number in [0, 1) for an integer lattice point."""
    h = (i * 374761393 + j * 668265263 + k * 2147483647 + seed * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 2246822519) & 0xFFFFFFFF
    return ((h ^ (h >> 15)) & 0xFFFFFF) / 16777216.0


@numba.njit(cache=True)
def _noise(x: float, y: float, z: float, seed: int) -> float:
    """Value noise in [-1, 1], smooth, one feature per unit."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    total = 0.0
    for a in range(2):
        for b in range(2):
            for c in range(2):
                weight = (u if a else 1 - u) * (v if b else 1 - v) * (w if c else 1 - w)
                total += weight * _hash(int(i) + a, int(j) + b, int(k) + c, seed)
    return 2 * total - 1


@numba.njit(cache=True)
def _fade(wavelength: float, footprint: float) -> float:
    """1 where a wavelength is resolved (4 pixels), 0 where it is not (1.5 pixels)."""
    t = (wavelength / footprint - 1.5) / 2.5
    t = min(1.0, max(0.0, t))
    return t * t * (3 - 2 * t)


@numba.njit(cache=True)
def _fractal(x: float, y: float, z: float, octaves: int, footprint: float, seed: int) -> float:
    """Sum of octaves of noise, about [-1, 1]; `footprint` in the same units as x."""
    total, amplitude, frequency = 0.0, 0.5, 1.0
    for octave in range(octaves):
        weight = _fade(1 / frequency, footprint)
        if weight == 0:
            break
        total += amplitude * weight * _noise(x * frequency, y * frequency, z * frequency, seed + octave)
        amplitude *= 0.55
        frequency *= 2.03
    return total


@numba.njit(cache=True)
def _edge(distance: float, footprint: float) -> float:
    """Anti-aliased step from 0 to 1 at distance 0."""
    return min(1.0, max(0.0, 0.5 + distance / max(footprint, 1e-6)))


@numba.njit(cache=True)
def _plane(x: float, y: float, z: float, nx: float, ny: float, nz: float) -> tuple[float, float]:
    """The two coordinates along the surface, by the largest component of the object-space normal."""
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    if az >= ax and az >= ay:
        return x, y
    if ax >= ay:
        return y, z
    return x, z


@numba.njit(cache=True)
def _cells(u: float, v: float, seed: int) -> tuple[float, float]:
    """Voronoi cells in the plane: the nearest cell's own number in [0, 1), and distance to the border."""
    i, j = math.floor(u), math.floor(v)
    first, second, own = 9.0, 9.0, 0.0
    for a in range(-1, 2):
        for b in range(-1, 2):
            ca, cb = int(i) + a, int(j) + b
            du, dv = ca + _hash(ca, cb, 1, seed) - u, cb + _hash(ca, cb, 2, seed) - v
            distance = math.sqrt(du * du + dv * dv)
            if distance < first:
                first, second, own = distance, first, _hash(ca, cb, 3, seed)
            elif distance < second:
                second = distance
    return own, second - first


@numba.njit(cache=True)
def _pattern(kind: int, x: float, y: float, z: float, nx: float, ny: float, nz: float, footprint: float, seed: int
             ) -> tuple[float, float]:
    """Mix of a texture's colours at a point in units of the texture's scale: share of colour 1, share of colour 2."""
    if kind == 0:
        return 0.5 + 0.5 * _fractal(x, y, z, 5, footprint, seed), 0.0
    if kind == 1:
        u, v = _plane(x, y, z, nx, ny, nz)
        fu, fv = u - math.floor(u), v - math.floor(v)
        du, dv = min(fu, 1 - fu), min(fv, 1 - fv)
        odd = (int(math.floor(u)) + int(math.floor(v))) & 1
        near = min(du, dv)
        blend = 0.5 + 0.5 * min(1.0, near / max(footprint, 1e-6)) * _fade(1.0, footprint)
        return (blend if odd else 1 - blend), 0.15 * (1 + _fractal(3 * x, 3 * y, 3 * z, 3, 3 * footprint, seed))
    if kind == 2:
        u, v = _plane(x, y, z, nx, ny, nz)
        wave = math.sin(2 * math.pi * (u + 0.15 * _noise(x, y, z, seed)))
        share = 0.5 + 0.5 * _fade(0.7, footprint) * min(1.0, max(-1.0, 3 * wave))
        return share, 0.1 * (1 + _fractal(4 * x, 4 * y, 4 * z, 3, 4 * footprint, seed))
    if kind == 3:
        warp = 0.6 * _fractal(0.6 * x, 0.6 * y, 0.6 * z, 3, 0.6 * footprint, seed)
        ring = math.sin(2 * math.pi * (math.sqrt(y * y + z * z) * 1.5 + warp + 0.08 * x))
        grain = _fractal(1.5 * x, 14 * y, 14 * z, 2, 14 * footprint, seed + 9)
        return 0.5 + 0.45 * ring * _fade(0.6, footprint), 0.25 + 0.25 * grain
    if kind == 4:
        warp = 2.2 * _fractal(x, y, z, 5, footprint, seed)
        return 0.5 + 0.5 * math.sin(3 * (x + y) + 3 * warp), 0.25 * (1 + _fractal(5 * x, 5 * y, 5 * z, 3, 5 * footprint, seed + 7))
    if kind == 5:
        u, v = _plane(x, y, z, nx, ny, nz)
        row = math.floor(2 * v)
        u += 0.5 * (int(row) & 1)
        fu, fv = u - math.floor(u), 2 * v - row
        gap = min(min(fu, 1 - fu), 0.5 * min(fv, 1 - fv)) - 0.04
        brick = _edge(gap, footprint)
        tone = _hash(int(math.floor(u)), int(row), 5, seed)
        return brick * (0.35 + 0.65 * tone), (1 - brick) * _fade(0.3, footprint)
    if kind == 6:
        u, v = _plane(x, y, z, nx, ny, nz)
        du, dv = u - math.floor(u) - 0.5, v - math.floor(v) - 0.5
        radius = 0.22 + 0.14 * _hash(int(math.floor(u)), int(math.floor(v)), 3, seed)
        dot = _edge(radius - math.sqrt(du * du + dv * dv), footprint)
        return dot * _fade(0.8, footprint), 0.12 * (1 + _fractal(3 * x, 3 * y, 3 * z, 3, 3 * footprint, seed))
    if kind == 7:
        u, v = _plane(x, y, z, nx, ny, nz)
        own, border = _cells(u, v, seed)
        return own, (1 - _edge(border - 0.06, footprint)) * _fade(0.5, footprint)
    share = _fractal(x, y, z, 5, footprint, seed)
    return _edge(share, max(footprint, 0.04)), 0.3 * _edge(share - 0.18, max(footprint, 0.04))


@numba.njit(cache=True)
def albedo(points: np.ndarray, normals: np.ndarray, part: np.ndarray, footprint: np.ndarray, kind: np.ndarray,
           scale: np.ndarray, seed: np.ndarray, colours: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """Linear RGB reflectance of surface points.

    points, normals (N, 3)  in each part's own frame; part (N,) which row of the tables; footprint (N,) metres per pixel
    kind, scale, seed, grain (P,)  pattern number of KINDS, metres per pattern unit, noise seed, strength of fine noise
    colours (P, 3, 3)       the three colours of each part
    returns (N, 3)          in [0, 1]
    """
    out = np.empty((len(points), 3))
    for n in range(len(points)):
        p = part[n]
        s = scale[p]
        x, y, z = points[n, 0] / s, points[n, 1] / s, points[n, 2] / s
        f = footprint[n] / s
        one, two = _pattern(kind[p], x, y, z, normals[n, 0], normals[n, 1], normals[n, 2], f, seed[p])
        one, two = min(1.0, max(0.0, one)), min(1.0, max(0.0, two))
        fine = 1 + grain[p] * _fractal(points[n, 0] * 9, points[n, 1] * 9, points[n, 2] * 9, 5, footprint[n] * 9, seed[p] + 77)
        for c in range(3):
            base = (1 - one) * colours[p, 0, c] + one * colours[p, 1, c]
            base = (1 - two) * base + two * colours[p, 2, c]
            out[n, c] = min(1.0, max(0.0, base * fine))
    return out
