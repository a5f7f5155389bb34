"""One loaded model: texts or tokens in, vectors or scores out."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np

from memoryd.embeddings.batcher import Batcher
from memoryd.embeddings.lanes import Lanes
from memoryd.embeddings.types import Backend, Input, ModelSpec, Pooling, Tokens
from memoryd.errors import (
    InputTooLongError,
    InvalidInputError,
    ModelKindError,
    StoppingError,
    TooLargeError,
)
from memoryd.vectors.similarity import normalize
from memoryd.vectors.types import Vectors

# Up to this many characters, tokenizing is too short to be worth a thread.
_INLINE_CHARS = 4096
# A body of 64 MiB can hold 20 million empty strings; their vectors, and their JSON, must fit into
# memory. 2,048 inputs do for models of up to 4,096 dimensions.
_MAX_VECTOR_BYTES = 32 << 20
_MAX_TOKEN_VECTOR_BYTES = 256 << 20
# What a call of the tokenizer costs, in characters.
_CALL_CHARS = 16
_TITLE, _NO_TITLE, _INSTRUCTION = "{title}", "none", "{instruction}"
LONG_INPUT_BYTES = 8 << 30

T = TypeVar("T")


@dataclass(frozen=True)
class Embeddings:
    """Hold the vectors of some inputs and what they cost."""

    vectors: Vectors
    """Shape (inputs, dimensions), rows of length 1 where nothing else was asked for."""
    token_count: int
    """Tokens that the model saw: special ones included, after truncation."""
    truncated: int
    """How many inputs were cut."""


@dataclass(frozen=True)
class TokenEmbeddings:
    """Hold a vector for each token of some inputs, special ones included, not normalized."""

    vectors: list[Vectors]
    """Shape (tokens, dimensions) each."""
    token_count: int
    truncated: int


@dataclass(frozen=True)
class Scores:
    """Hold how well documents answer a query, as the model's head says it."""

    scores: Vectors
    """Shape (documents,), higher is better."""
    token_count: int
    truncated: int


