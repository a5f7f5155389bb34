"""Routes of documents."""

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from memoryd.api import limits
from memoryd.api.bodies import Body, parse, read_json
from memoryd.api.collections import find
from memoryd.api.errors import ErrorObject, error_object, json_response
from memoryd.api.fields import (
    Cursor,
    DocumentId,
    Language,
    Metadata,
    NotBlank,
    Tag,
    Time,
    write_time,
)
from memoryd.api.paging import PageQuery, write_cursor
from memoryd.api.queries import Query, read_query, read_version
from memoryd.api.state import MEMORY
from memoryd.documents.types import Document, Draft, OnConflict, Outcome, Status, StoredChunk
from memoryd.errors import InvalidInputError, MemorydError, TooLargeError, UnknownFieldError
from memoryd.memory.documents import delete_document
from memoryd.memory.ingest import ingest, ingest_document
from memoryd.memory.state import Memory
from memoryd.storage import documents as storage


class DocumentBody(Body):
    """A document to store."""

    id: DocumentId | None = None
    title: str = Field("", max_length=limits.TITLE_CHARS)
    text: NotBlank
    mime_type: str | None = Field(None, max_length=limits.MIME_TYPE_CHARS)
    language: Language | None = None
    metadata: Metadata = Field(default_factory=dict)
    tags: list[Tag] = Field(default_factory=list, max_length=limits.TAGS)
    expires_at: None = None
    on_conflict: OnConflict = "replace"


class DocumentsBody(Body):
    """Documents to store: one that is wrong never fails the others."""

    documents: list[DocumentBody] = Field(min_length=1)


def _check_wait(value: str) -> str:
    if value != "true":
        raise ValueError("only true is served, the answer comes when stored")
    return value


class StoreQuery(Query):
    """How documents are stored."""

    wait: Annotated[Literal["true"], BeforeValidator(_check_wait)] = "true"


class OutcomeAnswer(TypedDict):
    """What became of one document."""

    id: str | None
    status: Status
    version: int | None
    chunks: int
    embedded: int
    error: ErrorObject | None


class StoredAnswer(TypedDict):
    """What became of each document, in the order in which they came."""

    documents: list[OutcomeAnswer]
    job: None


class DocumentAnswer(TypedDict):
    """A document without its text."""

    id: str
    version: int
    title: str
    mime_type: str | None
    language: str | None
    metadata: dict[str, Any]
    tags: list[str]
    chunks: int
    created_at: Time
    updated_at: Time


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
    token_count: int


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


async def store(request: web.Request) -> web.Response:
    """Store one document, or several; the answer comes when they can be found."""
    memory = request.app[MEMORY]
    with memory.holding(request.content_length or memory.settings.max_body_bytes):
        body = await read_json(request)
        if isinstance(body, dict) and "documents" in body:
            outcomes = await _store_batch(request, memory, body)
        else:
            outcomes = [await _store_one(request, memory, body)]
    answer: StoredAnswer = {"documents": list(map(_outcome_answer, outcomes)), "job": None}
    return json_response(answer)


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
    """List the documents, without their texts."""
    query = read_query(request, PageQuery)
    found = await storage.list_documents(
        request.app[MEMORY].database,
        await find(request),
        after=query.after_number(0),
        limit=query.limit + 1,
    )
    page = found[: query.limit]
    answer: DocumentsAnswer = {
        "documents": list(map(_document_answer, page)),
        "next_cursor": write_cursor(page[-1].number) if len(found) > query.limit else None,
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
    found = await storage.list_chunks(
        database,
        collection,
        await storage.require_document(database, collection, request.match_info["id"]),
        after=query.after_number(-1),
        limit=query.limit + 1,
    )
    page = found[: query.limit]
    answer: ChunksAnswer = {
        "chunks": [{**place_of(chunk), "text": chunk.text} for chunk in page],
        "next_cursor": write_cursor(page[-1].position) if len(found) > query.limit else None,
    }
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
    }


def _document_answer(document: Document) -> DocumentAnswer:
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


def _outcome_answer(outcome: Outcome) -> OutcomeAnswer:
    return {
        "id": outcome.id,
        "status": outcome.status,
        "version": outcome.version,
        "chunks": outcome.chunks,
        "embedded": outcome.embedded,
        "error": error_object(outcome.error) if outcome.error else None,
    }
