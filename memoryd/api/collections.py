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
from memoryd.documents.types import Chunking, Collection, Precision
from memoryd.errors import NotFoundError
from memoryd.memory import collections
from memoryd.storage import collections as storage


class ChunkingBody(Body):
    """How documents are cut."""

    max_tokens: int = Field(256, ge=32)
    overlap_tokens: int = Field(32, ge=0)
    format: Literal["auto"] = "auto"


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


class CollectionAnswer(TypedDict):
    """A collection and what it holds."""

    name: str
    model: str
    dimensions: int
    precision: Precision
    chunking: ChunkingAnswer
    language: str
    metadata: dict[str, Any]
    aliases: list[str]
    documents: int
    chunks: int
    bytes: int
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
    chunking = Chunking(**body.chunking.model_dump(exclude={"format"})) if body.chunking else None
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
    return json_response(_answer(described), status=201)


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
        "collections": list(map(_answer, described)),
        "next_cursor": cursor,
    }
    return json_response(answer)


async def show(request: web.Request) -> web.Response:
    """Show a collection and what it holds."""
    described = await collections.describe(request.app[MEMORY], await find(request))
    return json_response(_answer(described))


async def update(request: web.Request) -> web.Response:
    """Change a collection's name, language or metadata."""
    memory = request.app[MEMORY]
    body = parse(CollectionPatchBody, await read_json(request))
    if body.name is not None:
        require_all_collections(request)
    described = await collections.update_collection(
        memory, await find(request), **body.model_dump(exclude_none=True)
    )
    return json_response(_answer(described))


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
    return json_response(_answer(described))


def _answer(described: collections.Described) -> CollectionAnswer:
    collection = described.collection
    return {
        "name": collection.name,
        "model": collection.model,
        "dimensions": collection.dimensions,
        "precision": collection.precision,
        "chunking": {
            "max_tokens": collection.chunking.max_tokens,
            "overlap_tokens": collection.chunking.overlap_tokens,
        },
        "language": collection.language,
        "metadata": collection.metadata,
        "aliases": described.aliases,
        "documents": described.counts.documents,
        "chunks": described.counts.chunks,
        "bytes": described.counts.bytes,
        "created_at": write_time(collection.created_at),
        "updated_at": write_time(collection.updated_at),
    }
