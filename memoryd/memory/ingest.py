"""Take documents on, and wait for those that a client waits for."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from memoryd.documents.types import Collection, Draft, Outcome
from memoryd.errors import UnavailableError
from memoryd.memory.collections import with_current
from memoryd.memory.hashing import hash_content
from memoryd.memory.state import Memory
from memoryd.storage import acceptance, ingest_jobs, jobs
from memoryd.storage.acceptance import Accepted, Terms
from memoryd.storage.jobs import Job


@dataclass(frozen=True)
class Ingested:
    """Say what became of each document so far, and which job goes on with the rest."""

    outcomes: list[Outcome]
    job: Job | None = None


async def ingest(
    memory: Memory, collection: Collection, submitted: Sequence[Draft], *, wait_s: float
) -> Ingested:
    """Store documents; return what became of each in their order, `wait_s` after at most.

    They are accepted in one transaction: from then on they will be stored, whatever happens. Each
    is stored in a transaction of its own: one that fails is `failed` with its error, and never
    fails the rest. What takes longer is `queued`, and a job tells what becomes of it.
    """
    for draft in submitted:
        await hash_content(draft)
    if wait_s <= 0:
        return await enqueue(memory, collection, submitted)
    accept = partial(_accept_here, memory, submitted, wait_s)
    accepted, job_number = await memory.run_to_end(with_current(memory, collection, accept))
    if job_number is None:
        return Ingested([each.outcome for each in accepted])
    waiting = [each.draft_number for each in accepted if each.draft_number is not None]
    try:
        settled = await memory.worker.wait_for(collection, waiting, wait_s)
    except asyncio.CancelledError:  # the client has left: nobody need be told
        memory.start(jobs.stop_waiting(memory.database, job_number))
        raise
    outcomes = [settled.get(each.draft_number or 0, each.outcome) for each in accepted]
    if len(settled) == len(waiting):
        await _forget(memory, collection, job_number, outcomes)
        return Ingested(outcomes)
    await jobs.stop_waiting(memory.database, job_number)
    return Ingested(outcomes, await jobs.find_job(memory.database, job_number))


async def _forget(
    memory: Memory, collection: Collection, job_number: int, outcomes: Sequence[Outcome]
) -> None:
    """Remove a job whose outcomes are all told; what failed is gone before that is answered."""
    forgetting = ingest_jobs.forget_job(memory.database, collection.number, job_number)
    if any(outcome.status == "failed" for outcome in outcomes):
        with suppress(UnavailableError):  # the outcomes are true all the same
            await forgetting
    else:
        memory.start(forgetting)


async def _accept_here(
    memory: Memory, submitted: Sequence[Draft], wait_s: float, collection: Collection
) -> tuple[list[Accepted], int | None]:
    """Accept documents for this process' worker, which begins at once."""
    async with memory.database.transaction() as connection:
        # The outcomes wait to be told as long as a process may be busy before it counts as dead.
        worker = memory.worker.claimant if memory.worker.has_room else None
        terms = Terms(wait_s + memory.settings.lease_s, worker)
        accepted, job_number = await acceptance.accept(connection, collection, submitted, terms)
    memory.worker.take([each.claim for each in accepted if each.claim])
    count_settled(memory, accepted)
    return accepted, job_number


async def enqueue(memory: Memory, collection: Collection, submitted: Sequence[Draft]) -> Ingested:
    """Accept documents for any worker, and return at once."""
    accepted, job_number = await with_current(
        memory, collection, partial(_accept, memory, submitted)
    )
    count_settled(memory, accepted)
    job = await jobs.find_job(memory.database, job_number) if job_number else None
    return Ingested([each.outcome for each in accepted], job)


def count_settled(memory: Memory, accepted: Sequence[Accepted]) -> None:
    """Count in the metrics what nothing is left to do for; the worker counts the rest."""
    for each in accepted:
        if each.draft_number is None:
            memory.engine.metrics.documents.count(each.outcome.status)


async def _accept(
    memory: Memory, submitted: Sequence[Draft], collection: Collection
) -> tuple[list[Accepted], int | None]:
    async with memory.database.transaction() as connection:
        return await acceptance.accept(connection, collection, submitted, Terms())
