"""Words of texts and queries."""

import time

import pytest

from memoryd.documents.lexemes import Phrase, QueryText, parse_query, prepare_text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("And/or, C++ & foo_bar.txt", "and or c foo bar txt"),
        ("covid-19: 3.5 mm", "covid 19 3 5 mm"),
        ("Straße, ŁÓDŹ", "strasse łódź"),
        ("ﬁne \uff21\uff22 ½", "fine ab 1 2"),
        ("e\u0301te\u0301", "été"),
        ("co\u00adop\ufeff na\u200dme x\ufe0f", "coop name x"),
        ("İstanbul", "istanbul"),
        ("नमस्ते—दुनिया", "नमस्ते दुनिया"),
        ("東京都", "東京 京都 都"),
        ("B2B市場の x", "b2b 市場 場の の x"),
        ("ｶﾀｶﾅ", "カタ タカ カナ ナ"),
        ("한국어", "한국 국어 어"),
        ("𠀀𠀁", "𠀀𠀁 𠀁"),
        ("", ""),
        ("🙂 …", ""),
    ],
)
def test_texts_become_words(text: str, words: str) -> None:
    assert prepare_text(text).split() == words.split()


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Heart attack", QueryText("heart attack", (), ())),
        (
            'risk "Heart-attack"',
            QueryText("risk heart attack", (), (Phrase("heart attack", False),)),
        ),
        ("“heart attack”", QueryText("heart attack", (), (Phrase("heart attack", False),))),
        ('an "open one', QueryText("an open one", (), ())),
        ('"" " - " a', QueryText("a", (), ())),
        ("neuro* x", QueryText("x", ("neuro",), ())),
        ("and/Or** neuro\uff0a neuro*", QueryText("and", ("or", "neuro"), ())),
        ("* a*b ** c *d", QueryText("a b c d", (), ())),
        ("東京 都", QueryText("東京", ("都",), ())),
        ("東京* 都*", QueryText("東京", ("都",), ())),
        ('"東京都"', QueryText("東京 京都", (), (Phrase("東京 京都", False),))),
        ('"東京 都"', QueryText("東京", ("都",), (Phrase("東京 京 都", True),))),
        ('"東京 x"', QueryText("東京 x", (), (Phrase("東京 京 x", False),))),
        ('"wor* ld"', QueryText("wor ld", (), (Phrase("wor ld", False),))),
    ],
)
def test_queries_become_words_prefixes_and_phrases(text: str, query: QueryText) -> None:
    assert parse_query(text) == query


def test_long_texts_are_cut() -> None:
    assert len(prepare_text("word " * 1_000_000)) <= 100_000
    assert len(prepare_text("東" * 1_000_000)) <= 100_000
    assert len(parse_query("word " * 1_000_000).words) <= 100_000
    query = parse_query('"a b" ' * 1_000 + " ".join(f"x{at}*" for at in range(1_000)))
    assert (len(query.phrases), len(query.prefixes)) == (32, 32)
    [phrase] = parse_query(f'"{"東 " * 100}"').phrases
    assert (len(phrase.words.split()), phrase.is_open) == (64, False)


@pytest.mark.parametrize("text", ["a", "a*", "*a", '"', "中", "\ufdfa", "e\u0301", "a\u00ad"])
def test_a_long_query_without_spaces_takes_no_more_time_than_its_length(text: str) -> None:
    started = time.perf_counter()
    parse_query(text * 100_000)
    assert time.perf_counter() - started < 5  # by the square of its length it would take minutes


def test_a_prefix_that_postgres_would_not_take_is_none() -> None:
    assert parse_query("a" * 2_046 + "*").prefixes == ("a" * 2_046,)
    assert parse_query("a" * 2_047 + "*").prefixes == ()
    assert parse_query("é" * 1_024 + "* b*").prefixes == ("b",)
