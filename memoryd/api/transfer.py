"""Routes that export and import a collection."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Annotated, Any, BinaryIO, Literal, NotRequired

from aiohttp import web
from pydantic import ConfigDict, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict

from memoryd.api.bodies import Body, decode, parse, readable
from memoryd.api.collections import find
from memoryd.api.document_bodies import AttributesBody, id_of
from memoryd.api.errors import ErrorObject, error_object, json_response
from memoryd.api.fields import NUMBERS, ExpiryTime, NotBlank
from memoryd.api.jobs import JobAnswer, job_answer
from memoryd.api.ndjson import Line as Text
from memoryd.api.ndjson import LineSplitter
from memoryd.api.notes import NOTES
from memoryd.api.ollama_pull import NDJSON
from memoryd.api.queries import Flag, Query, read_query
from memoryd.api.state import MEMORY
from memoryd.config import Settings
from memoryd.documents.outline import Section
from memoryd.documents.records import Given, Header, Record, make_record
from memoryd.documents.types import Collection, Draft, OnConflict
from memoryd.errors import (
    EmptyInputError,
    InvalidInputError,
    MemorydError,
    MissingFieldError,
    StorageFullError,
    TooLargeError,
)
from memoryd.memory.exporting import export_lines
from memoryd.memory.importing import (
    FAILURES_TOLD,
    Failure,
    Import,
    Imported,
    Line,
    open_import,
)
from memoryd.memory.streaming import Refused
from memoryd.parsers.parquet import MAGIC, read_parquet

logger = logging.getLogger(__name__)

# A client that takes nothing for so long is cut off: its snapshot keeps the database from cleaning.
_STALL_S = 60.0
_BATCH_BYTES = 8 << 20
_BATCH_LINES = 2_000
_HASH = r"^([0-9a-f]{2}){1,64}$"
_VECTOR = {"anyOf": [NUMBERS, {"type": "string", "contentEncoding": "base64"}, {"type": "null"}]}

PARQUET = "application/vnd.apache.parquet"
"""parquet.apache.org/docs/file-format/"""

ParquetFile = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
"""Rows with columns as the fields of a line; a column `vector` of lists of numbers."""

RecordLines = Annotated[
    str, Field(description="A document in each line, as an application/json body has one.")
]

Index = Annotated[int, Field(ge=0, lt=1 << 31)]
Hash = Annotated[str, Field(pattern=_HASH)]
RecordVector = Annotated[Any, WithJsonSchema(_VECTOR)]
"""Float32, little-endian, where it is in base64."""


class ExportQuery(Query):
    """What of a collection is exported."""

    vectors: Flag = Field(False, description="Whether each chunk comes with its vector.")


class ImportQuery(Query):
    """How documents are imported."""

    on_conflict: OnConflict = Field(
        "replace", description="What becomes of documents that are there, unless a line says."
    )


class SectionBody(Body):
    """A stretch of a text that is on a page, or under headings."""

    start_char: Index
    end_char: Index
    headings: list[str] = Field(default_factory=list)
    page: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None


@with_config(ConfigDict(extra="forbid", strict=True))
class RecordChunk(TypedDict):
    """A chunk, a span of the text where there is one."""

    text: NotRequired[str]
    start_char: NotRequired[Index | None]
    end_char: NotRequired[Index | None]
    token_count: NotRequired[Index | None]
    page: NotRequired[Annotated[int, Field(ge=1, lt=1 << 31)] | None]
    headings: NotRequired[list[str]]
    hash: NotRequired[Hash]
    vector: NotRequired[RecordVector]


class RecordBody(AttributesBody):
    """A line of an import: a document with a text, with chunks, or with both and vectors."""

    text: NotBlank = ""
    chunks: list[RecordChunk] | None = Field(None, min_length=1)
    vector: RecordVector = None
    """Of the whole text, which is one chunk then."""
    created_at: ExpiryTime | None = None
    sections: list[SectionBody] | None = None
    content_hash: Hash | None = None
    """What an export says, with `seal`, of what is stored."""
    seal: Hash | None = None


class HeaderBody(Body):
    """The first line of an export."""

    model_config = ConfigDict(extra="ignore")

    memoryd: Literal["export"]
    format: Literal[1]  # FORMAT of documents.records
    model: str
    dimensions: int


class EndBody(Body):
    """The last line of an export."""

    end: Literal[True]
    documents: int


class FailureAnswer(TypedDict):
    """A line that failed."""

    line: int
    """Counted from 1; in Parquet, of the row."""
    id: str | None
    error: ErrorObject


class ImportAnswer(TypedDict):
    """What became of the documents."""

    documents: int
    counts: dict[str, int]
    """How many documents became what."""
    failures: list[FailureAnswer]
    """The first thousand."""
    job: JobAnswer | None
    """What goes on with the documents that are queued, since they brought no vectors."""


# --- Export ----


async def export(request: web.Request) -> web.StreamResponse:
    """Export the stored documents as NDJSON, as they are at this moment.

    The first line describes the collection, the last says how many documents there were: an export
    without it was cut off. Documents that wait to be stored, or failed, are not in it.
    """
    query = read_query(request, ExportQuery)
    memory, collection = request.app[MEMORY], await find(request)
    lines = export_lines(memory, collection, with_vectors=query.vectors)
    async with aclosing(lines):
        first = await anext(lines)  # what fails before it is an answer of its own
        response = web.StreamResponse(
            headers={"Content-Type": NDJSON, "X-Request-Id": request[NOTES].id}
        )
        with suppress(ConnectionError):  # the client has left
            await response.prepare(request)
            if request.method == "HEAD" or await _send(request, response, first, lines):
                await response.write_eof()
    return response


async def _send(
    request: web.Request,
    response: web.StreamResponse,
    first: bytes,
    lines: AsyncIterator[bytes],
) -> bool:
    """Send an export; cut the connection where it can't be whole, and return False."""
    try:
        await _write(response, first)
        async for block in lines:
            await _write(response, block)
    except (MemorydError, TimeoutError) as error:
        reason = error.message if isinstance(error, MemorydError) else "its client takes nothing"
        logger.warning("request %s: the export was cut off: %s", request[NOTES].id, reason)
        if request.transport is not None:
            request.transport.abort()
        return False
    return True