class EmbeddingModel:
    """Be one loaded model: its tokenizer, its lanes, its queue."""

    def __init__(
        self,
        spec: ModelSpec,
        backend: Backend,
        lanes: Lanes,
        *,
        max_waiting_requests: int = 512,
        long_input_bytes: int = LONG_INPUT_BYTES,
        apart: asyncio.Lock | None = None,
    ) -> None:
        """Start the lanes' threads.

        An input for which a lane would take more than `long_input_bytes` counts as too long. Who
        makes such a lane holds `apart` meanwhile, which models can share.
        """
        self.spec = spec
        self.pooling = backend.pooling
        self.dimensions = backend.dimensions
        self.max_tokens = min(
            spec.max_tokens or backend.max_tokens,
            _longest_input(backend, backend.pooling, long_input_bytes),
        )
        self._long_input_bytes = long_input_bytes
        self.special_tokens = len(backend.before) + len(backend.after)
        self._vocabulary_size = backend.vocabulary_size
        self._backend = backend
        self._lanes = lanes
        self._is_closing = False
        self._tokenizing = ThreadPoolExecutor(2, thread_name_prefix="tokenizing")
        self._batcher = Batcher(
            backend, lanes, max_waiting_requests=max_waiting_requests, apart=apart
        )

    @property
    def memory_bytes(self) -> int:
        """What weights and lanes hold now."""
        return self._backend.weights_bytes + self._lanes.memory_bytes

    def is_trained_for(self, dimensions: int) -> bool:
        """Say whether the model was trained for vectors of that width."""
        least = self.spec.min_dimensions or self.dimensions
        is_in_range = least <= dimensions <= self.dimensions
        return is_in_range or dimensions in self.spec.trained_dimensions

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` has, without special ones."""
        return len(self._tokenize(text))

    def encode_document(self, title: str, text: str) -> Tokens:
        """Return the model's input for a chunk of a document: prefix, title, text."""
        prefix = self.spec.document_prefix
        if _TITLE in prefix:
            return self._encode(prefix.replace(_TITLE, title or _NO_TITLE) + text)
        body = f"{title}\n\n{text}" if title else text
        return self._encode(prefix + body)

    def prefix(self, prompt: str | None = None, instruction: str | None = None) -> str:
        """Return what the model wants before a text: of a query, a document, or nothing.

        `prompt` is "query", "document" or None; `instruction` says what a query is for. Raises
        InvalidInputError for what the model doesn't have.
        """
        if prompt not in (None, "query", "document"):
            raise InvalidInputError("prompt_name must be 'query' or 'document'", "prompt_name")
        if instruction is not None and (
            prompt == "document" or _INSTRUCTION not in self.spec.query_prefix
        ):
            whose = "documents take" if prompt == "document" else f"{self.spec.name} takes"
            raise InvalidInputError(f"{whose} no instruction", "instruction")
        if prompt == "document":
            return self.spec.document_prefix.replace(_TITLE, _NO_TITLE)
        if prompt is None and instruction is None:
            return ""
        return self.spec.query_prefix.replace(_INSTRUCTION, instruction or self.spec.instruction)

    async def embed(
        self,
        inputs: Sequence[Input],
        *,
        prefix: str = "",
        truncate: bool = True,
        max_tokens: int | None = None,
        norm: int = 2,
    ) -> Embeddings:
        """Embed `inputs`, cut at `max_tokens` (else what the model takes), special tokens kept.

        `prefix` is put before each text; `norm` is as in `normalize`. Token ids are taken as they
        are, nothing is added. Raises InvalidInputError for ids that aren't the model's,
        InputTooLongError for an input that is too long where `truncate` is False, TooLargeError
        for too many inputs, OverloadedError where too many requests wait, ModelKindError for a
        model that gives no such vectors, and what Batcher.embed raises.
        """
        self._check_gives_vectors()
        self._check_count(len(inputs))
        with self._batcher.admitted():
            limit = min(max_tokens or self.max_tokens, self.max_tokens)
            encoded = await self._encode_all(inputs, prefix, limit if truncate else None)
            cut, truncated = self._fit(encoded, truncate, limit)
            vectors = await self._batcher.embed(cut)
        stacked = np.stack(vectors) if vectors else self._no_vectors()
        return Embeddings(normalize(stacked, norm), sum(map(len, cut)), truncated)

    def _check_gives_vectors(self) -> None:
        if self.pooling == "rank":
            raise ModelKindError(f"{self.spec.name} is a reranker: it gives scores, not embeddings")
        if self.pooling == "none":
            raise ModelKindError(
                f"{self.spec.name} gives a vector per token: pooling 'none' has none for a text"
            )

    def _no_vectors(self) -> Vectors:
        return np.empty((0, self.dimensions), dtype=np.float32)

    async def embed_tokens(
        self,
        inputs: Sequence[Input],
        *,
        prefix: str = "",
        truncate: bool = True,
        max_tokens: int | None = None,
    ) -> TokenEmbeddings:
        """Return a vector for each token of `inputs`, whatever the model's pooling.

        Raises what `embed` raises.
        """
        if self.pooling == "rank":
            self._check_gives_vectors()
        self._check_count(len(inputs))
        longest = _longest_input(self._backend, "none", self._long_input_bytes)
        limit = min(max_tokens or self.max_tokens, self.max_tokens, longest)
        with self._batcher.admitted():
            encoded = await self._encode_all(inputs, prefix, limit if truncate else None)
            cut, truncated = self._fit(encoded, truncate, limit)
            count = sum(map(len, cut))
            if 4 * self.dimensions * count > _MAX_TOKEN_VECTOR_BYTES:
                raise TooLargeError(f"{count} tokens are too many for one request", "input")
            if self.pooling == "none":
                vectors = await self._batcher.embed(cut)
            else:
                vectors = await self._batcher.embed_apart(cut, "none", range(len(cut)))
        return TokenEmbeddings(vectors, count, truncated)

    async def rerank(
        self, query: str, documents: Sequence[str], *, truncate: bool = True
    ) -> Scores:
        """Score how well each of `documents` answers `query`.

        A pair that is too long loses the end of its document, and of a long query the half. Raises
        ModelKindError for a model that is no reranker, and what `embed` raises.
        """
        if self.pooling != "rank":
            raise ModelKindError(f"{self.spec.name} is no reranker: it gives embeddings")
        self._check_count(len(documents), "documents")
        with self._batcher.admitted():
            pairs = await self._in_thread(
                sum(map(len, documents)) + len(query) * len(documents),
                lambda: [self._join(query, document) for document in documents],
            )
            truncated = [at for at, (_tokens, cut) in enumerate(pairs) if cut]
            if truncated and not truncate:
                at = truncated[0]
                raise self._too_long(f"documents[{at}]", len(pairs[at][0]) + pairs[at][1])
            tokens = [pair for pair, _cut in pairs]
            rows = await self._batcher.embed(tokens)
        scores = np.array([row[0] for row in rows], dtype=np.float32)
        return Scores(scores, sum(map(len, tokens)), len(truncated))

    def _join(self, query: str, document: str) -> tuple[Tokens, int]:
        self._check_going_on()
        return self._backend.join(query, document, self.max_tokens)

    def _check_count(self, count: int, param: str = "input") -> None:
        most = _MAX_VECTOR_BYTES // (4 * self.dimensions)
        if count > most:
            raise TooLargeError(
                f"{count} inputs are too many for one request: send {most} at most", param
            )

    async def _encode_all(
        self, inputs: Sequence[Input], prefix: str, max_tokens: int | None
    ) -> list[Tokens]:
        size = sum(map(_count_chars, inputs)) + (len(prefix) + _CALL_CHARS) * len(inputs)
        return await self._in_thread(
            size,
            lambda: [
                self._encode_input(at, item, prefix, max_tokens) for at, item in enumerate(inputs)
            ],
        )

    async def _in_thread(self, size_chars: int, work: Callable[[], T]) -> T:
        """Return what `work` returns; it runs in a thread where it takes long."""
        self._check_going_on()
        if size_chars <= _INLINE_CHARS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def _encode_input(self, at: int, item: Input, prefix: str, max_tokens: int | None) -> Tokens:
        if isinstance(item, str):
            tokens = self._encode(prefix + item, max_tokens)
        elif prefix:
            raise InvalidInputError(
                f"input[{at}] is tokens, and a prefix is put before texts alone", f"input[{at}]"
            )
        else:
            tokens = self._encode_parts(at, item)
        if not len(tokens):
            raise InvalidInputError(
                f"input[{at}] is empty: the model has nothing to see", f"input[{at}]"
            )
        return tokens

    def _check_going_on(self) -> None:
        if self._is_closing:
            raise StoppingError()

    def _encode(self, text: str, max_tokens: int | None = None) -> Tokens:
        """Return the tokens of a text between the special ones; those beyond a limit may lack."""
        tokens = self._tokenize(text, max_tokens)
        return np.concatenate((self._backend.before, tokens, self._backend.after))

    def _tokenize(self, text: str, max_tokens: int | None = None) -> Tokens:
        self._check_going_on()
        return self._backend.tokenize(text, max_tokens)

    def _encode_parts(self, at: int, parts: Sequence[int | str]) -> Tokens:
        """Return token ids as they are, with the texts among them tokenized.

        As in llama.cpp (tokenize_mixed in server-common.cpp), a text that comes first gets special
        tokens, and no other does.
        """
        tokens = [np.empty(0, dtype=np.int32)]
        for are_texts, group in groupby(parts, key=lambda part: isinstance(part, str)):
            if are_texts:
                tokens += [self._tokenize(str(text)) for text in group]
            else:
                tokens.append(self._checked_ids(at, [int(part) for part in group]))
        if parts and isinstance(parts[0], str):
            tokens[1] = np.concatenate((self._backend.before, tokens[1], self._backend.after))
        return np.concatenate(tokens)

    def _checked_ids(self, at: int, ids: Sequence[int]) -> Tokens:
        wrong = [token for token in (min(ids), max(ids)) if not 0 <= token < self._vocabulary_size]
        if not wrong:
            return np.array(ids, dtype=np.int32)
        raise InvalidInputError(
            f"input[{at}]: {wrong[0]} is no token of {self.spec.name}, whose ids end at "
            f"{self._vocabulary_size - 1}. With LangChain's OpenAIEmbeddings pass "
            "check_embedding_ctx_length=False, so that it sends texts",
            f"input[{at}]",
        )

    def _fit(
        self, encoded: Sequence[Tokens], truncate: bool, limit: int
    ) -> tuple[list[Tokens], int]:
        """Cut inputs that are longer than `limit`, and return how many there were."""
        too_long = [at for at, tokens in enumerate(encoded) if len(tokens) > limit]
        if too_long and not truncate:
            at = too_long[0]
            raise self._too_long(f"input[{at}]", len(encoded[at]), limit)
        return [self._cut(tokens, limit) for tokens in encoded], len(too_long)

    def _too_long(self, name: str, count: int, limit: int | None = None) -> InputTooLongError:
        return InputTooLongError(
            f"{name} has {count} tokens, the model takes {limit or self.max_tokens}", name
        )

    def _cut(self, tokens: Tokens, limit: int) -> Tokens:
        """Return the first `limit` of `tokens`, the special ones at the end kept."""
        if len(tokens) <= limit:
            return tokens
        after = self._backend.after
        ends = (
            len(after) > 0 and len(after) < limit and np.array_equal(tokens[-len(after) :], after)
        )
        if not ends:
            return tokens[:limit]
        return np.concatenate((tokens[: limit - len(after)], after))

    async def embed_inputs(self, inputs: Sequence[Tokens]) -> Vectors:
        """Return unit vectors of inputs that `encode_document` made, shape (inputs, dimensions)."""
        if not inputs:
            return self._no_vectors()
        return normalize(np.stack(await self._batcher.embed(inputs)))

    async def embed_query(self, text: str, instruction: str | None = None) -> Vectors:
        """Return the unit vector of a search query, shape (1, dimensions), ahead of all bulk.

        The query prefix is put in front; a query that is too long is cut. Raises InvalidInputError
        for an instruction that the model doesn't take, and what Batcher.embed_query raises.
        """
        self._check_gives_vectors()
        asked = self.prefix("query", instruction) + text
        tokens = await self._in_thread(len(asked), lambda: self._encode(asked, self.max_tokens))
        vector = await self._batcher.embed_query(self._cut(tokens, self.max_tokens))
        return normalize(vector[None])

    def refuse(self) -> None:
        """Answer all that waits, and all that comes, with StoppingError."""
        self._batcher.refuse()

    async def close(self) -> None:
        """End what runs and free the model; no thread of it goes on, or it would crash."""
        self._is_closing = True
        await asyncio.to_thread(self._tokenizing.shutdown)  # what waits there ends at once
        await self._batcher.close()
        self._backend.close()


def _count_chars(item: Input) -> int:
    if isinstance(item, str):
        return len(item)
    return sum(len(part) if isinstance(part, str) else 1 for part in item)


def _longest_input(backend: Backend, pooling: Pooling, most_bytes: int) -> int:
    """Return the longest input for which a lane takes `most_bytes` at most."""
    fits, too_long = 1, backend.max_tokens + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if backend.estimate_lane_bytes(middle, pooling) <= most_bytes:
            fits = middle
        else:
            too_long = middle
    return fits
