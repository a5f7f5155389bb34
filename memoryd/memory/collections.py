"""Make, describe, rename and delete collections."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from memoryd.documents.indexed_fields import validate_fields
from memoryd.documents.types import (
    Chunking,
    Collection,
    DenseIndex,
    FieldType,
    IndexSettings,
    Precision,
)
from memoryd.embeddings.model import EmbeddingModel
from memoryd.errors import ConflictError, InvalidInputError, NotFoundError
from memoryd.memory.state import Memory
from memoryd.storage import collections as storage
from memoryd.storage.vector_indexes import M, expected_index

DEFAULT = "default"

T = TypeVar("T")


@dataclass(frozen=True)
class Described:
    """Be a collection and what it holds."""

    collection: Collection
    counts: storage.Counts
    aliases: list[str]
    expected_index: DenseIndex | None
    """The index over vectors that it should have."""


async def create_collection(
    memory: Memory,
    name: str,
    *,
    model: str | None = None,
    dimensions: int | None = None,
    precision: Precision = "half",
    chunking: Chunking | None = None,
    language: str = "english",
    metadata: dict[str, Any] | None = None,
    index_settings: IndexSettings | None = None,
    indexed_fields: Mapping[str, FieldType] | None = None,
) -> Described:
    """Make a collection for `model` (else the setting's), loading it to know its width.

    Raises ModelNotFoundError, InvalidInputError for what the model or an index can't do,
    ConflictError where the name is taken.
    """
    check_index(index_settings, indexed_fields)
    async with memory.engine.using(model or memory.settings.model) as loaded:
        check_gives_vectors(loaded)
    check_dimensions(loaded, dimensions)
    chunking = chunking or Chunking(max_tokens=min(Chunking().max_tokens, loaded.max_tokens))
    check_chunking(chunking, loaded.max_tokens)
    collection = await storage.create_collection(
        memory.database,
        name=name,
        model=loaded.spec.name,
        dimensions=dimensions or loaded.dimensions,
        precision=precision,
        chunking=chunking,
        language=language,
        metadata=metadata or {},
        index_settings=index_settings,
        indexed_fields=indexed_fields,
    )
    memory.runner.wake()
    return await describe(memory, collection)


def check_index(settings: IndexSettings | None, fields: Mapping[str, FieldType] | None) -> None:
    """Raise InvalidInputError for settings that no index has, and what `validate_fields` raises."""
    m = (settings and settings.m) or M
    if settings and settings.ef_construction and settings.ef_construction < 2 * m:
        raise InvalidInputError(
            f"index.dense.ef_construction: must be twice m ({m}) at least",
            "index.dense.ef_construction",
        )
    validate_fields(fields or {})


def check_gives_vectors(model: EmbeddingModel) -> None:
    """Raise InvalidInputError for a model that no collection can work with."""
    if model.pooling in ("rank", "none"):
        raise InvalidInputError(
            f"model: {model.spec.name} gives no vector for a text (its pooling is "
            f"{model.pooling!r}): choose an embedding model",
            "model",
        )


def check_dimensions(model: EmbeddingModel, dimensions: int | None) -> None:
    """Raise InvalidInputError where the model's vectors are narrower; None asks for their width."""
    if dimensions is not None and dimensions > model.dimensions:
        raise InvalidInputError(
            f"dimensions: {model.spec.name} has {model.dimensions}, and fewer are possible",
            "dimensions",
        )


def check_chunking(chunking: Chunking, max_tokens: int) -> None:
    """Raise InvalidInputError for chunks that a model of `max_tokens` has no room for."""
    if chunking.max_tokens > max_tokens:
        raise InvalidInputError(
            f"chunking.max_tokens: the model takes {max_tokens}, special tokens included",
            "chunking.max_tokens",
        )
    if chunking.overlap_tokens * 2 > chunking.max_tokens:
        raise InvalidInputError(
            "chunking.overlap_tokens can be half of max_tokens at most", "chunking.overlap_tokens"
        )


async def ensure_default(memory: Memory) -> None:
    """Make the collection `default` where it isn't there."""
    try:
        await storage.find_collection(memory.database, DEFAULT)
    except NotFoundError:
        with suppress(ConflictError):  # another memoryd on this database was faster
            await create_collection(memory, DEFAULT)


async def describe(memory: Memory, collection: Collection) -> Described:
    """Return a collection with what it holds; raise NotFoundError where it has been deleted."""
    counts = await storage.count_contents(memory.database, collection)
    aliases = await storage.list_aliases(memory.database, collection)
    threshold = memory.settings.hnsw_threshold
    index = expected_index(collection, collection.active, counts.chunks, threshold)
    return Described(collection, counts, aliases, index)


async def describe_all(memory: Memory, collections: Sequence[Collection]) -> list[Described]:
    """Return collections with what each holds, without those that have been deleted."""
    described = []
    for collection in collections:
        with suppress(NotFoundError):
            described.append(await describe(memory, collection))
    return described


async def update_collection(
    memory: Memory,
    collection: Collection,
    *,
    name: str | None = None,
    language: str | None = None,
    metadata: dict[str, Any] | None = None,
    index_settings: Mapping[str, Any] | None = None,
    indexed_fields: Mapping[str, FieldType] | None = None,
) -> Described:
    """Change what is given of a collection; `default` keeps its name.

    Of `index_settings` what isn't named stays. A job makes the indexes.
    """
    settings = replace(collection.index_settings, **index_settings) if index_settings else None
    check_index(settings, indexed_fields)
    if collection.name == DEFAULT and name not in (None, DEFAULT):
        raise ConflictError("the collection 'default' keeps its name", "name")
    updated = await storage.update_collection(
        memory.database,
        collection,
        name=name,
        language=language,
        metadata=metadata,
        index_settings=settings,
        indexed_fields=indexed_fields,
    )
    memory.runner.wake()
    return await describe(memory, updated)


async def delete_collection(memory: Memory, collection: Collection) -> None:
    """Delete a collection with all that it holds; `default` stays."""
    if collection.name == DEFAULT:
        raise ConflictError("the collection 'default' can't be deleted", "collection")
    await storage.delete_collection(memory.database, collection)
    await release_unused(memory, {each.model for each in collection.generations})


async def release_unused(memory: Memory, models: Iterable[str]) -> None:
    """Let those of `models` leave the memory that no collection works with any more."""
    remaining = await storage.list_models(memory.database)
    for model in set(models) - {*remaining, memory.engine.resolve(memory.settings.model)}:
        memory.engine.release(model)


async def with_current(
    memory: Memory, collection: Collection, use: Callable[[Collection], Awaitable[T]]
) -> T:
    """Return what `use` returns, called again where a generation that it read was dropped.

    Raises NotFoundError where that has another reason, such as that the collection was deleted.
    """
    try:
        return await use(collection)
    except NotFoundError:
        current = await storage.find_collection_by_number(memory.database, collection.number)
        if current.generations == collection.generations:
            raise
    return await use(current)
