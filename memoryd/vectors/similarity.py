"""Lengths and angles of vectors, the rows of float32 matrices."""

import numpy as np

from memoryd.vectors.types import Vectors

NOT_NORMALIZED, EUCLIDEAN = -1, 2
"""Norms of `normalize`."""
# What the largest number becomes where vectors are scaled to fit 16-bit integers.
_LARGEST_SHORT = 32760.0


def normalize(vectors: Vectors, norm: int = EUCLIDEAN) -> Vectors:
    """Return the rows of `vectors` (n, d) at length 1 by `norm`; a zero row stays zero.

    The norms are those of llama.cpp (common_embd_normalize in common.cpp): -1 leaves the rows as
    they are, 0 brings the largest number to 32,760, any other is the exponent p of a p-norm.
    """
    if norm < 0:
        return vectors
    if norm == 0:
        lengths = np.abs(vectors).max(axis=1, keepdims=True) / _LARGEST_SHORT
    else:
        # High powers leave float32's range, but not that of double up to some hundred.
        wide = vectors.astype(np.float64) if norm > EUCLIDEAN else vectors
        lengths = np.linalg.norm(wide, norm, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def pad(vectors: Vectors, dimensions: int) -> Vectors:
    """Return `vectors` (n, d) with zeros up to `dimensions`; no cosine changes by it."""
    missing = dimensions - vectors.shape[1]
    return np.pad(vectors, ((0, 0), (0, missing))) if missing > 0 else vectors


def shorten(vectors: Vectors, dimensions: int) -> Vectors:
    """Return the first `dimensions` columns of unit vectors (n, d), at length 1 again.

    Where there are no more than that, they are returned as they are.
    """
    if dimensions >= vectors.shape[1]:
        return vectors
    return normalize(vectors[:, :dimensions])
