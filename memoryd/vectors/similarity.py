"""Lengths and angles of vectors, the rows of float32 matrices."""

import numpy as np

from memoryd.vectors.types import Vectors


def normalize(vectors: Vectors) -> Vectors:
    """Return the rows of `vectors` (n, d) at length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def shorten(vectors: Vectors, dimensions: int) -> Vectors:
    """Return the first `dimensions` columns of unit vectors (n, d), at length 1 again.

    Where there are no more than that, they are returned as they are.
    """
    if dimensions >= vectors.shape[1]:
        return vectors
    return normalize(vectors[:, :dimensions])
