"""Texts in, vectors out: the models that are loaded, each behind a queue of its own."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self

from memoryd.embeddings.batcher import Batcher
from memoryd.embeddings.types import Backend, ModelSpec, Tokens
from memoryd.errors import InputTooLongError, StoppingError, TooLargeError
from memoryd.vectors.similarity import normalize
from memoryd.vectors.types import Vectors

# Tokens per encode: from 256 to 512 the speed is best, and each context's buffers stay small.
_BATCH_TOKENS = 512
_BATCH_SEQUENCES = 256
_QUERY_SEQUENCES = 8
# Up to this many characters, tokenizing is too short to be worth a thread.
_INLINE_CHARS = 4096
# A body of 64 MiB can hold 20 million empty strings; their vectors, and their JSON, must fit into
# memory. 2,048 inputs do for models of up to 4,096 dimensions.
_MAX_VECTOR_BYTES = 32 << 20
# Characters of a query beyond which no more tokens are expected: text has about four per token.
_CHARS_PER_TOKEN = 16


@dataclass(frozen=True)
class Embeddings:
    """Hold the vectors of some inputs and what they cost."""

    vectors: Vectors
    """Shape (inputs, dimensions), rows of length 1."""
    token_count: int
    """Tokens that the model saw: special ones included, after truncation."""
    truncated: int
    """How many inputs were cut."""


class EmbeddingModel:
    """Be one loaded model: its tokenizer, its lanes, its queue."""

    def __init__(self, spec: ModelSpec, backend: Backend, max_waiting_requests: int) -> None:
        """Open one bulk lane per core and the query lane."""
        self.spec = spec
        self.dimensions = backend.dimensions
        self.max_tokens = backend.max_tokens
        self.special_tokens = backend.special_tokens
        self._backend = backend
        self._is_closing = False
        self._tokenizing = ThreadPoolExecutor(2, thread_name_prefix="tokenizing")
        tokens = max(_BATCH_TOKENS, backend.max_tokens)
        self._batcher = Batcher(
            [
                backend.open_lane(tokens, _BATCH_SEQUENCES)
                for _ in range(len(os.sched_getaffinity(0)))
            ],
            backend.open_lane(min(_BATCH_TOKENS, tokens), _QUERY_SEQUENCES),
            dimensions=backend.dimensions,
            max_waiting_requests=max_waiting_requests,
        )

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` has, without special ones."""
        return len(self._backend.tokenize(text))

    def encode_document(self, title: str, text: str) -> Tokens:
        """Return the model's input for a chunk of a document: prefix, title, text."""
        body = f"{title}\n\n{text}" if title else text
        return self._backend.wrap(self._backend.tokenize(self.spec.document_prefix + body))

    async def embed(
        self, texts: Sequence[str], *, truncate: bool = True, max_tokens: int | None = None
    ) -> Embeddings:
        """Embed `texts`, cut at `max_tokens` (else what the model takes), special tokens kept.

        Raises InputTooLongError for a text that is too long where `truncate` is False,
        TooLargeError for too many texts, OverloadedError where too many requests wait, and what
        Batcher.embed raises.
        """
        self._check_count(len(texts))
        limit = min(max_tokens or self.max_tokens, self.max_tokens)
        with self._batcher.admitted():
            tokenized = await self._tokenize(texts)
            room = limit - self.special_tokens
            lengths = [len(tokens) for tokens in tokenized]
            truncated = sum(length > room for length in lengths)
            if truncated and not truncate:
                raise InputTooLongError(
                    f"the input has {max(lengths) + self.special_tokens} tokens, "
                    f"the model takes {limit}",
                    "input",
                )
            inputs = [self._backend.wrap(tokens[:room]) for tokens in tokenized]
            vectors = await self.embed_inputs(inputs)
        return Embeddings(vectors, sum(map(len, inputs)), truncated)

    async def _tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        if sum(map(len, texts)) <= _INLINE_CHARS:
            return self._tokenize_all(texts)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenizing, self._tokenize_all, texts)

    def _check_count(self, count: int) -> None:
        most = _MAX_VECTOR_BYTES // (4 * self.dimensions)
        if count > most:
            raise TooLargeError(
                f"{count} inputs are too many for one request: send {most} at most", "input"
            )

    def _tokenize_all(self, texts: Sequence[str]) -> list[Tokens]:
        tokenized = []
        for text in texts:
            if self._is_closing:
                raise StoppingError("memoryd is shutting down")
            tokenized.append(self._backend.tokenize(text))
        return tokenized

    async def embed_inputs(self, inputs: Sequence[Tokens]) -> Vectors:
        """Return unit vectors of inputs that `encode_document` made, shape (inputs, dimensions)."""
        return normalize(await self._batcher.embed(inputs))

    async def embed_query(self, text: str) -> Vectors:
        """Return the unit vector of a search query, shape (1, dimensions), ahead of all bulk.

        The query prefix is put in front; a query that is too long is cut. Raises what
        Batcher.embed_query raises.
        """
        text = text[: _CHARS_PER_TOKEN * self.max_tokens]
        tokens = self._backend.tokenize(self.spec.query_prefix + text)
        room = self.max_tokens - self.special_tokens
        return normalize(await self._batcher.embed_query(self._backend.wrap(tokens[:room])))

    def refuse(self) -> None:
        """Answer all that waits, and all that comes, with StoppingError."""
        self._batcher.refuse()

    async def close(self) -> None:
        """Finish what runs and free the model; no thread of it goes on, or it would crash."""
        self._is_closing = True
        await asyncio.to_thread(self._tokenizing.shutdown, cancel_futures=True)
        await self._batcher.close()
        self._backend.close()


