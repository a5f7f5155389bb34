"""Documents and their chunks, in the schema of their collection."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from memoryd.documents.filters import Filter
from memoryd.documents.outline import Section
from memoryd.documents.types import (
    Collection,
    Document,
    Draft,
)
from memoryd.errors import ConflictError, NotFoundError
from memoryd.storage.chunks import Embedding, insert_chunks, move_kept
from memoryd.storage.database import Connection, Database
from memoryd.storage.expiry import note_expiry
from memoryd.storage.filters import PLAN_FOR_ARGUMENTS, compile_filter
from memoryd.storage.lexical_writing import delete_lexical, rewrite_lexical
from memoryd.storage.tables import chunk_table, collection_schema


def attributes_of(collection: Collection) -> str:
    """Return the columns of a document `d` that `document_of` reads."""
    chunks = f"{collection_schema(collection.number)}.{chunk_table(collection.active.number)}"
    return (
        "d.id, d.external_id, d.version, d.content_hash, d.title, d.mime_type, d.language,"
        " d.metadata, d.tags, d.created_at, d.updated_at, d.expires_at, d.error,"
        " d.last_draft,"
        f" (SELECT count(*) FROM {chunks} c WHERE c.document_id = d.id) AS chunk_count"
    )


def document_of(fields: dict[str, Any]) -> Document:
    """Return the document of a row with those columns, and `text` if that was read too."""
    rest = {name: value for name, value in fields.items() if name not in ("id", "external_id")}
    return Document(number=fields["id"], id=fields["external_id"], **rest)


async def find_document(
    database: Database, collection: Collection, external_id: str
) -> Document | None:
    """Return the document of that id without its text, or None."""
    return await _find_document(database, collection, external_id, attributes_of(collection))


async def require_document(
    database: Database, collection: Collection, external_id: str
) -> Document:
    """Return the document of that id without its text, or raise NotFoundError."""
    document = await find_document(database, collection, external_id)
    if document is None:
        raise not_found(collection, external_id)
    return document


async def read_document(database: Database, collection: Collection, external_id: str) -> Document:
    """Return the document of that id with its text, or raise NotFoundError."""
    columns = f"{attributes_of(collection)}, d.text"
    document = await _find_document(database, collection, external_id, columns)
    if document is None:
        raise not_found(collection, external_id)
    return document


async def _find_document(
    database: Database, collection: Collection, external_id: str, columns: str
) -> Document | None:
    async with database.connection() as connection:
        row = await connection.fetchrow(
            f"SELECT {columns} FROM {collection_schema(collection.number)}.documents d"
            " WHERE external_id = $1",
            external_id,
        )
    return document_of(dict(row)) if row else None


def not_found(collection: Collection, external_id: str) -> NotFoundError:
    """Return the error that says so."""
    return NotFoundError(f"there is no document {external_id!r} in {collection.name!r}", "id")


async def list_documents(
    database: Database,
    collection: Collection,
    *,
    after: int,
    limit: int,
    wanted: Filter | None = None,
) -> list[Document]:
    """Return up to `limit` documents without text that are `wanted`, from after `after` on.

    They come by number. One that is there all the while is on exactly one page, whatever others
    write: a replaced document keeps its number, and a new one has a higher one.
    """
    arguments: list[Any] = [after]
    condition = _condition(wanted, arguments)
    schema = collection_schema(collection.number)
    async with database.snapshot(PLAN_FOR_ARGUMENTS) as connection:
        rows = await connection.fetch(
            f"SELECT {attributes_of(collection)} FROM (SELECT * FROM {schema}.documents"
            f" WHERE id > $1 AND {condition} ORDER BY id LIMIT {limit:d}) AS d ORDER BY id",
            *arguments,
        )
    return [document_of(dict(row)) for row in rows]


def _condition(wanted: Filter | None, arguments: list[Any]) -> str:
    return "true" if wanted is None else compile_filter(wanted, arguments)


async def count_documents(database: Database, collection: Collection, wanted: Filter) -> int:
    """Return how many documents are `wanted`."""
    arguments: list[Any] = []
    condition = compile_filter(wanted, arguments)
    async with database.snapshot(PLAN_FOR_ARGUMENTS) as connection:
        count: int = await connection.fetchval(
            f"SELECT count(*) FROM {collection_schema(collection.number)}.documents"
            f" WHERE {condition}",
            *arguments,
        )
    return count


async def find_newest_number(database: Database, collection: Collection) -> int:
    """Return the number of the newest document, 0 where there is none."""
    async with database.connection() as connection:
        number: int = await connection.fetchval(
            f"SELECT coalesce(max(id), 0) FROM {collection_schema(collection.number)}.documents"
        )
    return number


async def lock_documents(
    connection: Connection,
    collection: Collection,
    wanted: Filter,
    *,
    after: int,
    until: int,
    limit: int,
) -> tuple[list[int], int | None]:
    """Return the numbers of documents that are `wanted`, and where to go on; None: that is all.

    They are up to `limit`, from after `after` to `until`. None else changes these in this
    transaction's time. One that others changed while it was waited for is looked at again: it is
    left out unless it is still wanted, now and as the last draft that waits for it will make it.
    """
    arguments: list[Any] = [after, until]
    condition = compile_filter(wanted, arguments)
    await connection.execute(PLAN_FOR_ARGUMENTS)
    rows = await connection.fetch(
        f"SELECT id FROM {collection_schema(collection.number)}.documents"
        f" WHERE id > $1 AND id <= $2 AND {condition} ORDER BY id LIMIT {limit:d} FOR UPDATE",
        *arguments,
    )
    locked = [row["id"] for row in rows]
    spared = await _find_spared(connection, collection, wanted, locked)
    kept = [number for number in locked if number not in spared]
    return kept, locked[-1] if len(locked) == limit else None


async def _find_spared(
    connection: Connection, collection: Collection, wanted: Filter, numbers: Sequence[int]
) -> set[int]:
    """Return those documents that won't be `wanted` once what waits for them is stored."""
    schema = collection_schema(collection.number)
    arguments: list[Any] = [numbers]
    condition = compile_filter(wanted, arguments)
    rows = await connection.fetch(
        "SELECT id FROM (SELECT d.id, d.external_id, d.created_at, d.updated_at,"
        " w.draft ->> 'title' AS title, w.draft -> 'metadata' AS metadata,"
        " ARRAY(SELECT jsonb_array_elements_text(w.draft -> 'tags')) AS tags"
        f" FROM {schema}.documents d JOIN (SELECT DISTINCT ON (document_id) document_id,"
        f" convert_from(payload, 'UTF8')::jsonb AS draft FROM {schema}.drafts"
        " WHERE document_id = ANY ($1) AND outcome IS NULL ORDER BY document_id, id DESC) AS w"
        f" ON w.document_id = d.id) AS documents WHERE NOT {condition}",
        *arguments,
    )
    return {row["id"] for row in rows}


