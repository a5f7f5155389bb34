"""Vectors of converted models beside those of their authors' implementations, from token ids."""

from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import convert_tiny, encode_alone, load, make_gguf
from tiny_models import EMBEDDING_KINDS

from memoryd.embeddings.llama import LlamaBackend
from memoryd.models.weights import WeightType

pytest.importorskip("sentence_transformers", reason="requirements/reference.lock isn't installed")

from authors import Vectors, authors_folder, save_anew, vectors_of

LENGTHS = (1, 2, 3, 8, 17, 40, 90, 126)
LEAST_COSINES: dict[WeightType, float] = {"f32": 0.99999, "bf16": 0.999}


def cosines(left: Vectors, right: Vectors) -> Vectors:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / lengths)


def random_inputs(backend: LlamaBackend) -> list[list[int]]:
    """Return ids of ordinary tokens, of all lengths, between the special ones."""
    random = np.random.default_rng(1)
    ordinary = sorted({int(id_) for text in TEXTS for id_ in backend.tokenize(text)})
    return [
        [int(id_) for id_ in (*backend.before, *random.choice(ordinary, length), *backend.after)]
        for length in LENGTHS
    ]


TEXTS = (
    "the quick brown fox jumps over the lazy dog and why is the sky blue",
    "abcdefghijklmnopqrstuvwxyz 0123456789 !?.,;: ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "áàâäãåçéè αβγδε абвгд 日本語文章中国",
)


@pytest.mark.parametrize("weight_type", LEAST_COSINES)
@pytest.mark.parametrize("kind", EMBEDDING_KINDS)
def test_vectors_are_those_of_the_authors(
    tmp_path: Path, kind: str, weight_type: WeightType
) -> None:
    model = make_gguf(kind, tmp_path, weight_type)
    with load(model) as backend:
        inputs = random_inputs(backend)
        vectors = encode_alone(backend, inputs)
    exact = vectors_of(authors_folder(model.folder, tmp_path / "authors"), inputs)
    assert cosines(vectors, exact).min() >= LEAST_COSINES[weight_type]


@pytest.mark.parametrize("kind", EMBEDDING_KINDS)
def test_a_folder_that_the_authors_code_has_saved_gives_the_same(tmp_path: Path, kind: str) -> None:
    model = make_gguf(kind, tmp_path, "f32")
    saved = save_anew(authors_folder(model.folder, tmp_path / "authors"), tmp_path / "saved")
    again = convert_tiny(kind, saved, tmp_path / "again.gguf", "f32")
    with load(model) as backend, load(again) as other:
        inputs = random_inputs(backend)
        assert random_inputs(other) == inputs
        assert np.array_equal(encode_alone(other, inputs), encode_alone(backend, inputs))
        assert (other.max_tokens, other.pooling) == (backend.max_tokens, backend.pooling)


@pytest.mark.parametrize("kind", EMBEDDING_KINDS)
def test_the_tiny_models_notice_the_order_of_tokens(tmp_path: Path, kind: str) -> None:
    model = make_gguf(kind, tmp_path, "f32")
    with load(model) as backend:
        inputs = random_inputs(backend)
        turned = [[ids[0], *ids[-2:0:-1], ids[-1]] for ids in inputs]
        vectors, others = encode_alone(backend, inputs), encode_alone(backend, turned)
    assert cosines(vectors, others)[3:].max() < 0.999
