"""What the engine and its backends exchange."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from memoryd.vectors.types import Vectors

Tokens = npt.NDArray[np.int32]
"""Token ids of one input, shape (tokens,)."""


@dataclass(frozen=True)
class ModelSpec:
    """Say what a model's authors ask of its users."""

    name: str
    query_prefix: str = ""
    document_prefix: str = ""


class Lane(Protocol):
    """Encode one batch at a time; used by one thread at a time."""

    max_tokens: int
    max_sequences: int

    def encode(self, batch: Sequence[Tokens], threads: int) -> Vectors:
        """Return the pooled embeddings of `batch`, shape (len(batch), dimensions).

        The rows are not normalized. Where the model fails on an input, its row is NaN.
        """
        ...

    def close(self) -> None:
        """Free what the lane holds."""
        ...


class Backend(Protocol):
    """Stand for one loaded model. The only seam at which tests put something else."""

    dimensions: int
    max_tokens: int
    """Longest input, special tokens included."""
    special_tokens: int
    """How many special tokens surround each input."""

    def tokenize(self, text: str) -> Tokens:
        """Return the ids of `text` without special tokens; safe in any thread."""
        ...

    def wrap(self, tokens: Tokens) -> Tokens:
        """Return `tokens` between the model's special tokens."""
        ...

    def open_lane(self, max_tokens: int, max_sequences: int) -> Lane:
        """Return a new lane for batches of up to `max_tokens` in up to `max_sequences` inputs."""
        ...

    def close(self) -> None:
        """Free the model; its lanes must be closed before."""
        ...
