"""BM25 against the formula, term by term."""

import math

import numpy as np
import pytest

from memoryd.vectors.bm25 import (
    MAX_FREQUENCY,
    PACK_SIZE,
    inverse_document_frequency,
    pack_weights,
    score,
    unpack_frequencies,
)


def test_packed_frequencies_come_back() -> None:
    rng = np.random.default_rng(1)
    frequencies = rng.integers(0, MAX_FREQUENCY + 1, (PACK_SIZE, 500))
    frequencies[:, 0] = MAX_FREQUENCY
    # As pgvector sums them up, in single precision.
    packed = np.float32(pack_weights(PACK_SIZE)) @ frequencies.astype(np.float32)
    assert packed.dtype == np.float32
    unpacked = unpack_frequencies(packed.astype(np.float64), PACK_SIZE)
    assert np.array_equal(unpacked, frequencies)


def test_fewer_terms_than_fit_are_unpacked() -> None:
    assert unpack_frequencies(np.array([0.0, 15 + 16 * 3]), 2).tolist() == [[0, 15], [0, 3]]
    assert unpack_frequencies(np.zeros(0), 2).shape == (2, 0)


@pytest.mark.parametrize(
    ("total", "containing", "idf"),
    [
        (10, 1, math.log(1 + 9.5 / 1.5)),
        (10, 10, math.log(1 + 0.5 / 10.5)),
        (10, 0, math.log(1 + 10.5 / 0.5)),
        (10, 12, math.log(1 + 0.5 / 10.5)),
        (0, 0, math.log(1 + 1.5 / 0.5)),
        (0, -1, math.log(1 + 1.5 / 0.5)),
    ],
)
def test_rare_terms_weigh_more(total: int, containing: int, idf: float) -> None:
    assert inverse_document_frequency(total, containing) == pytest.approx(idf)


def test_scores_are_those_of_the_formula() -> None:
    frequencies = np.array([[1.0, 0, 3], [2, 0, 0]])
    lengths = np.array([10, 20, 40])
    weights, mean = [0.5, 2.0], 20.0
    expected = [
        sum(
            weight * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / mean))
            for weight, tf in zip(weights, column, strict=True)
        )
        for column, length in zip(frequencies.T.tolist(), lengths.tolist(), strict=True)
    ]
    assert score(frequencies, lengths, weights, mean).tolist() == pytest.approx(expected)
    assert score(frequencies, lengths, weights, mean)[1] == 0


def test_a_score_is_the_same_whatever_else_is_scored() -> None:
    rng = np.random.default_rng(2)
    frequencies = rng.integers(0, 16, (40, 1_000)).astype(np.float64)
    lengths, weights = rng.integers(1, 500, 1_000), rng.random(40).tolist()
    together = score(frequencies, lengths, weights, 100.0)
    for at in range(0, 1_000, 7):
        alone = score(frequencies[:, at : at + 3], lengths[at : at + 3], weights, 100.0)
        assert alone.tolist() == together[at : at + 3].tolist()


def test_texts_without_words_and_a_mean_of_zero_are_no_error() -> None:
    scores = score(np.array([[0.0, 1.0]]), np.array([0, 1]), [1.0], 0.0)
    assert scores[0] == 0
    assert np.isfinite(scores).all()
