"""Fusion against the formulas as they are written, over dicts."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.vectors.fusion import (
    Scored,
    best_of_documents,
    normalize_scores,
    reciprocal_rank_fusion,
    relative_score_fusion,
)
from memoryd.vectors.rankings import EMPTY, Numbers, Ranking

Arm = dict[int, float]
"""Scores by key, best first."""

arms = st.lists(
    st.dictionaries(st.integers(-20, 20), st.integers(-40, 40).map(lambda n: n / 8), max_size=12),
    max_size=5,
)
weights = st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0])


def keys_of(*keys: int) -> Numbers:
    return np.array(keys, dtype=np.int64)


def scored(arm: Arm) -> Scored:
    return keys_of(*arm), np.array(list(arm.values()), dtype=np.float64)


def ordered(arm: Arm) -> Arm:
    return dict(sorted(arm.items(), key=lambda item: (-item[1], item[0])))


def expected(contributions: list[Arm]) -> list[tuple[int, float]]:
    parts: dict[int, list[float]] = {}
    for contribution in contributions:
        for key, score in contribution.items():
            parts.setdefault(key, []).append(score)
    return list(ordered({key: sum(sorted(scores)) for key, scores in parts.items()}).items())


def rows(fused: Scored) -> list[tuple[int, float]]:
    keys, scores = fused
    assert keys.dtype == np.int64
    assert scores.dtype == np.float64
    return list(zip(keys.tolist(), scores.tolist(), strict=True))


@settings(deadline=None)
@given(arms=arms, data=st.data(), k=st.sampled_from([0, 1, 10.5, 60]))
def test_reciprocal_ranks_are_summed_by_key(arms: list[Arm], data: st.DataObject, k: float) -> None:
    factors = [data.draw(weights) for _ in arms]
    contributions = [
        {key: weight / (k + rank) for rank, key in enumerate(arm, 1)}
        for arm, weight in zip(arms, factors, strict=True)
        if weight
    ]
    fused = reciprocal_rank_fusion([keys_of(*arm) for arm in arms], factors, k)
    assert rows(fused) == expected(contributions)


@settings(deadline=None)
@given(arms=arms, data=st.data())
def test_relative_scores_are_summed_by_key(arms: list[Arm], data: st.DataObject) -> None:
    factors = [data.draw(weights) for _ in arms]
    contributions = []
    for arm, weight in zip(arms, factors, strict=True):
        best, worst = max(arm.values(), default=0), min(arm.values(), default=0)
        if weight:
            contributions.append(
                {
                    key: weight * ((score - worst) / (best - worst) if best > worst else 1)
                    for key, score in arm.items()
                }
            )
    fused = relative_score_fusion([scored(arm) for arm in arms], factors)
    assert rows(fused) == expected(contributions)


@settings(deadline=None)
@given(arms=arms, shuffle=st.randoms())
def test_the_order_of_the_rankings_changes_nothing(arms: list[Arm], shuffle: random.Random) -> None:
    arms = [ordered(arm) for arm in arms]
    others = shuffle.sample(arms, len(arms))
    even = [1.0] * len(arms)
    assert rows(relative_score_fusion([scored(arm) for arm in arms], even)) == rows(
        relative_score_fusion([scored(arm) for arm in others], even)
    )
    assert rows(reciprocal_rank_fusion([keys_of(*arm) for arm in arms], even, 60)) == rows(
        reciprocal_rank_fusion([keys_of(*arm) for arm in others], even, 60)
    )


def test_the_same_ranks_in_any_order_are_the_same_score() -> None:
    rankings = [np.roll(np.arange(7), -turn) for turn in range(7)]
    keys, scores = reciprocal_rank_fusion(rankings, [1] * 7, 60)
    assert len(set(scores.tolist())) == 1  # though floats that are added in turn differ
    assert keys.tolist() == list(range(7))


def test_what_two_rankings_found_comes_before_what_one_has_first() -> None:
    fused = reciprocal_rank_fusion([keys_of(1, 2), keys_of(3, 2)], [1, 1], 60)
    assert rows(fused) == [(2, 2 / 62), (1, 1 / 61), (3, 1 / 61)]


def test_a_ranking_of_weight_0_finds_nothing() -> None:
    first, second = keys_of(1, 2), keys_of(3, 2)
    assert [key for key, _ in rows(reciprocal_rank_fusion([first, second], [1, 0], 60))] == [1, 2]
    by_score = relative_score_fusion([scored({1: 2, 2: 1}), scored({3: 9, 2: 8})], [0, 1])
    assert rows(by_score) == [(3, 1), (2, 0)]
    assert rows(reciprocal_rank_fusion([first, second], [0, 0], 60)) == []


def test_a_ranking_that_found_nothing_leaves_the_other_as_it_is() -> None:
    fused = reciprocal_rank_fusion([keys_of(), keys_of(7, 5)], [1, 2], 60)
    assert rows(fused) == [(7, 2 / 61), (5, 2 / 62)]
    assert rows(relative_score_fusion([scored({}), scored({7: 3, 5: 1})], [1, 2])) == [
        (7, 2),
        (5, 0),
    ]


def test_a_single_result_and_equal_ones_count_as_the_best() -> None:
    assert rows(relative_score_fusion([scored({4: -0.2})], [0.5])) == [(4, 0.5)]
    assert rows(relative_score_fusion([scored({9: 2.5, 4: 2.5})], [1])) == [(4, 1), (9, 1)]


def test_weaviates_own_example_is_normalized_as_it_says() -> None:
    normalized = normalize_scores(np.array([1.0, 8.0, 6.0, 11.0]))
    assert normalized.tolist() == pytest.approx([0, 0.7, 0.5, 1])


def test_as_many_weights_as_rankings_are_needed() -> None:
    with pytest.raises(ValueError, match="zip"):
        reciprocal_rank_fusion([keys_of(1)], [1, 1], 60)


@settings(deadline=None)
@given(documents=st.lists(st.integers(0, 6), max_size=30))
def test_each_document_is_ranked_by_its_best_chunk(documents: list[int]) -> None:
    count = len(documents)
    ranking = Ranking(
        np.arange(100, 100 + count), np.array(documents, np.int64), -np.arange(float(count))
    )
    first: dict[int, int] = {}
    for position, document in enumerate(documents):
        first.setdefault(document, position)
    best = best_of_documents(ranking)
    assert best.documents.tolist() == list(first)
    assert best.chunks.tolist() == [100 + position for position in first.values()]
    assert best.scores.tolist() == [-position for position in first.values()]


def test_of_nothing_nothing_is_best() -> None:
    assert len(best_of_documents(EMPTY)) == 0
