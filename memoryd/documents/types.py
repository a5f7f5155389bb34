"""The nouns: what people submit and what is kept."""

import hashlib
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import orjson

from memoryd.documents.outline import Section
from memoryd.errors import MemorydError
from memoryd.vectors.types import Vector

Precision = Literal["half", "full"]
ChunkFormat = Literal["auto", "text", "markdown", "code"]
Role = Literal["active", "building", "previous"]
Status = Literal["stored", "unchanged", "updated", "replaced", "skipped", "failed", "queued"]
OnConflict = Literal["replace", "skip", "error"]
FieldType = Literal["number", "string"]

_HASH_BYTES = 16


@dataclass(frozen=True)
class Chunking:
    """Say how a collection's documents are cut."""

    max_tokens: int = 256
    """Counts everything that the model sees: prefix, title, special tokens, text."""
    overlap_tokens: int = 32
    format: ChunkFormat = "auto"
    """`auto` goes by each document's type, or by what its text looks like."""

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in the database and in answers."""
        return asdict(self)


@dataclass(frozen=True)
class IndexSettings:
    """Say what a collection's index of vectors should be; None: as memoryd finds right.

    `m` and `ef_construction` are those of HNSW: edges per node, and how thoroughly it is built.
    """

    type: Literal["auto", "exact", "hnsw"] = "auto"
    m: int | None = None
    ef_construction: int | None = None


@dataclass(frozen=True)
class DenseIndex:
    """Be the index that finds the nearest vectors of a generation."""

    type: Literal["hnsw", "binary"]
    """`binary` has the signs of the numbers alone: what it finds is ranked by the vectors."""
    name: str
    m: int
    ef_construction: int


@dataclass(frozen=True)
class Generation:
    """Be one way in which all documents of a collection are chunked and embedded."""

    number: int
    role: Role
    model: str
    dimensions: int
    precision: Precision
    chunking: Chunking
    instruction: str | None = None
    """What queries are for, where the model takes that and a query doesn't say."""
    dense_index: DenseIndex | None = field(default=None, compare=False)
    """None: there is none, or none yet, and all vectors are read."""
    lexical_state: Literal["ready", "building"] = field(default="ready", compare=False)
    """Like the index, this comes and goes, and the generation is the same."""


@dataclass(frozen=True)
class Collection:
    """Be a named set of documents, embedded by the model of its active generation."""

    number: int
    name: str
    language: str
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    generations: tuple[Generation, ...]
    """All that exist, by number: what is written goes into each."""
    index_settings: IndexSettings = IndexSettings()
    indexed_fields: dict[str, FieldType] = field(default_factory=dict)
    """Paths of metadata that have an index for comparisons."""

    @cached_property
    def active(self) -> Generation:
        """The one that is searched."""
        return next(each for each in self.generations if each.role == "active")

    def find_generation(self, role: Role) -> Generation | None:
        """Return the generation of that role, if there is one."""
        return next((each for each in self.generations if each.role == role), None)

    @property
    def model(self) -> str:
        """The model of the active generation."""
        return self.active.model

    @property
    def dimensions(self) -> int:
        """The width of the active generation's vectors."""
        return self.active.dimensions

    @property
    def precision(self) -> Precision:
        """How the active generation's vectors are stored."""
        return self.active.precision

    @property
    def chunking(self) -> Chunking:
        """How the active generation cuts texts."""
        return self.active.chunking


@dataclass(frozen=True)
class OwnChunk:
    """Be a chunk that the client made; without `vector`, (dimensions,), memoryd embeds it."""

    text: str
    vector: Vector | None = None