async def _write(response: web.StreamResponse, block: bytes) -> None:
    async with asyncio.timeout(_STALL_S):
        await response.write(block)


# --- Import ----


async def import_(request: web.Request) -> web.Response:
    """Import documents, of NDJSON or of Parquet, as an export or any other program writes them.

    What brings a vector for each chunk is stored at once; the rest is embedded by a job. A line
    that is wrong fails alone. Import again what broke off: what is stored is unchanged.
    """
    query = read_query(request, ImportQuery)
    memory, collection = request.app[MEMORY], await find(request)
    reader = LineReader(collection, memory.settings, query.on_conflict)
    with memory.holding(2 * _BATCH_BYTES):
        async with open_import(memory, collection) as importing:
            await _import_body(request, reader, importing)
            reader.finish()
    answer = import_answer(importing.imported, reader.complaints)
    return json_response(answer, status=202 if answer["job"] else 200)


async def _import_body(request: web.Request, reader: "LineReader", importing: Import) -> None:
    pieces = _pieces(request)
    first = await _begin(pieces)
    whole = _joined(first, pieces)
    if first.startswith(MAGIC):
        await _import_parquet(whole, reader, importing)
    else:
        await _import_lines(whole, reader, importing)


async def _import_parquet(
    pieces: AsyncIterator[bytes], reader: "LineReader", importing: Import
) -> None:
    """Keep the body in a file, since Parquet is read from its end, and import its rows."""
    with tempfile.TemporaryFile() as file:
        await _spool(pieces, file)
        async with aclosing(read_parquet(file)) as rows:
            await _import_lines(rows, reader, importing)


async def _begin(pieces: AsyncIterator[bytes]) -> bytes:
    """Return the first bytes, as many as tell Parquet from lines."""
    first = b""
    async for piece in pieces:
        first += piece
        if len(first) >= len(MAGIC):
            break
    return first


