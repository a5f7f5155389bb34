"""Routes of collections."""

from typing import Any, Literal

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from memoryd.api import limits
from memoryd.api.access import GRANT, require_all_collections, require_collection
from memoryd.api.bodies import Body, parse, read_json
from memoryd.api.errors import json_response
from memoryd.api.fields import CollectionName, Cursor, Language, Metadata, Time, write_time
from memoryd.api.paging import PageQuery
from memoryd.api.queries import read_query
from memoryd.api.state import MEMORY
from memoryd.documents.indexed_fields import MAX_FIELDS
from memoryd.documents.types import (
    ChunkFormat,
    Chunking,
    Collection,
    FieldType,
    Generation,
    IndexSettings,
    Precision,
)
from memoryd.errors import NotFoundError
from memoryd.memory import collections
from memoryd.storage import collections as storage


class ChunkingBody(Body):
    """How documents are cut."""

    max_tokens: int = Field(256, ge=32)
    overlap_tokens: int = Field(32, ge=0)
    format: ChunkFormat = "auto"


class DenseIndexBody(Body):
    """What index there is over the vectors of many chunks."""

    type: Literal["auto", "exact", "hnsw"] = Field(
        "auto",
        description="exact: none, all vectors are compared; hnsw: one however few there are; auto: "
        "hnsw where there are many.",
    )
    m: int | None = Field(
        None, ge=2, le=limits.INDEX_M, description="Edges of each vector. Default: 16."
    )
    ef_construction: int | None = Field(
        None,
        ge=4,
        le=limits.INDEX_EF_CONSTRUCTION,
        description="How thoroughly edges are chosen, twice `m` at least. Default: 128.",
    )


class IndexBody(Body):
    """What is indexed, and how."""

    dense: DenseIndexBody | None = None
    fields: dict[str, FieldType] | None = Field(
        None,
        max_length=MAX_FIELDS,
        description="Keys of the metadata, dotted, that filters compare (gt, gte, lt, lte, prefix) "
        "quickly, with the type of the values that count; all that are to be so.",
    )


class CollectionBody(Body):
    """A collection to make."""

    name: CollectionName
    model: str | None = None
    dimensions: int | None = Field(None, gt=0)
    precision: Precision = "half"
    chunking: ChunkingBody | None = None
    language: Language = "english"
    metadata: Metadata = Field(default_factory=dict)
    index: IndexBody | None = None


class CollectionPatchBody(Body):
    """What can be changed of a collection."""

    name: CollectionName | None = None
    language: Language | None = None
    metadata: Metadata | None = None
    index: IndexBody | None = None


class AliasBody(Body):
    """Another name for a collection."""

    alias: CollectionName


class ChunkingAnswer(TypedDict):
    """How documents are cut."""

    max_tokens: int
    overlap_tokens: int
    format: ChunkFormat


class GenerationAnswer(TypedDict):
    """A model, and how documents are cut and stored for it."""

    model: str
    dimensions: int
    precision: Precision
    chunking: ChunkingAnswer
    instruction: str | None
    """What queries are for, where a query doesn't say."""


class DenseIndexAnswer(TypedDict):
    """How vectors are searched, or will be once the index is built."""

    type: Literal["exact", "hnsw", "binary"]
    """`exact`: all vectors are compared, there is no index that could be approximate. `binary`:
    an HNSW of the signs of their numbers, for there are too many; it is ranked by the vectors."""
    status: Literal["ready", "building"]
    m: int | None
    ef_construction: int | None
    progress: float | None
    """The part of it that is built; null: none is being built, or nothing tells yet."""


class LexicalIndexAnswer(TypedDict):
    """How words are searched."""

    type: Literal["bm25"]
    status: Literal["ready", "building"]


class IndexAnswer(TypedDict):
    """What serves the modes of search, and filters."""

    dense: DenseIndexAnswer
    lexical: LexicalIndexAnswer
    fields: dict[str, FieldType]
    """Keys of the metadata that have an index for comparisons."""


class UnfinishedJobsAnswer(TypedDict):
    """How many jobs work for a collection, or will."""

    queued: int
    running: int


class CollectionAnswer(GenerationAnswer):
    """A collection and what it holds; model and all that belongs to it are those searched."""

    name: str
    language: str
    metadata: dict[str, Any]
    aliases: list[str]
    documents: int
    """Also those that wait to be stored, or failed."""
    chunks: int
    bytes: int
    """On disk: tables, indexes, and what waits."""
    index: IndexAnswer
    jobs: UnfinishedJobsAnswer
    building: GenerationAnswer | None
    """What is being made to take the place of the model."""
    previous: GenerationAnswer | None
    """What a rollback returns to."""
    created_at: Time
    updated_at: Time


class CollectionsAnswer(TypedDict):
    """A page of collections."""

    collections: list[CollectionAnswer]
    next_cursor: Cursor


class CollectionDeletedAnswer(TypedDict):
    """The name of the collection that is no more."""

    deleted: str


async def find(request: web.Request) -> Collection:
    """Return the collection that the path names.

    Raises ForbiddenError where the sender's key doesn't open it, NotFoundError.
    """
    return await find_named(request, request.match_info["collection"])