@dataclass(frozen=True)
class File:
    """Be a file as it was sent."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Draft:
    """Be a document as a client submits it: a text, chunks of its own, or a file to be read."""

    text: str = ""
    chunks: tuple[OwnChunk, ...] | None = None
    file: File | None = None
    id: str | None = None
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    mime_type: str | None = None
    language: str | None = None
    expires_at: datetime | None = None
    on_conflict: OnConflict = "replace"
    version: int | None = None
    """The version that it may replace; None: any."""
    sections: tuple[Section, ...] | None = None
    """The pages and headings of its text, where reading a file told them."""
    vectors_of: str | None = None
    """The model that the vectors of its chunks are of: the collection's, when it was accepted."""

    @cached_property
    def external_id(self) -> str:
        """The id as given, else a file's name, else a hash: a repeated POST finds the document."""
        if self.id is not None:
            return self.id
        if self.file is not None:
            return self.file.name
        metadata = orjson.dumps(self.metadata, option=orjson.OPT_SORT_KEYS)
        return _hash(self.title.encode(), *self._content, metadata).hex()

    @cached_property
    def content_hash(self) -> bytes:
        """Sixteen bytes that change with title, text, chunks or file: then it is embedded again."""
        return _hash(self.title.encode(), *self._content)

    @property
    def _content(self) -> list[bytes]:
        if self.file is not None:
            return [b"file", self.file.name.encode(), self.file.data]
        if self.chunks is None:
            return [self.text.encode()]
        parts = [b"chunks"]
        for chunk in self.chunks:
            parts += [chunk.text.encode(), b"" if chunk.vector is None else chunk.vector.tobytes()]
        return parts


@dataclass(frozen=True)
class Document:
    """Be a document as it is stored; `number` is its row, `id` the client's name for it."""

    number: int
    id: str
    version: int
    """0 while it waits to be stored for the first time."""
    content_hash: bytes
    title: str
    mime_type: str | None
    language: str | None
    metadata: dict[str, Any]
    tags: list[str]
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    error: dict[str, Any] | None
    """Why the last draft of it could not be stored, as `errors.describe_error` tells it."""
    last_draft: int = 0
    """The number of the draft that was stored last."""
    chunk_count: int = 0
    text: str | None = None
    """None where it was not asked for: it can be long."""

    @property
    def status(self) -> Literal["stored", "queued", "failed"]:
        """Whether it can be found, waits to be, or never will be as it is."""
        if self.version:
            return "stored"
        return "failed" if self.error else "queued"

    def has_content_of(self, draft: Draft) -> bool:
        """Say whether title and text are those of `draft`."""
        return self.content_hash == draft.content_hash

    def has_attributes_of(self, draft: Draft) -> bool:
        """Say whether all that is not content is that of `draft`."""
        if draft.file is None and self.mime_type != draft.mime_type:
            return False  # what a file is, is found by reading it
        return (self.tags, self.language, self.expires_at) == (
            draft.tags,
            draft.language,
            draft.expires_at,
        ) and same_json(self.metadata, draft.metadata)


@dataclass(frozen=True)
class Chunk:
    """Be a span of a document that is embedded and found: `text[start_char:end_char]`."""

    position: int
    text: str
    hash: bytes
    """Sixteen bytes of what is embedded: an unchanged chunk is not embedded again."""
    start_char: int | None = None
    """None of a chunk that the client made."""
    end_char: int | None = None
    token_count: int | None = None
    """What the model sees: special tokens, prefix and title included; None: never counted."""
    page: int | None = None
    headings: tuple[str, ...] | None = None


@dataclass(frozen=True)
class StoredChunk:
    """Be a chunk as it is stored; `number` is its row."""

    number: int
    document_number: int
    position: int
    start_char: int | None
    end_char: int | None
    token_count: int | None
    text: str
    page: int | None
    headings: list[str] | None

    @property
    def id(self) -> str:
        """The chunk's name in answers."""
        return f"c{self.number}"


@dataclass(frozen=True)
class Outcome:
    """Say what became of one submitted document."""

    id: str | None
    status: Status
    version: int | None = None
    chunks: int = 0
    embedded: int = 0
    error: MemorydError | None = None


def chunk_hash(title: str, text: str, vector: Vector | None = None) -> bytes:
    """Return sixteen bytes that stand for what is embedded, or for the vector that was given."""
    given = [] if vector is None else [vector.tobytes()]
    return _hash(title.encode(), text.encode(), *given)


def same_json(one: Any, other: Any) -> bool:
    """Say whether two values are the same JSON; to Python alone, true is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other)


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)  # apart: a file may have 64 MB
    return digest.digest()
