"""Store documents: chunk, embed, and swap each one in whole."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from memoryd.documents.chunking import ChunkSpan, split
from memoryd.documents.types import (
    Chunk,
    Collection,
    Document,
    Draft,
    Outcome,
    chunk_hash,
)
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import Tokens
from memoryd.errors import ConflictError, InvalidInputError, MemorydError
from memoryd.memory.documents import check_version
from memoryd.memory.state import Memory
from memoryd.storage import documents as storage
from memoryd.vectors.similarity import shorten

logger = logging.getLogger(__name__)

_DOCUMENTS_OF_A_BATCH = 48
# A chunk must have room for a few words beside its title.
_LEAST_TEXT_TOKENS = 16
# Another process may write the same document between our look and our write, but not for long.
_ATTEMPTS = 5


@dataclass(frozen=True)
class _Prepared:
    """Hold a document's chunks and what the model sees of each."""

    chunks: list[Chunk]
    inputs: list[Tokens]


async def ingest(memory: Memory, collection: Collection, drafts: Sequence[Draft]) -> list[Outcome]:
    """Store `drafts` and return what became of each, in their order.

    Each is written in one transaction of its own: one that fails is `failed` with its error, and
    never fails the rest.
    """
    # A part of all slots, so that a large batch leaves some to others.
    share = asyncio.Semaphore(_DOCUMENTS_OF_A_BATCH)

    async def store(draft: Draft) -> Outcome:
        async with share:
            return await _ingest_safely(memory, collection, draft)

    return await asyncio.gather(*map(store, drafts))


async def _ingest_safely(memory: Memory, collection: Collection, draft: Draft) -> Outcome:
    try:
        return await ingest_document(memory, collection, draft)
    except MemorydError as error:
        if type(error) is MemorydError:  # of no kind that a client could do something about
            logger.exception("a document of %r could not be stored", collection.name)
        return Outcome(draft.external_id, "failed", error=error)
    except Exception:  # whatever one document does, the others are stored and reported
        logger.exception("a document of %r could not be stored", collection.name)
        unknown = MemorydError("memoryd failed at this document: see its log")
        return Outcome(draft.external_id, "failed", error=unknown)


async def ingest_document(
    memory: Memory, collection: Collection, draft: Draft, *, version: int | None = None
) -> Outcome:
    """Store one document and say what became of it.

    Raises InvalidInputError for a document that can't be embedded, ConflictError for one that is
    there and may not be replaced or isn't at `version`, StoppingError at shutdown, and what
    storage and engine raise.
    """
    async with memory.document_lock(collection, draft.external_id), memory.ingest_slots:
        for _ in range(_ATTEMPTS):
            memory.check_going_on()
            current = await storage.find_document(memory.database, collection, draft.external_id)
            check_version(current, draft.external_id, version)
            outcome = await _store(memory, collection, draft, current)
            if outcome is not None:
                return outcome
    raise ConflictError(f"the document {draft.external_id!r} is being changed by others", "id")


async def _store(
    memory: Memory, collection: Collection, draft: Draft, current: Document | None
) -> Outcome | None:
    """Write what differs from `current`; None where that has changed meanwhile."""
    if current is None:
        return await _insert(memory, collection, draft)
    if draft.on_conflict == "error":
        raise ConflictError(f"there is a document {current.id!r} already", "id")
    if draft.on_conflict == "skip":
        return Outcome(current.id, "skipped", current.version, current.chunk_count)
    if not current.has_content_of(draft):
        return await _replace(memory, collection, draft, current)
    if current.has_attributes_of(draft):
        return Outcome(current.id, "unchanged", current.version, current.chunk_count)
    version = await storage.update_attributes(memory.database, collection, current, draft)
    if version is None:
        return None
    return Outcome(current.id, "updated", version, current.chunk_count)


