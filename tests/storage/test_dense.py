"""Dense search on the real Postgres: every plan, beside what numpy says."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from vector_corpus import (
    Explaining,
    Rows,
    clusters,
    indexed,
    make_collection,
    store,
    without_index,
)

from memoryd.documents.filters import Filter, parse_filter
from memoryd.documents.types import Collection
from memoryd.storage import dense
from memoryd.storage.database import Database, open_database
from memoryd.storage.dense import DensePlan, DenseSettings, search_dense
from memoryd.storage.found_chunks import fetch_found
from memoryd.vectors.rankings import Ranking

COUNT, WIDTH = 8_000, 16
VECTORS = clusters(COUNT, WIDTH)
QUERY = clusters(1, WIDTH, seed=1)[0]
COSINES = VECTORS.astype(np.float64) @ QUERY.astype(np.float64)
COSINES /= np.linalg.norm(VECTORS, axis=1) * np.linalg.norm(QUERY)
ORDER = np.argsort(-COSINES)
# How many of those nearest to QUERY, farthest from it, or any a tag stands with.
SIZES = (1, 4, 40, 400, 4_000, 7_800, COUNT)
EXACT = DenseSettings(exact=True)


def tags_of_rows() -> list[list[str]]:
    tags: list[list[str]] = [[] for _ in range(COUNT)]
    anything = np.random.default_rng(3).permutation(COUNT)
    for size in SIZES:
        for name, order in (("near", ORDER), ("far", ORDER[::-1]), ("any", anything)):
            for row in order[:size]:
                tags[row].append(f"{name}-{size}")
    return tags


TAGS = tags_of_rows()


def tagged(tag: str) -> Filter:
    return parse_filter({"field": "tags", "any": [tag]})


@pytest_asyncio.fixture(scope="module")
async def many(databases: Any) -> AsyncIterator[tuple[Database, Collection]]:
    """Give thousands of vectors with an index, which no test changes."""
    async with (
        databases.make() as name,
        open_database(databases.dsn(name), max_connections=4) as database,
    ):
        collection = await make_collection(database, WIDTH)
        await store(database, collection, VECTORS, TAGS)
        yield database, await indexed(database, collection)


async def search(
    many: tuple[Database, Collection],
    *,
    query: Rows = QUERY,
    depth: int | None = 10,
    wanted: Filter | None = None,
    settings: DenseSettings = DenseSettings(),  # noqa: B008 - it is frozen
) -> tuple[Ranking, DensePlan]:
    database, collection = many
    async with database.snapshot() as connection:
        return await search_dense(
            connection, collection, query, depth=depth, wanted=wanted, settings=settings
        )


# --- What is found -----------------------------------------------------------------------------


async def test_an_exact_search_finds_what_numpy_does(many: Any) -> None:
    found, plan = await search(many, depth=25, settings=EXACT)
    assert plan == "exact"
    assert found.chunks.tolist() == (ORDER[:25] + 1).tolist()
    assert found.documents.tolist() == found.chunks.tolist()
    assert found.scores == pytest.approx(COSINES[ORDER[:25]], abs=2e-4)


async def test_all_are_found_where_no_depth_is_given(many: Any) -> None:
    found, plan = await search(many, depth=None)
    assert (len(found), plan) == (COUNT, "exact")
    assert np.all(np.diff(found.scores) <= 0)


async def test_the_index_finds_nearly_all_of_what_an_exact_search_does(many: Any) -> None:
    recalls = []
    for query in clusters(50, WIDTH, seed=1):
        near, plan = await search(many, query=query, depth=10)
        best, _ = await search(many, query=query, depth=10, settings=EXACT)
        assert plan == "hnsw"
        recalls.append(len({*near.chunks} & {*best.chunks}) / 10)
    assert np.mean(recalls) >= 0.99


async def test_more_candidates_find_more(many: Any) -> None:
    async def recall(ef_search: int) -> float:
        parts = []
        for query in clusters(40, WIDTH, seed=9):
            near, _ = await search(
                many, query=query, settings=DenseSettings(ef_search=ef_search), depth=10
            )
            best, _ = await search(many, query=query, settings=EXACT, depth=10)
            parts.append(len({*near.chunks} & {*best.chunks}) / 10)
        return float(np.mean(parts))

    assert await recall(1) < await recall(400)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("relation", ["near", "far", "any"])
@pytest.mark.parametrize("depth", [10, 100])
async def test_no_filter_costs_a_row(many: Any, relation: str, size: int, depth: int) -> None:
    wanted = tagged(f"{relation}-{size}")
    found, plan = await search(many, wanted=wanted, depth=depth)
    best, _ = await search(many, wanted=wanted, depth=depth, settings=EXACT)
    assert len(found) == len(best) == min(size, depth)
    assert {f"{relation}-{size}" in TAGS[chunk - 1] for chunk in found.chunks} == {True}
    assert len({*found.chunks[:10]} & {*best.chunks[:10]}) >= min(size, 10) - 1
    assert plan in ("filtered_exact", "hnsw_iterative", "hnsw_completed")


async def test_each_plan_is_taken_where_it_should_be(many: Any) -> None:
    async def plan(tag: str, depth: int = 10) -> str:
        return (await search(many, wanted=tagged(tag), depth=depth))[1]

    assert await plan("any-40") == "filtered_exact"
    assert await plan("near-7800") == "hnsw_iterative"
    assert await plan("far-4000") == "hnsw_completed"
    assert await plan("near-4000") == "hnsw_iterative"


async def test_a_filter_that_keeps_nothing_finds_nothing(many: Any) -> None:
    found, plan = await search(many, wanted=tagged("no such tag"))
    assert (len(found), plan) == (0, "filtered_exact")


async def test_an_exact_search_reads_what_the_filter_keeps(many: Any) -> None:
    found, plan = await search(many, wanted=tagged("far-4000"), settings=EXACT)
    assert plan == "filtered_exact"
    assert found.chunks.tolist() == (ORDER[-4_000:][:10] + 1).tolist()


async def test_a_deep_search_reads_all(many: Any) -> None:
    found, plan = await search(many, depth=1_000)
    assert (len(found), plan) == (1_000, "exact")


async def test_equals_come_by_number_whatever_finds_them(database: Database) -> None:
    collection = await make_collection(database, 4)
    await store(database, collection, np.tile(np.float32([[1, 0, 0, 0]]), (600, 1)))
    query = np.float32([1, 0, 0, 0])
    async with database.snapshot() as connection:
        found, _ = await search_dense(
            connection, collection, query, depth=20, wanted=None, settings=EXACT
        )
    assert found.chunks.tolist() == list(range(1, 21))
    assert found.scores == pytest.approx(np.ones(20))


async def test_documents_that_wait_to_be_stored_are_not_found(database: Database) -> None:
    collection = await make_collection(database, 4)
    await store(database, collection, clusters(10, 4), [["a"]] * 10)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO c_1.documents (id, external_id, version, content_hash, title, text,"
            " metadata, tags, created_at, updated_at) OVERRIDING SYSTEM VALUE"
            " VALUES (99, 'w', 0, '', '', '', '{}', '{a}', now(), now())"
        )
    found, _ = await search((database, collection), query=clusters(1, 4)[0], wanted=tagged("a"))
    assert len(found) == 10


async def test_what_is_deleted_and_written_since_the_build_is_right(database: Database) -> None:
    collection = await make_collection(database, WIDTH)
    await store(database, collection, VECTORS[:3_000])
    collection = await indexed(database, collection)
    async with database.connection() as connection:
        await connection.execute("DELETE FROM c_1.documents WHERE id <= 2990")
    await store(database, collection, VECTORS[ORDER[:5]])
    found, _ = await search((database, collection), depth=100)
    assert sorted(found.chunks) == [*range(2_991, 3_006)]
    assert set(found.chunks[:5]) == set(range(3_001, 3_006))


# --- Other kinds of vectors --------------------------------------------------------------------


async def test_full_precision_is_ranked_by_the_vectors_themselves(database: Database) -> None:
    collection = await make_collection(database, WIDTH, "full")
    await store(database, collection, VECTORS)
    collection = await indexed(database, collection)
    found, plan = await search((database, collection), depth=10)
    assert plan == "hnsw"
    assert len({*found.chunks} & {*(ORDER[:10] + 1)}) >= 9
    assert found.scores == pytest.approx(COSINES[found.chunks - 1], abs=1e-6)


async def test_vectors_that_are_too_wide_are_found_by_signs_and_ranked(database: Database) -> None:
    width = 4_096
    vectors = clusters(700, width, seed=4)
    collection = await make_collection(database, width)
    await store(database, collection, vectors, [["a"]] * 350 + [["b"]] * 350)
    collection = await indexed(database, collection)
    assert collection.active.dense_index is not None
    assert collection.active.dense_index.type == "binary"
    query = vectors[5]
    found, plan = await search((database, collection), query=query, depth=10)
    assert plan == "binary_rerank"
    order = np.argsort(-(vectors @ query))[:10] + 1
    assert len({*found.chunks} & {*order}) >= 9
    assert found.scores[0] == pytest.approx(1, abs=1e-3)
    found, _ = await search((database, collection), query=query, depth=400, wanted=tagged("a"))
    assert len(found) == 350


# --- What Postgres does ------------------------------------------------------------------------


async def explain(
    database: Database, collection: Collection, query: Rows = QUERY, **asked: Any
) -> str:
    """Return the plan of the statement that found what is returned."""
    asked = {"depth": 10, "wanted": None, "settings": DenseSettings(), **asked}
    async with database.snapshot() as connection:
        explaining: Any = Explaining(connection)
        await search_dense(explaining, collection, query, **asked)
    return str(explaining.plans[-1])


async def test_a_search_uses_the_index(many: Any) -> None:
    plan = await explain(*many)
    assert "Index Scan using vectors_1_hnsw_16_128" in plan
    assert "Seq Scan" not in plan


async def test_a_search_with_a_filter_uses_the_index_and_looks_documents_up(many: Any) -> None:
    plan = await explain(*many, wanted=tagged("near-7800"))
    assert "Index Scan using vectors_1_hnsw_16_128" in plan
    assert "Index Scan using documents_pkey" in plan
    assert "Seq Scan" not in plan


async def test_few_are_looked_up_by_the_indexes_of_the_filter_and_of_documents(many: Any) -> None:
    plan = await explain(*many, wanted=tagged("any-4"))
    assert "vectors_1_document_id_idx" in plan
    assert "documents_tags_idx" in plan
    assert "Seq Scan" not in plan


async def test_an_exact_search_never_uses_the_index(many: Any) -> None:
    for wanted in (None, tagged("any-4000")):
        plan = await explain(*many, wanted=wanted, settings=EXACT)
        assert "hnsw" not in plan


async def test_an_index_over_a_cast_is_used(database: Database) -> None:
    collection = await make_collection(database, WIDTH, "full")
    await store(database, collection, VECTORS)
    collection = await indexed(database, collection)
    assert "Index Scan using vectors_1_hnsw_16_128" in await explain(database, collection)


async def test_an_index_over_signs_is_used(database: Database) -> None:
    collection = await make_collection(database, 4_096)
    vectors = clusters(1_500, 4_096)
    await store(database, collection, vectors)
    collection = await indexed(database, collection)
    plan = await explain(database, collection, vectors[0])
    assert "Index Scan using vectors_1_binary_16_128" in plan


async def test_settings_end_with_the_transaction(many: Any) -> None:
    database, collection = many
    async with database.connection() as connection:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await search_dense(
                connection, collection, QUERY, depth=10, wanted=None, settings=DenseSettings()
            )
        shown = await connection.fetchval("SELECT current_setting('hnsw.iterative_scan')")
    assert shown == "off"


# --- By chunk and document -----------------------------------------------------------------------


async def test_cosines_and_vectors_are_found_by_chunk(many: Any) -> None:
    database, collection = many
    async with database.snapshot() as connection:
        cosines = await dense.find_cosines(connection, collection, QUERY, [1, 7, 9_999])
        vectors = await dense.find_vectors(connection, collection, [1, 7, 9_999])
    assert cosines == pytest.approx({1: VECTORS[0] @ QUERY, 7: VECTORS[6] @ QUERY}, abs=2e-3)
    assert vectors.keys() == {1, 7}
    assert vectors[7] == pytest.approx(VECTORS[6], abs=1e-3)


async def test_the_mean_of_a_document_lies_between_its_chunks(database: Database) -> None:
    collection = await make_collection(database, 4)
    await store(database, collection, np.float32([[1, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0]]))
    async with database.transaction() as connection:
        await connection.execute("UPDATE c_1.vectors_1 SET document_id = 1 WHERE chunk_id = 2")
        mean = await dense.mean_vector(connection, collection, 1)
        assert mean == pytest.approx(np.float32([0.5**0.5, 0.5**0.5, 0, 0]), abs=1e-3)
        await connection.execute("UPDATE c_1.vectors_1 SET document_id = 3 WHERE chunk_id = 2")
        assert await dense.mean_vector(connection, collection, 3) is None
        assert await dense.mean_vector(connection, collection, 99) is None


async def test_the_nearest_of_each_document_are_found(many: Any) -> None:
    database, collection = many
    documents = (ORDER[[5, 1, 300]] + 1).tolist()
    async with database.snapshot() as connection:
        rows = await fetch_found(
            connection, collection, [QUERY], [], documents=documents, nearest=2
        )
    rows.sort(key=lambda row: -row.cosine)
    assert [row.chunk.number for row in rows] == (ORDER[[1, 5, 300]] + 1).tolist()


async def test_a_collection_without_an_index_is_read(many: Any) -> None:
    database, collection = many
    bare = without_index(collection)
    assert (await search((database, bare)))[1] == "exact"
    assert (await search((database, bare), wanted=tagged("any-40")))[1] == "filtered_exact"
