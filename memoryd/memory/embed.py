"""Embed texts for clients that keep the vectors themselves."""

from collections.abc import Sequence
from dataclasses import replace

from memoryd.embeddings.engine import Embeddings
from memoryd.memory.state import Memory
from memoryd.vectors.similarity import shorten


async def embed(
    memory: Memory,
    model_name: str,
    texts: Sequence[str],
    *,
    truncate: bool = True,
    dimensions: int | None = None,
    max_tokens: int | None = None,
) -> Embeddings:
    """Return unit vectors of `texts`, their first `dimensions` numbers where that is fewer.

    Raises ModelNotFoundError, and what EmbeddingModel.embed raises.
    """
    model = await memory.engine.model(model_name)
    embeddings = await model.embed(texts, truncate=truncate, max_tokens=max_tokens)
    if dimensions is None:
        return embeddings
    return replace(embeddings, vectors=shorten(embeddings.vectors, dimensions))
