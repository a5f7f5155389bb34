"""Indexes over vectors are made, made again and dropped while others read and write."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import asyncpg
import numpy as np
import pytest
from vector_corpus import build, clusters, indexed, make_collection, store

from memoryd.documents.types import Collection, DenseIndex, Generation, IndexSettings
from memoryd.errors import MemorydError
from memoryd.storage import vector_indexes
from memoryd.storage.collections import delete_collection, find_collection_by_number
from memoryd.storage.database import Database
from memoryd.storage.dense import DenseSettings, search_dense
from memoryd.storage.vector_indexes import FoundIndex, expected_index, plan_index

WIDTH = 8
VECTORS = clusters(2_000, WIDTH)


async def names(database: Database, collection: Collection) -> list[FoundIndex]:
    return await vector_indexes.list_indexes(database, collection, collection.active)


async def ignore(done: int, total: int) -> None:
    pass


def planned(collection: Collection, **settings: Any) -> DenseIndex:
    index = plan_index(IndexSettings(**settings), collection.active)
    assert index is not None
    return index


# --- What there should be ----------------------------------------------------------------------


def generation(collection: Collection, **fields: Any) -> Generation:
    return replace(collection.active, **fields)


async def test_an_index_is_what_settings_and_vectors_say(database: Database) -> None:
    collection = await make_collection(database, WIDTH)
    assert planned(collection) == DenseIndex("hnsw", "vectors_1_hnsw_16_128", 16, 128)
    assert planned(collection, m=8, ef_construction=50).name == "vectors_1_hnsw_8_50"
    assert planned(collection, m=90).ef_construction == 180
    assert plan_index(IndexSettings(type="exact"), collection.active) is None
    wide = generation(collection, dimensions=4_001)
    assert plan_index(IndexSettings(), wide) == DenseIndex(
        "binary", "vectors_1_binary_16_128", 16, 128
    )
    assert plan_index(IndexSettings(), generation(collection, dimensions=4_000)) == planned(
        collection
    )


async def test_an_index_is_made_from_a_number_of_chunks_on_and_stays(database: Database) -> None:
    collection = await make_collection(database, WIDTH)
    active = collection.active
    assert expected_index(collection, active, 99, 100) is None
    assert expected_index(collection, active, 100, 100) == planned(collection)
    there = generation(collection, dense_index=planned(collection))
    assert expected_index(collection, there, 5, 100) == planned(collection)


# --- Making them -------------------------------------------------------------------------------


async def test_a_build_tells_how_far_it_is(database: Database) -> None:
    collection = await make_collection(database, 64)
    await store(database, collection, clusters(4_000, 64))
    told: list[tuple[int, int]] = []

    async def report(done: int, total: int) -> None:
        told.append((done, total))

    index = planned(collection, m=40, ef_construction=400)
    await vector_indexes.build_index(database, collection, collection.active, index, 4_000, report)
    assert await names(database, collection) == [FoundIndex(index.name, is_valid=True)]
    assert told
    assert all(0 <= done <= total == 4_000 for done, total in told)


async def test_others_write_and_search_while_an_index_is_built(database: Database) -> None:
    collection = await make_collection(database, 64)
    vectors = clusters(8_000, 64)
    await store(database, collection, vectors[:6_000])
    building = asyncio.create_task(build(database, collection, ef_construction=300))
    rounds = 0
    while not building.done():
        part = vectors[6_000 + 10 * rounds % 2_000 :][:10]
        async with asyncio.timeout(5):
            await store(database, collection, part, analyze=False)
            async with database.snapshot() as connection:
                found, _ = await search_dense(
                    connection,
                    collection,
                    part[0],
                    depth=1,
                    wanted=None,
                    settings=DenseSettings(),
                )
        assert found.scores[0] > 0.999
        await asyncio.sleep(0.02)
        rounds += 1
    await building
    assert rounds > 1
    collection = await find_collection_by_number(database, collection.number)
    async with database.snapshot() as connection:
        for row in range(6_000, min(6_000 + 10 * rounds, 8_000)):
            found, plan = await search_dense(
                connection,
                collection,
                vectors[row],
                depth=1,
                wanted=None,
                settings=DenseSettings(),
            )
            assert (plan, found.scores[0] > 0.999) == ("hnsw", True)


async def test_a_build_that_is_ended_leaves_what_can_be_dropped(database: Database) -> None:
    collection = await make_collection(database, 64)
    await store(database, collection, clusters(8_000, 64))
    index = planned(collection, m=40, ef_construction=600)

    async def lose(done: int, total: int) -> None:
        raise MemorydError("others have the job")

    with pytest.raises(MemorydError, match="others have"):
        await vector_indexes.build_index(
            database, collection, collection.active, index, 8_000, lose
        )
    async with asyncio.timeout(10):
        while found := await names(database, collection):
            assert found == [FoundIndex(index.name, is_valid=False)]
            with suppress(MemorydError):
                await vector_indexes.drop_index(database, collection, index.name)
    await build(database, collection)


async def test_a_build_is_cancelled_by_whoever_deletes_the_collection(
    database: Database,
) -> None:
    collection = await make_collection(database, 64)
    await store(database, collection, clusters(8_000, 64))
    index = planned(collection, m=60, ef_construction=1_000)
    building = asyncio.create_task(
        vector_indexes.build_index(database, collection, collection.active, index, 8_000, ignore)
    )
    await asyncio.sleep(0.5)
    async with asyncio.timeout(3):
        await delete_collection(database, collection)
    with pytest.raises(MemorydError):
        await building


async def test_an_index_that_another_connection_lost_is_no_longer_built(
    database: Database, connection: asyncpg.Connection
) -> None:
    collection = await make_collection(database, 64)
    await store(database, collection, clusters(8_000, 64))
    building = asyncio.create_task(
        vector_indexes.build_index(
            database,
            collection,
            collection.active,
            planned(collection, m=60, ef_construction=1_000),
            8_000,
            ignore,
        )
    )
    await asyncio.sleep(0.5)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    async with asyncio.timeout(5):
        while await connection.fetchval(  # noqa: ASYNC110 - it ends in another process
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'memoryd indexing'"
            " AND datname = current_database()"
        ):
            await asyncio.sleep(0.1)


async def test_the_memory_of_a_build_grows_with_the_graph(database: Database) -> None:
    collection = await make_collection(database, WIDTH)
    index = planned(collection)
    async with database.connection_apart() as connection:
        before = await connection.fetchval("SHOW maintenance_work_mem")
        await vector_indexes._allow_memory(connection, collection.active, index, 10)
        assert await connection.fetchval("SHOW maintenance_work_mem") == before
        await vector_indexes._allow_memory(connection, collection.active, index, 10**9)
        half = await connection.fetchval(
            "SELECT pg_size_bytes(current_setting('effective_cache_size')) / 2"
            " = pg_size_bytes(current_setting('maintenance_work_mem'))"
        )
    assert half


async def test_a_collection_is_searched_while_its_index_is_replaced(database: Database) -> None:
    collection = await make_collection(database, WIDTH)
    await store(database, collection, VECTORS)
    old = await indexed(database, collection)
    index = await build(database, old, m=8)
    assert old.active.dense_index is not None
    await vector_indexes.drop_index(database, old, old.active.dense_index.name)
    assert await names(database, old) == [FoundIndex(index.name, is_valid=True)]
    async with database.snapshot() as connection:  # that knows the one that was dropped
        found, _ = await search_dense(
            connection, old, VECTORS[3], depth=1, wanted=None, settings=DenseSettings()
        )
    assert found.chunks.tolist() == [4]
    assert np.isclose(found.scores[0], 1, atol=1e-3)
