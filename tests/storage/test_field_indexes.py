"""Indexes of declared fields: made and dropped beside readers and writers, whatever keys are."""

import asyncio
import itertools
import random
from collections.abc import Iterable
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio
from filter_oracle import HOSTILE, Doc, escaped, holds, of
from filter_table import Table, make_table

from memoryd.documents.indexed_fields import MAX_FIELDS, validate_fields
from memoryd.documents.types import FieldType
from memoryd.errors import NotFoundError, UnavailableError
from memoryd.storage.collections import delete_collection
from memoryd.storage.database import Database
from memoryd.storage.field_indexes import sync_field_indexes

YEAR: dict[str, FieldType] = {"year": "number"}
INSERT = (
    "INSERT INTO c_1.documents (external_id, metadata, title, tags, created_at, updated_at,"
    " version, text, content_hash) VALUES ($1, '{}', '', '{}', now(), now(), 1, '', '')"
)
# Postgres reads an index wherever it can.
EAGER = ("plan_cache_mode = force_custom_plan", "enable_seqscan = off")


@pytest_asyncio.fixture
async def table(database: Database) -> Table:
    return await make_table(database)


async def state_of(table: Table) -> dict[str, tuple[int, bool]]:
    """Return number and validity of what belongs to fields, and that each index has statistics."""
    async with table.database.connection() as connection:
        rows = await connection.fetch(
            "SELECT relname, indexrelid, indisvalid FROM pg_index"
            " JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE indrelid = 'c_1.documents'::regclass AND relname LIKE 'documents_field_%'"
        )
        names = await connection.fetch("SELECT stxname FROM pg_statistic_ext")
    assert {row["stxname"] for row in names} == {row["relname"] for row in rows}
    return {row["relname"]: (row["indexrelid"], row["indisvalid"]) for row in rows}


async def wait_for_builder(connection: asyncpg.Connection) -> int:
    """Return the process that makes an index, once it waits for others."""
    async with asyncio.timeout(10):
        while True:
            found: int | None = await connection.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE starts_with(query, 'CREATE INDEX')"
                " AND wait_event_type = 'Lock' AND datname = current_database()"
            )
            if found:
                return found
            await asyncio.sleep(0.01)


async def test_what_is_declared_is_made_once_and_what_is_not_is_dropped(table: Table) -> None:
    await table.declare({})
    assert await state_of(table) == {}
    fields: dict[str, FieldType] = {"year": "number", "author.name": "string"}
    await table.declare(YEAR)
    [year] = (await state_of(table)).items()
    await table.declare(fields)
    both = await state_of(table)
    assert [is_valid for _, is_valid in both.values()] == [True, True]
    assert both[year[0]] == year[1]
    await table.declare(fields)
    assert await state_of(table) == both
    await table.declare({"year": "string", "author.name": "string"})
    changed = await state_of(table)
    assert len(changed) == 2
    assert year[0] not in changed
    await table.declare({})
    assert await state_of(table) == {}


async def test_two_paths_of_one_key_share_an_index(table: Table) -> None:
    await table.declare({"year": "number", "metadata.year": "number"})
    assert len(await state_of(table)) == 1
    await table.declare({"metadata.year": "number", "year": "string"})
    assert len(await state_of(table)) == 2


async def test_writers_go_on_while_an_index_is_made(
    table: Table, connection: asyncpg.Connection, dsn: str
) -> None:
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute(INSERT, "before")
    making = asyncio.create_task(table.declare(YEAR))
    await wait_for_builder(connection)
    await asyncio.wait_for(connection.execute(INSERT, "meanwhile"), 5)
    assert not making.done()
    await transaction.commit()
    await asyncio.wait_for(making, 10)
    [(_, is_valid)] = (await state_of(table)).values()
    assert is_valid
    await other.close()


