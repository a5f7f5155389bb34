"""Vectors of queries: who searches for the same as others needs no embedding of their own."""

import asyncio
import sys
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from memoryd.embeddings.engine import Engine
from memoryd.embeddings.model import EmbeddingModel
from memoryd.models.downloads import Progress
from memoryd.models.single_flight import SingleFlight
from memoryd.vectors.types import Vector

# What Python takes for an entry beside its numbers and its characters.
_ENTRY_BYTES = 512
# A text that would take more than this share is not worth all that would go for it.
_LARGEST_SHARE = 1 / 16

_Key: TypeAlias = tuple["weakref.ref[EmbeddingModel]", str]
"""A model as it is loaded, and all that it sees: prefix, instruction and text.

A model that is loaded again, from other files maybe, is another one.
"""


class QueryVectors:
    """Keep the vectors of the queries that were asked last, and embed each once at a time."""

    def __init__(self, most_bytes: int) -> None:
        """Keep up to `most_bytes`, texts and what Python takes for each entry included."""
        self._most_bytes = most_bytes
        self._kept: OrderedDict[_Key, Vector] = OrderedDict()
        self._flights: SingleFlight[Vector] = SingleFlight()
        self.size_bytes = 0
        """What is kept now."""

    def __len__(self) -> int:
        """Return how many vectors are kept."""
        return len(self._kept)

    async def get(
        self, engine: Engine, model_name: str, text: str, instruction: str | None = None
    ) -> Vector:
        """Return the unit vector of a query, shape (dimensions,), which nobody can change.

        `model_name` is the model's own name. Those who ask for the same at once wait for one
        embedding, whoever of them leaves; an error goes to all of them and isn't kept. Raises what
        Engine.pinning and EmbeddingModel.embed_query raise.
        """
        async with engine.pinning(model_name) as model:
            key = (weakref.ref(model), model.prefix("query", instruction) + text)
            kept = self._kept.get(key)
            engine.metrics.query_cache.count(is_hit=kept is not None)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
            embed = partial(self._embed, key, model, text, instruction)
            return await self._flights.run(key, embed, None)

    async def get_many(
        self, engine: Engine, model_name: str, texts: Sequence[str], instruction: str | None = None
    ) -> list[Vector]:
        """Return what `get` does for each text; those that aren't kept are embedded together."""
        asked = (self.get(engine, model_name, text, instruction) for text in texts)
        return await asyncio.gather(*asked)

    async def _embed(
        self,
        key: _Key,
        model: EmbeddingModel,
        text: str,
        instruction: str | None,
        _tell: Progress,
    ) -> Vector:
        vectors = await model.embed_query(text, instruction)
        vectors.setflags(write=False)
        vector: Vector = vectors[0]
        self._keep(key, vector)
        return vector

    def _keep(self, key: _Key, vector: Vector) -> None:
        needed = _size_bytes(key, vector)
        if needed > self._most_bytes * _LARGEST_SHARE:
            return
        self._kept[key] = vector
        self.size_bytes += needed
        while self.size_bytes > self._most_bytes:
            self.size_bytes -= _size_bytes(*self._kept.popitem(last=False))


def _size_bytes(key: _Key, vector: Vector) -> int:
    return _ENTRY_BYTES + sys.getsizeof(key[1]) + vector.nbytes
