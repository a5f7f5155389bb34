"""Make one ranking of several.

A key is what is ranked: the number of a chunk or of a document. A ranking holds no key twice. What
is as good as something else stands by its number, and the order of the rankings among themselves
changes nothing.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from memoryd.vectors.rankings import Numbers, Ranking, Scores

Scored: TypeAlias = tuple[Numbers, Scores]
"""Keys (n,) and their scores (n,), best first."""


def reciprocal_rank_fusion(
    rankings: Sequence[Numbers], weights: Sequence[float], k: float
) -> Scored:
    """Return the keys of `rankings`, each best first, by the sum of weight / (k + rank).

    Ranks count from 1. A ranking of weight 0 is as if it weren't there. Source: Cormack, Clarke
    and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods" (SIGIR 2009), where k is 60 and all weights are 1.
    """
    parts = [
        (keys, weight / (k + np.arange(1, len(keys) + 1, dtype=np.float64)))
        for keys, weight in zip(rankings, weights, strict=True)
        if weight
    ]
    return _sum_by_key(parts)


def relative_score_fusion(rankings: Sequence[Scored], weights: Sequence[float]) -> Scored:
    """Return the keys of `rankings` by the sum of weight · (score - worst) / (best - worst).

    Best and worst are those of each ranking, so that a score depends on how deep that goes; where
    all its scores are equal, each counts as the best. A ranking of weight 0 is as if it weren't
    there. Source: `FusionRelativeScore` in Weaviate's hybrid_fusion.go.
    """
    parts = [
        (keys, weight * normalize_scores(scores))
        for (keys, scores), weight in zip(rankings, weights, strict=True)
        if weight
    ]
    return _sum_by_key(parts)


def normalize_scores(scores: Scores) -> Scores:
    """Return `scores` (n,) between 0, the lowest, and 1, the highest; equal ones are all 1."""
    if not len(scores):
        return scores
    lowest = scores.min()
    span = scores.max() - lowest
    return (scores - lowest) / span if span else np.ones_like(scores)


def best_of_documents(ranking: Ranking) -> Ranking:
    """Return the first chunk of each document, in the same order."""
    _, first = np.unique(ranking.documents, return_index=True)
    first.sort()
    return Ranking(ranking.chunks[first], ranking.documents[first], ranking.scores[first])


def _sum_by_key(parts: Sequence[Scored]) -> Scored:
    """Return each key once with the sum of its scores, highest first."""
    keys = np.concatenate([np.zeros(0, np.int64), *(keys for keys, _ in parts)])
    scores = np.concatenate([np.zeros(0, np.float64), *(scores for _, scores in parts)])
    # Sums of floats depend on their order: by size it is the same whatever ranking is first.
    ascending = np.argsort(scores, kind="stable")
    keys, groups = np.unique(keys[ascending], return_inverse=True)
    sums = np.asarray(np.bincount(groups, weights=scores[ascending]), np.float64)
    best_first = np.argsort(-sums, kind="stable")  # keys ascend, so those of equal sums do
    return keys[best_first], sums[best_first]
