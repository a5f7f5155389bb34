"""The nouns: what people submit and what is kept."""

import hashlib
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import orjson

from memoryd.errors import MemorydError

Precision = Literal["half", "full"]
Status = Literal["stored", "unchanged", "updated", "replaced", "skipped", "failed"]
OnConflict = Literal["replace", "skip", "error"]

_HASH_BYTES = 16


@dataclass(frozen=True)
class Chunking:
    """Say how a collection's documents are cut."""

    max_tokens: int = 256
    """Counts everything that the model sees: prefix, title, special tokens, text."""
    overlap_tokens: int = 32

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in the database and in answers."""
        return asdict(self)


@dataclass(frozen=True)
class Collection:
    """Be a named set of documents with one active embedding model."""

    number: int
    name: str
    model: str
    dimensions: int
    precision: Precision
    chunking: Chunking
    language: str
    metadata: dict[str, Any]
    vector_table: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Draft:
    """Be a document as a client submits it."""

    text: str
    id: str | None = None
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    mime_type: str | None = None
    language: str | None = None
    on_conflict: OnConflict = "replace"

    @cached_property
    def external_id(self) -> str:
        """The id as given, else one made of title, text and metadata: a repeated POST finds it."""
        if self.id is not None:
            return self.id
        metadata = orjson.dumps(self.metadata, option=orjson.OPT_SORT_KEYS)
        return _hash(self.title.encode(), self.text.encode(), metadata).hex()

    @cached_property
    def content_hash(self) -> bytes:
        """Sixteen bytes that change when title or text change: then it must be embedded again."""
        return _hash(self.title.encode(), self.text.encode())


@dataclass(frozen=True)
class Document:
    """Be a document as it is stored; `number` is its row, `id` the client's name for it."""

    number: int
    id: str
    version: int
    content_hash: bytes
    title: str
    mime_type: str | None
    language: str | None
    metadata: dict[str, Any]
    tags: list[str]
    chunk_count: int
    created_at: datetime
    updated_at: datetime
    text: str | None = None
    """None where it was not asked for: it can be long."""

    def has_content_of(self, draft: Draft) -> bool:
        """Say whether title and text are those of `draft`."""
        return self.content_hash == draft.content_hash

    def has_attributes_of(self, draft: Draft) -> bool:
        """Say whether all that is not content is that of `draft`."""
        return (self.metadata, self.tags, self.mime_type, self.language) == (
            draft.metadata,
            draft.tags,
            draft.mime_type,
            draft.language,
        )


@dataclass(frozen=True)
class Chunk:
    """Be a span of a document that is embedded and found: `text[start_char:end_char]`."""

    position: int
    start_char: int
    end_char: int
    token_count: int
    """What the model sees: special tokens, prefix and title included."""
    text: str
    hash: bytes
    """Sixteen bytes of what is embedded: an unchanged chunk is not embedded again."""


@dataclass(frozen=True)
class StoredChunk:
    """Be a chunk as it is stored; `number` is its row."""

    number: int
    document_number: int
    position: int
    start_char: int | None
    end_char: int | None
    token_count: int
    text: str

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


def chunk_hash(title: str, text: str) -> bytes:
    """Return sixteen bytes that stand for what is embedded."""
    return _hash(title.encode(), text.encode())


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
