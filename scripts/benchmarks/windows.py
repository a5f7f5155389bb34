"""Windows of one to three sentences over SciFact, with their vectors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.data import read_abstracts, read_claims
from benchmarks.vector_cache import embed_chunks, embed_queries
from memoryd.documents.breaks import Break, Piece, find_pieces
from memoryd.vectors.types import Vectors

COUNT = 100_000
_MOST_SENTENCES = 3
_LEAST_WORDS = 4
_SEED = 7


@dataclass(frozen=True)
class Windows:
    """Hold texts and what they are asked for, each with its vector of length 1."""

    texts: list[str]
    """In the order of the abstracts that they stand in, none twice."""
    vectors: Vectors
    """Shape (texts, dimensions)."""
    claims: list[str]
    claim_vectors: Vectors
    """Shape (claims, dimensions)."""


async def load_windows(count: int = COUNT) -> Windows:
    """Return `count` windows, or all where there are fewer, and the claims."""
    texts = cut_windows(count)
    claims = list(dict.fromkeys(claim.text for claim in read_claims()))
    vectors = await embed_chunks("windows", [("", text) for text in texts])
    return Windows(texts, vectors, claims, await embed_queries("claims", claims))


def cut_windows(count: int) -> list[str]:
    """Return `count` windows, or all where there are fewer, in the order of the corpus.

    They are always the same ones.
    """
    every = list(dict.fromkeys(_every_window()))
    chosen = np.random.default_rng(_SEED).choice(len(every), min(count, len(every)), replace=False)
    return [every[row] for row in np.sort(chosen)]


def _every_window() -> Iterator[str]:
    for abstract in read_abstracts():
        text = abstract["text"].strip()
        sentences = list(find_pieces(text, Piece(0, len(text), Break.PARAGRAPH), "text"))
        for start, first in enumerate(sentences):
            for last in sentences[start : start + _MOST_SENTENCES]:
                window = text[first.start : last.end]
                if len(window.split()) >= _LEAST_WORDS:
                    yield window
