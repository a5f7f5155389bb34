"""Search by words on the real Postgres, against BM25 in plain Python."""

import random

import pytest
import pytest_asyncio
from lexical_corpus import Corpus, Explained, assert_exact, bm25, make

from memoryd.documents.filters import parse_filter
from memoryd.documents.types import Draft
from memoryd.storage import documents, lexical_search
from memoryd.storage.database import Database
from memoryd.storage.lexical_search import analyze, score_chunks, score_sentences, search_lexical
from memoryd.storage.lexical_statistics import fold

WORDS = [f"w{at}" for at in range(40)]


@pytest_asyncio.fixture
async def corpus(database: Database) -> Corpus:
    return Corpus(database, await make(database))


async def english(database: Database) -> Corpus:
    return Corpus(database, await make(database, "english"))


def a_text(rng: random.Random) -> str:
    """Return words of which some are much more common than others."""
    weights = [1 / (at + 1) for at in range(len(WORDS))]
    return " ".join(rng.choices(WORDS, weights, k=rng.randrange(1, 60)))


@pytest.mark.parametrize("seed", range(3))
async def test_scores_are_bm25s(corpus: Corpus, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    texts = {f"d{at}": a_text(rng) for at in range(40)}
    for id_, text in texts.items():
        await corpus.put(id_, text)
    for query in ("w0", "w3 w7 w30", "w0 w1 w1 w39 absent", " ".join(WORDS)):
        found = await corpus.find(query)
        expected = bm25({text: text for text in texts.values()}, query)
        assert found == pytest.approx(expected)
        assert list(found.values()) == sorted(found.values(), reverse=True)


async def test_scores_follow_what_is_written_deleted_and_counted(corpus: Corpus) -> None:
    rng = random.Random(7)  # noqa: S311 - no secret
    texts: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for step in range(60):
        id_ = f"d{rng.randrange(20)}"
        if id_ in texts and rng.random() < 0.3:
            await corpus.delete(numbers[id_])
            del texts[id_]
        else:
            texts[id_] = f"{a_text(rng)} only{step}"
            numbers[id_] = await corpus.put(id_, texts[id_])
        if step % 10 == 9:
            await fold(corpus.database, corpus.collection.number)
        if step % 6 == 5:
            expected = bm25({text: text for text in texts.values()}, "w0 w5 w20 only3")
            assert await corpus.find("w0 w5 w20 only3") == pytest.approx(expected)


async def test_a_chunk_that_stays_keeps_its_lexemes(corpus: Corpus) -> None:
    await corpus.put("a", "one fish", "two fish")
    await corpus.put("a", "red fish", "one fish", "two birds")
    assert set(await corpus.find("one two fish")) == {"one fish", "two birds", "red fish"}
    await assert_exact(corpus)


async def test_the_title_is_searched_too(corpus: Corpus) -> None:
    await corpus.put("a", "a text", title="Zebras, mostly")
    assert set(await corpus.find("zebras")) == {"a text"}


@pytest.mark.parametrize("query", ["", "  ", '"', "*", "the of and", '"the of"', "…!?", "the*"])
async def test_a_query_without_words_finds_nothing(database: Database, query: str) -> None:
    corpus = await english(database)
    await corpus.put("a", "the heart of the matter and")
    assert await corpus.find(query) == {}


async def test_words_are_stemmed_as_the_collections_language_is(database: Database) -> None:
    corpus = await english(database)
    await corpus.put("a", "She was running")
    await corpus.put("b", "Die Läufe", language="german")
    assert set(await corpus.find("runs")) == {"She was running"}
    await corpus.put("c", "lauf")
    assert set(await corpus.find("lauf")) == {"Die Läufe", "lauf"}


async def test_a_documents_language_is_its_own_from_then_on(database: Database) -> None:
    corpus = await english(database)
    number = await corpus.put("a", "die Läufe")
    assert await corpus.find("lauf") == {}
    async with database.transaction() as connection:
        draft = Draft("die Läufe", language="german")
        assert await documents.write_attributes(connection, corpus.collection, number, 1, draft)
    assert set(await corpus.find("lauf")) == {"die Läufe"}
    await corpus.put("a", "die Läufe", "noch etwas", language=None)
    assert await corpus.find("lauf") == {}
    await assert_exact(corpus)


async def test_a_language_that_postgres_has_no_stemmer_for_is_searched_as_it_is(
    database: Database,
) -> None:
    corpus = Corpus(database, await make(database, "klingon"))
    await corpus.put("a", "the Qapla", language="elvish")
    assert set(await corpus.find("qapla")) == set(await corpus.find("the")) == {"the Qapla"}


async def test_a_phrase_must_be_there(database: Database) -> None:
    corpus = await english(database)
    for text in ("heart attacks", "attack of the heart", "heart attack risk", "a heart"):
        await corpus.put(text, text)
    assert set(await corpus.find('"heart attack" risk')) == {"heart attacks", "heart attack risk"}
    assert set(await corpus.find('"heart attack" "attack risk"')) == {"heart attack risk"}
    assert set(await corpus.find('"attack of the heart"')) == {"attack of the heart"}
    assert set(await corpus.find('"attack heart"')) == set()
    async with database.snapshot() as connection:
        query = await analyze(connection, corpus.collection, '"heart attack"')
        [number] = await connection.fetchval(
            "SELECT array_agg(id) FROM c_1.chunks_1 WHERE text = 'a heart'"
        )
        assert not len(await score_chunks(connection, corpus.collection, query, [number]))


async def test_a_prefix_is_one_term_of_all_that_begins_with_it(database: Database) -> None:
    corpus = await english(database)
    for text in ("neurology", "a neuron neurons", "neither", "theory", "running", "neurologist"):
        await corpus.put(text, text)
    found = await corpus.find("neuro*")
    assert list(found) == ["a neuron neurons", "neurology", "neurologist"]
    assert found["neurology"] == found["neurologist"]
    assert set(await corpus.find("the*")) == {"theory"}
    assert set(await corpus.find("running*")) == {"running"}
    assert set(await corpus.find("neuro")) == set()


@pytest.mark.parametrize("is_counted", [True, False])
async def test_a_prefix_finds_what_is_not_counted_yet(corpus: Corpus, is_counted: bool) -> None:
    await corpus.put("a", "neuron")
    if is_counted:
        await fold(corpus.database, corpus.collection.number)
    assert set(await corpus.find("neu*")) == {"neuron"}


@pytest.mark.parametrize(
    ("text", "finding", "missing"),
    [
        (
            "東京都庁に行く",
            ["東京", "京都", "都庁", "東", "く", '"東京都"', "東京*"],
            ["京東", '"京東"'],
        ),
        ("北京大学的学生", ["北京", "大学", "学生", "生", '"大学"'], ["学大", '"大学学生"']),
        ("한국어 검색 엔진", ["한국", "검색", "진", '"한국어 검색"'], ['"검색 한국어"', "국한"]),
        ("B2B市場", ["b2b", "市場", "場", '"B2B市"'], ["b"]),
        ("カタカナタワー 東京", ["タワー", "ﾀﾜｰ", "ー"], ["ワタ"]),
    ],
)
async def test_chinese_japanese_and_korean_are_found_by_any_part(
    corpus: Corpus, text: str, finding: list[str], missing: list[str]
) -> None:
    await corpus.put("a", text)
    await corpus.put("b", "other words")
    for query in finding:
        assert set(await corpus.find(query)) == {text}, query
    for query in missing:
        assert await corpus.find(query) == {}, query


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("and/or file.txt", "or"),
        ("covid-19", "19"),
        ("नमस्ते दुनिया", "दुनिया"),
        ("İstanbul", "istanbul"),
        ("STRASSE", "straße"),
        ("o'clock \\ back", "o'clock"),
        ("e\u0301t\u00e9", "été"),
        ("Ω𝔘𝔫𝔦", "ωuni"),
    ],
)
async def test_writing_is_no_matter(corpus: Corpus, text: str, query: str) -> None:
    await corpus.put("a", text)
    assert set(await corpus.find(query)) == {text}


