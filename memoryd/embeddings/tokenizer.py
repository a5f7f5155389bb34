"""A model's tokenizer as the rest of memoryd uses it: texts and ids in, tokens and texts out."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import TypeVar

import numpy as np

from memoryd.embeddings.tokens import Token, locate, piece_text
from memoryd.embeddings.types import INPUT, Backend, Input, InputField, Side, Tokens
from memoryd.errors import InvalidInputError, StoppingError, TooLargeError
from memoryd.metrics import ModelMetrics

THREADS = 2
"""Of each model."""
# Up to this many characters, tokenizing is too short to be worth a thread.
_INLINE_CHARS = 4096
# What a call of the tokenizer costs, in characters.
_CALL_CHARS = 16
# What finding a character's token costs, in characters that are tokenized.
_LOCATING_CHARS = 10
# Each becomes an object of the answer, and each character is looked at, in Python.
_MAX_DESCRIBED_TOKENS, _MAX_DESCRIBED_CHARS = 1 << 18, 1 << 21
# Each becomes a number of the answer.
_MAX_TOLD_TOKENS = 1 << 21
_ADVICE_ON_IDS = (
    ". With LangChain's OpenAIEmbeddings pass check_embedding_ctx_length=False, so that it sends "
    "texts"
)

T = TypeVar("T")


class Tokenizer:
    """Tokenize for one model: at once what is short, all else in threads of its own."""

    def __init__(self, name: str, backend: Backend, metrics: ModelMetrics) -> None:
        """Take the model's name, for messages, and the backend, which must outlive this."""
        self._name = name
        self._backend = backend
        self._metrics = metrics
        self._is_closing = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tokenizing")
        self._thread = _Thread()

    def count(self, text: str) -> int:
        """Return how many tokens `text` has, without special ones."""
        return len(self._split(text))

    def encode(self, text: str, max_tokens: int | None = None) -> Tokens:
        """Return the tokens of a text between the special ones; those beyond a limit may lack."""
        tokens = self._split(text, max_tokens)
        return np.concatenate((self._backend.before, tokens, self._backend.after))

    async def encode_query(self, text: str, max_tokens: int) -> Tokens:
        """Return what `encode` does, from a thread where it takes long."""
        return await self._run(len(text), lambda: self.encode(text, max_tokens))

    async def encode_all(
        self,
        inputs: Sequence[Input],
        prefix: str,
        max_tokens: int | None,
        field: InputField = INPUT,
    ) -> list[Tokens]:
        """Return the tokens of `inputs`, each text after `prefix`; those beyond a limit may lack.

        Token ids are taken as they are, nothing is added. Raises InvalidInputError, saying where in
        `field`, for ids that aren't the model's, and for an input of no tokens.
        """
        return await self._run(
            len(prefix) * len(inputs) + _size_up(inputs),
            lambda: [
                self._encode_input(item, prefix, max_tokens, field.item_name(at))
                for at, item in enumerate(inputs)
            ],
        )

    def _encode_input(self, item: Input, prefix: str, max_tokens: int | None, name: str) -> Tokens:
        if isinstance(item, str):
            tokens = self.encode(prefix + item, max_tokens)
        elif prefix:
            message = f"{name} is tokens, and a prefix is put before texts alone"
            raise InvalidInputError(message, name)
        else:
            self._check_ids(item, name, _ADVICE_ON_IDS)
            tokens = self._encode_parts(item, add_special=True)
        if not len(tokens):
            raise InvalidInputError(f"{name} is empty: the model has nothing to see", name)
        return tokens

    async def join_all(
        self, query: str, documents: Sequence[str], max_tokens: int, side: Side
    ) -> list[tuple[Tokens, int]]:
        """Return a reranker's input for each document, and how many tokens were cut of it."""
        return await self._run(
            len(query) + _size_up(documents),
            lambda: [self._join(query, document, max_tokens, side) for document in documents],
        )

    def _join(self, query: str, document: str, max_tokens: int, side: Side) -> tuple[Tokens, int]:
        with self._timed():
            return self._backend.join(query, document, max_tokens, side)

    async def tokenize(
        self,
        content: str | Sequence[int | str],
        param: str,
        *,
        add_special: bool = False,
        parse_special: bool = False,
    ) -> Tokens:
        """Return the ids of a text, or of texts and ids that make up one.

        The first text is put between special tokens where `add_special` says so, and such tokens
        are found in texts where `parse_special` does. Raises InvalidInputError naming `param` for
        ids that aren't the model's, and TooLargeError for more than 2,097,152 tokens.
        """
        parts = [content] if isinstance(content, str) else content

        def work() -> Tokens:
            self._check_ids(parts, param)
            tokens = self._encode_parts(
                parts, _MAX_TOLD_TOKENS, add_special=add_special, parse_special=parse_special
            )
            _check_most(len(tokens), _MAX_TOLD_TOKENS, "tokens", param)
            return tokens

        return await self._run(_size_up([parts]), work)

    def _encode_parts(
        self,
        parts: Sequence[int | str],
        max_tokens: int | None = None,
        *,
        add_special: bool,
        parse_special: bool = False,
    ) -> Tokens:
        """Return token ids as they are, with the texts among them tokenized.

        As in llama.cpp (tokenize_mixed in server-common.cpp), a text that comes first gets special
        tokens, and no other does. Of each text, tokens beyond a limit may lack.
        """
        tokens = [np.empty(0, dtype=np.int32)]
        for are_texts, group in groupby(parts, key=lambda part: isinstance(part, str)):
            if are_texts:
                tokens += [
                    self._split(str(text), max_tokens, parse_special=parse_special)
                    for text in group
                ]
            else:
                tokens.append(np.array([int(part) for part in group], dtype=np.int32))
        if add_special and parts and isinstance(parts[0], str):
            tokens[1] = np.concatenate((self._backend.before, tokens[1], self._backend.after))
        return np.concatenate(tokens)

    async def spell(self, ids: Sequence[int], param: str) -> list[bytes]:
        """Return what each token stands for in a text: UTF-8, or a part of a character's.

        Raises InvalidInputError naming `param` for ids that aren't the model's, and TooLargeError
        for more than 262,144.
        """
        _check_most(len(ids), _MAX_DESCRIBED_TOKENS, "tokens", param)

        def work() -> list[bytes]:
            self._check_ids(ids, param)
            return self._spell(ids)

        return await self._run(_CALL_CHARS * len(ids), work)

    def _spell(self, ids: Sequence[int]) -> list[bytes]:
        known = {token: self._backend.piece(token) for token in set(ids)}
        return [known[token] for token in ids]

    async def detokenize(
        self, lists: Sequence[Sequence[int]], param: str, *, skip_special: bool
    ) -> list[str]:
        """Return the texts that tokens stand for, as one who reads them would write them.

        Raises InvalidInputError naming `param` for ids that aren't the model's, and TooLargeError
        for more than 262,144 together.
        """
        count = sum(map(len, lists))
        _check_most(count, _MAX_DESCRIBED_TOKENS, "tokens", param)
        return await self._run(
            _CALL_CHARS * (count + len(lists)),
            lambda: [self._detokenize(ids, param, skip_special) for ids in lists],
        )

    def _detokenize(self, ids: Sequence[int], param: str, skip_special: bool) -> str:
        self._check_ids(ids, param)
        self._check_going_on()
        return self._backend.detokenize(np.array(ids, dtype=np.int32), skip_special=skip_special)

    async def describe(
        self, texts: Sequence[str], *, prefix: str = "", add_special: bool = True
    ) -> list[list[Token]]:
        """Return the tokens of `texts`, each after `prefix`, with where they stand in both.

        Special tokens are around each where `add_special` says so. Raises TooLargeError naming
        `inputs` for more than 262,144 tokens or 2,097,152 characters.
        """
        size = sum(map(len, texts)) + len(prefix) * len(texts)
        _check_most(size, _MAX_DESCRIBED_CHARS, "characters", "inputs")
        return await self._run(
            _LOCATING_CHARS * size + _CALL_CHARS * len(texts),
            lambda: self._describe_all([prefix + text for text in texts], add_special),
        )

    def _describe_all(self, texts: Sequence[str], add_special: bool) -> list[list[Token]]:
        described, count = [], 0
        for text in texts:
            tokens = self._split(text, _MAX_DESCRIBED_TOKENS)
            count += len(tokens)
            _check_most(count, _MAX_DESCRIBED_TOKENS, "tokens", "inputs")
            described.append(self._describe(text, tokens.tolist(), add_special))
        return described

    def _describe(self, text: str, ids: Sequence[int], add_special: bool) -> list[Token]:
        pieces = self._spell(ids)
        inner = [
            Token(token, piece_text(text, piece, span), is_special=False, span=span)
            for token, piece, span in zip(ids, pieces, locate(text, pieces), strict=True)
        ]
        if not add_special:
            return inner
        before, after = map(self._describe_special, (self._backend.before, self._backend.after))
        return [*before, *inner, *after]

    def _describe_special(self, tokens: Tokens) -> list[Token]:
        ids = tokens.tolist()
        return [
            Token(token, piece.decode("utf-8", "replace"), is_special=True, span=None)
            for token, piece in zip(ids, self._spell(ids), strict=True)
        ]

    def _split(
        self, text: str, max_tokens: int | None = None, *, parse_special: bool = False
    ) -> Tokens:
        with self._timed():
            return self._backend.tokenize(text, max_tokens, parse_special=parse_special)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Measure what is done to one text; raise StoppingError where nobody waits for more."""
        self._check_going_on()
        started = time.perf_counter()
        yield
        self._metrics.tokenize_seconds.observe(time.perf_counter() - started)

    def _check_going_on(self) -> None:
        if self._is_closing or self._thread.is_abandoned():
            raise StoppingError()

    def _check_ids(self, parts: Sequence[int | str], param: str, advice: str = "") -> None:
        size = self._backend.vocabulary_size
        ids = (part for part in parts if isinstance(part, int))
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is None:
            return
        message = f"{param}: {wrong} is no token of {self._name}, whose ids end at {size - 1}"
        raise InvalidInputError(message + advice, param)

    async def _run(self, size_chars: int, work: Callable[[], T]) -> T:
        """Return what `work` returns; it runs in a thread where it takes long."""
        self._check_going_on()
        if size_chars <= _INLINE_CHARS:
            return work()
        abandoned = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._thread.run, work, abandoned)
        finally:
            abandoned.set()  # a client that left frees the thread for others

    async def close(self) -> None:
        """Let what runs end, and what waits end at once; afterwards no thread uses the backend."""
        self._is_closing = True
        await asyncio.to_thread(self._threads.shutdown)


class _Thread(threading.local):
    """Know of each thread whether what it does is still waited for."""

    _abandoned: threading.Event | None = None

    def run(self, work: Callable[[], T], abandoned: threading.Event) -> T:
        """Return what `work` returns, which can ask meanwhile."""
        self._abandoned = abandoned
        try:
            return work()
        finally:
            self._abandoned = None

    def is_abandoned(self) -> bool:
        """Say whether nobody waits any more for what this thread does."""
        return self._abandoned is not None and self._abandoned.is_set()


def _check_most(count: int, most: int, unit: str, param: str) -> None:
    if count > most:
        raise TooLargeError(f"{param} has more than {most} {unit}: send less at once", param)


def _size_up(inputs: Sequence[Input]) -> int:
    """Return what tokenizing `inputs` costs, in characters; what is past a thread's worth lacks."""
    size = 0
    for item in inputs:
        size += len(item) + _CALL_CHARS
        if size > _INLINE_CHARS:
            break
        if not isinstance(item, str):
            size += sum(len(part) + _CALL_CHARS for part in item if isinstance(part, str))
    return size
