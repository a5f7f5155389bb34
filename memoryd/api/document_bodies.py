"""What a document looks like that is to be stored, and what is told of it then."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from memoryd.api import limits
from memoryd.api.bodies import Body, parse
from memoryd.api.errors import ErrorObject, error_object
from memoryd.api.fields import (
    NUMBERS,
    DocumentId,
    ExpiryTime,
    Language,
    Metadata,
    NotBlank,
    Tag,
)
from memoryd.api.jobs import JobAnswer, job_answer
from memoryd.documents.types import Collection, Draft, OnConflict, Outcome, OwnChunk, Status
from memoryd.errors import InvalidInputError, MissingFieldError, TooLargeError
from memoryd.memory.ingest import Ingested
from memoryd.vectors.types import Vector

_ONE_CONTENT: JsonDict = {"oneOf": [{"required": ["text"]}, {"required": ["chunks"]}]}
_BASE64 = {"type": "string", "contentEncoding": "base64"}


def _check_vector(value: Any) -> Vector | None:
    """Return numbers, or the little-endian float32 that base64 holds, at length 1.

    A cosine doesn't ask for the length, but a column of half precision has little range.
    """
    if value is None:
        return None
    numbers = _decode_vector(value) if isinstance(value, str) else _numbers(value)
    if not np.isfinite(numbers).all():
        raise ValueError("must be finite: it has a NaN or an infinity")
    if not numbers.any():
        raise ValueError("must not be zero: that has no direction")
    numbers = numbers / np.abs(numbers).max()
    return np.asarray(numbers / np.linalg.norm(numbers), dtype=np.float32)


def _numbers(value: Any) -> npt.NDArray[np.float64]:
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        raise ValueError("must be a list of numbers, or float32 in base64")
    return np.asarray(value, dtype=np.float64)


def _decode_vector(text: str) -> npt.NDArray[np.float64]:
    try:
        data = base64.b64decode(text, validate=True)
        return np.frombuffer(data, "<f4").astype(np.float64)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"is not float32 in base64: {error}") from error


OwnVector = Annotated[
    Any,
    AfterValidator(_check_vector),
    WithJsonSchema({"anyOf": [NUMBERS, _BASE64, {"type": "null"}]}),
]
"""Of a chunk; little-endian float32 where it is in base64."""


class ChunkBody(Body):
    """A chunk that the client makes; without a vector, the collection's model embeds it."""

    text: NotBlank
    vector: OwnVector = None


class AttributesBody(Body):
    """What a document has beside its content."""

    id: DocumentId | None = None
    title: str = Field("", max_length=limits.TITLE_CHARS)
    mime_type: str | None = Field(None, max_length=limits.MIME_TYPE_CHARS)
    language: Language | None = None
    metadata: Metadata = Field(default_factory=dict)
    tags: list[Tag] = Field(default_factory=list, max_length=limits.TAGS)
    expires_at: ExpiryTime | None = None
    on_conflict: OnConflict = "replace"


class DocumentBody(AttributesBody):
    """A document to store: a text, or chunks."""

    model_config = ConfigDict(json_schema_extra=_ONE_CONTENT)

    text: NotBlank = ""
    chunks: list[ChunkBody] = Field(
        default_factory=list, min_length=1, max_length=limits.CHUNKS, fail_fast=True
    )


class DocumentsBody(Body):
    """Documents to store: one that is wrong never fails the others."""

    documents: list[DocumentBody] = Field(min_length=1)


class OutcomeAnswer(TypedDict):
    """What became of one document."""

    id: str | None
    status: Status
    version: int | None
    chunks: int
    embedded: int
    error: ErrorObject | None


class StoredAnswer(TypedDict):
    """What became of each document, in the order in which they came."""

    documents: list[OutcomeAnswer]
    job: JobAnswer | None
    """What goes on with the documents that are queued."""


def read_draft(value: Any, collection: Collection, max_text_chars: int, at: str = "") -> Draft:
    """Return the document that `value` describes, for `collection`; `at` is where it stands.

    Raises InvalidInputError naming the field that is wrong.
    """
    body = parse(DocumentBody, value, at)
    prefix = f"{at}." if at else ""
    has_text, has_chunks = ("text" in body.model_fields_set, "chunks" in body.model_fields_set)
    if has_text and has_chunks:
        raise InvalidInputError(
            f"{prefix}chunks can't stand beside {prefix}text: send one of them", f"{prefix}chunks"
        )
    if not has_text and not has_chunks:
        raise MissingFieldError(f"{prefix}text is required, or chunks", f"{prefix}text")
    _check_length(body, max_text_chars, prefix)
    _check_widths(body.chunks, collection, prefix)
    chunks = tuple(OwnChunk(chunk.text, chunk.vector) for chunk in body.chunks)
    return Draft(**body.model_dump(exclude={"chunks"}), chunks=chunks or None)


def _check_length(body: DocumentBody, most: int, prefix: str) -> None:
    field = "chunks" if body.chunks else "text"
    length = len(body.text) + sum(len(chunk.text) for chunk in body.chunks)
    if length > most:
        raise TooLargeError(
            f"{prefix}{field} has {length} characters, more than max_text_chars = {most}: "
            "split the document",
            f"{prefix}{field}",
        )


def _check_widths(chunks: Sequence[ChunkBody], collection: Collection, prefix: str) -> None:
    for index, chunk in enumerate(chunks):
        if chunk.vector is not None and len(chunk.vector) != collection.dimensions:
            at = f"{prefix}chunks[{index}].vector"
            raise InvalidInputError(
                f"{at} has {len(chunk.vector)} numbers, the collection {collection.dimensions}", at
            )


def id_of(value: Any) -> str | None:
    """Return the id that a document gives which may be none, for what is told of it."""
    given = value.get("id") if isinstance(value, dict) else None
    return given if isinstance(given, str) else None


def stored_answer(ingested: Ingested) -> StoredAnswer:
    """Return what is told of documents that were taken on."""
    return {
        "documents": list(map(_outcome_answer, ingested.outcomes)),
        "job": job_answer(ingested.job) if ingested.job else None,
    }


def _outcome_answer(outcome: Outcome) -> OutcomeAnswer:
    return {
        "id": outcome.id,
        "status": outcome.status,
        "version": outcome.version,
        "chunks": outcome.chunks,
        "embedded": outcome.embedded,
        "error": error_object(outcome.error) if outcome.error else None,
    }
