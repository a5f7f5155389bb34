# ruff: noqa: RUF001 # the punctuation of other scripts is meant
import math
import random
import re
import unicodedata
from collections.abc import Callable, Sequence

import pytest

from memoryd.documents.chunking import ChunkSpan, split
from memoryd.errors import InvalidInputError

Counter = Callable[[str], int]


def words(text: str) -> int:
    return len(text.split())


def pairs_of_characters(text: str) -> int:
    """Count fewer in the whole than in its parts: tokens merge across the seams."""
    return math.ceil(len(re.sub(r"\s", "", text)) / 2)


def words_and_line_ends(text: str) -> int:
    """Count more in the whole than in its parts, which come without the space between them."""
    return len(re.findall(r"\w+|[^\w\s]|\n", text))


def words_or_unknown(text: str) -> int:
    """Count a part of a word higher than the word: one foreign character makes it one token."""
    return sum(len(word) if word.isascii() else 1 for word in text.split())


COUNTERS: list[Counter] = [words, len, pairs_of_characters, words_and_line_ends, words_or_unknown]


def chunks(
    text: str, max_tokens: int, overlap_tokens: int = 0, count: Counter = words
) -> list[str]:
    spans = split(text, max_tokens=max_tokens, overlap_tokens=overlap_tokens, count_tokens=count)
    return [text[span.start_char : span.end_char] for span in spans]


def check(
    text: str, spans: Sequence[ChunkSpan], max_tokens: int, overlap_tokens: int, count: Counter
) -> None:
    covered = start = 0
    for index, span in enumerate(spans):
        chunk = text[span.start_char : span.end_char]
        assert chunk
        assert chunk == chunk.strip()
        assert count(chunk) == span.token_count <= max_tokens
        assert len(chunk) <= 16 * max_tokens
        assert not text[covered : span.start_char].strip()
        if index:
            assert start < span.start_char
            assert covered < span.end_char
            assert count(text[span.start_char : covered]) <= overlap_tokens
        start, covered = span.start_char, span.end_char
    assert not text[covered:].strip()


# --- What always holds -----------------------------------------------------------------------

NASTY = [
    *["word", "Sentence one.", "Is it? Yes!", "e.g. this", "J. Smith", "infants.We found", "..."],
    *[
        "# Heading",
        "## Другой",
        "- item",
        "1. item",
        "| a | b |",
        "```py",
        "    x = f(a)[0]",
        "***",
    ],
    *[
        "数据库。",
        "「はい。」",
        "向量检索，聚类",
        "한국어 문장.",
        "हिन्दी है।",
        "ข้อความภาษาไทย",
        "“Quoted.”",
    ],
    *[
        "😀",
        "👩‍👩‍👧‍👦",
        "👍🏽",
        "e\u0301",
        "a\u0301\u0302\u0303",
        "\u200d",
        "\u00ad",
        "\ufeff",
        "\x00",
    ],
    *[
        "x" * 40,
        "aGVsbG8gd29ybGQ" * 5,
        "/usr/lib/x.so.1",
        "http://e.org/?q=1&r=2",
        "3.14",
        "U.S.A.",
    ],
]
SPACES = [
    "",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\n\n",
    "\r\n\r\n",
    "\t",
    "\u3000",
    "\x0c",
    "\u2028",
    "\n \n\t",
]


def nasty_text(rng: random.Random) -> str:
    few = rng.sample(NASTY, rng.randint(1, 8))
    spaces = rng.sample(SPACES, rng.randint(1, 4))
    return "".join(rng.choice(few) + rng.choice(spaces) for _ in range(rng.randint(1, 80)))


@pytest.mark.parametrize("count", COUNTERS)
@pytest.mark.parametrize("seed", range(150))
def test_chunks_fit_cover_the_text_and_move_on(count: Counter, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 # it makes texts, not secrets
    text = nasty_text(rng)
    max_tokens, overlap_tokens = rng.randint(1, 40), rng.randint(0, 12)
    spans = split(text, max_tokens=max_tokens, overlap_tokens=overlap_tokens, count_tokens=count)
    check(text, spans, max_tokens, overlap_tokens, count)


@pytest.mark.parametrize("count", COUNTERS)
def test_a_text_that_fits_is_one_chunk(count: Counter) -> None:
    text = "  # One\n\nTwo. Three!\r\n\r\nFour 五。六  \n"
    fits = count(text.strip())
    assert chunks(text, fits, 2, count) == [text.strip()]
    assert len(chunks(text, fits - 1, 2, count)) > 1


@pytest.mark.parametrize("text", ["", " ", "\n\r\n\t\u3000"])
def test_a_blank_text_has_no_chunk(text: str) -> None:
    assert chunks(text, 5) == []


def test_a_character_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="max_tokens = 2"):
        chunks("abc 😀 def", 2, count=lambda text: len(text.encode()))


def test_no_room_for_text_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="no room"):
        chunks("abc", 0)


# --- Where a text breaks ---------------------------------------------------------------------


def test_a_paragraph_end_is_better_than_a_line_end_and_that_than_a_sentence_end() -> None:
    assert chunks("a b c d e\n\nf g. H\ni j k l m n o", 10)[0] == "a b c d e"
    assert chunks("a b c d e\nF g. H i j k l m n o", 10)[0] == "a b c d e"
    assert chunks("a b c d ef. F g h i j k l m n o", 10)[0] == "a b c d ef."


def test_the_latest_of_equal_breaks_is_taken() -> None:
    assert chunks("One two. Three four. Five six. Seven eight. Nine ten. Eleven.", 5)[0] == (
        "One two. Three four."
    )


