"""Change and delete documents that are stored."""

import asyncio
import time
from collections.abc import Callable

from memoryd.documents.filters import Filter
from memoryd.documents.types import Collection, Document, same_json
from memoryd.errors import ConflictError
from memoryd.memory.state import Memory
from memoryd.storage import documents, drafts

# How long a change waits for what was accepted before it, and how often it looks.
_PATIENCE_S = 30.0
_FIRST_POLL_S = 0.02
_LONGEST_POLL_S = 0.5
# Of one transaction, so that none is long and nobody waits for long.
_DELETED_AT_ONCE = 1_000


async def patch_document(
    memory: Memory,
    collection: Collection,
    external_id: str,
    change: Callable[[Document], Document],
    *,
    version: int | None = None,
) -> Document:
    """Write the metadata, tags and expiry that `change` gives a document, and return it.

    What was accepted for the document before is stored first; what is accepted later replaces the
    whole record. Raises NotFoundError where there is none, and ConflictError where it isn't at
    `version`, was never stored, or what comes before takes too long.
    """
    deadline, pause_s = time.monotonic() + _PATIENCE_S, _FIRST_POLL_S
    ahead = await _list_ahead(memory, collection, external_id)
    while True:
        patched, ahead = await _patch(memory, collection, external_id, change, version, ahead)
        if patched is not None:
            return patched
        memory.check_going_on()
        if time.monotonic() > deadline:
            raise ConflictError(
                f"a version of the document {external_id!r} still waits to be stored: try again",
                "id",
            )
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_POLL_S)


async def _list_ahead(memory: Memory, collection: Collection, external_id: str) -> set[int]:
    """Return the drafts that were accepted for a document so far and wait."""
    document = await documents.require_document(memory.database, collection, external_id)
    async with memory.database.connection() as connection:
        waiting = await drafts.list_waiting(connection, collection, [document.number])
    return set(waiting.get(document.number, ()))


async def _patch(
    memory: Memory,
    collection: Collection,
    external_id: str,
    change: Callable[[Document], Document],
    version: int | None,
    ahead: set[int],
) -> tuple[Document | None, set[int]]:
    """Return the document once it is changed, None while some of the drafts `ahead` wait."""
    async with memory.database.transaction() as connection:
        current = await documents.lock_document(connection, collection, external_id)
        waiting = await drafts.list_waiting(connection, collection, [current.number])
        ahead = ahead & set(waiting.get(current.number, ()))
        if ahead:
            return None, ahead
        documents.check_version(current, external_id, version)
        if not current.version:
            raise ConflictError(f"the document {external_id!r} is not stored: post it again", "id")
        patched = change(current)
        if patched != current or not same_json(patched.metadata, current.metadata):
            await documents.patch_document(connection, collection, patched)
        found = await documents.find_documents(connection, collection, [current.number])
    return found[current.number], ahead


async def delete_document(
    memory: Memory, collection: Collection, external_id: str, *, version: int | None = None
) -> None:
    """Delete a document, and give up what was accepted for it before.

    Raises NotFoundError where there is none, ConflictError where it isn't at `version`.
    """
    async with memory.database.transaction() as connection:
        current = await documents.lock_document(connection, collection, external_id, version)
        await documents.delete_documents(connection, collection, [current.number])
        await drafts.drop_drafts(connection, collection, [current.number])
    memory.statistics.note(collection.number)


async def delete_matching(memory: Memory, collection: Collection, wanted: Filter) -> int:
    """Delete the documents that are `wanted` when their turn comes, and return how many.

    Those that are made meanwhile stay. It goes on where the caller is canceled.
    """
    return await memory.run_to_end(_delete_matching(memory, collection, wanted))


async def _delete_matching(memory: Memory, collection: Collection, wanted: Filter) -> int:
    newest = await documents.find_newest_number(memory.database, collection)
    deleted = 0
    last: int | None = 0
    while last is not None:
        memory.check_going_on()
        async with memory.database.transaction() as connection:
            batch, last = await documents.lock_documents(
                connection,
                collection,
                wanted,
                after=last,
                until=newest,
                limit=_DELETED_AT_ONCE,
            )
            await documents.delete_documents(connection, collection, batch)
            await drafts.drop_drafts(connection, collection, batch)
        memory.statistics.note(collection.number)
        deleted += len(batch)
    return deleted
