"""A model's tokenizer as the rest of memoryd uses it: texts and ids in, tokens and texts out."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import TypeVar

import numpy as np

from memoryd.embeddings.tokens import Token, locate, piece_text
from memoryd.embeddings.types import Backend, Input, Side, Tokens
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
        self, inputs: Sequence[Input], prefix: str, max_tokens: int | None
    ) -> list[Tokens]:
        """Return the tokens of `inputs`, each text after `prefix`; those beyond a limit may lack.

        Token ids are taken as they are, nothing is added. Raises InvalidInputError for ids that
        aren't the model's, and for an input of no tokens.
        """
        size = sum(map(_count_chars, inputs)) + (len(prefix) + _CALL_CHARS) * len(inputs)
        return await self._run(
            size,
            lambda: [
                self._encode_input(at, item, prefix, max_tokens) for at, item in enumerate(inputs)
            ],
        )

    def _encode_input(self, at: int, item: Input, prefix: str, max_tokens: int | None) -> Tokens:
        if isinstance(item, str):
            tokens = self.encode(prefix + item, max_tokens)
        elif prefix:
            raise InvalidInputError(
                f"input[{at}] is tokens, and a prefix is put before texts alone", f"input[{at}]"
            )
        else:
            self._check_ids(item, f"input[{at}]", _ADVICE_ON_IDS)
            tokens = self._encode_parts(item, add_special=True)
        if not len(tokens):
            raise InvalidInputError(
                f"input[{at}] is empty: the model has nothing to see", f"input[{at}]"
            )
        return tokens

    async def join_all(
        self, query: str, documents: Sequence[str], max_tokens: int, side: Side
    ) -> list[tuple[Tokens, int]]:
        """Return a reranker's input for each document, and how many tokens were cut of it."""
        return await self._run(
            sum(map(len, documents)) + len(query) * len(documents),
            lambda: [self._join(query, document, max_tokens, side) for document in documents],
        )

    def _join(self, query: str, document: str, max_tokens: int, side: Side) -> tuple[Tokens, int]:
        with self._timed():
            return self._backend.join(query, document, max_tokens, side)

    async def tokenize(
        self,
        content: str | Sequence[int | str],
        *,
        add_special: bool = False,
        parse_special: bool = False,
    ) -> Tokens:
        """Return the ids of a text, or of texts and ids that make up one.

        The first text is put between special tokens where `add_special` says so, and such tokens
        are found in texts where `parse_special` does. Raises InvalidInputError naming `content` for
        ids that aren't the model's.
        """
        parts = [content] if isinstance(content, str) else content
        self._check_ids(parts, "content")
        return await self._run(
            _count_chars(parts) + _CALL_CHARS * len(parts),
            lambda: self._encode_parts(parts, add_special=add_special, parse_special=parse_special),
        )

    def _encode_parts(
        self, parts: Sequence[int | str], *, add_special: bool, parse_special: bool = False
    ) -> Tokens:
        """Return token ids as they are, with the texts among them tokenized.

        As in llama.cpp (tokenize_mixed in server-common.cpp), a text that comes first gets special
        tokens, and no other does.
        """
        tokens = [np.empty(0, dtype=np.int32)]
        for are_texts, group in groupby(parts, key=lambda part: isinstance(part, str)):
            if are_texts:
                tokens += [self._split(str(text), parse_special=parse_special) for text in group]
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
        self._check_ids(ids, param)
        _check_most(len(ids), _MAX_DESCRIBED_TOKENS, "tokens", param)
        return await self._run(_CALL_CHARS * len(ids), lambda: self._spell(ids))

    def _spell(self, ids: Sequence[int]) -> list[bytes]:
        known = {token: self._backend.piece(token) for token in set(ids)}
        return [known[token] for token in ids]

    async def detokenize(self, ids: Sequence[int], param: str, *, skip_special: bool) -> str:
        """Return the text that tokens stand for, as one who reads it would write it.

        Raises InvalidInputError naming `param` for ids that aren't the model's.
        """
        self._check_ids(ids, param)
        tokens = np.array(ids, dtype=np.int32)
        return await self._run(
            _CALL_CHARS * len(ids),
            lambda: self._backend.detokenize(tokens, skip_special=skip_special),
        )

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
        """Measure what is done to one text; raise StoppingError once the model is being closed."""
        self._check_going_on()
        started = time.perf_counter()
        yield
        self._metrics.tokenize_seconds.observe(time.perf_counter() - started)

    def _check_going_on(self) -> None:
        if self._is_closing:
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
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Let what runs end, and what waits end at once; afterwards no thread uses the backend."""
        self._is_closing = True
        await asyncio.to_thread(self._threads.shutdown)


def _check_most(count: int, most: int, unit: str, param: str) -> None:
    if count > most:
        raise TooLargeError(f"{param} has more than {most} {unit}: send less at once", param)


def _count_chars(item: Input) -> int:
    if isinstance(item, str):
        return len(item)
    return sum(len(part) if isinstance(part, str) else 1 for part in item)
