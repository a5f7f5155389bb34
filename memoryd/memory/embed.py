"""Embed texts for clients that keep the vectors themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memoryd.embeddings.model import EmbeddingModel, Embeddings
from memoryd.embeddings.types import INPUT, Input, InputField, Side
from memoryd.errors import InvalidInputError, TooLargeError
from memoryd.memory.state import Memory
from memoryd.vectors.similarity import EUCLIDEAN, NOT_NORMALIZED, normalize, pad

MAX_PADDED_DIMENSIONS = 4096
MAX_PADDED_NUMBERS = 8 << 20


@dataclass(frozen=True)
class EmbedOptions:
    """Say how texts are embedded, beside the model's own ways."""

    truncate: bool = True
    side: Side = "right"
    """Where an input that is too long is cut."""
    dimensions: int | None = None
    max_tokens: int | None = None
    """An upper bound on what the model takes of an input."""
    prompt: str | None = None
    """Put the model's prefix of a "query" or a "document" before each text."""
    instruction: str | None = None
    """What queries are for, put into their prefix."""
    norm: int = EUCLIDEAN
    """As in `normalize`."""
    field: InputField = INPUT
    """Where the inputs stand in the request."""


_PLAIN = EmbedOptions()


def check_dimensions(
    memory: Memory, model: EmbeddingModel, dimensions: int | None, param: str = "dimensions"
) -> int | None:
    """Return `dimensions` if vectors of `model` can have so many, else raise InvalidInputError."""
    most = MAX_PADDED_DIMENSIONS if memory.settings.pad_dimensions else model.dimensions
    if dimensions is not None and not 1 <= dimensions <= most:
        raise InvalidInputError(f"{param} must be from 1 to {most}", param)
    return dimensions


async def embed(
    memory: Memory,
    model: EmbeddingModel,
    inputs: Sequence[Input],
    options: EmbedOptions = _PLAIN,
) -> Embeddings:
    """Return the vectors of `inputs`; the caller uses `model` meanwhile.

    Raises TooLargeError for too many padded vectors, and what EmbeddingModel.embed raises.
    """
    width = min(options.dimensions or model.dimensions, MAX_PADDED_DIMENSIONS)
    if memory.settings.pad_dimensions and width * len(inputs) > MAX_PADDED_NUMBERS:
        raise TooLargeError(
            f"{len(inputs)} vectors of {width} dimensions are too many for one request",
            options.field.name,
        )
    embeddings = await model.embed(
        inputs,
        prefix=model.prefix(options.prompt, options.instruction),
        truncate=options.truncate,
        side=options.side,
        max_tokens=options.max_tokens,
        norm=options.norm if options.dimensions is None else NOT_NORMALIZED,
        field=options.field,
    )
    if options.dimensions is None:
        return embeddings
    vectors = normalize(embeddings.vectors[:, : options.dimensions], options.norm)
    if memory.settings.pad_dimensions:
        vectors = pad(vectors, min(options.dimensions, MAX_PADDED_DIMENSIONS))
    return replace(embeddings, vectors=vectors)
