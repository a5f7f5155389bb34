"""Export a collection as lines, from one snapshot, in flat memory."""

import asyncio
from collections.abc import AsyncGenerator

from memoryd.documents.records import write_end, write_header, write_record
from memoryd.documents.types import Collection
from memoryd.errors import OverloadedError
from memoryd.memory.state import Memory
from memoryd.storage.export import Group, make_records, read_groups


async def export_lines(
    memory: Memory, collection: Collection, *, with_vectors: bool
) -> AsyncGenerator[bytes, None]:
    """Yield a header, the stored documents and a last line, some lines at a time.

    It holds a snapshot and a connection beside the pool until it ends or is closed. Raises
    OverloadedError where too many are under way, StoppingError at shutdown.
    """
    if memory.export_places.locked():
        raise OverloadedError("other exports are under way: try again when one has ended", 10)
    async with memory.export_places, memory.database.snapshot_apart() as connection:
        yield write_header(collection)
        count = 0
        async for group in read_groups(connection, collection, with_vectors=with_vectors):
            memory.check_going_on()
            yield await asyncio.to_thread(_write, group, collection, with_vectors=with_vectors)
            count += len(group.documents)
        yield write_end(count)


def _write(group: Group, collection: Collection, *, with_vectors: bool) -> bytes:
    records = make_records(group, collection, with_vectors=with_vectors)
    return b"".join(map(write_record, records))
