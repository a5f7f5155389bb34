"""Routes of documents."""

from typing import Any

from aiohttp import web
from pydantic import BaseModel

from memoryd.api.bodies import DocumentBody, parse, read_json
from memoryd.api.collections import find
from memoryd.api.errors import error_object, json_response
from memoryd.api.paging import (
    read_limit,
    read_number_cursor,
    read_version,
    write_cursor,
    write_time,
)
from memoryd.api.state import MEMORY
from memoryd.documents.types import Document, Draft, Outcome, StoredChunk
from memoryd.errors import InvalidInputError, MemorydError, TooLargeError, UnknownFieldError
from memoryd.memory.documents import delete_document
from memoryd.memory.ingest import ingest, ingest_document
from memoryd.memory.state import Memory
from memoryd.storage import documents as storage


class StoreQuery(BaseModel):
    """How documents are stored."""

    wait: bool = True


async def store(request: web.Request) -> web.Response:
    """POST /v1/collections/{collection}/documents: one document, or {"documents": […]}."""
    memory = request.app[MEMORY]
    if request.query.get("wait", "true") != "true":
        raise InvalidInputError("wait: only true is served, the answer comes when stored", "wait")
    with memory.holding(request.content_length or memory.settings.max_body_bytes):
        body = await read_json(request)
        if isinstance(body, dict) and "documents" in body:
            outcomes = await _store_batch(request, memory, body)
        else:
            outcomes = [await _store_one(request, memory, body)]
    return json_response({"documents": list(map(_outcome_as_json, outcomes)), "job": None})


async def _store_one(request: web.Request, memory: Memory, body: Any) -> Outcome:
    draft, collection = _draft(memory, body), await find(request)
    version = read_version(request)
    return await memory.run_to_end(ingest_document(memory, collection, draft, version=version))


async def _store_batch(request: web.Request, memory: Memory, body: dict[str, Any]) -> list[Outcome]:
    if read_version(request) is not None:
        raise InvalidInputError("If-Match goes with one document, not with a batch", "If-Match")
    items = _batch_items(memory, body)
    collection = await find(request)
    outcomes: dict[int, Outcome] = {}
    drafts: dict[int, Draft] = {}
    for index, item in enumerate(items):
        try:
            drafts[index] = _draft(memory, item, f"documents[{index}]")
        except MemorydError as error:
            outcomes[index] = Outcome(_id_of(item), "failed", error=error)
    stored = await memory.run_to_end(ingest(memory, collection, list(drafts.values())))
    outcomes.update(zip(drafts, stored, strict=True))
    return [outcomes[index] for index in range(len(items))]


def _batch_items(memory: Memory, body: dict[str, Any]) -> list[Any]:
    items = body["documents"]
    unknown = [field for field in body if field != "documents"]
    if unknown:
        raise UnknownFieldError(f"{unknown[0]} is not a field beside documents", unknown[0])
    if not isinstance(items, list) or not items:
        raise InvalidInputError("documents: must be a list of at least one", "documents")
    if len(items) > memory.settings.max_documents:
        raise TooLargeError(
            f"documents: {len(items)} are more than max_documents = "
            f"{memory.settings.max_documents}: send smaller batches",
            "documents",
        )
    return items


def _draft(memory: Memory, value: Any, at: str = "") -> Draft:
    body = parse(DocumentBody, value, at)
    limit = memory.settings.max_text_chars
    if len(body.text) > limit:
        path = f"{at}.text" if at else "text"
        raise TooLargeError(
            f"{path} has {len(body.text)} characters, more than max_text_chars = {limit}: "
            "split the document",
            path,
        )
    return Draft(**body.model_dump(exclude={"expires_at"}))


def _id_of(item: Any) -> str | None:
    given = item.get("id") if isinstance(item, dict) else None
    return given if isinstance(given, str) else None


async def list_(request: web.Request) -> web.Response:
    """GET /v1/collections/{collection}/documents, without their texts."""
    limit = read_limit(request)
    found = await storage.list_documents(
        request.app[MEMORY].database,
        await find(request),
        after=read_number_cursor(request, 0),
        limit=limit + 1,
    )
    cursor = write_cursor(found[limit - 1].number) if len(found) > limit else None
    page = [_document_as_json(document) for document in found[:limit]]
    return json_response({"documents": page, "next_cursor": cursor})


async def show(request: web.Request) -> web.Response:
    """GET /v1/collections/{collection}/documents/{id}."""
    database, external_id = request.app[MEMORY].database, request.match_info["id"]
    document = await storage.read_document(database, await find(request), external_id)
    return json_response(_document_as_json(document) | {"text": document.text})


async def list_chunks(request: web.Request) -> web.Response:
    """GET /v1/collections/{collection}/documents/{id}/chunks."""
    limit = read_limit(request)
    database, collection = request.app[MEMORY].database, await find(request)
    found = await storage.list_chunks(
        database,
        collection,
        await storage.require_document(database, collection, request.match_info["id"]),
        after=read_number_cursor(request, -1),
        limit=limit + 1,
    )
    cursor = write_cursor(found[limit - 1].position) if len(found) > limit else None
    page = [chunk_as_json(chunk) | {"text": chunk.text} for chunk in found[:limit]]
    return json_response({"chunks": page, "next_cursor": cursor})


async def delete(request: web.Request) -> web.Response:
    """DELETE /v1/collections/{collection}/documents/{id}."""
    memory, collection = request.app[MEMORY], await find(request)
    external_id, version = request.match_info["id"], read_version(request)
    await delete_document(memory, collection, external_id, version=version)
    return json_response({"deleted": 1})


def chunk_as_json(chunk: StoredChunk) -> dict[str, Any]:
    """Return a chunk's place in its document, without its text."""
    return {
        "id": chunk.id,
        "index": chunk.position,
        "start_char": chunk.start_char,
        "end_char": chunk.end_char,
        "token_count": chunk.token_count,
    }


def _document_as_json(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "version": document.version,
        "title": document.title,
        "mime_type": document.mime_type,
        "language": document.language,
        "metadata": document.metadata,
        "tags": document.tags,
        "chunks": document.chunk_count,
        "created_at": write_time(document.created_at),
        "updated_at": write_time(document.updated_at),
    }


def _outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "id": outcome.id,
        "status": outcome.status,
        "version": outcome.version,
        "chunks": outcome.chunks,
        "embedded": outcome.embedded,
        "error": error_object(outcome.error) if outcome.error else None,
    }
