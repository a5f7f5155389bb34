"""A model whose vectors a person can predict, at the engine's one seam."""

import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from opening import open_model

from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import (
    ModelSpec,
    Pooling,
    PreparedModel,
    Side,
    Tokens,
    Tuning,
    Vectors,
    cut_at,
)
from memoryd.errors import ModelFileError, ModelNotFoundError
from memoryd.memory.models import ModelLoader

WORDS = (
    *("cat", "dog", "fish", "bird", "horse"),
    *("apple", "pear", "plum", "cherry", "lemon"),
    *("red", "green", "blue", "yellow", "black"),
)
DIMENSIONS = len(WORDS) + 1
MAX_TOKENS = 64
TOY_WEIGHTS_BYTES, TOY_LANE_BYTES = 1000, 100
BEGIN, END, UNKNOWN, NAN, EXPLODE = range(5)
_FIRST_WORD = 5
CAT_ID, DOG_ID, FISH_ID = (_FIRST_WORD + WORDS.index(word) for word in ("cat", "dog", "fish"))
TOY, JUDGE, SPELLER = "toy", "judge", "speller"  # one that embeds, scores, doesn't pool
_TOKEN = re.compile(r"\w+|[^\w\s]")
_TOKEN_OR_SPECIAL = re.compile(rf"<begin>|<end>|{_TOKEN.pattern}")
_TROUBLE = {"nan": NAN, "explode": EXPLODE}
_SPECIAL = ("<begin>", "<end>", "<unknown>", " nan", " explode")


def toy_vector(text: str) -> Vectors:
    """Return the unit vector that the toy gives `text`."""
    return _pool(ToyBackend().tokenize(text)) / np.linalg.norm(_pool(ToyBackend().tokenize(text)))


def _pool(tokens: Tokens) -> Vectors:
    """Count the known words, one axis each; the first axis stands for texts without any."""
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    for token in tokens:
        if token >= _FIRST_WORD:
            vector[token - _FIRST_WORD + 1] += 1
    vector[0] = not vector.any()
    return vector


TOY_TUNING = Tuning(lanes=2)
TOY_BYTES = TOY_WEIGHTS_BYTES + (TOY_TUNING.lanes + 1) * TOY_LANE_BYTES
_SPEC = ModelSpec("toy")


class ToyLane:
    """Encode by counting words; note every batch, and wait while the gate is closed."""

    def __init__(
        self, backend: "ToyBackend", max_tokens: int, max_sequences: int, pooling: Pooling
    ) -> None:
        self.max_tokens = max_tokens
        self.max_sequences = max_sequences
        self.memory_bytes = TOY_LANE_BYTES
        self.is_canceled = False
        self.is_encoding = False
        self._pooling = pooling
        self._backend = backend

    def encode(self, batch: Sequence[Tokens], threads: int) -> list[Vectors]:
        """Return the sums of the words' axes; "nan" gives a row of NaN, "explode" raises.

        Once the toy is cured, "nan" is a word like others.
        """
        self.is_encoding = True
        try:
            self._backend.begin(batch, threads)
            time.sleep(self._backend.delay_s)
        finally:
            self.is_encoding = False
        if any(EXPLODE in tokens for tokens in batch):
            raise RuntimeError("exploded as asked")
        return [self._encode(tokens) for tokens in batch]

    def _encode(self, tokens: Tokens) -> Vectors:
        if self.is_canceled or (NAN in tokens and not self._backend.is_cured):
            return np.full(DIMENSIONS, np.nan, np.float32)
        if self._pooling == "rank":
            first, second = np.split(tokens, np.flatnonzero(tokens == END)[:1])
            return np.array([_pool(first) @ _pool(second)], dtype=np.float32)
        if self._pooling == "none":
            return np.stack([_pool(tokens[at : at + 1]) for at in range(len(tokens))])
        return 3 * _pool(tokens)

    def cancel(self) -> None:
        """Fail from now on."""
        self.is_canceled = True
        self._backend.gate.set()

    def close(self) -> None:
        """Note that it was closed, which a lane at work doesn't survive."""
        self._backend.closed_lanes += 1
        self._backend.misuses += self.is_encoding