async def test_rare_terms_are_completed_by_common_ones(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical_search, "_FEWEST_CANDIDATES", 1)
    monkeypatch.setattr(lexical_search, "_CANDIDATES_PER_RESULT", 0)
    for at in range(20):
        await corpus.put(f"{at}", f"common {at}" + (" rare" if at < 3 else ""))
    await fold(corpus.database, corpus.collection.number)
    whole = await corpus.find("common rare")
    assert len(whole) == 20
    assert len(await corpus.find("common rare", depth=2)) == 2
    found = await corpus.find("common rare", depth=10)
    assert list(found.items()) == list(whole.items())[:10]


async def test_a_filter_leaves_nothing_out_that_it_keeps(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical_search, "_FEWEST_CANDIDATES", 1)
    monkeypatch.setattr(lexical_search, "_CANDIDATES_PER_RESULT", 0)
    for at in range(20):
        text = f"common {at}" + (" rare" if at < 3 else "")
        await corpus.put(f"{at}", text, metadata={"odd": at % 2})
    await fold(corpus.database, corpus.collection.number)
    found = await corpus.find(
        "common rare", depth=5, wanted=parse_filter({"field": "odd", "eq": 1})
    )
    assert len(found) == 5
    assert next(iter(found)) == "common 1 rare"
    assert all(int(text.split()[1]) % 2 for text in found)


