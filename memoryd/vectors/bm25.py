"""BM25: how well texts match a query's terms.

The formula is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
Beyond" (2009), equation 3.15, with the inverse document frequency of Lucene's BM25Similarity, which
is never negative, and with the usual k1 = 1.2 and b = 0.75.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memoryd.vectors.rankings import Numbers, Scores

SATURATION = 1.2
LENGTH_INFLUENCE = 0.75
MAX_FREQUENCY = 15
"""A term that stands there more often counts as this often: 0.926 of the most, at mean length."""
PACK_SIZE = 6
"""So many frequencies go into the 24 bits that a single-precision number holds exactly."""

_BITS = 4


def inverse_document_frequency(total: int, containing: int) -> float:
    """Return ln(1 + (N - n + 0.5) / (n + 0.5)) for `containing` n of a `total` of N texts.

    Statistics that lag behind may say that n is the larger one: it is taken to be N then.
    """
    containing = min(max(containing, 0), max(total, 1))
    return float(np.log1p((max(total, 1) - containing + 0.5) / (containing + 0.5)))


def pack_weights(count: int) -> list[int]:
    """Return what the frequencies of `count` terms are multiplied by, to be summed up as one."""
    return [1 << (_BITS * at) for at in range(count)]


def unpack_frequencies(packed: Scores, count: int) -> npt.NDArray[np.float64]:
    """Return (count, n) frequencies of what `pack_weights` has made one number of, (n,)."""
    shifts = np.arange(count, dtype=np.int64)[:, None] * _BITS
    frequencies = (packed.astype(np.int64)[None, :] >> shifts) & ((1 << _BITS) - 1)
    return frequencies.astype(np.float64)


def score(
    frequencies: npt.NDArray[np.float64],
    lengths: Numbers,
    weights: Sequence[float],
    mean_length: float,
) -> Scores:
    """Return the score (n,) of texts by their terms' `frequencies` (terms, n) and `lengths` (n,).

    A term's weight is its inverse document frequency, times how often the query has it.
    """
    relative = lengths / max(mean_length, 1.0)
    dampening = SATURATION * (1 - LENGTH_INFLUENCE + LENGTH_INFLUENCE * relative)
    scores = np.zeros(len(lengths))
    # One after the other: a sum of products would round otherwise among other texts.
    for row, weight in zip(frequencies, weights, strict=True):
        scores += weight * (SATURATION + 1) * (row / (row + dampening))
    return scores