async def find_documents(
    connection: Connection, collection: Collection, numbers: Sequence[int]
) -> dict[int, Document]:
    """Return the documents of those rows, by number, without text."""
    rows = await connection.fetch(
        f"SELECT {attributes_of(collection)}"
        f" FROM {collection_schema(collection.number)}.documents d WHERE id = ANY($1)",
        numbers,
    )
    return {row["id"]: document_of(dict(row)) for row in rows}


async def find_number(
    connection: Connection, collection: Collection, external_id: str
) -> int | None:
    """Return the row of the document of that id, or None."""
    number: int | None = await connection.fetchval(
        f"SELECT id FROM {collection_schema(collection.number)}.documents WHERE external_id = $1",
        external_id,
    )
    return number


async def find_passing(
    connection: Connection, collection: Collection, wanted: Filter, numbers: Sequence[int]
) -> set[int]:
    """Return those of the documents of these numbers that are `wanted`."""
    arguments: list[Any] = [numbers]
    condition = compile_filter(wanted, arguments)
    rows = await connection.fetch(
        f"SELECT id FROM {collection_schema(collection.number)}.documents"
        f" WHERE id = ANY ($1) AND {condition}",
        *arguments,
    )
    return {row["id"] for row in rows}


async def find_document_by_number(
    database: Database, collection: Collection, number: int
) -> Document | None:
    """Return the document of that row without its text, or None."""
    async with database.connection() as connection:
        found = await find_documents(connection, collection, [number])
    return found.get(number)


async def write_document(
    connection: Connection,
    collection: Collection,
    document_number: int,
    version: int,
    draft: Draft,
    content_hash: bytes,
    draft_number: int,
    embeddings: Sequence[Embedding],
) -> int | None:
    """Swap in a new version whole and return it, or None where the document isn't at `version`.

    `embeddings` has one of each generation.
    """
    schema = collection_schema(collection.number)
    written = await connection.fetchrow(
        f"UPDATE {schema}.documents SET version = version + 1, content_hash = $3, title = $4,"
        " text = $5, mime_type = $6, language = $7, metadata = $8, tags = $9, expires_at = $10,"
        " sections = $11, has_own_chunks = $12, last_draft = $13, error = NULL,"
        " updated_at = CASE WHEN version = 0 THEN created_at ELSE now() END"
        f" WHERE id = $1 AND version = $2 RETURNING {_written(schema)}",
        document_number,
        version,
        content_hash,
        draft.title,
        draft.text,
        draft.mime_type,
        draft.language,
        draft.metadata,
        draft.tags,
        draft.expires_at,
        None if draft.sections is None else [asdict(each) for each in draft.sections],
        draft.chunks is not None,
        draft_number,
    )
    if written is None:
        return None
    for embedding in embeddings:
        if version:
            await move_kept(connection, schema, document_number, embedding)
        await insert_chunks(connection, collection, document_number, draft, embedding)
    if version and written["has_other_language"]:
        await rewrite_lexical(connection, collection, [document_number])
    await note_expiry(connection, collection, [draft.expires_at])
    return int(written["version"])


