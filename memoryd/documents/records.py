"""Records: documents as they leave a collection and come back, one line of JSON each.

An export is a header, a record for each document, and a last line that tells how many there were. A
vector is base64 of float32, little-endian. The hashes by which memoryd knows again what it has
stored go along, and a seal that ties them to title, text, chunks and vectors: what was edited on
its way has another seal, and its hashes count no more.
"""

import binascii
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, NotRequired

import numpy as np
import numpy.typing as npt
import orjson
from typing_extensions import TypedDict

from memoryd.documents.types import Chunk, Collection, Draft, OwnChunk, chunk_hash
from memoryd.errors import InvalidInputError, MissingFieldError
from memoryd.vectors.types import Vector, Vectors

FORMAT = 1

_SEAL_BYTES = 16
# A vector whose square of length is between these is neither zero nor too long, at any precision.
_PLAIN_SQUARES = (1e-6, 1e9)


class ChunkFields(TypedDict):
    """Be a chunk as it stands in a record."""

    text: NotRequired[str]
    start_char: NotRequired[int | None]
    end_char: NotRequired[int | None]
    token_count: NotRequired[int | None]
    page: NotRequired[int | None]
    headings: NotRequired[list[str]]
    hash: NotRequired[str]
    vector: NotRequired[Any]


@dataclass(frozen=True)
class Header:
    """Say what the records after it come from: vectors of which model, of which width."""

    model: str
    dimensions: int

    def suits(self, collection: Collection) -> bool:
        """Say whether the vectors are such as `collection` has."""
        return (self.model, self.dimensions) == (collection.model, collection.dimensions)


@dataclass(frozen=True)
class Record:
    """Be a document with its chunks and vectors, as it is exported and imported."""

    draft: Draft
    """The document, with its own chunks where it has such; their vectors are in `vectors` too."""
    content_hash: bytes
    chunks: tuple[Chunk, ...] = ()
    vectors: Vectors | None = None
    """Of the chunks, (chunks, dimensions); None: memoryd has to embed it."""
    created_at: datetime | None = None

    @property
    def seal(self) -> bytes:
        """Sixteen bytes that change with content, hashes and vectors."""
        texts = [chunk.text for chunk in self.chunks]
        hashes = [self.content_hash, *(chunk.hash for chunk in self.chunks)]
        return _digest(self.draft, texts, self.vectors, hashes)


def _digest(
    draft: Draft, texts: Sequence[str], vectors: Vectors | None, hashes: Sequence[bytes] = ()
) -> bytes:
    """Return sixteen bytes of a document's title and text, its chunks' texts and vectors."""
    digest = hashlib.blake2b(digest_size=_SEAL_BYTES)
    parts = [text.encode() for text in (draft.title, draft.text, *texts)]
    brought = b"" if vectors is None else vectors.tobytes()
    for part in (*parts, brought, *hashes):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


# --- Writing ----


def write_header(collection: Collection) -> bytes:
    """Return the first line of an export."""
    return _line(
        {
            "memoryd": "export",
            "format": FORMAT,
            "collection": collection.name,
            "model": collection.model,
            "dimensions": collection.dimensions,
            "precision": collection.precision,
            "chunking": collection.chunking.as_json(),
            "language": collection.language,
            "metadata": collection.metadata,
        }
    )


def write_end(documents: int) -> bytes:
    """Return the last line of an export, without which it was cut off."""
    return _line({"end": True, "documents": documents})


def write_record(record: Record) -> bytes:
    """Return a record as a line."""
    draft = record.draft
    fields: dict[str, Any] = {"id": draft.external_id, "title": draft.title}
    if draft.chunks is None:
        fields["text"] = draft.text
    fields |= {
        "mime_type": draft.mime_type,
        "language": draft.language,
        "metadata": draft.metadata,
        "tags": draft.tags,
        "expires_at": draft.expires_at,
        "created_at": record.created_at,
        "sections": None if draft.sections is None else [asdict(each) for each in draft.sections],
        "content_hash": record.content_hash.hex(),
        "chunks": _chunk_fields(record),
        "seal": record.seal.hex(),
    }
    return _line(fields)


