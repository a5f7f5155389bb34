"""Routes of stored documents."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from memoryd.api import limits
from memoryd.api.bodies import Body, parse, read_json
from memoryd.api.collections import find
from memoryd.api.errors import ErrorObject, error_object, json_response
from memoryd.api.fields import Cursor, ExpiryTime, Metadata, Tag, Time, write_time
from memoryd.api.filters import FilterObject, load_filter, read_filter
from memoryd.api.paging import PageQuery
from memoryd.api.queries import read_query, read_version
from memoryd.api.state import MEMORY
from memoryd.documents.filters import parse_filter
from memoryd.documents.merging import merge_patch
from memoryd.documents.types import Document, StoredChunk
from memoryd.errors import rebuild_error
from memoryd.memory.documents import delete_document, delete_matching, patch_document
from memoryd.storage import chunks
from memoryd.storage import documents as storage


class DocumentPatchBody(Body):
    """What is to change of a document, as a merge patch (RFC 7396): nothing is embedded again."""

    metadata: Metadata | None = Field(
        None, description="Keys to set, null for those to remove; null for all."
    )
    tags: list[Tag] | None = Field(
        None, max_length=limits.TAGS, description="Take the place of those that it has."
    )
    expires_at: ExpiryTime | None = Field(None, description="Null: never.")


class MergedBody(Body):
    """What a patch makes of a document's metadata."""

    metadata: Metadata


class DocumentsDeleteBody(Body):
    """Which documents to delete."""

    filter: FilterObject = Field(description="Of documents; to delete all, delete the collection.")
    dry_run: bool = Field(False, description="Whether they are only counted.")


class DocumentsQuery(PageQuery):
    """Which documents are listed."""

    filter: str | None = Field(None, description="A filter of documents, as JSON.")


class DocumentAnswer(TypedDict):
    """A document without its text."""

    id: str
    status: Literal["stored", "queued", "failed"]
    version: int
    """0 until it is stored for the first time."""
    title: str
    mime_type: str | None
    language: str | None
    metadata: dict[str, Any]
    tags: list[str]
    chunks: int
    created_at: Time
    updated_at: Time
    expires_at: Time | None
    error: ErrorObject | None
    """Why what was submitted for it last could not be stored."""


class DocumentWithTextAnswer(DocumentAnswer):
    """A document."""

    text: str


class DocumentsAnswer(TypedDict):
    """A page of documents."""

    documents: list[DocumentAnswer]
    next_cursor: Cursor


class ChunkPlace(TypedDict):
    """Where in its document a chunk is: `text[start_char:end_char]`."""

    id: str
    index: int
    start_char: int | None
    end_char: int | None
    token_count: int | None
    page: int | None
    """Of the file, counted from 1."""
    headings: list[str]
    """Under which it stands, the outermost first."""


class ChunkAnswer(ChunkPlace):
    """A chunk of a document."""

    text: str


class ChunksAnswer(TypedDict):
    """A page of a document's chunks."""

    chunks: list[ChunkAnswer]
    next_cursor: Cursor


class DocumentDeletedAnswer(TypedDict):
    """How many documents are no more."""

    deleted: Literal[1]


class DocumentsDeletedAnswer(TypedDict):
    """How many documents are no more, or would be."""

    deleted: int


async def list_(request: web.Request) -> web.Response:
    """List the documents, without their texts."""
    query = read_query(request, DocumentsQuery)
    wanted = read_filter(load_filter(query.filter))
    found = await storage.list_documents(
        request.app[MEMORY].database,
        await find(request),
        after=query.after_number(0),
        limit=query.limit_and_one,
        wanted=wanted,
    )
    page, cursor = query.cut(found, lambda document: document.number)
    answer: DocumentsAnswer = {
        "documents": list(map(_document_answer, page)),
        "next_cursor": cursor,
    }
    return json_response(answer)


async def show(request: web.Request) -> web.Response:
    """Show a document with its text."""
    database, external_id = request.app[MEMORY].database, request.match_info["id"]
    document = await storage.read_document(database, await find(request), external_id)
    answer: DocumentWithTextAnswer = {**_document_answer(document), "text": document.text or ""}
    return json_response(answer)


async def list_chunks(request: web.Request) -> web.Response:
    """List the chunks of a document in their order."""
    query = read_query(request, PageQuery)
    database, collection = request.app[MEMORY].database, await find(request)
    found = await chunks.list_chunks(
        database,
        collection,
        await storage.require_document(database, collection, request.match_info["id"]),
        after=query.after_number(-1),
        limit=query.limit_and_one,
    )
    page, cursor = query.cut(found, lambda chunk: chunk.position)
    answer: ChunksAnswer = {
        "chunks": [{**place_of(chunk), "text": chunk.text} for chunk in page],
        "next_cursor": cursor,
    }
    return json_response(answer)


async def patch(request: web.Request) -> web.Response:
    """Change a document's metadata, tags or expiry; nothing is embedded again."""
    collection = await find(request)
    body = parse(DocumentPatchBody, await read_json(request))
    document = await patch_document(
        request.app[MEMORY],
        collection,
        request.match_info["id"],
        partial(_patched, body),
        version=read_version(request),
    )
    return json_response(_document_answer(document))


def _patched(body: DocumentPatchBody, document: Document) -> Document:
    """Return the document as the patch makes it; a field that is null returns to its default."""
    given = body.model_dump(exclude_unset=True)
    changes: dict[str, Any] = {}
    if "metadata" in given:
        merged = merge_patch(document.metadata, given["metadata"]) or {}
        changes["metadata"] = parse(MergedBody, {"metadata": merged}).metadata
    if "tags" in given:
        changes["tags"] = given["tags"] or []
    if "expires_at" in given:
        changes["expires_at"] = given["expires_at"]
    return replace(document, **changes)


async def delete_by_filter(request: web.Request) -> web.Response:
    """Delete the documents that a filter matches, or count them."""
    memory, collection = request.app[MEMORY], await find(request)
    body = parse(DocumentsDeleteBody, await read_json(request))
    wanted = parse_filter(body.filter)
    if body.dry_run:
        deleted = await storage.count_documents(memory.database, collection, wanted)
    else:
        deleted = await delete_matching(memory, collection, wanted)
    answer: DocumentsDeletedAnswer = {"deleted": deleted}
    return json_response(answer)


async def delete(request: web.Request) -> web.Response:
    """Delete a document."""
    memory, collection = request.app[MEMORY], await find(request)
    external_id, version = request.match_info["id"], read_version(request)
    await delete_document(memory, collection, external_id, version=version)
    answer: DocumentDeletedAnswer = {"deleted": 1}
    return json_response(answer)


def place_of(chunk: StoredChunk) -> ChunkPlace:
    """Return where in its document a chunk is."""
    return {
        "id": chunk.id,
        "index": chunk.position,
        "start_char": chunk.start_char,
        "end_char": chunk.end_char,
        "token_count": chunk.token_count,
        "page": chunk.page,
        "headings": chunk.headings or [],
    }


def _document_answer(document: Document) -> DocumentAnswer:
    return {
        "id": document.id,
        "status": document.status,
        "version": document.version,
        "title": document.title,
        "mime_type": document.mime_type,
        "language": document.language,
        "metadata": document.metadata,
        "tags": document.tags,
        "chunks": document.chunk_count,
        "created_at": write_time(document.created_at),
        "updated_at": write_time(document.updated_at),
        "expires_at": write_time(document.expires_at) if document.expires_at else None,
        "error": error_object(rebuild_error(document.error)) if document.error else None,
    }
