"""Maximal marginal relevance against the formula as it is written."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.vectors.diversity import diversify
from memoryd.vectors.rankings import Scores
from memoryd.vectors.similarity import normalize
from memoryd.vectors.types import Vectors

# Unit vectors whose cosines floats hold exactly, so that equals are equal however they are summed.
EXACT = [
    *[[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, -1.0]],
    *[[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, -0.5, -0.5], [-0.5, 0.5, 0.5, -0.5]],
]
candidates = st.lists(
    st.tuples(st.integers(-8, 8).map(float), st.sampled_from(EXACT)), min_size=1, max_size=10
)


def expected(relevance: Scores, vectors: Vectors, diversity: float, limit: int) -> list[int]:
    lowest, highest = min(relevance), max(relevance)

    def worth(position: int) -> float:
        span = highest - lowest
        return (relevance[position] - lowest) / span if span else 1.0

    def marginal(position: int) -> float:
        if not chosen:
            return worth(position)
        nearest = max(
            math.fsum(a * b for a, b in zip(vectors[position], vectors[other], strict=True))
            for other in chosen
        )
        return (1 - diversity) * worth(position) - diversity * nearest

    chosen: list[int] = []
    left = list(range(len(relevance)))
    while left and len(chosen) < limit:
        best = max(left, key=marginal)
        chosen.append(best)
        left.remove(best)
    return chosen


@settings(deadline=None)
@given(
    candidates=candidates,
    diversity=st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]),
    limit=st.integers(0, 12),
)
def test_each_choice_has_the_highest_marginal_relevance(
    candidates: list[tuple[float, list[float]]], diversity: float, limit: int
) -> None:
    relevance = np.array([score for score, _ in candidates])
    vectors = np.array([vector for _, vector in candidates], dtype=np.float32)
    assert diversify(relevance, vectors, diversity, limit) == expected(
        relevance, vectors, diversity, limit
    )


@pytest.mark.parametrize("diversity", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_real_vectors_are_chosen_as_the_formula_says(seed: int, diversity: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = normalize(rng.standard_normal((40, 16)).astype(np.float32))
    relevance = rng.random(40)
    assert diversify(relevance, vectors, diversity, 15) == expected(
        relevance, vectors, diversity, 15
    )


@settings(deadline=None)
@given(scores=st.lists(st.integers(-1000, 1000), max_size=30))
def test_without_diversity_the_order_is_that_of_relevance(scores: list[int]) -> None:
    vectors = np.tile(np.array([1, 0], dtype=np.float32), (len(scores), 1))
    order = sorted(range(len(scores)), key=lambda position: -scores[position])
    assert diversify(np.array(scores, dtype=float), vectors, 0, len(scores)) == order


def test_a_copy_of_the_best_gives_way_to_something_else() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    relevance = np.array([0.9, 0.89, 0.7])
    assert diversify(relevance, vectors, 0, 2) == [0, 1]
    assert diversify(relevance, vectors, 0.6, 2) == [0, 2]


def test_at_full_diversity_the_most_relevant_is_still_first() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    assert diversify(np.array([0.1, 0.2, 0.9]), vectors, 1, 3) == [2, 0, 1]


def test_the_scale_of_relevance_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    vectors = normalize(rng.standard_normal((30, 8)).astype(np.float32))
    relevance = rng.integers(0, 1000, 30).astype(float)
    small = diversify(relevance, vectors, 0.4, 30)
    assert diversify(relevance / 1024 - 7, vectors, 0.4, 30) == small
    assert sorted(small) == list(range(30))


def test_of_no_candidates_none_is_chosen() -> None:
    assert diversify(np.zeros(0), np.zeros((0, 4), dtype=np.float32), 0.3, 10) == []