async def test_what_a_crash_left_half_made_is_made_again(
    table: Table, connection: asyncpg.Connection, dsn: str
) -> None:
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute(INSERT, "before")
    making = asyncio.create_task(table.declare(YEAR))
    await connection.execute("SELECT pg_terminate_backend($1)", await wait_for_builder(connection))
    with pytest.raises(UnavailableError):
        await making
    await transaction.commit()
    [(name, (number, is_valid))] = (await state_of(table)).items()
    assert not is_valid
    await table.declare(YEAR)
    [(again, (other_number, is_valid))] = (await state_of(table)).items()
    assert again == name
    assert other_number != number
    assert is_valid
    await other.close()


async def test_half_of_what_is_no_longer_declared_is_dropped(
    table: Table, connection: asyncpg.Connection
) -> None:
    await table.declare(YEAR)
    [name] = await state_of(table)
    await connection.execute(f"DROP INDEX c_1.{name}")
    await table.declare({})
    assert await state_of(table) == {}


async def test_a_deleted_collection_is_told(table: Table) -> None:
    await delete_collection(table.database, table.collection)
    with pytest.raises(NotFoundError):
        await sync_field_indexes(table.database, replace(table.collection, indexed_fields=YEAR))


# --- Whatever is in them ---------------------------------------------------------------------


async def test_a_declared_field_takes_values_of_any_type_and_size(table: Table) -> None:
    rng = random.Random(1)  # noqa: S311 # it makes documents, not secrets
    noise = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(20_000))
    values = [
        noise,
        noise[:256],
        noise[:257],
        [noise],
        {noise[:99]: noise},
        None,
        True,
        1.5,
        -1e308,
    ]
    docs = [Doc(f"{n}", {"x": value}) for n, value in enumerate([*values, 2**63, 5e-324])]
    await table.declare({"x": "number", "metadata.x": "string"})
    await table.add([*docs, Doc("missing")])
    assert len(await state_of(table)) == 2
    for asked in (
        of("gt", noise[:256]),
        of("gte", noise[:257]),
        of("lt", noise[:257]),
        of("prefix", noise[:300]),
        of("prefix", noise[:200]),
        {"field": "x", "gt": noise[:256], "lte": noise},
        of("gt", 1),
        of("lte", 0),
    ):
        assert "documents_field_" in await table.explain(asked, *EAGER)
        found = await table.find(asked, *EAGER)
        assert found == sorted(doc.id for doc in docs if holds(doc, asked)) != []


def batches(paths: Iterable[str], kind: FieldType) -> list[dict[str, FieldType]]:
    return [dict.fromkeys(batch, kind) for batch in _batched(list(dict.fromkeys(paths)))]


def _batched(paths: list[str]) -> list[list[str]]:
    starts = range(0, len(paths), MAX_FIELDS)
    return [paths[start : start + MAX_FIELDS] for start in starts]


async def test_any_key_can_be_declared(table: Table) -> None:
    rng = random.Random(2)  # noqa: S311 # it makes keys, not secrets
    mixed = ["".join(rng.choices(HOSTILE, k=4)) for _ in range(20)]
    keys = [*HOSTILE, *mixed, "x" * 250]
    await table.add([Doc(f"{n:03}", {key: {key: n, "v": f"v{n}"}}) for n, key in enumerate(keys)])
    declared = [
        *batches([escaped(key, key) for key in keys], "number"),
        *batches([escaped(key, "v") for key in keys], "string"),
    ]
    ids = {escaped(key): f"{n:03}" for n, key in enumerate(keys)}
    for fields in declared:
        validate_fields(fields)
        await table.declare(fields)
        assert len(await state_of(table)) == len(fields)
        for path, kind in fields.items():
            asked = of("gte", 0 if kind == "number" else "v", path)
            assert "documents_field_" in await table.explain(asked, *EAGER), path
            outer = next(name for name in ids if path.startswith(f"{name}."))
            assert ids[outer] in await table.find(asked, *EAGER), path
    assert len(list(itertools.chain(*declared))) > 2 * len(HOSTILE)
