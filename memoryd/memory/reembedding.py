"""Give a collection another model without downtime.

The other generation is built beside the active one by a job, while whoever writes documents writes
to both. When it is whole, and compared with the active one, it takes its place in one step; the
active one is kept, and written to, until it is dropped: going back loses nothing.
"""

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import partial
from typing import Any

from memoryd.documents.types import (
    Chunking,
    Collection,
    Draft,
    Generation,
    Precision,
)
from memoryd.embeddings.model import EmbeddingModel
from memoryd.errors import (
    ConflictError,
    EmbeddingError,
    InvalidInputError,
    MemorydError,
    UnavailableError,
)
from memoryd.memory.collections import (
    check_chunking,
    check_dimensions,
    check_gives_vectors,
    release_unused,
)
from memoryd.memory.job_runner import JobKind, Write
from memoryd.memory.preparation import Prepared, prepare_in_thread
from memoryd.memory.queries import Query, TextQuery
from memoryd.memory.search import search
from memoryd.memory.state import Memory
from memoryd.memory.storing import embed_chunks
from memoryd.storage import collections, generations, job_claims, jobs, sources
from memoryd.storage.chunks import Embedded, Embedding
from memoryd.storage.database import Connection
from memoryd.storage.job_claims import JobClaim, LostJobError
from memoryd.storage.jobs import Job
from memoryd.storage.sources import Missing, Source
from memoryd.vectors.similarity import shorten

JOB_TYPE = "reembed"

# Of a transaction: enough to be quick, few enough not to keep writers of the same waiting.
_BATCH_DOCUMENTS = 64
_BATCH_BYTES = 1 << 20
# Enough to keep the engine busy, and few beside those that clients wait for.
_AT_ONCE = 8
_MOST_ROUNDS = 5
_SAMPLED_QUERIES = 100
_COMPARED = 10
_LISTED_FAILURES = 100
_SEED = 20
_QUERY_CHARS = 200
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")
_LISTED_IDS = 5


class Keep(Enum):
    """Stand for a value that stays as it is."""

    AS_IT_IS = "as it is"


AS_IT_IS = Keep.AS_IT_IS


@dataclass(frozen=True)
class ModelChange:
    """Say how a collection's documents are to be chunked and embedded.

    None is the model's own way. What is left AS_IT_IS stays, where it is not another model's.
    """

    model: str
    dimensions: int | Keep | None = AS_IT_IS
    precision: Precision | Keep = AS_IT_IS
    chunking: Chunking | Keep = AS_IT_IS
    instruction: str | Keep | None = AS_IT_IS


# --- What clients ask for ---------------------------------------------------------------------


async def change_model(memory: Memory, collection: Collection, change: ModelChange) -> Job:
    """Begin to embed a collection anew, and return the job.

    Raises ModelNotFoundError, InvalidInputError for what the model can't do, ConflictError where
    another change is under way, a previous model is kept, or nothing would change.
    """
    planned = await _plan(memory, collection.active, change)
    if planned == collection.active:
        raise ConflictError("the collection is embedded in just this way already", "model")

    async def begin(connection: Connection) -> int:
        generation = await _build(connection, collection.number, planned)
        return await jobs.create_job(
            connection,
            collection.number,
            type=JOB_TYPE,
            unit="documents",
            parameters=_as_parameters(generation),
        )

    number = await generations.change_alone(memory.database, collection.number, begin)
    memory.runner.wake()
    return await jobs.find_job(memory.database, number)


async def _plan(memory: Memory, active: Generation, change: ModelChange) -> Generation:
    """Return what `active` is to be replaced by, of the same number and role."""
    async with memory.engine.using(change.model) as model:
        check_gives_vectors(model)
    stays = model.spec.name == active.model
    dimensions, instruction = change.dimensions, change.instruction
    if dimensions is AS_IT_IS:
        dimensions = active.dimensions if stays else None
    if instruction is AS_IT_IS:
        instruction = active.instruction if stays else None
    check_dimensions(model, dimensions)
    if instruction is not None:
        model.prefix("query", instruction)
    return replace(
        active,
        model=model.spec.name,
        dimensions=dimensions or model.dimensions,
        precision=active.precision if change.precision is AS_IT_IS else change.precision,
        chunking=_plan_chunking(model, active.chunking, change.chunking),
        instruction=instruction,
    )


