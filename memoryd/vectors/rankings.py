"""Rankings: what one way to search found, as columns."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.int64]
"""Rows of a table, (n,)."""
Scores: TypeAlias = npt.NDArray[np.float64]
"""Higher is better, (n,)."""


@dataclass(frozen=True)
class Ranking:
    """Be found chunks, best first, those of equal score by number; the three are parallel."""

    chunks: Numbers
    documents: Numbers
    scores: Scores

    def __len__(self) -> int:
        return len(self.chunks)

    def head(self, count: int) -> "Ranking":
        """Return the best `count`."""
        return Ranking(self.chunks[:count], self.documents[:count], self.scores[:count])

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Ranking":
        """Return those that are `chosen` (n,), in the same order."""
        return Ranking(self.chunks[chosen], self.documents[chosen], self.scores[chosen])


EMPTY = Ranking(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))


def rank(chunks: Numbers, documents: Numbers, scores: Scores, depth: int | None) -> Ranking:
    """Return the best `depth` (None: all) of unordered rows."""
    if depth is not None and depth < len(scores):
        # All that are as good as the last one that is kept: equals are told apart by number.
        least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        kept = scores >= least
        chunks, documents, scores = chunks[kept], documents[kept], scores[kept]
    order = np.lexsort((chunks, -scores))[:depth]
    return Ranking(chunks[order], documents[order], scores[order])
