"""Statistics of terms, which must be those of what is stored, whoever writes meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import numpy as np
import pytest
import pytest_asyncio
from lexical_corpus import Corpus, assert_exact, bm25, make

from memoryd.documents.records import Record
from memoryd.documents.types import Chunk, Chunking, Collection, Draft, Generation
from memoryd.errors import NotFoundError, UnavailableError
from memoryd.memory.statistics import TermStatistics
from memoryd.storage import bulk, collections, generations, lexical_statistics, sweeping
from memoryd.storage.database import Connection, Database, open_database
from memoryd.storage.lexical_search import analyze
from memoryd.storage.lexical_statistics import fold
from memoryd.storage.lexical_writing import rebuild_batch

BUILDING = Generation(2, "building", "other", 3, "full", Chunking())


@pytest_asyncio.fixture
async def corpus(database: Database) -> Corpus:
    return Corpus(database, await make(database))


async def change_alone(corpus: Corpus, change: Any) -> None:
    await generations.change_alone(corpus.database, corpus.collection.number, change)
    corpus.collection = await collections.find_collection_by_number(
        corpus.database, corpus.collection.number
    )


async def build(corpus: Corpus) -> None:
    async def change(connection: Connection) -> None:
        await generations.build_generation(connection, corpus.collection.number, 1, BUILDING)

    await change_alone(corpus, change)


async def drop(corpus: Corpus) -> None:
    async def change(connection: Connection) -> None:
        await generations.drop_generation(connection, corpus.collection.number, BUILDING)

    await change_alone(corpus, change)


async def write(corpus: Corpus, seed: int) -> None:
    """Store, replace and delete documents that others store, replace and delete too."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    numbers: list[int] = []
    for _ in range(25):
        try:
            if numbers and rng.random() < 0.3:
                await corpus.delete(*rng.sample(numbers, min(2, len(numbers))))
            else:
                texts = [f"w{rng.randrange(30)} x{rng.randrange(3)}" for _ in range(3)]
                numbers.append(await corpus.put(f"d{rng.randrange(12)}", *texts))
        except (AssertionError, UnavailableError, asyncpg.UniqueViolationError):
            continue  # another was first


async def fold_all_the_time(database: Database) -> None:
    while True:
        await fold(database, 1)


@pytest.mark.parametrize("count", [1, 2])
async def test_statistics_are_exact_whoever_writes_and_counts(
    dsn: str, corpus: Corpus, count: int
) -> None:
    if count == 2:
        await build(corpus)
    async with open_database(dsn, max_connections=8) as database:
        writing = Corpus(database, corpus.collection)
        folding = [asyncio.create_task(fold_all_the_time(database)) for _ in range(2)]
        await asyncio.gather(*(write(writing, seed) for seed in range(5)))
        for task in folding:
            task.cancel()
        await asyncio.gather(*folding, return_exceptions=True)
    await assert_exact(corpus)


async def test_what_is_folded_in_parts_is_the_same(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical_statistics, "_FOLDED_AT_ONCE", 3)
    numbers = [await corpus.put(f"{at}", f"word{at % 3}") for at in range(7)]
    await corpus.delete(*numbers[:2])
    assert await fold(corpus.database, 1)
    await assert_exact(corpus)


async def test_terms_of_which_no_chunk_is_left_are_forgotten(
    corpus: Corpus, connection: asyncpg.Connection
) -> None:
    number = await corpus.put("a", "once")
    await fold(corpus.database, 1)
    await corpus.delete(number)
    await fold(corpus.database, 1)
    rows = await connection.fetch("SELECT * FROM c_1.terms_1")
    assert [tuple(row) for row in rows] == [("", 0, 0)]


async def test_a_few_changes_are_counted_by_each_query(corpus: Corpus) -> None:
    for at in range(65):
        async with corpus.database.connection() as connection:
            query = await analyze(connection, corpus.collection, "word")
        assert (query.chunk_count, query.uncounted, query.is_behind) == (at, at, False)
        assert [term.chunks for term in query.terms] == [at] * bool(at)
        await corpus.put(f"{at}", "word and word")
    async with corpus.database.connection() as connection:
        query = await analyze(connection, corpus.collection, "word unknown")
    assert (query.chunk_count, query.is_behind) == (0, True)
    assert len(query.terms) == 2


async def test_what_lags_behind_is_found_all_the_same(corpus: Corpus) -> None:
    texts = {f"{at}": f"word{at} common" for at in range(70)}
    for id_, text in texts.items():
        await corpus.put(id_, text)
    assert set(await corpus.find("word69")) == {"word69 common"}
    assert len(await corpus.find("common", depth=70)) == 70
    await fold(corpus.database, 1)
    expected = bm25({text: text for text in texts.values()}, "word69 common")
    assert await corpus.find("word69 common") == pytest.approx(expected)


async def test_bulk_import_writes_lexemes_too(corpus: Corpus) -> None:
    chunks = tuple(Chunk(at, text, bytes(16)) for at, text in enumerate(("one fish", "two fish")))
    drafts = [
        Draft("", id="a", title="Die Läufe", language="german"),
        Draft("", id="b", title="other"),
    ]
    vectors = np.ones((2, 3), np.float32)
    async with corpus.database.transaction() as connection:
        records = [Record(draft, bytes(16), chunks, vectors, None) for draft in drafts]
        await bulk.insert_records(connection, corpus.collection, records, 1)
    assert len(await corpus.find("fish")) == 2  # of equal texts one is left
    assert set(await corpus.find("lauf")) == {"one fish", "two fish"}
    await assert_exact(corpus)


