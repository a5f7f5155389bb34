"""Store one accepted document: read, chunk, embed, and swap it in whole."""

import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from memoryd.documents.types import Chunk, Collection, Document, Draft, Generation, Outcome
from memoryd.embeddings.model import EmbeddingModel
from memoryd.errors import ConflictError, EmbeddingError, InvalidInputError, NotFoundError
from memoryd.memory.collections import with_current
from memoryd.memory.hashing import hash_content
from memoryd.memory.preparation import Prepared, prepare_in_thread
from memoryd.memory.state import Memory
from memoryd.storage import chunks, collections, documents, drafts, generations
from memoryd.storage.chunks import Embedded, Embedding
from memoryd.storage.drafts import Claim
from memoryd.vectors.similarity import shorten

logger = logging.getLogger(__name__)

# Others may change the document, or its collection's models, between our look and our write, but
# not for long.
_ATTEMPTS = 20


async def store_draft(memory: Memory, claim: Claim) -> Outcome:
    """Store what a worker has claimed and say what became of it.

    Raises InvalidInputError for a document that can't be embedded, ConflictError for one that
    isn't at the version that the draft is for, NotFoundError where it is deleted meanwhile,
    LostClaimError where another worker has it, StoppingError at shutdown, and what engine, parsers
    and storage raise.
    """
    draft = await drafts.read_draft(memory.database, claim)
    content_hash = await hash_content(draft)
    if draft.file is not None:
        draft = await _read_file(memory, claim, draft)
    collection, known = claim.collection, claim.document
    for _ in range(_ATTEMPTS):
        memory.check_going_on()
        attempt = partial(_attempt, memory, claim, draft, content_hash, known)
        outcome = await with_current(memory, collection, attempt)
        if outcome is not None:
            return outcome
        known = None
        collection = await collections.find_collection_by_number(memory.database, collection.number)
    raise ConflictError(f"the document {claim.external_id!r} is being changed by others", "id")


async def _attempt(
    memory: Memory,
    claim: Claim,
    draft: Draft,
    content_hash: bytes,
    known: Document | None,
    collection: Collection,
) -> Outcome | None:
    current = known or await _find_current(memory, collection, claim)
    return await _store(memory, collection, claim, draft, content_hash, current)


async def _read_file(memory: Memory, claim: Claim, draft: Draft) -> Draft:
    """Return the draft with what its file says; a title that was given stays."""
    assert draft.file is not None  # noqa: S101 - the caller has looked
    memory.worker.note_stage(claim, "parsing")
    parsed = await memory.parsers.parse_file(draft.file.data, draft.file.name, draft.mime_type)
    return replace(
        draft,
        text=parsed.text,
        title=draft.title or parsed.title,
        mime_type=parsed.mime_type,
        sections=tuple(parsed.sections),
        file=None,
    )


async def _find_current(memory: Memory, collection: Collection, claim: Claim) -> Document:
    current = await documents.find_document_by_number(
        memory.database, collection, claim.document_number
    )
    if current is None:
        raise NotFoundError(f"the document {claim.external_id!r} was deleted meanwhile", "id")
    return current


async def _store(
    memory: Memory,
    collection: Collection,
    claim: Claim,
    draft: Draft,
    content_hash: bytes,
    current: Document,
) -> Outcome | None:
    """Write what differs from `current`; None where that has changed meanwhile."""
    if current.last_draft > claim.number:  # tried again after a later one was stored
        return await _settle(memory, claim, Outcome(current.id, "skipped", current.version))
    documents.check_version(current if current.version else None, current.id, draft.version)
    if current.version and current.content_hash == content_hash:
        return await _write_attributes(memory, collection, claim, draft, current)
    embeddings = [
        await _embed_beside(memory, claim, collection, generation, draft, current)
        for generation in collection.generations
    ]
    memory.worker.note_stage(claim, "storing")
    return await _swap(memory, collection, claim, draft, content_hash, current, embeddings)


async def _settle(memory: Memory, claim: Claim, outcome: Outcome) -> Outcome:
    async with memory.database.transaction() as connection:
        await drafts.settle(connection, claim, outcome)
    return outcome


async def _write_attributes(
    memory: Memory, collection: Collection, claim: Claim, draft: Draft, current: Document
) -> Outcome | None:
    if current.has_attributes_of(draft):
        outcome = Outcome(current.id, "unchanged", current.version, current.chunk_count)
        return await _settle(memory, claim, outcome)
    async with memory.database.transaction() as connection:
        version = await documents.write_attributes(
            connection, collection, current.number, current.version, draft, claim.number
        )
        if version is None:
            return None
        outcome = Outcome(current.id, "updated", version, current.chunk_count)
        await drafts.settle(connection, claim, outcome)
    memory.statistics.note(collection.number)  # it may be in another language now
    return outcome


async def _swap(
    memory: Memory,
    collection: Collection,
    claim: Claim,
    draft: Draft,
    content_hash: bytes,
    current: Document,
    embeddings: Sequence[Embedding],
) -> Outcome | None:
    async with memory.database.transaction() as connection:
        if not await generations.are_unchanged(connection, collection):
            return None
        version = await documents.write_document(
            connection,
            collection,
            current.number,
            current.version,
            draft,
            content_hash,
            claim.number,
            embeddings,
        )
        if version is None:
            return None
        active = next(each for each in embeddings if each.generation.role == "active")
        outcome = Outcome(
            current.id,
            "replaced" if current.version else "stored",
            version,
            len(active.chunks),
            len(active.embedded),
        )
        await drafts.settle(connection, claim, outcome)
    memory.statistics.note(collection.number)
    return outcome


async def _embed_beside(
    memory: Memory,
    claim: Claim,
    collection: Collection,
    generation: Generation,
    draft: Draft,
    current: Document,
) -> Embedding:
    """Return what a generation makes of a document: nothing where only the active one can."""
    try:
        return await _embed_for(memory, claim, collection, generation, draft, current)
    except (InvalidInputError, EmbeddingError) as error:
        if generation.role == "active":
            raise
        logger.warning(
            "%s, which is %s, can't embed the document %r: %s",
            generation.model,
            generation.role,
            claim.external_id,
            error.message,
        )
        return Embedding(generation, [], [], [])


async def _embed_for(
    memory: Memory,
    claim: Claim,
    collection: Collection,
    generation: Generation,
    draft: Draft,
    current: Document,
) -> Embedding:
    """Chunk and embed for one generation, but for what it has stored already."""
    async with memory.engine.pinning(generation.model) as model:
        memory.worker.note_stage(claim, "chunking")
        prepared = await prepare_in_thread(memory, model, generation, draft)
        stored = (
            await chunks.find_chunk_hashes(memory.database, collection, generation, current.number)
            if current.version
            else []
        )
        kept, new = match_stored(prepared.chunks, stored)
        memory.worker.note_stage(claim, "embedding")
        embedded = await embed_chunks(model, generation, prepared, new)
    return Embedding(generation, prepared.chunks, kept, embedded)


def match_stored(
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


async def embed_chunks(
    model: EmbeddingModel, generation: Generation, prepared: Prepared, positions: Sequence[int]
) -> list[Embedded]:
    """Return the vectors of the chunks at `positions`: as given, else as the model makes them."""
    given = [Embedded(at, prepared.given[at]) for at in positions if at in prepared.given]
    missing = [at for at in positions if at not in prepared.given]
    if not missing:
        return given
    vectors = await model.embed_inputs([prepared.inputs[at] for at in missing])
    shortened = shorten(vectors, generation.dimensions)
    return given + [Embedded(at, vector) for at, vector in zip(missing, shortened, strict=True)]