def test_a_wrapped_line_is_no_line_end() -> None:
    text = "Aa bb cc dd ee ff. Gg hh\nii jj kk ll mm nn oo pp qq rr ss."
    assert chunks(text, 9)[0] == "Aa bb cc dd ee ff."


def test_a_chunk_starts_with_a_heading_and_never_ends_with_one() -> None:
    text = "aa bb cc dd ee.\n\n# Ff\n\nGg hh ii jj kk ll mm.\n\n## Nn oo\nPp qq rr ss tt uu."
    assert chunks(text, 10) == [
        "aa bb cc dd ee.",
        "# Ff\n\nGg hh ii jj kk ll mm.",
        "## Nn oo\nPp qq rr ss tt uu.",
    ]
    assert chunks(text, 7)[0] == "aa bb cc dd ee."


def test_headings_alone_fill_chunks() -> None:
    assert [words(chunk) for chunk in chunks("# aaaa\n" * 13, 10)] == [10, 8, 8]


def test_closing_quotes_and_brackets_stay_with_their_sentence() -> None:
    assert chunks('Aa bb (cc "dd ee.") Ff gg hh ii jj', 6)[0] == 'Aa bb (cc "dd ee.")'
    assert chunks("数据库很好。」他说向量检索聚类。", 10, count=len) == [
        "数据库很好。」",
        "他说向量检索聚类。",
    ]


@pytest.mark.parametrize("text", ["Aa bb cc, e.g. dd ee. Ff gg", "Aa bb J. Cc dd ee. Ff gg hh"])
def test_an_abbreviation_is_no_sentence_end(text: str) -> None:
    assert chunks(text, 7)[0].endswith("ee.")


def test_a_sentence_end_without_its_space_is_found() -> None:
    assert chunks("Aa bb cc dd in infants.We found ee ff gg", 8)[0] == "Aa bb cc dd in infants."
    name = "System.Out.println(bb)"
    assert any(name in chunk for chunk in chunks(f"aa {name} cc dd ee ff gg hh ii", 6))


def test_a_long_sentence_breaks_between_words() -> None:
    assert chunks(" ".join(["abc"] * 30), 10) == [" ".join(["abc"] * 10)] * 3


def test_a_word_that_fits_is_not_cut() -> None:
    word = "https://example.org/" + "a" * 30
    text = f"Aa bb {word} cc " + "dd " * 40
    assert any(word in chunk for chunk in chunks(text, 60, count=len))


def test_a_long_word_breaks_between_characters() -> None:
    assert chunks("a" * 30, 10, count=len) == ["a" * 10] * 3


def test_characters_that_are_drawn_as_one_stay_together() -> None:
    for text in ["e\u0301" * 99, "👩‍👧" * 99, "👍🏽" * 99]:
        for chunk in chunks(text, 64, count=len):
            assert not unicodedata.combining(chunk[0])
            assert chunk[0] not in "\u200d\U0001f3fd"
            assert chunk[-1] != "\u200d"


def test_what_remains_for_two_chunks_is_divided_evenly() -> None:
    text = " ".join(f"Word{i} end." for i in range(11))
    assert [words(chunk) for chunk in chunks(text, 20)] == [10, 12]


# --- Overlap ---------------------------------------------------------------------------------


def test_an_overlap_is_of_whole_sentences() -> None:
    text = "Aa bb. Cc dd. Ee ff. Gg hh. Ii jj. Kk ll. Mm nn. Oo pp."
    assert chunks(text, 8, 3) == [
        "Aa bb. Cc dd. Ee ff. Gg hh.",
        "Gg hh. Ii jj. Kk ll.",
        "Kk ll. Mm nn. Oo pp.",
    ]


def test_an_overlap_is_of_words_where_the_sentence_is_too_long() -> None:
    first, second = chunks("Aa bb cc dd ee ff. Gg hh ii jj kk.", 10, 3)
    assert first == "Aa bb cc dd ee ff."
    assert second == "dd ee ff. Gg hh ii jj kk."


def test_a_heading_ends_the_overlap() -> None:
    assert chunks("aa bb. Cc dd ee.\n\n# Ff\nGg hh ii jj kk.", 8, 3) == [
        "aa bb. Cc dd ee.",
        "# Ff\nGg hh ii jj kk.",
    ]


def test_an_overlap_gives_way_to_a_unit_that_fills_a_chunk() -> None:
    text = "Aa bb cc. Dd ee ff gg hh ii jj kk."
    assert chunks(text, 8, 4) == ["Aa bb cc.", "Dd ee ff gg hh ii jj kk."]


def test_an_overlap_is_at_most_half_a_chunk() -> None:
    text = " ".join(f"Word{i}." for i in range(60))
    assert len(chunks(text, 10, 9)) == len(chunks(text, 10, 5))


# --- Cost ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "\n",
        "a ",
        "a\n",
        "a\n\n",
        "# a\n",
        "😀",
        ".",
        ". ",
        "。",
        "。」",
        ".)",
        "\u0301",
        "数据。",
        "Aa bb. ",
    ],
)
def test_a_text_is_counted_a_few_times_whatever_it_is(unit: str) -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return words_and_line_ends(text)

    text = "x" + unit * (300_000 // len(unit)) + "x"
    spans = split(text, max_tokens=128, overlap_tokens=16, count_tokens=count)
    check(text, spans, 128, 16, words_and_line_ends)
    assert counted < 4.5 * len(text)


def test_no_call_of_the_tokenizer_grows_with_the_text() -> None:
    longest = 0

    def count(text: str) -> int:
        nonlocal longest
        longest = max(longest, len(text))
        return words(text)

    split("a" * 100_000, max_tokens=64, overlap_tokens=8, count_tokens=count)
    assert longest <= 16 * 64