@pytest.mark.parametrize("is_awaited", [False, True])
async def test_what_expires_is_no_longer_counted(
    corpus: Corpus, connection: asyncpg.Connection, is_awaited: bool
) -> None:
    past = datetime(2001, 1, 1, tzinfo=UTC)
    number = await corpus.put("a", "old news", expires_at=past)
    await corpus.put("b", "news")
    if is_awaited:
        await connection.execute(
            "INSERT INTO c_1.drafts (job_id, document_id, external_id, size_bytes)"
            " VALUES (1, $1, 'a', 0)",
            number,
        )
    assert await sweeping.delete_expired(corpus.database, corpus.collection, 10) == 1
    assert set(await corpus.find("news")) == {"news"}
    await assert_exact(corpus)
    left = await connection.fetchval("SELECT count(*) FROM c_1.documents")
    assert left == 1 + is_awaited


async def test_a_document_that_is_deleted_is_gone_from_a_generation_the_writer_knows_not_of(
    corpus: Corpus,
) -> None:
    before = corpus.collection
    await build(corpus)
    number = await corpus.put("a", "word")
    await Corpus(corpus.database, before).delete(number)
    await assert_exact(corpus)


# --- Made again -------------------------------------------------------------------------------


async def rebuild(corpus: Corpus, limit: int) -> list[int | None]:
    """Return where each batch ended."""
    ends: list[int | None] = [0]
    while (after := ends[-1]) is not None:
        ends.append(
            await rebuild_batch(
                corpus.database,
                corpus.collection,
                corpus.collection.active,
                after=after,
                limit=limit,
            )
        )
    return ends[1:]


async def test_lexemes_are_made_again_in_another_language(corpus: Corpus) -> None:
    for at in range(5):
        await corpus.put(f"{at}", f"running {at}", language="german" if at == 3 else None)
    corpus.collection = await collections.update_collection(
        corpus.database, corpus.collection, name=None, language="english", metadata=None
    )
    assert await corpus.find("runs") == {}
    assert await rebuild(corpus, 2) == [2, 4, None]
    assert len(await corpus.find("runs")) == 4
    await assert_exact(corpus)
    assert await rebuild(corpus, 5) == [5, None]
    await assert_exact(corpus)


async def test_lexemes_that_are_missing_are_made(
    corpus: Corpus, connection: asyncpg.Connection
) -> None:
    for at in range(5):
        await corpus.put(f"{at}", f"running {at}")
    await connection.execute("TRUNCATE c_1.lexical_1, c_1.terms_1, c_1.term_changes_1")
    await corpus.put("5", "running 5")
    assert await rebuild(corpus, 10) == [None]
    assert len(await corpus.find("running")) == 6
    await assert_exact(corpus)


async def test_lexemes_are_made_again_while_others_write(dsn: str, corpus: Corpus) -> None:
    async with open_database(dsn, max_connections=8) as database:
        writing = Corpus(database, corpus.collection)
        writers = asyncio.gather(*(write(writing, seed) for seed in range(3)))
        while not writers.done():
            await rebuild(writing, 3)
        await writers
    await assert_exact(corpus)


async def test_a_generation_that_is_gone_is_not_made_again(corpus: Corpus) -> None:
    await build(corpus)
    await drop(corpus)
    with pytest.raises(NotFoundError):
        await rebuild_batch(corpus.database, corpus.collection, BUILDING, after=0, limit=1)


# --- In the background ------------------------------------------------------------------------


@asynccontextmanager
async def counting(database: Database) -> AsyncIterator[TermStatistics]:
    statistics = TermStatistics(database, pause_s=0.2)
    statistics.start()
    try:
        yield statistics
    finally:
        await statistics.stop()


async def count_changes(connection: asyncpg.Connection, collection: Collection) -> int:
    count: int = await connection.fetchval(
        f"SELECT count(*) FROM c_{collection.number}.term_changes_1"  # noqa: S608 - a number
    )
    return count


async def until_counted(connection: asyncpg.Connection, collection: Collection) -> None:
    async with asyncio.timeout(15):
        while await count_changes(connection, collection):  # noqa: ASYNC110 - none tells
            await asyncio.sleep(0.01)


async def test_what_is_noted_is_counted_in_the_background(
    corpus: Corpus, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical_statistics, "_FOLDED_AT_ONCE", 2)
    async with counting(corpus.database) as statistics:
        for at in range(5):
            await corpus.put(f"{at}", "word")
        await asyncio.sleep(0.1)
        assert await count_changes(connection, corpus.collection) == 5
        statistics.note(corpus.collection.number)
        await until_counted(connection, corpus.collection)
        statistics.note(12_345)  # deleted before its turn
        await corpus.put("5", "word")
        statistics.note(corpus.collection.number)
        await until_counted(connection, corpus.collection)
    await assert_exact(corpus)


async def test_who_finds_another_counting_comes_back(
    corpus: Corpus, connection: asyncpg.Connection
) -> None:
    await corpus.put("a", "word")
    lock = f"{lexical_statistics._LOCK}, {corpus.collection.number}"
    await connection.execute(f"SELECT pg_advisory_lock({lock})")
    async with counting(corpus.database) as statistics:
        statistics.note(corpus.collection.number)
        await asyncio.sleep(0.1)
        assert await count_changes(connection, corpus.collection) == 1
        await connection.execute(f"SELECT pg_advisory_unlock({lock})")
        await until_counted(connection, corpus.collection)