async def test_a_very_long_query_is_answered(corpus: Corpus) -> None:
    await corpus.put("a", "needle in a haystack")
    words = " ".join(f"word{at}" for at in range(10_000))
    many = " ".join(f'"phrase {at}" pre{at}* 語 ' for at in range(3_000))
    assert set(await corpus.find(f"{words} needle")) == {"needle in a haystack"}
    assert await corpus.find(f"{many} needle") == {}


async def test_a_very_long_chunk_is_stored(corpus: Corpus) -> None:
    pairs = (chr(0x4E00 + at % 20_000) for at in range(60_000))
    await corpus.put("a", "".join(pairs))
    await corpus.put("b", " ".join(chr(0xA000 + at) for at in range(1_100)) * 30)
    await corpus.put("c", "x" * 5_000 + " y")
    assert len(await corpus.find("一丁")) == 1
    assert len(await corpus.find("y")) == 1


async def test_sentences_are_scored_by_what_they_have_of_the_query(database: Database) -> None:
    corpus = await english(database)
    for text in ("hearts beat", "hearts stop", "lungs breathe"):
        await corpus.put(text, text)
    async with database.snapshot() as connection:
        query = await analyze(connection, corpus.collection, "heart beating lung* ")
        nothing, one, both, prefix = await score_sentences(
            connection, corpus.collection, query, ["none", "My heart.", "Hearts beat!", "lungs"]
        )
    assert nothing == 0
    assert 0 < one < prefix < both


async def test_candidates_come_from_the_index(corpus: Corpus) -> None:
    for at in range(300):
        await corpus.put(f"{at}", f"common {at}")
    async with corpus.database.transaction() as connection:
        await connection.execute("ANALYZE c_1.lexical_1")
        query = await analyze(connection, corpus.collection, "7")
        explained = Explained(connection)
        await search_lexical(explained, corpus.collection, query, depth=10, wanted=None)
    assert "lexical_1_lexemes_idx" in explained.plan


async def test_a_prefix_finds_rare_words_too_and_those_that_are_not_counted(
    database: Database,
) -> None:
    corpus = await english(database)
    for number in range(100):
        await corpus.put(f"d{number}", f"zebra{number:03} pear")
    assert len(await corpus.find("zebra*")) == 100  # more than a query counts itself
    assert len(await corpus.find("zebra*", depth=90)) == 90
    while await fold(corpus.database, corpus.collection.number):
        pass
    assert len(await corpus.find("zebra*")) == 100  # more than have a frequency of their own
    assert set(await corpus.find("zebra09*")) == {f"zebra09{n} pear" for n in range(10)}
