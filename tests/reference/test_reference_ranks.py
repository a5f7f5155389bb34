"""Scores of converted rerankers beside those of their authors' implementations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import encode_alone, load, make_gguf
from tiny_models import RANK_KINDS

from memoryd.models.conversion.qwen3 import RERANK_TEMPLATE
from memoryd.models.weights import WEIGHT_TYPES, WeightType

pytest.importorskip("sentence_transformers", reason="requirements/reference.lock isn't installed")

from authors import Vectors, authors_folder, chances_of_yes, scores_of, tokenizer_of

QUERIES = ("why is the sky blue?", "capitals of countries")
DOCUMENTS = (
    "the quick brown fox jumps over the lazy dog",
    "the sky is blue because of light and water",
    "Berlin Paris London Tokyo",
    "documents are found by meaning",
    "Élan vital, 日本語, 100%",
    "the cat sat on the mat while it rained",
    "money",
    "",
    "yes",
    "no no no",
    "many people living in them kept lending money",
    "tokens of a sentence: 1, 2, 3",
)
PAIRS = tuple((query, document) for query in QUERIES for document in DOCUMENTS)
MOST_WRONG: dict[WeightType, float] = {"f32": 0.01, "bf16": 0.03}
"""By how much of the range of all scores one may be wrong."""


def authors_ids(kind: str, folder: Path) -> list[list[int]]:
    tokenizer = tokenizer_of(folder)
    if kind != "qwen3-rank":
        return [tokenizer.encode(query, document).ids for query, document in PAIRS]
    prompts = [RERANK_TEMPLATE.format(query=query, document=document) for query, document in PAIRS]
    return [tokenizer.encode(prompt).ids for prompt in prompts]


def authors_scores(kind: str, folder: Path, inputs: Sequence[Sequence[int]]) -> Vectors:
    return chances_of_yes(folder, inputs) if kind == "qwen3-rank" else scores_of(folder, inputs)


def apart(scores: Vectors, distance: float) -> list[int]:
    """Return places of scores, the lowest first, each more than `distance` above the last."""
    chosen: list[int] = []
    for place in np.argsort(scores):
        if not chosen or scores[place] - scores[chosen[-1]] > distance:
            chosen.append(int(place))
    return chosen


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
@pytest.mark.parametrize("kind", RANK_KINDS)
def test_documents_rank_as_their_authors_rank_them(
    tmp_path: Path, kind: str, weight_type: WeightType
) -> None:
    model = make_gguf(kind, tmp_path, weight_type)
    inputs = authors_ids(kind, model.folder)
    with load(model) as backend:
        # Qwen3's second score is the rest to 1.
        scores = encode_alone(backend, inputs)[:, 0]
    exact = authors_scores(kind, authors_folder(model.folder, tmp_path / "authors"), inputs)
    most_wrong = MOST_WRONG[weight_type] * np.ptp(exact)
    assert np.abs(scores - exact).max() <= most_wrong
    ranked = apart(exact, 2 * most_wrong)
    assert len(ranked) >= 5
    assert list(np.argsort(scores[ranked])) == list(range(len(ranked)))


@pytest.mark.parametrize("kind", RANK_KINDS)
def test_pairs_are_put_together_as_their_authors_do(tmp_path: Path, kind: str) -> None:
    model = make_gguf(kind, tmp_path, "f32")
    with load(model) as backend:
        joined = [backend.join(query, document, 10_000)[0] for query, document in PAIRS]
    assert [list(map(int, ids)) for ids in joined] == authors_ids(kind, model.folder)
