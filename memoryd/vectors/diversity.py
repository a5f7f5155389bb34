"""Choose results that are relevant and unlike one another."""

import numpy as np

from memoryd.vectors.fusion import normalize_scores
from memoryd.vectors.rankings import Scores
from memoryd.vectors.types import Vectors


def diversify(relevance: Scores, vectors: Vectors, diversity: float, limit: int) -> list[int]:
    """Return the positions of up to `limit` candidates, by maximal marginal relevance.

    `relevance` (n,) is brought between 0 and 1, so that any score does; `vectors` (n, d) have
    length 1. The most relevant is first; each next one has the highest
    (1 - diversity) · relevance - diversity · cosine with the nearest that is chosen. At a
    diversity of 0 that is the order of relevance, at 1 relevance only chooses the first. Equals
    keep their order. Takes O(n · limit · d).

    Source: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering
    Documents and Producing Summaries" (SIGIR 1998); their λ is 1 - diversity.
    """
    marginal = normalize_scores(relevance)
    worth = (1 - diversity) * marginal
    nearest = np.full(len(relevance), -np.inf)
    chosen: list[int] = []
    for _ in range(min(limit, len(relevance))):
        best = int(np.argmax(marginal))
        chosen.append(best)
        np.maximum(nearest, vectors @ vectors[best], out=nearest)
        marginal = worth - diversity * nearest
        marginal[chosen] = -np.inf
    return chosen
