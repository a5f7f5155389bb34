"""Sentences of chunks, and which of them are highlighted."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.documents.highlights import MAX_SENTENCE_CHARS, choose, find_sentences


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in find_sentences(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One is here. Two is there! Is it?", ["One is here.", "Two is there!", "Is it?"]),
        ("  Spaces around.  \n", ["Spaces around."]),
        ("J. Smith, e.g. in vitro, agreed.", ["J. Smith, e.g. in vitro, agreed."]),
        ("A line\nAnother line", ["A line", "Another line"]),
        ("It was wrapped\nin the middle. Next.", ["It was wrapped\nin the middle.", "Next."]),
        ("Three\nlines of\none. End", ["Three\nlines of\none.", "End"]),
        ("数据库很快。它很小。", ["数据库很快。", "它很小。"]),
        ("🙂 smiles. 🙂🙂 smile.", ["🙂 smiles.", "🙂🙂 smile."]),
        ("Over.\n\n---\n\n| a | b |\n|---|---|", ["Over.", "| a | b |"]),
        ("...\n***\n\n", []),
        ("", []),
        (" \n ", []),
    ],
)
def test_a_text_has_these_sentences(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


@settings(deadline=None)
@given(text=st.text(st.sampled_from("aB1.!?。 \n\r\t-|#\"'_\u2028é🙂")))
def test_sentences_are_in_order_and_hold_every_word(text: str) -> None:
    spans = find_sentences(text)
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    for end, start in zip(ends, starts, strict=True):
        assert end <= start
        assert not any(character.isalnum() for character in text[end:start])
    for start, end in spans:
        assert text[start:end] == text[start:end].strip() != ""


def test_what_has_no_end_is_cut_between_words() -> None:
    text = "seven77 " * 400
    sentences = cut(text)
    assert " ".join(sentences).split() == text.split()
    assert max(map(len, sentences)) == MAX_SENTENCE_CHARS - 1  # 75 words
    assert [len(part) for part in cut("x" * 1500)] == [600, 600, 300]
    assert [len(part) for part in cut("short line\n" * 100)] == [599, 499]


@pytest.mark.parametrize(
    "unit",
    [
        *["x", "x ", " ", "\n", "x\n", "\r ", "a. ", "A.", "!", '."', "Ab.Ab", "。", "1 \t", "-\n"],
        *["x \n\n", "a " + "x" * 700 + " "],
    ],
)
def test_hostile_texts_take_linear_time(unit: str) -> None:
    text = (unit * 300_000)[:300_000] + "end"  # in quadratic time, minutes
    started = time.process_time()
    assert find_sentences(text)
    assert time.process_time() - started < 5


def test_the_best_are_chosen_and_what_has_no_score_is_not() -> None:
    assert choose([0.1, 0.9, 0, 0.5, 0.2]) == [1, 3, 4]
    assert choose([0, 2, 0], limit=3) == [1]
    assert choose([3, 1, 3, 2], limit=2) == [0, 2]
    assert choose([-0.2, 0.0]) == []
    assert choose([]) == []
