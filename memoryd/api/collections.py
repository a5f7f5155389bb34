"""Routes of collections."""

from typing import Any

from aiohttp import web

from memoryd.api.bodies import (
    AliasBody,
    CollectionBody,
    CollectionPatchBody,
    parse,
    read_json,
)
from memoryd.api.errors import json_response
from memoryd.api.paging import read_cursor, read_limit, write_cursor, write_time
from memoryd.api.state import MEMORY
from memoryd.documents.types import Chunking, Collection
from memoryd.memory import collections
from memoryd.storage import collections as storage


async def find(request: web.Request) -> Collection:
    """Return the collection that the path names."""
    database = request.app[MEMORY].database
    return await storage.find_collection(database, request.match_info["collection"])


async def create(request: web.Request) -> web.Response:
    """POST /v1/collections."""
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
    return json_response(_as_json(described), status=201)


async def list_(request: web.Request) -> web.Response:
    """GET /v1/collections."""
    memory = request.app[MEMORY]
    limit = read_limit(request)
    found = await storage.list_collections(
        memory.database, after=read_cursor(request, ""), limit=limit + 1
    )
    page = await collections.describe_all(memory, found[:limit])
    cursor = write_cursor(found[limit - 1].name) if len(found) > limit else None
    return json_response({"collections": list(map(_as_json, page)), "next_cursor": cursor})


async def show(request: web.Request) -> web.Response:
    """GET /v1/collections/{collection}."""
    described = await collections.describe(request.app[MEMORY], await find(request))
    return json_response(_as_json(described))


async def update(request: web.Request) -> web.Response:
    """PATCH /v1/collections/{collection}."""
    memory = request.app[MEMORY]
    body = parse(CollectionPatchBody, await read_json(request))
    described = await collections.update_collection(
        memory, await find(request), **body.model_dump(exclude_none=True)
    )
    return json_response(_as_json(described))


async def delete(request: web.Request) -> web.Response:
    """DELETE /v1/collections/{collection}."""
    collection = await find(request)
    await collections.delete_collection(request.app[MEMORY], collection)
    return json_response({"deleted": collection.name})


async def move_alias(request: web.Request) -> web.Response:
    """POST /v1/collections/{collection}/aliases."""
    memory = request.app[MEMORY]
    body = parse(AliasBody, await read_json(request))
    collection = await find(request)
    await storage.move_alias(memory.database, collection, body.alias)
    described = await collections.describe(memory, collection)
    return json_response(_as_json(described))


def _as_json(described: collections.Described) -> dict[str, Any]:
    collection = described.collection
    return {
        "name": collection.name,
        "model": collection.model,
        "dimensions": collection.dimensions,
        "precision": collection.precision,
        "chunking": collection.chunking.as_json(),
        "language": collection.language,
        "metadata": collection.metadata,
        "aliases": described.aliases,
        "documents": described.counts.documents,
        "chunks": described.counts.chunks,
        "bytes": described.counts.bytes,
        "created_at": write_time(collection.created_at),
        "updated_at": write_time(collection.updated_at),
    }
