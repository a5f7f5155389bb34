"""A model whose vectors a person can predict, at the engine's one seam."""

import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memoryd.app import GalleryLoader
from memoryd.embeddings.types import Backend, ModelSpec, Tokens, Vectors
from memoryd.errors import ModelFileError

WORDS = (
    *("cat", "dog", "fish", "bird", "horse"),
    *("apple", "pear", "plum", "cherry", "lemon"),
    *("red", "green", "blue", "yellow", "black"),
)
DIMENSIONS = len(WORDS) + 1
MAX_TOKENS = 64
BEGIN, END, UNKNOWN, NAN, EXPLODE = range(5)
_FIRST_WORD = 5
_TOKEN = re.compile(r"\w+|[^\w\s]")
_TROUBLE = {"nan": NAN, "explode": EXPLODE}


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


class ToyLane:
    """Encode by counting words; note every batch, and wait while the gate is closed."""

    def __init__(self, backend: "ToyBackend", max_tokens: int, max_sequences: int) -> None:
        self.max_tokens = max_tokens
        self.max_sequences = max_sequences
        self._backend = backend

    def encode(self, batch: Sequence[Tokens], threads: int) -> Vectors:  # noqa: ARG002 - Lane's
        """Return the sums of the words' axes; "nan" gives a row of NaN, "explode" raises."""
        self._backend.begin(batch)
        time.sleep(self._backend.delay_s)
        if any(EXPLODE in tokens for tokens in batch):
            raise RuntimeError("exploded as asked")
        rows = [
            np.full(DIMENSIONS, np.nan, np.float32) if NAN in tokens else 3 * _pool(tokens)
            for tokens in batch
        ]
        return np.stack(rows)

    def close(self) -> None:
        """Note that it was closed."""
        self._backend.closed_lanes += 1


class ToyBackend:
    """Know a few words, one axis each: "cat dog" lies between "cat" and "dog"."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.dimensions = DIMENSIONS
        self.max_tokens = MAX_TOKENS
        self.special_tokens = 2
        self.delay_s = delay_s
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[Tokens]] = []
        self.lanes: list[ToyLane] = []
        self.closed_lanes = 0
        self.is_closed = False

    def begin(self, batch: Sequence[Tokens]) -> None:
        """Note the batch, and wait for the gate."""
        self.batches.append(list(batch))
        self.gate.wait(30)

    @property
    def encoded(self) -> int:
        """How many inputs the lanes have been given."""
        return sum(map(len, self.batches))

    def tokenize(self, text: str) -> Tokens:
        """Return one id per word or other character that is not a space."""
        return np.array([_id(word) for word in _TOKEN.findall(text.lower())], dtype=np.int32)

    def wrap(self, tokens: Tokens) -> Tokens:
        """Return `tokens` between the two special ones."""
        return np.concatenate(([BEGIN], tokens, [END])).astype(np.int32)

    def open_lane(self, max_tokens: int, max_sequences: int) -> ToyLane:
        """Return a new lane."""
        self.lanes.append(ToyLane(self, max_tokens, max_sequences))
        return self.lanes[-1]

    def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True


def _id(word: str) -> int:
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
        self._gallery = GalleryLoader(models_dir)

    def resolve(self, name: str) -> str:
        """Return the one name of a model."""
        return "toy" if name.lower() == "toy" else self._gallery.resolve(name)

    async def load(self, name: str) -> tuple[ModelSpec, Backend]:
        """Load the model of that name."""
        if name != "toy":
            return await self._gallery.load(name)
        self.loads += 1
        if self.loads <= self._failures:
            raise ModelFileError("the toy is broken, as asked")
        return ModelSpec("toy"), self.backend
