"""One loaded model: texts or tokens in, vectors or scores out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memoryd.embeddings.batcher import Batcher
from memoryd.embeddings.lanes import Lanes
from memoryd.embeddings.tokenizer import Tokenizer
from memoryd.embeddings.types import (
    INPUT,
    Backend,
    Input,
    InputField,
    ModelSpec,
    Pooling,
    Side,
    Tokens,
    Tuning,
    cut_at,
    list_field,
)
from memoryd.errors import (
    InputTooLongError,
    InvalidInputError,
    ModelKindError,
    TooLargeError,
)
from memoryd.metrics import ModelMetrics
from memoryd.vectors.similarity import EUCLIDEAN, normalize
from memoryd.vectors.types import Vectors

# A body of 64 MiB can hold 20 million empty strings; their vectors, and their JSON, must fit into
# memory. 2,048 inputs do for models of up to 4,096 dimensions.
_MAX_VECTOR_BYTES = 32 << 20
_MAX_TOKEN_VECTOR_BYTES = 256 << 20
_TITLE, _NO_TITLE, _INSTRUCTION = "{title}", "none", "{instruction}"
_DOCUMENTS = list_field("documents")


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
    are_probabilities: bool
    """Whether the head ends in a softmax, so that they are from 0 to 1."""


class EmbeddingModel:
    """Be one loaded model: its tokenizer, its lanes, its queue."""

    def __init__(
        self,
        spec: ModelSpec,
        backend: Backend,
        lanes: Lanes,
        *,
        max_waiting_requests: int,
        long_input_bytes: int,
        dedicated_turn: asyncio.Lock,
        metrics: ModelMetrics,
    ) -> None:
        """Start the lanes' threads.

        An input for which a lane would take more than `long_input_bytes` counts as too long. Who
        makes such a lane holds `dedicated_turn` meanwhile, which models share.
        """
        self.spec = spec
        self.pooling = backend.pooling
        self.dimensions = backend.dimensions
        self.special_tokens = len(backend.before) + len(backend.after)
        longest = _longest_input(backend, backend.pooling, long_input_bytes)
        self.max_tokens = min(spec.max_tokens or backend.max_tokens, longest)
        self._long_input_bytes = long_input_bytes
        self._backend = backend
        self._lanes = lanes
        self._metrics = metrics
        self.tokenizer = Tokenizer(spec.name, backend, metrics)
        self._batcher = Batcher(backend, lanes, max_waiting_requests, dedicated_turn, metrics)

    @property
    def memory_bytes(self) -> int:
        """What weights and lanes hold now."""
        return self._backend.weights_bytes + self._lanes.memory_bytes

    @property
    def tuning(self) -> Tuning:
        """How its bulk is spread over the cores."""
        return self._lanes.tuning

    @property
    def waiting(self) -> dict[str, tuple[int, int]]:
        """How many requests wait in each queue, and how many tokens of theirs."""
        return self._batcher.waiting

    def is_trained_for(self, dimensions: int) -> bool:
        """Say whether the model was trained for vectors of that width."""
        least = self.spec.min_dimensions or self.dimensions
        is_in_range = least <= dimensions <= self.dimensions
        return is_in_range or dimensions in self.spec.trained_dimensions

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` has, without special ones."""
        return self.tokenizer.count(text)

    def encode_document(self, title: str, text: str) -> Tokens:
        """Return the model's input for a chunk of a document: prefix, title, text."""
        prefix = self.spec.document_prefix
        if _TITLE in prefix:
            return self.tokenizer.encode(prefix.replace(_TITLE, title or _NO_TITLE) + text)
        body = f"{title}\n\n{text}" if title else text
        return self.tokenizer.encode(prefix + body)

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
        side: Side = "right",
        max_tokens: int | None = None,
        norm: int = EUCLIDEAN,
        field: InputField = INPUT,
    ) -> Embeddings:
        """Embed `inputs`, cut at `max_tokens` (else what the model takes), special tokens kept.

        `prefix` is put before each text, what is too long loses tokens on `side`, and `norm` is as
        in `normalize`. Token ids are taken as they are, nothing is added. Errors say where in
        `field` they are: InvalidInputError for ids that aren't the model's, InputTooLongError for
        an input that is too long where `truncate` is False, TooLargeError for too many inputs.
        Raises OverloadedError where too many requests wait, ModelKindError for a model that gives
        no such vectors, and what Batcher.embed raises.
        """
        self._check_gives_vectors()
        self._check_count(len(inputs), field)
        with self._batcher.admitted():
            limit = min(max_tokens or self.max_tokens, self.max_tokens)
            cut, truncated = await self._encode(inputs, prefix, limit, truncate, side, field)
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
        side: Side = "right",
        max_tokens: int | None = None,
        field: InputField = INPUT,
    ) -> TokenEmbeddings:
        """Return a vector for each token of `inputs`, whatever the model's pooling.

        Raises what `embed` raises.
        """
        if self.pooling == "rank":
            self._check_gives_vectors()
        self._check_count(len(inputs), field)
        longest = _longest_input(self._backend, "none", self._long_input_bytes)
        limit = min(max_tokens or self.max_tokens, self.max_tokens, longest)
        with self._batcher.admitted():
            cut, truncated = await self._encode(inputs, prefix, limit, truncate, side, field)
            count = sum(map(len, cut))
            if 4 * self.dimensions * count > _MAX_TOKEN_VECTOR_BYTES:
                raise TooLargeError(f"{count} tokens are too many for one request", field.name)
            if self.pooling == "none":
                vectors = await self._batcher.embed(cut)
            else:
                vectors = await self._batcher.embed_dedicated(cut, "none", range(len(cut)))
        return TokenEmbeddings(vectors, count, truncated)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        truncate: bool = True,
        side: Side = "right",
        field: InputField = _DOCUMENTS,
    ) -> Scores:
        """Score how well each of `documents` answers `query`.

        A pair that is too long loses tokens on `side` of its document, and of a long query, which
        keeps half of the room. Raises ModelKindError for a model that is no reranker, and what
        `embed` raises.
        """
        if self.pooling != "rank":
            raise ModelKindError(f"{self.spec.name} is no reranker: it gives embeddings")
        self._check_count(len(documents), field)
        with self._batcher.admitted():
            pairs = await self.tokenizer.join_all(query, documents, self.max_tokens, side)
            truncated = [at for at, (_tokens, cut) in enumerate(pairs) if cut]
            if truncated and not truncate:
                at = truncated[0]
                count = len(pairs[at][0]) + pairs[at][1]
                raise _too_long(field.item_name(at), count, self.max_tokens)
            tokens = [pair for pair, _cut in pairs]
            self._metrics.truncated_inputs.inc(len(truncated))
            rows = await self._batcher.embed(tokens)
        scores = np.array([row[0] for row in rows], dtype=np.float32)
        count, are_probabilities = sum(map(len, tokens)), self._backend.gives_probabilities
        return Scores(scores, count, len(truncated), are_probabilities)

    def _check_count(self, count: int, field: InputField) -> None:
        most = _MAX_VECTOR_BYTES // (4 * self.dimensions)
        if count > most:
            raise TooLargeError(
                f"{count} inputs are too many for one request: send {most} at most", field.name
            )

    async def _encode(
        self,
        inputs: Sequence[Input],
        prefix: str,
        limit: int,
        truncate: bool,
        side: Side,
        field: InputField,
    ) -> tuple[list[Tokens], int]:
        """Return the tokens of each input, `limit` at most, and how many inputs were cut.

        Raises InputTooLongError for one that is longer, where `truncate` is False.
        """
        # To cut on the left, or to tell how long an input is, takes all of its tokens.
        needed = limit if truncate and side == "right" else None
        encoded = await self.tokenizer.encode_all(inputs, prefix, needed, field)
        if not truncate:
            _refuse_too_long(encoded, limit, field)
        return self._fit(encoded, limit, side)

    def _fit(
        self, encoded: Sequence[Tokens], limit: int, side: Side = "right"
    ) -> tuple[list[Tokens], int]:
        """Cut inputs that are longer than `limit`, and return how many there were."""
        truncated = sum(len(tokens) > limit for tokens in encoded)
        self._metrics.truncated_inputs.inc(truncated)
        return [self._cut(tokens, limit, side) for tokens in encoded], truncated

    def _cut(self, tokens: Tokens, limit: int, side: Side) -> Tokens:
        """Return `limit` of `tokens`, the special ones on the side that is cut kept."""
        if len(tokens) <= limit:
            return tokens
        if side == "left":
            kept = _kept(self._backend.before, tokens[: len(self._backend.before)], limit)
            return np.concatenate((kept, cut_at(tokens, limit - len(kept), side)))
        kept = _kept(self._backend.after, tokens[-len(self._backend.after) :], limit)
        return np.concatenate((cut_at(tokens, limit - len(kept), side), kept))

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
        tokens = await self.tokenizer.encode_query(asked, self.max_tokens)
        [cut], _truncated = self._fit([tokens], self.max_tokens)
        vector = await self._batcher.embed_query(cut)
        return normalize(vector[None])

    def refuse(self) -> None:
        """Answer all that waits, and all that comes, with StoppingError."""
        self._batcher.refuse()

    async def close(self) -> None:
        """End what runs and free the model; no thread of it goes on, or it would crash."""
        await self.tokenizer.close()
        await self._batcher.close()
        self._backend.close()


def _refuse_too_long(encoded: Sequence[Tokens], limit: int, field: InputField) -> None:
    for at, tokens in enumerate(encoded):
        if len(tokens) > limit:
            raise _too_long(field.item_name(at), len(tokens), limit)


def _too_long(name: str, count: int, limit: int) -> InputTooLongError:
    return InputTooLongError(f"{name} has {count} tokens, the model takes {limit}", name)


def _kept(special: Tokens, found: Tokens, limit: int) -> Tokens:
    """Return special tokens that stand where they belong and that a limit leaves room beside."""
    return special if len(special) < limit and np.array_equal(special, found) else special[:0]


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
