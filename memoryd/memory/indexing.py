"""Give collections the indexes that they should have, while they are read and written.

A job of type `index` makes what is missing of one collection and drops what is too much. It is
begun where someone changes what there should be, and by a look at all collections now and then:
that finds those that have grown, were embedded anew, or come from an older memoryd.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from memoryd.documents.types import Collection, Generation
from memoryd.memory.background import BackgroundTasks
from memoryd.memory.job_runner import JobKind, JobRunner, Write
from memoryd.memory.state import Memory
from memoryd.storage import collections, index_jobs, job_claims, sources, vector_indexes
from memoryd.storage.database import Database
from memoryd.storage.field_indexes import sync_field_indexes
from memoryd.storage.index_jobs import JOB_TYPE, Grown
from memoryd.storage.job_claims import JobClaim
from memoryd.storage.jobs import Job
from memoryd.storage.lexical_writing import rebuild_batch
from memoryd.storage.vector_indexes import expected_index

__all__ = ["JOB_TYPE", "indexing", "watching"]

_LOOK_EVERY_S = 2.0
# A collection that grows faster than by this part, and by this many rows, from one look to the next
# is being filled: an index would slow that down, and is made faster when it is over.
_GROWING_PART = 0.02
_GROWING_ROWS = 500
_BATCH_DOCUMENTS = 256


# --- The job ----------------------------------------------------------------------------------


def indexing(memory: Memory) -> JobKind:
    """Return how jobs of JOB_TYPE are run."""
    return JobKind(
        partial(_run, memory),
        partial(_abandon, memory.database),
        partial(_restart, memory.database),
    )


async def _abandon(database: Database, job: Job, write: Write) -> None:
    """End a job and what it makes just now, and remove the part of it that is there."""
    async with database.transaction() as connection:
        await write(connection)
        await vector_indexes.cancel_indexing(connection, job.collection_number)
    collection = await collections.find_collection_by_number(database, job.collection_number)
    for generation in collection.generations:
        await _drop_unfinished(database, collection, generation)


async def _restart(database: Database, _job: Job, write: Write) -> None:
    async with database.transaction() as connection:
        await write(connection)


@dataclass
class _Indexing:
    """Hold what one attempt of a job works with."""

    memory: Memory
    claim: JobClaim
    collection: Collection

    @property
    def database(self) -> Database:
        return self.memory.database

    async def report(self, stage: str, done: int, total: int) -> None:
        """Write how far a stage is; raise LostJobError where the job is others' now."""
        async with self.database.connection() as connection:
            await job_claims.save_progress(
                connection, self.claim, {}, stage=stage, done=done, total=total
            )


async def _run(memory: Memory, claim: JobClaim) -> None:
    """Make and drop until nothing is left to do, also of what is asked for meanwhile.

    Raises LostJobError where others have the job, or it was canceled.
    """
    async with memory.database.connection() as connection:  # of a worker that died or hangs
        await vector_indexes.cancel_indexing(connection, claim.collection_number)
    while True:
        await index_jobs.begin_round(memory.database, claim)
        collection = await collections.find_collection_by_number(
            memory.database, claim.collection_number
        )
        run = _Indexing(memory, claim, collection)
        for generation in collection.generations:
            await _rebuild_lexical(run, generation)
        await sync_field_indexes(memory.database, collection)
        for generation in collection.generations:
            await _settle_dense(run, generation)
        if await index_jobs.complete_round(memory.database, claim):
            return


async def _rebuild_lexical(run: _Indexing, generation: Generation) -> None:
    """Write a generation's lexemes again where they are those of another language, or missing."""
    if generation.lexical_state == "ready":
        return
    total = await sources.count_stored(run.database, run.collection)
    done, after = 0, 0
    while True:
        await run.report("lexemes", min(done, total), total)
        last = await rebuild_batch(
            run.database, run.collection, generation, after=after, limit=_BATCH_DOCUMENTS
        )
        if last is None:
            break
        done, after = done + _BATCH_DOCUMENTS, last
    async with run.database.transaction() as connection:
        await collections.note_lexical_ready(connection, run.collection, generation)


async def _settle_dense(run: _Indexing, generation: Generation) -> None:
    """Give a generation the index over vectors that it should have, and no other."""
    await _drop_unfinished(run.database, run.collection, generation)
    threshold = run.memory.settings.hnsw_threshold
    count = await vector_indexes.count_vectors(run.database, run.collection, generation, threshold)
    wanted = expected_index(run.collection, generation, count, threshold)
    if generation.role != "active" and generation.dense_index is None:
        wanted = None  # it gets one when it is searched
    found = await vector_indexes.list_indexes(run.database, run.collection, generation)
    if wanted is not None and wanted.name not in [each.name for each in found]:
        report = partial(run.report, "indexing")
        await vector_indexes.build_index(
            run.database, run.collection, generation, wanted, count, report
        )
    if wanted != generation.dense_index:
        async with run.database.transaction() as connection:
            await vector_indexes.note_index(connection, run.collection, generation, wanted)
    for each in found:
        if wanted is None or each.name != wanted.name:
            await vector_indexes.drop_index(run.database, run.collection, each.name)


async def _drop_unfinished(
    database: Database, collection: Collection, generation: Generation
) -> None:
    """Drop what was left by builds that broke off: it slows writers and serves nobody."""
    for each in await vector_indexes.list_indexes(database, collection, generation):
        if not each.is_valid:
            await vector_indexes.drop_index(database, collection, each.name)


# --- Looking for what is missing ---------------------------------------------------------------


@asynccontextmanager
async def watching(
    database: Database, runner: JobRunner, threshold: int, every_s: float = _LOOK_EVERY_S
) -> AsyncIterator[None]:
    """Begin jobs for what is missing while the block runs; several processes can do so together."""
    tasks = BackgroundTasks()
    tasks.repeat(_Watch(database, runner, threshold).look, every_s)
    try:
        yield
    finally:
        await tasks.cancel()


@dataclass
class _Watch:
    """Remember how large the collections without an index were at the last look."""

    database: Database
    runner: JobRunner
    threshold: int
    sizes: Mapping[int, int] = field(default_factory=dict)

    async def look(self) -> None:
        """Begin a job for each collection that lacks an index and isn't just being filled."""
        lacking = await index_jobs.list_lacking(self.database, self.threshold)
        settled = [each for each in lacking if not self._is_growing(each)]
        self.sizes = {each.collection_number: each.vectors for each in lacking}
        for each in settled:
            async with self.database.transaction() as connection:
                await index_jobs.start_indexing(connection, each.collection_number)
        if settled:
            self.runner.wake()

    def _is_growing(self, grown: Grown) -> bool:
        before = self.sizes.get(grown.collection_number)
        if before is None:
            return grown.vectors > 0
        return grown.vectors - before > max(_GROWING_ROWS, _GROWING_PART * before)
