"""Import documents that bring their vectors in bulk, and let the others be embedded."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from memoryd.documents.records import Record
from memoryd.documents.types import Collection, Document, Outcome, Status
from memoryd.errors import (
    ConflictError,
    DatabaseUnavailableError,
    MemorydError,
    StoppingError,
    UnavailableError,
)
from memoryd.memory.state import Memory
from memoryd.memory.storing import match_stored
from memoryd.memory.streaming import Refused, Stream, open_stream
from memoryd.storage import bulk, collections, documents, generations
from memoryd.storage.bulk import Found
from memoryd.storage.chunks import Embedded, Embedding
from memoryd.storage.database import Connection
from memoryd.storage.expiry import note_expiry
from memoryd.storage.jobs import Job

FAILURES_TOLD = 1_000
_BATCH_DOCUMENTS = 2_000
_BATCH_DRAFTS = 256
# Others may store or delete the same documents between our look and our write, but not for long.
_ATTEMPTS = 5


@dataclass(frozen=True)
class Line:
    """Be a line, or a row, of an import, counted from 1."""

    number: int
    content: Record | Refused


@dataclass(frozen=True)
class Failure:
    """Say which line failed and why."""

    line: int
    id: str | None
    error: MemorydError


@dataclass
class Imported:
    """Say what became of the lines so far, and which job goes on with those that are queued."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    """The first thousand."""
    job: Job | None = None

    def note(self, line: int, outcome: Outcome) -> None:
        """Count what became of a line."""
        self.counts[outcome.status] += 1
        if outcome.error is not None and len(self.failures) < FAILURES_TOLD:
            self.failures.append(Failure(line, outcome.id, outcome.error))


class Import:
    """Store what one request brings, each batch while the next is read."""

    def __init__(self, memory: Memory, collection: Collection, stream: Stream) -> None:
        """Take the stream that those go to which memoryd has to embed."""
        self.imported = Imported()
        self._memory = memory
        self._collection = collection
        self._stream = stream
        self._storing: asyncio.Task[None] | None = None

    async def add(self, lines: Sequence[Line]) -> None:
        """Begin to store a batch, once the one before is stored.

        Raises ConflictError where the collection changes its model meanwhile, and what the storage
        raises: what was counted until then is stored.
        """
        await self.settle()
        self._storing = asyncio.create_task(self._store(lines))

    async def settle(self) -> None:
        """Wait until what was added is stored; raises as `add` does."""
        if self._storing is not None:
            await self._storing

    async def cancel(self) -> None:
        """Roll back what is being stored, if anything is."""
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)

    async def _store(self, lines: Sequence[Line]) -> None:
        for part in _split(lines):
            self._memory.check_going_on()
            await self._store_part(part)

    async def _store_part(self, lines: Sequence[Line]) -> None:
        """Store lines of which no two are of one document."""
        records = {}
        for line in lines:
            if isinstance(line.content, Refused):
                self.imported.note(line.number, line.content.outcome)
            else:
                records[line.number] = line.content
        settled = await self._store_records(list(records.values())) if records else []
        left = {}
        for (number, record), outcome in zip(records.items(), settled, strict=True):
            if outcome is None:
                left[number] = record
            else:
                self.imported.note(number, outcome)
        await self._accept(left)

    async def _store_records(self, records: Sequence[Record]) -> list[Outcome | None]:
        """Store in bulk; None: it has to be accepted as any other document."""
        try:
            return await self._try_to_store(records)
        except MemorydError as error:
            if type(error) is not MemorydError:
                raise
            if len(records) == 1:  # what Postgres refuses fails alone
                id_ = records[0].draft.external_id
                return [Outcome(id_, "failed", error=MemorydError("the database refused it"))]
        middle = len(records) // 2
        first = await self._store_records(records[:middle])
        return first + await self._store_records(records[middle:])

    async def _try_to_store(self, records: Sequence[Record]) -> list[Outcome | None]:
        for attempt in range(_ATTEMPTS):
            collection = await self._find_collection()
            try:
                return await self._write(collection, records)
            except (DatabaseUnavailableError, StoppingError):
                raise
            except UnavailableError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _write(
        self, collection: Collection, records: Sequence[Record]
    ) -> list[Outcome | None]:
        async with self._memory.database.transaction() as connection:
            outcomes = await _store_batch(connection, collection, records)
        self._memory.statistics.note(collection.number)
        return outcomes

    async def _find_collection(self) -> Collection:
        found = await collections.find_collection_by_number(
            self._memory.database, self._collection.number
        )
        if found.active != self._collection.active:
            raise ConflictError(
                f"the model of {found.name!r} was changed during the import: import again",
                "collection",
            )
        return found

    async def _accept(self, records: dict[int, Record]) -> None:
        """Let memoryd embed what brings no vectors that it could take."""
        numbers = list(records)
        for start in range(0, len(numbers), _BATCH_DRAFTS):
            part = numbers[start : start + _BATCH_DRAFTS]
            began = await self._read_time()
            outcomes = await self._stream.add([records[number].draft for number in part])
            for number, outcome in zip(part, outcomes, strict=True):
                self.imported.note(number, outcome)
            await self._set_creation_times([records[number] for number in part], began)

    async def _read_time(self) -> datetime:
        async with self._memory.database.connection() as connection:
            return await bulk.read_time(connection)

    async def _set_creation_times(self, records: Sequence[Record], began: datetime) -> None:
        """Say of documents that were accepted since `began` when they were made elsewhere."""
        times = {
            record.draft.external_id: record.created_at for record in records if record.created_at
        }
        if times:
            async with self._memory.database.connection() as connection:
                await bulk.set_creation_times(connection, self._collection, times, began)


@asynccontextmanager
async def open_import(memory: Memory, collection: Collection) -> AsyncIterator[Import]:
    """Import during the block; at its end all is stored, or its last batch is rolled back."""
    async with open_stream(memory, collection, wait_s=0) as stream:
        importing = Import(memory, collection, stream)
        try:
            yield importing
            await importing.settle()
        finally:
            await importing.cancel()
    importing.imported.job = (await stream.finish()).job


def _split(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Yield parts in which no id comes twice: of each document, the last line counts."""
    part: list[Line] = []
    ids: set[str] = set()
    for line in lines:
        if isinstance(line.content, Record):
            id_ = line.content.draft.external_id
            if id_ in ids or len(part) >= _BATCH_DOCUMENTS:
                yield part
                part, ids = [], set()
            ids.add(id_)
        part.append(line)
    yield part


