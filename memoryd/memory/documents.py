"""Delete documents."""

from memoryd.documents.types import Collection, Document
from memoryd.errors import ConflictError
from memoryd.memory.state import Memory
from memoryd.storage import documents as storage


async def delete_document(
    memory: Memory, collection: Collection, external_id: str, *, version: int | None = None
) -> None:
    """Delete a document, after the writes to it that were accepted before.

    Raises NotFoundError where there is none, ConflictError where it isn't at `version`.
    """
    async with memory.document_lock(collection, external_id):
        while True:
            current = await storage.find_document(memory.database, collection, external_id)
            check_version(current, external_id, version)
            if current is None:
                raise storage.not_found(collection, external_id)
            if await storage.delete_document(memory.database, collection, current):
                return


def check_version(current: Document | None, external_id: str, version: int | None) -> None:
    """Raise ConflictError where `version` is given and isn't that of `current`."""
    if version is None or (current and current.version == version):
        return
    found = f"is at version {current.version}" if current else "isn't there"
    raise ConflictError(f"the document {external_id!r} {found}, not at {version}", "If-Match")
