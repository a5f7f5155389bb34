"""The sweeper: deletes documents when they expire, and what is told of things long past."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from memoryd.errors import DatabaseUnavailableError, MemorydError, NotFoundError
from memoryd.memory.background import BackgroundTasks
from memoryd.storage import collections, expiry, idempotency, jobs, sweeping
from memoryd.storage.database import Database

logger = logging.getLogger(__name__)

# A document is gone this long after its time, and what its deletion takes.
_SWEEP_EVERY_S = 0.5
_TIDY_EVERY_S = 3600.0
# Of one transaction, so that none is long.
_DELETED_AT_ONCE = 1_000
_JOBS_KEPT_DAYS = 30


@asynccontextmanager
async def sweeping_up(database: Database) -> AsyncIterator[None]:
    """Delete what expires while the block runs; any number of processes can do so together."""
    tasks = BackgroundTasks()
    tasks.repeat(partial(sweep, database), _SWEEP_EVERY_S)
    tasks.repeat(partial(tidy, database), _TIDY_EVERY_S)
    try:
        yield
    finally:
        await tasks.cancel()


async def sweep(database: Database) -> None:
    """Delete the documents that have expired."""
    for number in await expiry.list_expiring(database):
        try:
            await _sweep_collection(database, number)
        except DatabaseUnavailableError:
            raise
        except NotFoundError:
            logger.debug("collection %d was deleted before it was swept", number)
        except MemorydError as error:  # the others are swept all the same
            logger.warning("cannot sweep collection %d: %s", number, error.message)


async def _sweep_collection(database: Database, number: int) -> None:
    collection = await collections.find_collection_by_number(database, number)
    while True:
        deleted = await sweeping.delete_expired(database, collection, _DELETED_AT_ONCE)
        if deleted < _DELETED_AT_ONCE:
            break
    await expiry.settle_expiry(database, collection)


async def tidy(database: Database) -> None:
    """Forget old keys of repeated requests, and jobs that ended long ago with what failed."""
    await idempotency.delete_old(database)
    for number in await sweeping.list_with_ended_jobs(database, _JOBS_KEPT_DAYS):
        with suppress(NotFoundError):  # it is being deleted
            await sweeping.delete_ended_drafts(database, number, _JOBS_KEPT_DAYS)
    await jobs.delete_ended_jobs(database, _JOBS_KEPT_DAYS)