class ToyBackend:
    """Know a few words, one axis each: "cat dog" lies between "cat" and "dog"."""

    def __init__(self, delay_s: float = 0.0, *, pooling: Pooling = "mean") -> None:
        self.dimensions = DIMENSIONS
        self.pooling: Pooling = pooling
        self.max_tokens = MAX_TOKENS
        self.vocabulary_size = _FIRST_WORD + len(WORDS)
        self.before = np.array([BEGIN], dtype=np.int32)
        self.after = np.array([END], dtype=np.int32)
        self.weights_bytes = TOY_WEIGHTS_BYTES
        self.is_decoder = False
        self.gives_probabilities = False
        self.delay_s = delay_s
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[Tokens]] = []
        self.threads: list[int] = []
        self.lanes: list[ToyLane] = []
        self.tokenizing: list[str] = []
        self.tokenizing_gate = threading.Event()
        self.tokenizing_gate.set()
        self.opening_gate = threading.Event()
        self.opening_gate.set()
        self.lanes_to_open = 1000
        self.closed_lanes = 0
        self.misuses = 0
        self.is_cured = False
        self.is_closed = False

    def begin(self, batch: Sequence[Tokens], threads: int) -> None:
        """Note the batch, and wait for the gate."""
        self.batches.append(list(batch))
        self.threads.append(threads)
        self.gate.wait(30)

    @property
    def encoded(self) -> int:
        """How many inputs the lanes have been given."""
        return sum(map(len, self.batches))

    def tokenize(
        self, text: str, max_tokens: int | None = None, *, parse_special: bool = False
    ) -> Tokens:
        """Return one id per word or other character that is not a space; note the thread."""
        self.tokenizing.append(threading.current_thread().name)
        self.tokenizing_gate.wait(30)
        self.misuses += self.is_closed
        pattern = _TOKEN_OR_SPECIAL if parse_special else _TOKEN
        words = pattern.findall(text.lower())[: max_tokens and max_tokens + 1]
        return np.array([_id(word) for word in words], dtype=np.int32)

    def piece(self, token: int) -> bytes:
        """Return the word after a space, or a special token's name."""
        if token < _FIRST_WORD:
            return _SPECIAL[token].encode()
        return f" {WORDS[token - _FIRST_WORD]}".encode()

    def detokenize(self, tokens: Tokens, *, skip_special: bool = False) -> str:
        """Return the words."""
        kept = [int(token) for token in tokens if not (skip_special and token in (BEGIN, END))]
        return b"".join(map(self.piece, kept)).decode().strip()

    def join(
        self, query: str, document: str, max_tokens: int, side: Side = "right"
    ) -> tuple[Tokens, int]:
        """Return both texts' words, END between them, and how many of the document were cut."""
        first = np.concatenate((self.before, self.tokenize(query), self.after))
        second = self.tokenize(document)
        kept = cut_at(second, max_tokens - len(first) - len(self.after), side)
        return np.concatenate((first, kept, self.after)), len(second) - len(kept)

    def open_lane(self, max_tokens: int, max_sequences: int, pooling: Pooling) -> ToyLane:
        """Return a new lane, when the gate is open."""
        self.opening_gate.wait(30)
        if len(self.lanes) == self.lanes_to_open:
            raise ModelFileError("no more lanes, as asked")
        self.lanes.append(ToyLane(self, max_tokens, max_sequences, pooling))
        return self.lanes[-1]

    def estimate_lane_bytes(self, max_tokens: int, pooling: Pooling) -> int:
        """Return a byte for each token, and two where each has a vector."""
        return 2 * max_tokens if pooling == "none" else max_tokens

    def close(self) -> None:
        """Note that it was closed, which no lane survives that wasn't before."""
        self.is_closed = True
        self.misuses += self.closed_lanes != len(self.lanes)


def _id(word: str) -> int:
    if word in _SPECIAL:
        return _SPECIAL.index(word)
    if word in _TROUBLE:
        return _TROUBLE[word]
    return WORDS.index(word) + _FIRST_WORD if word in WORDS else UNKNOWN


class ToyLoader:
    """Load the toy by its name, and everything else as memoryd does."""

    def __init__(self, models_dir: Path, *, failures: int = 0, delay_s: float = 0.0) -> None:
        """Fail the first `failures` loads of the toy; each of its batches takes `delay_s`."""
        self.backend = ToyBackend(delay_s)
        self.loads = 0
        self._failures = failures
        self._others = ModelLoader(models_dir)

    def resolve(self, name: str) -> str:
        """Return the one name of a model."""
        return "toy" if name.lower() == "toy" else self._others.resolve(name)

    async def prepare(self, name: str) -> PreparedModel:
        """Prepare the model of that name."""
        if name != "toy":
            return await self._others.prepare(name)
        self.loads += 1
        if self.loads <= self._failures:
            raise ModelFileError("the toy is broken, as asked")
        return PreparedModel(ModelSpec("toy"), TOY_TUNING, TOY_WEIGHTS_BYTES, lambda: self.backend)


class ToyShelf:
    """Load toys by their names, with a new backend each time."""

    def __init__(self, *names: str) -> None:
        """Know toys of these names, which take TOY_BYTES each."""
        self.backends: dict[str, list[ToyBackend]] = {name: [] for name in names}
        self.bytes_of = dict.fromkeys(names, TOY_BYTES)
        self.specs = {name: ModelSpec(name) for name in names}
        self.poolings: dict[str, Pooling] = {}
        self.failures = dict.fromkeys(names, 0)
        self.loads = 0
        self.opening_gate = threading.Event()
        self.opening_gate.set()
        self.most_at_once = dict.fromkeys(names, 0)
        self.lanes_to_open = 1000

    def resolve(self, name: str) -> str:
        """Return the name in lower case."""
        if name.lower() not in self.backends:
            raise ModelNotFoundError(name)
        return name.lower()

    async def prepare(self, name: str) -> PreparedModel:
        """Prepare the toy of that name, unless it still has to fail."""
        self.loads += 1
        if self.failures[name]:
            self.failures[name] -= 1
            raise ModelFileError(f"{name} is broken, as asked")
        return PreparedModel(
            self.specs[name], TOY_TUNING, self.bytes_of[name], lambda: self._open(name)
        )

    def _open(self, name: str) -> ToyBackend:
        self.opening_gate.wait(30)
        backend = ToyBackend(pooling=self.poolings.get(name, "mean"))
        backend.weights_bytes = self.bytes_of[name] - (TOY_TUNING.lanes + 1) * TOY_LANE_BYTES
        backend.lanes_to_open = self.lanes_to_open
        self.backends[name].append(backend)
        self.most_at_once[name] = max(self.most_at_once[name], len(self.open_backends(name)))
        return backend

    def open_backends(self, name: str) -> list[ToyBackend]:
        """Return those that were loaded and not freed."""
        return [backend for backend in self.backends[name] if not backend.is_closed]


def open_toy(
    backend: ToyBackend,
    spec: ModelSpec = _SPEC,
    tuning: Tuning = TOY_TUNING,
    *,
    max_waiting_requests: int = 512,
    long_input_bytes: int = 1 << 20,
) -> EmbeddingModel:
    """Return the model over `backend`."""
    return open_model(
        backend,
        spec,
        tuning,
        max_waiting_requests=max_waiting_requests,
        long_input_bytes=long_input_bytes,
    )