async def _insert(memory: Memory, collection: Collection, draft: Draft) -> Outcome | None:
    async with memory.engine.pinning(collection.model) as model:
        prepared = await _prepare_in_thread(memory, model, collection, draft)
        embedded = await _embed(model, collection, prepared, range(len(prepared.chunks)))
    version = await storage.insert_document(
        memory.database, collection, draft, prepared.chunks, embedded
    )
    if version is None:
        return None
    return Outcome(draft.external_id, "stored", version, len(prepared.chunks), len(embedded))


async def _replace(
    memory: Memory, collection: Collection, draft: Draft, current: Document
) -> Outcome | None:
    async with memory.engine.pinning(collection.model) as model:
        prepared = await _prepare_in_thread(memory, model, collection, draft)
        stored = await storage.find_chunk_hashes(memory.database, collection, current)
        kept, new = _match(prepared.chunks, stored)
        embedded = await _embed(model, collection, prepared, new)
    version = await storage.replace_document(
        memory.database, collection, current, draft, prepared.chunks, kept, embedded
    )
    if version is None:
        return None
    return Outcome(current.id, "replaced", version, len(prepared.chunks), len(embedded))


async def _prepare_in_thread(
    memory: Memory, model: EmbeddingModel, collection: Collection, draft: Draft
) -> _Prepared:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
        memory.chunking_threads, _prepare, memory, model, collection, draft
    )


def _prepare(
    memory: Memory, model: EmbeddingModel, collection: Collection, draft: Draft
) -> _Prepared:
    """Cut the text into chunks, and make the model's input of each."""

    def count_tokens(text: str) -> int:
        memory.check_going_on()  # a thread can't be canceled, and a book takes seconds
        return model.count_tokens(text)

    limit = min(collection.chunking.max_tokens, model.max_tokens)
    room = _room_beside_title(model, draft, limit)
    overlap = collection.chunking.overlap_tokens
    while True:
        spans = split(
            draft.text, max_tokens=room, overlap_tokens=overlap, count_tokens=count_tokens
        )
        prepared = _encode(memory, model, draft, spans)
        excess = max(map(len, prepared.inputs), default=0) - limit
        if excess <= 0:
            return prepared
        # The tokens of title and text together are not always the sum of both.
        room -= excess


def _room_beside_title(model: EmbeddingModel, draft: Draft, limit: int) -> int:
    room = limit - len(model.encode_document(draft.title, ""))
    if room < _LEAST_TEXT_TOKENS:
        raise InvalidInputError(
            f"the title takes {limit - room} of the {limit} tokens of a chunk: shorten it, or use "
            "a collection with a larger chunking.max_tokens",
            "title",
        )
    return room


def _encode(
    memory: Memory, model: EmbeddingModel, draft: Draft, spans: Sequence[ChunkSpan]
) -> _Prepared:
    chunks, inputs = [], []
    for position, span in enumerate(spans):
        memory.check_going_on()
        text = draft.text[span.start_char : span.end_char]
        tokens = model.encode_document(draft.title, text)
        hash_ = chunk_hash(draft.title, text)
        chunks.append(Chunk(position, span.start_char, span.end_char, len(tokens), text, hash_))
        inputs.append(tokens)
    return _Prepared(chunks, inputs)


def _match(
    chunks: Sequence[Chunk], stored: Sequence[tuple[int, bytes]]
) -> tuple[list[tuple[int, int]], list[int]]:
    """Find the stored chunks that stay: (number, new position) pairs, and the positions left."""
    numbers: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for number, hash_ in stored:
        numbers[hash_].append(number)
    kept, new = [], []
    for chunk in chunks:
        if numbers[chunk.hash]:
            kept.append((numbers[chunk.hash].popleft(), chunk.position))
        else:
            new.append(chunk.position)
    return kept, new


async def _embed(
    model: EmbeddingModel, collection: Collection, prepared: _Prepared, positions: Sequence[int]
) -> list[storage.Embedded]:
    if not positions:
        return []
    vectors = await model.embed_inputs([prepared.inputs[position] for position in positions])
    return [
        storage.Embedded(position, vector)
        for position, vector in zip(positions, shorten(vectors, collection.dimensions), strict=True)
    ]