# --- A batch in its transaction ----


async def _store_batch(
    connection: Connection, collection: Collection, records: Sequence[Record]
) -> list[Outcome | None]:
    """Store what brings vectors, and settle what needs none; None: neither.

    New documents come first and others are locked after, as everywhere: else two transactions
    could wait for each other.
    """
    if not await generations.are_unchanged(connection, collection):
        raise UnavailableError("the collection's generations are being changed: try again")
    found = await bulk.find_documents(
        connection, collection, [record.draft.external_id for record in records]
    )
    outcomes = {
        record.draft.external_id: _settle(record, found.get(record.draft.external_id))
        for record in records
    }
    open_ = [record for record in records if outcomes[record.draft.external_id] is None]
    draft_number = await bulk.take_draft_number(connection, collection)
    outcomes |= await _insert(connection, collection, open_, found, draft_number)
    outcomes |= await _change(connection, collection, open_, found, draft_number)
    written = [record.draft.expires_at for record in open_ if outcomes[record.draft.external_id]]
    await note_expiry(connection, collection, written)
    return [outcomes[record.draft.external_id] for record in records]


def _settle(record: Record, found: Found | None) -> Outcome | None:
    """Return what becomes of a record without a write, if that can be said."""
    if found is None or found.is_waiting or not found.document.version:
        return None
    draft, document = record.draft, found.document
    if draft.on_conflict == "error":
        error = ConflictError(f"there is a document {document.id!r} already", "id")
        return Outcome(document.id, "failed", error=error)
    if draft.on_conflict == "skip":
        return Outcome(document.id, "skipped", document.version, document.chunk_count)
    if _has_content(document, record) and document.has_attributes_of(draft):
        return Outcome(document.id, "unchanged", document.version, document.chunk_count)
    return None


def _has_content(document: Document, record: Record) -> bool:
    return document.content_hash == record.content_hash


async def _insert(
    connection: Connection,
    collection: Collection,
    records: Sequence[Record],
    found: dict[str, Found],
    draft_number: int,
) -> dict[str, Outcome | None]:
    """Store documents that aren't there; where there are several generations, each is embedded."""
    new = [
        record
        for record in records
        if record.draft.external_id not in found and record.vectors is not None
    ]
    if not new or len(collection.generations) > 1:
        return {}
    await bulk.insert_records(connection, collection, new, draft_number)
    return {
        record.draft.external_id: Outcome(record.draft.external_id, "stored", 1, len(record.chunks))
        for record in new
    }


async def _change(
    connection: Connection,
    collection: Collection,
    records: Sequence[Record],
    found: dict[str, Found],
    draft_number: int,
) -> dict[str, Outcome | None]:
    """Store other content and attributes of documents that are there, but for what waits."""
    there = {
        record.draft.external_id: record for record in records if record.draft.external_id in found
    }
    if not there:
        return {}
    locked = await bulk.lock_documents(connection, collection, list(there))
    hashes = await bulk.find_chunk_hashes(
        connection, collection, [each.document.number for each in locked.values()]
    )
    outcomes: dict[str, Outcome | None] = {}
    for id_, each in locked.items():
        settled = _settle(there[id_], each)
        if settled is None and not each.is_waiting:
            settled = await _write(
                connection,
                collection,
                there[id_],
                each.document,
                hashes.get(each.document.number, []),
                draft_number,
            )
        outcomes[id_] = settled
    return outcomes


async def _write(
    connection: Connection,
    collection: Collection,
    record: Record,
    document: Document,
    hashes: Sequence[tuple[int, bytes]],
    draft_number: int,
) -> Outcome | None:
    if document.version and _has_content(document, record):
        version = await documents.write_attributes(
            connection, collection, document.number, document.version, record.draft, draft_number
        )
        return Outcome(document.id, "updated", version, document.chunk_count)
    if record.vectors is None or len(collection.generations) > 1:
        return None
    kept, new = match_stored(record.chunks, hashes)
    vectors = record.vectors
    embedding = Embedding(
        collection.active, record.chunks, kept, [Embedded(at, vectors[at]) for at in new]
    )
    version = await documents.write_document(
        connection,
        collection,
        document.number,
        document.version,
        record.draft,
        record.content_hash,
        draft_number,
        [embedding],
    )
    status: Status = "replaced" if document.version else "stored"
    return Outcome(document.id, status, version, len(record.chunks))
