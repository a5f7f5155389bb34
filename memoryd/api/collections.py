"""Routes of collections."""

from typing import Any, Literal

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from memoryd.api.access import GRANT, require_all_collections, require_collection
from memoryd.api.bodies import Body, parse, read_json
from memoryd.api.errors import json_response
from memoryd.api.fields import CollectionName, Cursor, Language, Metadata, Time, write_time
from memoryd.api.paging import PageQuery
from memoryd.api.queries import read_query
from memoryd.api.state import MEMORY
from memoryd.documents.types import ChunkFormat, Chunking, Collection, Generation, Precision
from memoryd.errors import NotFoundError
from memoryd.memory import collections
from memoryd.storage import collections as storage


class ChunkingBody(Body):
    """How documents are cut."""

    max_tokens: int = Field(256, ge=32)
    overlap_tokens: int = Field(32, ge=0)
    format: ChunkFormat = "auto"


class CollectionBody(Body):
    """A collection to make."""

    name: CollectionName
    model: str | None = None
    dimensions: int | None = Field(None, gt=0)
    precision: Precision = "half"
    chunking: ChunkingBody | None = None
    language: Language = "english"
    metadata: Metadata = Field(default_factory=dict)


class CollectionPatchBody(Body):
    """What can be changed of a collection."""

    name: CollectionName | None = None
    language: Language | None = None
    metadata: Metadata | None = None


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
    """How vectors are searched."""

    type: Literal["exact"]
    """All vectors are compared: there is no index over them that could be approximate."""
    status: Literal["ready"]


class IndexAnswer(TypedDict):
    """What serves the modes of search."""

    dense: DenseIndexAnswer
    lexical: None
    """There is no lexical search yet."""


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
    database, name = request.app[MEMORY].database, request.match_info["collection"]
    try:
        collection = await storage.find_collection(database, name)
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
    )
    return json_response(collection_answer(described), status=201)


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
    """Change a collection's name, language or metadata."""
    memory = request.app[MEMORY]
    body = parse(CollectionPatchBody, await read_json(request))
    if body.name is not None:
        require_all_collections(request)
    described = await collections.update_collection(
        memory, await find(request), **body.model_dump(exclude_none=True)
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
        "index": {"dense": {"type": "exact", "status": "ready"}, "lexical": None},
        "jobs": {"queued": counts.queued_jobs, "running": counts.running_jobs},
        "building": generation_answer(building) if building else None,
        "previous": generation_answer(previous) if previous else None,
        "created_at": write_time(collection.created_at),
        "updated_at": write_time(collection.updated_at),
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
