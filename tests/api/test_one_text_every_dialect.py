"""One text through every dialect is the same vector."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from wire import Client

from memoryd.embeddings.model import EmbeddingModel

TEXTS = ["why is the sky blue?", "", "Élan vital — 日本語 🤗", "the cat sat on the mat. " * 200]

Vector = npt.NDArray[Any]


def _decoded(data: str) -> Vector:
    return np.frombuffer(base64.b64decode(data), dtype="<f4")


@dataclass(frozen=True)
class Way:
    """Ask for a text's vector in one dialect."""

    path: str
    body: Callable[[str], dict[str, Any]]
    read: Callable[[Any], Any]


def _openai(body: Any) -> Any:
    return body["data"][0]["embedding"]


def _named(**fields: str) -> Callable[[str], dict[str, Any]]:
    """Return what makes the body that has the text where `fields` have "TEXT"."""
    return lambda text: {key: text if value == "TEXT" else value for key, value in fields.items()}


OPENAI = _named(model="all-minilm", input="TEXT")
BASE64 = _named(model="all-minilm", input="TEXT", encoding_format="base64")
WAYS = {
    "ollama": Way(
        "/api/embed",
        lambda text: {"model": "all-minilm", "input": [text]},  # "" alone would only load the model
        lambda body: body["embeddings"][0],
    ),
    "openai": Way("/v1/embeddings", OPENAI, _openai),
    "openai in base64": Way("/v1/embeddings", BASE64, lambda body: _decoded(_openai(body))),
    "azure": Way("/openai/deployments/all-minilm/embeddings", _named(input="TEXT"), _openai),
    "localai": Way("/v1/engines/all-minilm/embeddings", _named(input="TEXT"), _openai),
    "aleph alpha": Way("/embeddings", OPENAI, _openai),
    "aleph alpha in base64": Way("/embeddings", BASE64, lambda body: _decoded(_openai(body))),
    "aleph alpha's semantic embedding": Way(
        "/semantic_embed",
        lambda text: {"prompt": text, "representation": "symmetric", "normalize": True},
        lambda body: body["embedding"],
    ),
    "llama.cpp": Way("/embedding", _named(content="TEXT"), lambda body: body[0]["embedding"][0]),
    "llama.cpp beside openai": Way(
        "/embeddings", _named(content="TEXT"), lambda body: body[0]["embedding"][0]
    ),
    "tei": Way("/embed", _named(inputs="TEXT"), lambda body: body[0]),
    "tei at the root": Way("/", _named(inputs="TEXT"), lambda body: body[0]),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_one_text_is_the_same_vector(
    real_client: Client, minilm: EmbeddingModel, way: Way
) -> None:
    for text in TEXTS:
        expected = (await minilm.embed([text])).vectors[0].astype(np.float64)
        answer = await real_client.post(way.path, way.body(text))
        vector = np.array(way.read(answer.ok()), dtype=np.float64)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert vector @ expected / np.linalg.norm(vector) / np.linalg.norm(expected) >= 0.99999


async def test_ollamas_old_route_gives_it_too(real_client: Client, minilm: EmbeddingModel) -> None:
    for text in filter(None, TEXTS[:3]):
        [expected] = (await minilm.embed([text])).vectors
        body = {"model": "all-minilm", "prompt": text}
        vector = np.array((await real_client.post("/api/embeddings", body)).ok()["embedding"])
        assert vector @ expected / np.linalg.norm(vector) >= 0.99999


async def test_a_documents_similarity_is_the_cosine_of_these(
    real_client: Client, minilm: EmbeddingModel
) -> None:
    first, *others = (await minilm.embed(TEXTS)).vectors
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    cosines = (await real_client.post("/similarity", {"inputs": inputs})).ok()
    assert np.allclose(cosines, [first @ other for other in others], atol=1e-5)
    inputs = {"source_sentence": "cat", "sentences": ["cat"]}
    [same] = (await real_client.post("/similarity", {"inputs": inputs})).ok()
    assert 0.99999 < same <= 1
