"""What the engine and its backends exchange."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from memoryd.vectors.types import Vectors

Tokens = npt.NDArray[np.int32]
"""Token ids of one input, shape (tokens,)."""

Input = str | Sequence[int] | Sequence[int | str]
"""A text, the ids of its tokens, or a mix of both that makes one input."""


@dataclass(frozen=True)
class InputField:
    """Name the field of a request that holds inputs, and each of them, for messages."""

    name: str
    item_name: Callable[[int], str]
    """What to call the input at an index."""


def list_field(name: str) -> InputField:
    """Return a field that holds a list of inputs."""
    return InputField(name, lambda index: f"{name}[{index}]")


def single_field(name: str) -> InputField:
    """Return a field that holds one input."""
    return InputField(name, lambda _index: name)


INPUT = list_field("input")

Side = Literal["left", "right"]
"""Where an input that is too long loses tokens."""

Pooling = Literal["none", "mean", "cls", "last", "rank"]
"""How the vectors of an input's tokens become one; `none` keeps them, `rank` gives a score."""


def cut_at(tokens: Tokens, count: int, side: Side) -> Tokens:
    """Return `count` of `tokens` at most; what is too much is cut on `side`."""
    excess = len(tokens) - max(count, 0)
    if excess <= 0:
        return tokens
    return tokens[excess:] if side == "left" else tokens[:-excess]


@dataclass(frozen=True)
class ModelSpec:
    """Say what a model's authors, and its user, ask of those who run it.

    `{instruction}` in the query prefix and `{title}` in the document prefix are replaced.
    """

    name: str
    query_prefix: str = ""
    document_prefix: str = ""
    instruction: str = ""
    """What queries are for, where nothing else is said."""
    pooling: Pooling | None = None
    """None: what the file says."""
    max_tokens: int | None = None
    """Longest input; None: what the file says."""
    trained_dimensions: tuple[int, ...] = ()
    """Widths to which the model was trained to be cut."""
    min_dimensions: int | None = None
    """The least width from which on it was trained for all."""


@dataclass(frozen=True)
class Tuning:
    """Say how a model's bulk is spread over the cores."""

    lanes: int
    threads: int = 1
    """Of each lane."""
    batch_tokens: int = 256
    """Of many texts together; a longer one goes alone."""


class Lane(Protocol):
    """Encode one batch at a time; used by one thread at a time."""

    max_tokens: int
    max_sequences: int

    @property
    def memory_bytes(self) -> int:
        """What the lane holds now."""
        ...

    def encode(self, batch: Sequence[Tokens], threads: int) -> Sequence[Vectors]:
        """Return one item per input, not normalized; NaN where the model fails on it.

        A pooled embedding has shape (dimensions,), those of tokens (tokens, dimensions), a score
        (1,).
        """
        ...

    def cancel(self) -> None:
        """Let what `encode` is doing end soon; from any thread."""
        ...

    def close(self) -> None:
        """Free what the lane holds."""
        ...


class Backend(Protocol):
    """Stand for one loaded model. The only seam at which tests put something else."""

    dimensions: int
    pooling: Pooling
    max_tokens: int
    """Longest input, special tokens included."""
    vocabulary_size: int
    before: Tokens
    after: Tokens
    """The special tokens that surround each input."""
    weights_bytes: int
    is_decoder: bool

    gives_probabilities: bool
    """Whether a reranker's scores are probabilities already."""

    def tokenize(
        self, text: str, max_tokens: int | None = None, *, parse_special: bool = False
    ) -> Tokens:
        """Return the ids of `text` without special tokens around it; safe in any thread.

        Special tokens are found in the text where `parse_special` says so. Of a long text that has
        more than `max_tokens`, the rest may be left out.
        """
        ...

    def piece(self, token: int) -> bytes:
        """Return what `token` stands for in a text: UTF-8, or a part of a character's."""
        ...

    def detokenize(self, tokens: Tokens, *, skip_special: bool = False) -> str:
        """Return the text that `tokens` stand for; safe in any thread."""
        ...

    def join(
        self, query: str, document: str, max_tokens: int, side: Side = "right"
    ) -> tuple[Tokens, int]:
        """Return a reranker's input for a pair, and how many tokens were cut for it to fit."""
        ...

    def open_lane(self, max_tokens: int, max_sequences: int, pooling: Pooling) -> Lane:
        """Return a new lane for batches of up to `max_tokens` in up to `max_sequences` inputs.

        Raises OutOfMemoryError where there is no room for it.
        """
        ...

    def estimate_lane_bytes(self, max_tokens: int, pooling: Pooling) -> int:
        """Return about what a lane for one input of `max_tokens` takes at most."""
        ...

    def close(self) -> None:
        """Free the model; its lanes must be closed before."""
        ...


@dataclass(frozen=True)
class PreparedModel:
    """Be a model whose file is there, and which can be loaded."""

    spec: ModelSpec
    tuning: Tuning
    memory_bytes: int
    """About what it will take."""
    open: Callable[[], Backend]
    """Load it, in whatever thread; raises ModelFileError."""