async def find_named(request: web.Request, name: str) -> Collection:
    """Return the collection of that name; raise what `find` raises."""
    try:
        collection = await storage.find_collection(request.app[MEMORY].database, name)
    except NotFoundError:
        require_all_collections(request)  # else who may see some could ask which others there are
        raise
    require_collection(request, collection)
    return collection


async def create(request: web.Request) -> web.Response:
    """Make a collection for a model, which is loaded to know its width."""
    require_all_collections(request)
    body = parse(CollectionBody, await read_json(request))
    chunking = Chunking(**body.chunking.model_dump()) if body.chunking else None
    described = await collections.create_collection(
        request.app[MEMORY],
        body.name,
        model=body.model,
        dimensions=body.dimensions,
        precision=body.precision,
        chunking=chunking,
        language=body.language,
        metadata=body.metadata,
        index_settings=_index_settings(body.index),
        indexed_fields=body.index.fields if body.index else None,
    )
    return json_response(collection_answer(described), status=201)


def _index_settings(body: IndexBody | None) -> IndexSettings | None:
    return IndexSettings(**body.dense.model_dump()) if body and body.dense else None


async def list_(request: web.Request) -> web.Response:
    """List the collections by name."""
    memory = request.app[MEMORY]
    query = read_query(request, PageQuery)
    found = await storage.list_collections(
        memory.database,
        after=query.after_text(""),
        limit=query.limit_and_one,
        among=request[GRANT].collection_numbers,
    )
    page, cursor = query.cut(found, lambda collection: collection.name)
    described = await collections.describe_all(memory, page)
    answer: CollectionsAnswer = {
        "collections": list(map(collection_answer, described)),
        "next_cursor": cursor,
    }
    return json_response(answer)


async def show(request: web.Request) -> web.Response:
    """Show a collection and what it holds."""
    described = await collections.describe(request.app[MEMORY], await find(request))
    return json_response(collection_answer(described))


async def update(request: web.Request) -> web.Response:
    """Change a collection's name, language, metadata or indexes, which a job makes."""
    memory = request.app[MEMORY]
    body = parse(CollectionPatchBody, await read_json(request))
    if body.name is not None:
        require_all_collections(request)
    index = body.index or IndexBody(fields=None)
    described = await collections.update_collection(
        memory,
        await find(request),
        **body.model_dump(exclude_none=True, exclude={"index"}),
        index_settings=index.dense.model_dump(exclude_unset=True) if index.dense else None,
        indexed_fields=index.fields,
    )
    return json_response(collection_answer(described))


async def delete(request: web.Request) -> web.Response:
    """Delete a collection with all that it holds."""
    require_all_collections(request)
    collection = await find(request)
    await collections.delete_collection(request.app[MEMORY], collection)
    answer: CollectionDeletedAnswer = {"deleted": collection.name}
    return json_response(answer)


async def move_alias(request: web.Request) -> web.Response:
    """Let another name mean this collection, also where it meant another."""
    memory = request.app[MEMORY]
    require_all_collections(request)
    body = parse(AliasBody, await read_json(request))
    collection = await find(request)
    await storage.move_alias(memory.database, collection, body.alias)
    described = await collections.describe(memory, collection)
    return json_response(collection_answer(described))


def collection_answer(described: collections.Described) -> CollectionAnswer:
    """Return what is told of a collection."""
    collection, counts = described.collection, described.counts
    building = collection.find_generation("building")
    previous = collection.find_generation("previous")
    return {
        "name": collection.name,
        **generation_answer(collection.active),
        "language": collection.language,
        "metadata": collection.metadata,
        "aliases": described.aliases,
        "documents": counts.documents,
        "chunks": counts.chunks,
        "bytes": counts.bytes,
        "index": _index_answer(described),
        "jobs": {"queued": counts.queued_jobs, "running": counts.running_jobs},
        "building": generation_answer(building) if building else None,
        "previous": generation_answer(previous) if previous else None,
        "created_at": write_time(collection.created_at),
        "updated_at": write_time(collection.updated_at),
    }


def _index_answer(described: collections.Described) -> IndexAnswer:
    collection, counts = described.collection, described.counts
    index, expected = collection.active.dense_index, described.expected_index
    is_building = counts.is_indexing and expected is not None and index != expected
    told = expected if is_building else index
    return {
        "dense": {
            "type": told.type if told else "exact",
            "status": "building" if is_building else "ready",
            "m": told.m if told else None,
            "ef_construction": told.ef_construction if told else None,
            "progress": counts.indexed_part if is_building else None,
        },
        "lexical": {"type": "bm25", "status": collection.active.lexical_state},
        "fields": collection.indexed_fields,
    }


def generation_answer(generation: Generation) -> GenerationAnswer:
    """Return what is told of a generation."""
    return {
        "model": generation.model,
        "dimensions": generation.dimensions,
        "precision": generation.precision,
        "chunking": {
            "max_tokens": generation.chunking.max_tokens,
            "overlap_tokens": generation.chunking.overlap_tokens,
            "format": generation.chunking.format,
        },
        "instruction": generation.instruction,
    }