def _written(schema: str) -> str:
    """Return what an UPDATE of the document `$1` tells; a subquery sees it as it was before."""
    before = f"(SELECT language FROM {schema}.documents WHERE id = $1)"
    return f"version, language IS DISTINCT FROM {before} AS has_other_language"


async def write_attributes(
    connection: Connection,
    collection: Collection,
    document_number: int,
    version: int,
    draft: Draft,
    draft_number: int | None = None,
) -> int | None:
    """Write all that is not content and return the version, or None as in write_document.

    A draft that never waited takes its number here: earlier ones that failed, and are tried again,
    must not undo it.
    """
    schema = collection_schema(collection.number)
    written = await connection.fetchrow(
        f"UPDATE {schema}.documents SET version = version + 1,"
        " mime_type = CASE WHEN $3 THEN $4 ELSE mime_type END, language = $5, metadata = $6,"
        f" tags = $7, expires_at = $8, last_draft = coalesce($9, {_next_draft(schema)}),"
        " error = NULL, updated_at = now() WHERE id = $1 AND version = $2"
        f" RETURNING {_written(schema)}",
        document_number,
        version,
        draft.file is None,
        draft.mime_type,
        draft.language,
        draft.metadata,
        draft.tags,
        draft.expires_at,
        draft_number,
    )
    if written is None:
        return None
    if written["has_other_language"]:
        await rewrite_lexical(connection, collection, [document_number])
    await note_expiry(connection, collection, [draft.expires_at])
    return int(written["version"])


async def confirm(connection: Connection, collection: Collection, document_number: int) -> None:
    """Forget why earlier drafts failed: the document has been submitted as it is."""
    schema = collection_schema(collection.number)
    await connection.execute(
        f"UPDATE {schema}.documents SET error = NULL, last_draft = {_next_draft(schema)}"
        " WHERE id = $1",
        document_number,
    )


def _next_draft(schema: str) -> str:
    return f"nextval(pg_get_serial_sequence('{schema}.drafts', 'id'))"


async def patch_document(connection: Connection, collection: Collection, patched: Document) -> None:
    """Write metadata, tags and expiry of a document as a new version; hold its row's lock.

    Drafts that failed before don't undo it, and those that wait will replace it.
    """
    schema = collection_schema(collection.number)
    await connection.execute(
        f"UPDATE {schema}.documents d SET version = version + 1, metadata = $2, tags = $3,"
        " expires_at = $4, updated_at = now(), last_draft = CASE WHEN EXISTS"
        f" (SELECT 1 FROM {schema}.drafts w WHERE w.document_id = d.id AND w.outcome IS NULL)"
        f" THEN last_draft ELSE {_next_draft(schema)} END WHERE id = $1",
        patched.number,
        patched.metadata,
        patched.tags,
        patched.expires_at,
    )
    await note_expiry(connection, collection, [patched.expires_at])


def check_version(current: Document | None, external_id: str, version: int | None) -> None:
    """Raise ConflictError where `version` is given and isn't that of `current`."""
    if version is None or (current and current.version == version):
        return
    found = f"is at version {current.version}" if current else "isn't there"
    raise ConflictError(f"the document {external_id!r} {found}, not at {version}", "If-Match")


async def lock_document(
    connection: Connection, collection: Collection, external_id: str, version: int | None = None
) -> Document:
    """Return the document of that id, which none else changes in this transaction's time.

    Raises NotFoundError where there is none, ConflictError where it isn't at `version`.
    """
    row = await connection.fetchrow(
        f"SELECT {attributes_of(collection)}"
        f" FROM {collection_schema(collection.number)}.documents d"
        " WHERE external_id = $1 FOR UPDATE",
        external_id,
    )
    document = document_of(dict(row)) if row else None
    check_version(document, external_id, version)
    if document is None:
        raise not_found(collection, external_id)
    return document


async def delete_documents(
    connection: Connection, collection: Collection, numbers: Sequence[int]
) -> None:
    """Delete documents with their chunks, vectors and lexemes; hold their rows' locks."""
    await delete_lexical(connection, collection, numbers)
    await connection.execute(
        f"DELETE FROM {collection_schema(collection.number)}.documents WHERE id = ANY ($1)",
        numbers,
    )


def load_sections(described: list[dict[str, Any]]) -> tuple[Section, ...]:
    """Return the sections that stand in a document's row."""
    return tuple(Section(**{**each, "headings": tuple(each["headings"])}) for each in described)