class Loader(Protocol):
    """Know the names of models and load them."""

    def resolve(self, name: str) -> str:
        """Return the one name of the model that clients call `name`, or ModelNotFoundError."""
        ...

    async def load(self, name: str) -> tuple[ModelSpec, Backend]:
        """Load the model of that resolved name."""
        ...


class Engine:
    """Keep the loaded models; each is loaded at first use, once however many ask."""

    def __init__(self, loader: Loader, max_waiting_requests: int = 512) -> None:
        """Start with nothing loaded."""
        self._loader = loader
        self._max_waiting = max_waiting_requests
        self._models: dict[str, asyncio.Task[EmbeddingModel]] = {}

    def resolve(self, name: str) -> str:
        """Return the one name of a model, from any of its names, or raise ModelNotFoundError."""
        return self._loader.resolve(name)

    async def model(self, name: str) -> EmbeddingModel:
        """Return the model that clients call `name`, loading it if it isn't.

        Raises ModelNotFoundError, or ModelFileError where its file can't be had; a load that
        failed is tried again at the next call.
        """
        resolved = self.resolve(name)
        task = self._models.get(resolved)
        if task is None or (task.done() and not _has_succeeded(task)):
            task = asyncio.create_task(self._load(resolved))
            self._models[resolved] = task
        return await asyncio.shield(task)  # a caller who leaves doesn't stop it for the others

    def is_loaded(self, name: str) -> bool:
        """Say whether the model of that resolved name is ready."""
        return any(model.spec.name == name for model in self._loaded())

    def refuse(self) -> None:
        """Answer all that waits, and all that comes, for whatever model, with StoppingError."""
        for model in self._loaded():
            model.refuse()

    def _loaded(self) -> list[EmbeddingModel]:
        return [task.result() for task in self._models.values() if _has_succeeded(task)]

    async def _load(self, name: str) -> EmbeddingModel:
        spec, backend = await self._loader.load(name)
        return EmbeddingModel(spec, backend, self._max_waiting)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for task in self._models.values():
            task.cancel()  # no effect on one that is done
        for model in self._loaded():
            await model.close()
        self._models.clear()


def _has_succeeded(task: asyncio.Task[EmbeddingModel]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