def _chunk_fields(record: Record) -> list[dict[str, Any]]:
    fields = [
        {
            "text": chunk.text,
            "start_char": chunk.start_char,
            "end_char": chunk.end_char,
            "token_count": chunk.token_count,
            "page": chunk.page,
            "headings": chunk.headings or (),
            "hash": chunk.hash.hex(),
        }
        for chunk in record.chunks
    ]
    if record.vectors is not None:
        for each, vector in zip(fields, record.vectors, strict=True):
            each["vector"] = binascii.b2a_base64(vector.tobytes(), newline=False).decode()
    return fields


def _line(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


# --- Reading ----


_Vector = npt.NDArray[np.floating[Any]]
"""One that a line brings: float32 of base64, float64 of numbers."""


@dataclass(frozen=True)
class Given:
    """Be what a line says of a document, each field checked by itself.

    `draft` has text and attributes, and no chunks.
    """

    draft: Draft
    chunks: Sequence[ChunkFields] | None = None
    vector: Any = None
    """Of the whole text, which is one chunk then."""
    content_hash: str | None = None
    seal: str | None = None
    created_at: datetime | None = None


def make_record(given: Given, collection: Collection, *, takes_vectors: bool = True) -> Record:
    """Return the record of a line; without `takes_vectors` its vectors are of another model.

    Raises InvalidInputError where chunks, text and vectors don't belong together.
    """
    described = given.chunks
    if given.vector is not None:
        described = [
            {"start_char": 0, "end_char": len(given.draft.text), "vector": given.vector},
        ]
    if described is None:
        return Record(given.draft, given.draft.content_hash, created_at=given.created_at)
    vectors = _read_vectors(given, described, collection) if takes_vectors else []
    texts = _spans(given.draft, described) if given.draft.text else _own_texts(described)
    sealed = _sealed(given, described, texts, vectors, collection)
    if sealed is not None:
        return sealed
    if given.draft.text and (given.seal is not None or not takes_vectors):
        # It was edited, and the vectors may be of what the text was before; or there are none.
        return Record(given.draft, given.draft.content_hash, created_at=given.created_at)
    return _unsealed(given, described, texts, vectors)


def _sealed(
    given: Given,
    described: Sequence[ChunkFields],
    texts: Sequence[str],
    vectors: Sequence[_Vector | None],
    collection: Collection,
) -> Record | None:
    """Return the record with hashes and vectors as they are, if the seal says that they belong."""
    if given.seal is None or given.content_hash is None:
        return None
    hashes = [bytes.fromhex(fields.get("hash", "")) for fields in described]
    brought = [vector for vector in vectors if vector is not None]
    record = Record(
        given.draft if given.draft.text else replace(given.draft, chunks=_own(texts, [])),
        bytes.fromhex(given.content_hash),
        _chunks(described, texts, hashes),
        np.asarray(brought, np.float32) if len(brought) == len(texts) else None,
        given.created_at,
    )
    if record.seal != bytes.fromhex(given.seal):
        return None
    if record.vectors is not None:
        _check_stored(record.vectors, collection)
    return record


def _unsealed(
    given: Given,
    described: Sequence[ChunkFields],
    texts: Sequence[str],
    vectors: Sequence[_Vector | None],
) -> Record:
    """Return the record of what a user made; where vectors are missing, it has none."""
    has_text = bool(given.draft.text)
    units = [
        None if vector is None else _unit(vector, _path(given, position))
        for position, vector in enumerate(vectors)
    ]
    draft = given.draft if has_text else replace(given.draft, chunks=_own(texts, units))
    brought = [unit for unit in units if unit is not None]
    if len(brought) < len(texts):
        if has_text:
            raise _missing_vector(units)
        return Record(draft, draft.content_hash, created_at=given.created_at)
    hashes = [chunk_hash(draft.title, *each) for each in zip(texts, brought, strict=True)]
    matrix = np.array(brought)
    # Not that of the text alone: other chunks or vectors are other content.
    content_hash = _digest(draft, (), None, hashes) if has_text else draft.content_hash
    chunks = _chunks(described, texts, hashes)
    return Record(draft, content_hash, chunks, matrix, given.created_at)


def _missing_vector(units: Sequence[Vector | None]) -> MissingFieldError:
    at = f"chunks[{units.index(None)}].vector"
    return MissingFieldError(
        f"{at} is required, as of all chunks beside a text: without chunks, memoryd cuts and "
        "embeds the text",
        at,
    )


def _spans(draft: Draft, described: Sequence[ChunkFields]) -> list[str]:
    """Return the texts of chunks that are spans of a document's."""
    texts = []
    for position, fields in enumerate(described):
        start, end = fields.get("start_char"), fields.get("end_char")
        if start is None or end is None:
            at = f"chunks[{position}].{'start_char' if start is None else 'end_char'}"
            raise MissingFieldError(f"{at} is required of a chunk beside a text", at)
        text = draft.text[start:end]
        if end > len(draft.text) or not text.strip() or text != fields.get("text", text):
            at = f"chunks[{position}]"
            raise InvalidInputError(f"{at} is not text[{start}:{end}], or that is blank", at)
        texts.append(text)
    return texts


def _own_texts(described: Sequence[ChunkFields]) -> list[str]:
    """Return the texts of chunks that are all there is of a document."""
    texts = []
    for position, fields in enumerate(described):
        at = f"chunks[{position}]"
        text = fields.get("text", "")
        if not text.strip():
            raise MissingFieldError(f"{at}.text is required, and not blank", f"{at}.text")
        if fields.get("start_char") is not None or fields.get("end_char") is not None:
            raise InvalidInputError(f"{at} has a place in a text, and there is no text", at)
        texts.append(text)
    return texts


def _chunks(
    described: Sequence[ChunkFields], texts: Sequence[str], hashes: Sequence[bytes]
) -> tuple[Chunk, ...]:
    return tuple(
        Chunk(
            position,
            text,
            hash_,
            fields.get("start_char"),
            fields.get("end_char"),
            fields.get("token_count"),
            fields.get("page"),
            tuple(fields.get("headings", ())),
        )
        for position, (fields, text, hash_) in enumerate(zip(described, texts, hashes, strict=True))
    )


def _own(texts: Sequence[str], units: Sequence[Vector | None]) -> tuple[OwnChunk, ...]:
    vectors = units or [None] * len(texts)
    return tuple(OwnChunk(text, vector) for text, vector in zip(texts, vectors, strict=True))


# --- Vectors ----


def _read_vectors(
    given: Given, described: Sequence[ChunkFields], collection: Collection
) -> list[_Vector | None]:
    vectors: list[_Vector | None] = []
    for position, fields in enumerate(described):
        value = fields.get("vector")
        at = _path(given, position)
        vectors.append(None if value is None else _read_vector(value, collection.dimensions, at))
    return vectors


def _path(given: Given, position: int) -> str:
    return "vector" if given.vector is not None else f"chunks[{position}].vector"


def _read_vector(value: Any, dimensions: int, at: str) -> _Vector:
    vector = _decode(value, at) if isinstance(value, str) else _numbers(value, at)
    if len(vector) != dimensions:
        raise InvalidInputError(f"{at} has {len(vector)} numbers, the collection {dimensions}", at)
    return vector


def _decode(text: str, at: str) -> _Vector:
    try:
        return np.frombuffer(binascii.a2b_base64(text, strict_mode=True), "<f4")
    except ValueError as error:
        raise InvalidInputError(f"{at} is not float32 in base64: {error}", at) from error


def _numbers(value: Any, at: str) -> _Vector:
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        raise InvalidInputError(f"{at} must be a list of numbers, or float32 in base64", at)
    return np.asarray(value, np.float64)


def _unit(vector: _Vector, at: str) -> Vector:
    """Return the vector at length 1, since a column of half precision has little range.

    Raises InvalidInputError for one that has no direction.
    """
    peak = np.maximum.reduce(np.abs(vector))
    if not peak < np.inf:
        raise InvalidInputError(f"{at} must be finite: it has a NaN or an infinity", at)
    if not peak:
        raise InvalidInputError(f"{at} must not be zero: that has no direction", at)
    wide = vector.astype(np.float64) / peak
    unit: Vector = (wide / math.sqrt(wide.dot(wide))).astype(np.float32)
    return unit


def _check_stored(vectors: Vectors, collection: Collection) -> None:
    """Raise InvalidInputError for vectors of which Postgres, as it keeps them, knows no cosine."""
    least, most = _PLAIN_SQUARES
    with np.errstate(over="ignore"):
        squares = np.einsum("cd,cd->c", vectors, vectors)
        if least < squares.min() and squares.max() < most:
            return
        stored = vectors.astype(np.float16) if collection.precision == "half" else vectors
        squares = np.square(stored, dtype=np.float32).sum(axis=1)
    if not (np.isfinite(squares) & (squares > 0)).all():
        raise InvalidInputError(
            f"chunks: a vector is too long or too short for precision {collection.precision!r}",
            "chunks",
        )