def _plan_chunking(model: EmbeddingModel, active: Chunking, wanted: Chunking | Keep) -> Chunking:
    """Return how texts are cut: as before, in smaller chunks where the model takes no more."""
    if wanted is not AS_IT_IS:
        check_chunking(wanted, model.max_tokens)
        return wanted
    most = min(active.max_tokens, model.max_tokens)
    overlap = min(active.overlap_tokens, most // 2)
    return replace(active, max_tokens=most, overlap_tokens=overlap)


async def _build(connection: Connection, collection_number: int, planned: Generation) -> Generation:
    """Make the generation that is to replace the active one, and return it."""
    existing = await generations.list_generations(connection, collection_number)
    for each in existing:
        if each.role == "building":
            raise ConflictError(
                f"the collection is being embedded by {each.model} already: wait for its job, or "
                "cancel it",
                "collection",
            )
        if each.role == "previous":
            raise ConflictError(
                f"the previous model, {each.model}, is kept: drop it first, with DELETE "
                "…/model/previous",
                "collection",
            )
    [active] = existing
    number = await generations.next_number(connection, collection_number)
    generation = replace(planned, number=number, role="building")
    await generations.build_generation(connection, collection_number, active.number, generation)
    return generation


def _as_parameters(generation: Generation) -> dict[str, Any]:
    return {name: value for name, value in asdict(generation).items() if name != "role"}


async def roll_back(memory: Memory, collection: Collection) -> Collection:
    """Let the previous model take the active one's place, which is kept as the previous one.

    Raises ConflictError where there is none.
    """

    async def change(connection: Connection) -> None:
        await generations.activate(connection, collection.number, "previous")

    await generations.change_alone(memory.database, collection.number, change)
    return await collections.find_collection_by_number(memory.database, collection.number)


async def drop_previous(memory: Memory, collection: Collection) -> Generation:
    """Delete the previous model's chunks and vectors, and return what it was.

    Raises ConflictError where there is none, and where documents have their chunks there alone.
    """

    async def change(connection: Connection) -> Generation:
        found = {
            each.role: each
            for each in await generations.list_generations(connection, collection.number)
        }
        previous = found.get("previous")
        if previous is None:
            raise ConflictError("the collection has no previous model", "collection")
        await _check_spares_all(connection, collection.number, previous, found["active"])
        await generations.drop_generation(connection, collection.number, previous)
        return previous

    dropped = await generations.change_alone(memory.database, collection.number, change)
    await release_unused(memory, {dropped.model})
    return dropped


async def _check_spares_all(
    connection: Connection, collection_number: int, previous: Generation, active: Generation
) -> None:
    """Raise ConflictError where chunks that clients made would be lost."""
    ids = await generations.list_only_in(
        connection, collection_number, previous, active, _LISTED_IDS
    )
    if ids:
        raise ConflictError(
            f"the chunks that were sent of {', '.join(map(repr, ids))} could not be embedded by "
            f"{active.model}, and are with {previous.model} alone: delete or replace these "
            "documents first, or roll back",
            "collection",
        )


# --- The job --------------------------------------------------------------------------------


def reembedding(memory: Memory) -> JobKind:
    """Return how jobs of JOB_TYPE are run."""
    return JobKind(partial(_run, memory), partial(_abandon, memory), partial(_restart, memory))


async def _abandon(memory: Memory, job: Job, write: Write) -> None:
    """Drop what a job has built, and end it."""

    async def change(connection: Connection) -> str | None:
        await write(connection)
        for each in await generations.list_generations(connection, job.collection_number):
            if each.role == "building":
                await generations.drop_generation(connection, job.collection_number, each)
                return each.model
        return None

    model = await generations.change_alone(memory.database, job.collection_number, change)
    if model is not None:
        await release_unused(memory, {model})


async def _restart(memory: Memory, job: Job, write: Write) -> None:
    """Make the tables again that a failed job has left, and queue it."""

    async def change(connection: Connection) -> None:
        await write(connection)
        parameters = await job_claims.read_parameters(connection, job.number)
        planned = generations.read_generation({**parameters, "role": "building"})
        generation = await _build(connection, job.collection_number, planned)
        await job_claims.reset_job(connection, job.number, _as_parameters(generation))

    await generations.change_alone(memory.database, job.collection_number, change)


@dataclass
class _Build:
    """Hold what one attempt of a job works with, and how far it is."""

    memory: Memory
    claim: JobClaim
    collection: Collection
    building: Generation
    done: int
    total: int
    stage: str = "embedding"

    @property
    def is_same_model(self) -> bool:
        """Whether vectors that are there may be taken over."""
        active = self.collection.active
        is_narrower = self.building.dimensions <= active.dimensions
        return self.building.model == active.model and is_narrower


async def _run(memory: Memory, claim: JobClaim) -> None:
    """Embed what is missing, compare, and switch.

    Raises LostJobError where others have the job, or it was canceled, and MemorydError where no
    document can be embedded.
    """
    collection = await collections.find_collection_by_number(
        memory.database, claim.collection_number
    )
    building = collection.find_generation("building")
    if building is None or building.number != claim.parameters["number"]:
        raise ConflictError("what this job was building is gone: begin anew", "collection")
    total = await sources.count_stored(memory.database, collection)
    build = _Build(memory, claim, collection, building, claim.done, max(total, claim.done))
    await _embed_missing(build, claim.checkpoint.get("document", 0))
    failures = await _verify(build)
    documents, chunks = await sources.count_embedded(memory.database, collection, building)
    if failures and not documents:
        reason = next(iter(failures.values())).message
        raise InvalidInputError(f"{building.model} can embed no document of these: {reason}")
    overlaps = await _compare(build)
    result = {
        "overlap_at_10": round(sum(overlaps) / len(overlaps), 4) if overlaps else None,
        "queries": len(overlaps),
        "documents": documents,
        "chunks": chunks,
        "failed": _list_failures(failures),
    }
    counts = {"stored": documents, "failed": len(failures)}

    async def switch(connection: Connection) -> None:
        await job_claims.complete_job(connection, claim, counts, result)
        await generations.activate(connection, collection.number, "building")

    await generations.change_alone(memory.database, collection.number, switch)


def _list_failures(failures: Mapping[str, MemorydError]) -> list[dict[str, str]]:
    listed = list(failures.items())[:_LISTED_FAILURES]
    return [{"id": id_, "message": error.message} for id_, error in listed]


async def _verify(build: _Build) -> dict[str, MemorydError]:
    """Return the documents that can't be embedded, once there are no others without chunks.

    What writers store from now on is in both generations: nothing comes to be missing again.
    """
    build.stage = "verifying"
    async with build.memory.database.transaction() as connection:
        await _save(build, connection, 0)
    for _ in range(_MOST_ROUNDS):
        failures, left_out = await _embed_missing(build, 0)
        if not left_out:
            return failures
    raise UnavailableError("documents change faster than they are embedded: try again")


async def _embed_missing(build: _Build, after: int) -> tuple[dict[str, MemorydError], int]:
    """Go over the documents without chunks; return what fails, and how many were left out.

    Those are being changed by others meanwhile.
    """
    failures: dict[str, MemorydError] = {}
    left_out = 0
    while batch := _cut(
        await sources.list_missing(
            build.memory.database,
            build.collection,
            build.building,
            after=after,
            limit=_BATCH_DOCUMENTS,
        )
    ):
        after = batch[-1].number
        failed, stale = await _embed_batch(build, batch)
        failures |= failed
        left_out += stale
    return failures, left_out


def _cut(missing: Sequence[Missing]) -> list[Missing]:
    """Return the first of `missing`: few where they are large, to be held at once."""
    batch: list[Missing] = []
    size_bytes = 0
    for each in missing:
        size_bytes += each.size_bytes
        if batch and size_bytes > _BATCH_BYTES:
            break
        batch.append(each)
    return batch


async def _embed_batch(
    build: _Build, batch: Sequence[Missing]
) -> tuple[dict[str, MemorydError], int]:
    """Embed documents and write them, with the checkpoint; return as _embed_missing does."""
    read = await sources.read_sources(
        build.memory.database,
        build.collection,
        [each.number for each in batch],
        with_vectors=build.is_same_model,
    )
    made = await _embed_all(build, read)
    failures = {
        source.id: outcome
        for source, outcome in zip(read, made, strict=True)
        if isinstance(outcome, MemorydError)
    }
    embeddings = [
        (source, outcome)
        for source, outcome in zip(read, made, strict=True)
        if isinstance(outcome, Embedding) and outcome.chunks
    ]
    if build.stage == "embedding":
        build.done += len(batch)
        build.total = max(build.total, build.done)
    async with build.memory.database.transaction() as connection:
        if not await generations.are_unchanged(connection, build.collection):
            raise LostJobError
        written = await sources.write_missing(connection, build.collection, embeddings)
        await _save(build, connection, batch[-1].number if build.stage == "embedding" else 0)
    build.memory.statistics.note(build.collection.number)
    return failures, len(embeddings) - written


async def _save(build: _Build, connection: Connection, document_number: int) -> None:
    """Write that documents up to that number have been gone over."""
    await job_claims.save_progress(
        connection,
        build.claim,
        {"document": document_number},
        stage=build.stage,
        done=build.done,
        total=build.total,
    )


async def _embed_all(build: _Build, read: Sequence[Source]) -> list[Embedding | MemorydError]:
    """Return what the new generation makes of each document, or why it can't."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def embed(source: Source) -> Embedding | MemorydError:
        async with turns:
            try:
                return await _embed(build, source)
            except (InvalidInputError, EmbeddingError) as error:
                return error

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(embed(source)) for source in read]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _embed(build: _Build, source: Source) -> Embedding:
    memory, generation = build.memory, build.building
    async with memory.engine.pinning(generation.model) as model:
        draft = _shortened(source.draft, generation.dimensions)
        # As if it were active: then vectors are kept that are given, which the same model's are.
        chosen = replace(generation, role="active")
        prepared = await prepare_in_thread(memory, model, chosen, draft)
        taken_over = _take_over(build, source, prepared)
        missing = [chunk.position for chunk in prepared.chunks if chunk.position not in taken_over]
        embedded = await embed_chunks(model, generation, prepared, missing)
    return Embedding(generation, prepared.chunks, [], [*taken_over.values(), *embedded])


def _shortened(draft: Draft, dimensions: int) -> Draft:
    """Return the document with vectors of that width, where its client made them."""
    if draft.chunks is None:
        return draft
    chunks = (
        own if own.vector is None else replace(own, vector=shorten(own.vector[None], dimensions)[0])
        for own in draft.chunks
    )
    return replace(draft, chunks=tuple(chunks))


def _take_over(build: _Build, source: Source, prepared: Prepared) -> dict[int, Embedded]:
    """Return the vectors of chunks that the same model has made before, by position."""
    if build.collection.active.precision == "half" and build.building.precision == "full":
        return {}
    return {
        chunk.position: Embedded(
            chunk.position, shorten(source.vectors[chunk.hash][None], build.building.dimensions)[0]
        )
        for chunk in prepared.chunks
        if chunk.hash in source.vectors
    }


# --- Comparing --------------------------------------------------------------------------------


async def _compare(build: _Build) -> list[float]:
    """Return the part of the nearest ten that both generations have, for each sampled query."""
    memory, collection = build.memory, build.collection
    numbers = random.Random(_SEED)  # noqa: S311 - a sample, the same each time
    fractions = [numbers.random() for _ in range(_SAMPLED_QUERIES)]
    overlaps = []
    for text in await sources.sample_texts(memory.database, collection, fractions):
        query = Query((TextQuery(_first_sentence(text)),), "dense", limit=_COMPARED, group_size=1)
        before = await _find(memory, _searching(collection, collection.active), query)
        after = await _find(memory, _searching(collection, build.building), query)
        if before:
            overlaps.append(len(before & after) / len(before))
    return overlaps


def _first_sentence(text: str) -> str:
    return _SENTENCE_END.split(text.strip(), 1)[0][:_QUERY_CHARS]


def _searching(collection: Collection, generation: Generation) -> Collection:
    """Return the collection as it would be with that generation alone."""
    return replace(collection, generations=(replace(generation, role="active"),))


async def _find(memory: Memory, collection: Collection, query: Query) -> set[int]:
    return {each.document.number for each in (await search(memory, collection, query)).results}
