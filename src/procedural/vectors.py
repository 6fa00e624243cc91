"""Vectors without BLAS, whose last bits depend on the processor: scenes are to be the same bytes everywhere."""

import numpy as np


def turn(vectors: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Rotated vectors (N, 3)."""
    return np.einsum("ij,nj->ni", rotation, vectors)


def products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Scalar products of vectors (..., d) and (..., d), (...)."""
    return (first * second).sum(-1)


def length(vectors: np.ndarray) -> np.ndarray:
    """Of vectors (..., d), (...)."""
    return np.sqrt(products(vectors, vectors))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., d) of length 1."""
    return vectors / length(vectors)[..., None]