async def _joined(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        with readable():
            piece = await request.content.readany()
        if not piece:
            return
        yield piece


async def _spool(pieces: AsyncIterator[bytes], file: BinaryIO) -> None:
    try:
        async for piece in pieces:
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(file.seek, 0)
    except OSError as error:
        raise StorageFullError(
            f"the Parquet file can't be kept while it is read: {error.strerror}"
        ) from error


async def _import_lines(
    pieces: AsyncIterator[bytes], reader: "LineReader", importing: Import
) -> None:
    async for texts in _batches(pieces, reader.most_bytes):
        await importing.add(await asyncio.to_thread(reader.read, texts))


async def _batches(pieces: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[list[Text]]:
    splitter = LineSplitter(most_bytes)
    batch: list[Text] = []
    size_bytes = 0
    async for piece in pieces:
        for text in splitter.feed(piece):
            batch.append(text)
            size_bytes += len(text.data or b"")
            if len(batch) >= _BATCH_LINES or size_bytes >= _BATCH_BYTES:
                yield batch
                batch, size_bytes = [], 0
    batch += splitter.finish()
    if batch:
        yield batch


class LineReader:
    """Read lines: documents, and the first and last lines of exports."""

    def __init__(self, collection: Collection, settings: Settings, on_conflict: OnConflict) -> None:
        """Take where the documents go, and what becomes of those that are there."""
        self.most_bytes = settings.max_body_bytes
        self.complaints: list[Failure] = []
        """Of lines that stand for no document."""
        self._collection = collection
        self._most_chars = settings.max_text_chars
        self._on_conflict = on_conflict
        self._header: Header | None = None
        self._documents = 0
        """Of the export that is being read."""
        self._last_line = 0

    def read(self, texts: Sequence[Text]) -> list[Line]:
        """Return the documents of lines, or why a line has none.

        Raises InvalidInputError for an export that this memoryd can't read.
        """
        return [line for text in texts if (line := self._read(text)) is not None]

    def finish(self) -> None:
        """Complain where an export was cut off; raise EmptyInputError where there was no line."""
        if not self._last_line:
            raise EmptyInputError("the request has no documents: send one in each line")
        if self._header is not None:
            self._complain("the export has no last line: it was cut off, and more is missing")

    def _read(self, text: Text) -> Line | None:
        self._last_line = text.number
        try:
            value = self._decode(text)
        except InvalidInputError as error:
            return self._line(text.number, Refused(None, error))
        if isinstance(value, dict) and "memoryd" in value:
            self._begin(value)
            return None
        if isinstance(value, dict) and "end" in value:
            self._end(value)
            return None
        try:
            return self._line(text.number, self._read_record(value))
        except InvalidInputError as error:
            return self._line(text.number, Refused(id_of(value), error))

    def _decode(self, text: Text) -> Any:
        if text.data is None:
            raise TooLargeError(f"it has more than max_body_bytes = {self.most_bytes} bytes")
        return decode(text.data)

    def _line(self, number: int, content: Record | Refused) -> Line:
        self._documents += 1
        return Line(number, content)

    def _begin(self, value: dict[str, Any]) -> None:
        if self._header is not None:
            self._complain("the export before has no last line: it was cut off")
        body = parse(HeaderBody, value)
        self._header = Header(body.model, body.dimensions)
        self._documents = 0

    def _end(self, value: dict[str, Any]) -> None:
        told = parse(EndBody, value).documents
        if told != self._documents:
            self._complain(f"the export has {told} documents, and {self._documents} came")
        self._header = None

    def _complain(self, message: str) -> None:
        if len(self.complaints) < FAILURES_TOLD:
            error = InvalidInputError(message)
            self.complaints.append(Failure(self._last_line, None, error))

    def _read_record(self, value: Any) -> Record:
        body = parse(RecordBody, value)
        _check_content(body, self._most_chars)
        given = Given(
            _draft(body, self._on_conflict),
            body.chunks,
            body.vector,
            body.content_hash,
            body.seal,
            body.created_at,
        )
        takes_vectors = self._header is None or self._header.suits(self._collection)
        return make_record(given, self._collection, takes_vectors=takes_vectors)


def _check_content(body: RecordBody, most_chars: int) -> None:
    if not body.text and body.chunks is None:
        raise MissingFieldError("text is required, or chunks", "text")
    if body.vector is not None and (body.chunks is not None or not body.text):
        raise InvalidInputError("vector is that of a text: others stand in chunks", "vector")
    length = len(body.text) or sum(len(chunk.get("text", "")) for chunk in body.chunks or ())
    if length > most_chars:
        raise TooLargeError(
            f"the document has {length} characters, more than max_text_chars = {most_chars}: "
            "split it",
            "text" if body.text else "chunks",
        )


def _draft(body: RecordBody, on_conflict: OnConflict) -> Draft:
    return Draft(
        text=body.text,
        id=body.id,
        title=body.title,
        metadata=body.metadata,
        tags=body.tags,
        mime_type=body.mime_type,
        language=body.language,
        expires_at=body.expires_at,
        on_conflict=body.on_conflict if "on_conflict" in body.model_fields_set else on_conflict,
        sections=None if body.sections is None else tuple(map(_section, body.sections)),
    )


def _section(body: SectionBody) -> Section:
    return Section(body.start_char, body.end_char, tuple(body.headings), body.page)


def import_answer(imported: Imported, complaints: Sequence[Failure]) -> ImportAnswer:
    """Return what is told of an import."""
    failures = [*complaints, *imported.failures][:FAILURES_TOLD]
    return {
        "documents": imported.counts.total(),
        "counts": dict(imported.counts),
        "failures": [
            {"line": failure.line, "id": failure.id, "error": error_object(failure.error)}
            for failure in failures
        ],
        "job": job_answer(imported.job) if imported.job else None,
    }
