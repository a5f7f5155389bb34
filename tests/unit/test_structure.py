"""Chunks of Markdown and code: blocks stay whole where they fit, and headings are told."""

import math
import random
import re
import time
from collections.abc import Callable

import pytest

from memoryd.documents.breaks import Format, choose_format
from memoryd.documents.chunking import split
from memoryd.documents.markdown import find_title, outline_markdown, scan_blocks
from memoryd.documents.outline import section_at
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


COUNTERS: list[Counter] = [words, len, pairs_of_characters, words_and_line_ends]


def chunks(
    text: str, max_tokens: int, form: Format, overlap_tokens: int = 0, count: Counter = words
) -> list[str]:
    spans = split(
        text, max_tokens=max_tokens, overlap_tokens=overlap_tokens, count_tokens=count, form=form
    )
    return [text[span.start_char : span.end_char] for span in spans]


# --- What always holds -----------------------------------------------------------------------

LINES = [
    *["# Heading", "### Deeper #", "Title", "=====", "-----", "#no heading", "    # indented"],
    *["- item one", "  - below it", "* star", "12) twelve", "   more of it", "---", "***"],
    *["| a | b |", "|---|:-:|", "| c | d | e |", "a | b", "no table here"],
    *["```python", "```", "````", "~~~", "def f(x):", "    return [x]", "}", "  } else {"],
    *["class A:", "@decorator", "\tx = 1", "/* comment", "*/", "> quoted", "<div>", "&nbsp;"],
    *["A sentence. Another one! 数据库。", "long " * 30, "x" * 90, "", "", "", "  ", "\u2028"],
]


def lines_of_all_kinds(rng: random.Random) -> str:
    few = rng.sample(LINES, rng.randint(2, 12))
    end = rng.choice(["\n", "\r\n", "\n\n"])
    return "".join(rng.choice(few) + end for _ in range(rng.randint(1, 60)))


@pytest.mark.parametrize("form", ["text", "markdown", "code"])
@pytest.mark.parametrize("count", COUNTERS)
@pytest.mark.parametrize("seed", range(60))
def test_chunks_fit_cover_the_text_and_move_on(form: Format, count: Counter, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 # it makes texts, not secrets
    text = lines_of_all_kinds(rng)
    max_tokens, overlap_tokens = rng.randint(1, 60), rng.randint(0, 12)

    def cut() -> list[tuple[int, int, int]]:
        spans = split(
            text,
            max_tokens=max_tokens,
            overlap_tokens=overlap_tokens,
            count_tokens=count,
            form=form,
        )
        return [(span.start_char, span.end_char, span.token_count) for span in spans]

    start = covered = 0
    for index, (first, end, tokens) in enumerate(cut()):
        chunk = text[first:end]
        assert chunk
        assert chunk == chunk.strip()
        assert count(chunk) == tokens <= max_tokens
        assert not text[covered:first].strip()
        if index:
            assert start < first
            assert covered < end
            assert count(text[first:covered]) <= overlap_tokens
        start, covered = first, end
    assert not text[covered:].strip()
    assert cut() == cut()


@pytest.mark.parametrize("form", ["markdown", "code"])
@pytest.mark.parametrize(
    "line", ["- a\n", "| a |\n", "|-|\n", "```\n", "# a\n", "a\n=\n", "  a\n", "\n", "-", "> a\n\n"]
)
def test_the_work_grows_with_the_text_and_no_faster(form: Format, line: str) -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return words_and_line_ends(text)

    text = "x" + line * (300_000 // len(line)) + "x"
    started = time.perf_counter()
    split(text, max_tokens=128, overlap_tokens=16, count_tokens=count, form=form)
    assert counted < 5.5 * len(text)
    assert time.perf_counter() - started < 20


def test_a_character_that_does_not_fit_is_an_error_in_any_form() -> None:
    for form in ("text", "markdown", "code"):
        with pytest.raises(InvalidInputError, match="max_tokens = 2"):
            chunks("```\nab 😀 c\n```", 2, form, count=lambda text: len(text.encode()))


# --- Markdown --------------------------------------------------------------------------------

TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
CODE = "```py\n# aa\n\nbb = cc\n```"
LIST = "- aa bb.\n- cc dd.\n\n  ee ff.\n- gg hh."


@pytest.mark.parametrize("block", [TABLE, CODE, LIST])
def test_a_block_stays_whole_where_it_fits(block: str) -> None:
    size = words(block)
    before = " ".join(["Word"] * (size // 2)) + "."
    text = f"{before}\n\n{block}\n\nAfter it all."
    assert chunks(text, size, "markdown") == [before, block, "After it all."]
    assert block not in chunks(text, size - 1, "markdown")


def test_a_block_that_does_not_fit_breaks_between_lines() -> None:
    rows = "\n".join(f"| row {number} | {'x ' * 6}|" for number in range(20))
    table = f"| a | b |\n|---|---|\n{rows}"
    for chunk in chunks(table, 60, "markdown"):
        assert chunk.startswith("|")
        assert chunk.endswith("|")
        assert words(chunk) > 25


def test_a_comment_in_a_code_block_is_no_heading() -> None:
    text = "Aa bb cc.\n\n```sh\n# dd ee\nff\n```\n\nGg hh."
    assert chunks(text, 9, "markdown") == ["Aa bb cc.\n\n```sh\n# dd ee\nff\n```", "Gg hh."]


def test_an_underlined_heading_stays_with_its_text() -> None:
    text = "Aa bb cc dd ee.\n\nFf\n==\n\nGg hh ii jj kk."
    assert chunks(text, 9, "markdown") == ["Aa bb cc dd ee.", "Ff\n==\n\nGg hh ii jj kk."]


def test_sections_that_fit_are_not_cut_nor_joined_with_parts_of_others() -> None:
    section = "# {0}\n\n{0} bb cc. Dd ee ff. Gg hh ii. Jj kk ll.".format
    text = "\n\n".join([section("Aa"), section("Bb"), "# Cc\n\nmm."])
    assert chunks(text, 17, "markdown") == [section("Aa"), section("Bb") + "\n\n# Cc\n\nmm."]
    first, second, third = chunks(text, 11, "markdown")[:3]
    assert "# Bb" not in first + second  # the rest of a section stands alone
    assert third.startswith("# Bb")


def test_the_rest_of_a_section_is_not_joined_with_the_next() -> None:
    text = "# Aa\n\nBb cc dd. Ee ff gg. Hh ii jj. Kk ll mm.\n\n# Nn\n\noo."
    assert chunks(text, 11, "markdown") == [
        "# Aa\n\nBb cc dd. Ee ff gg.",
        "Hh ii jj. Kk ll mm.",
        "# Nn\n\noo.",
    ]


def test_a_short_paragraph_goes_with_the_start_of_a_long_one() -> None:
    long = " ".join(f"W{i} x y." for i in range(12))
    assert chunks(f"Aa.\n\n{long}", 20, "text")[0].startswith("Aa.\n\nW0")
    assert chunks(f"Aa bb cc dd ee.\n\n{long}", 20, "text")[0] == "Aa bb cc dd ee."


def test_headings_of_a_chunk_are_those_above_it() -> None:
    text = "Before.\n\n# One #\n\naa\n\n### Deep\nbb\n\nTwo\n---\ncc\n\n# Three\ndd"
    outline = outline_markdown(text)
    found = {}
    for word in ("Before", "aa", "bb", "cc", "dd"):
        section = section_at(outline, text.index(word))
        found[word] = section.headings if section else None
    assert found == {
        "Before": None,
        "aa": ("One",),
        "bb": ("One", "Deep"),
        "cc": ("One", "Two"),
        "dd": ("Three",),
    }
    assert find_title(text) == "One"
    assert find_title("## Two\n\ntext") == ""


def test_blocks_are_found_where_markdown_has_them() -> None:
    text = (
        "---\nkey: 1\n---\n\nA paragraph\n- - -\n| no | table |\n\n1. one\n   two\n\nafter\n"
        "~~~\n- code\n```\n~~~\nc | d\n-|-\ne | f\n\n#tag\n"
    )
    assert [(block.kind, text[block.start : block.end]) for block in scan_blocks(text)] == [
        ("front matter", "---\nkey: 1\n---"),
        ("list", "1. one\n   two"),
        ("code", "~~~\n- code\n```\n~~~"),
        ("table", "c | d\n-|-\ne | f"),
    ]


# --- Code ------------------------------------------------------------------------------------

PYTHON = '''import os
import sys


@cached
def first(a):
    """Return it."""
    b = a + 1

    return b


class Second:
    x = 1

    def third(self):
        return self.x
'''


def test_definitions_stay_whole_where_they_fit() -> None:
    first, second, third = PYTHON.strip().split("\n\n\n")
    assert chunks(PYTHON, 15, "code") == [first, second, third]
    assert chunks(PYTHON, 20, "code") == [f"{first}\n\n\n{second}", third]


def test_a_definition_that_does_not_fit_breaks_at_its_blank_lines() -> None:
    assert chunks(PYTHON, 9, "code")[1:3] == [
        '@cached\ndef first(a):\n    """Return it."""',
        "b = a + 1\n\n    return b",
    ]


def test_a_closing_brace_stays_with_its_block() -> None:
    code = "func f() {\n" + "  call x\n" * 10 + "}"
    assert chunks(code, 23, "code")[-1].endswith("call x\n}")


def test_an_overlap_of_code_begins_with_a_line() -> None:
    first = "def aa bb cc\n    d1 d2 d3 d4\n    e1 e2 e3 e4"
    second = "def ff gg hh\n    i1 i2 i3 i4"
    assert chunks(f"{first}\n\n{second}", 14, "code", overlap_tokens=6) == [
        first,
        f"e1 e2 e3 e4\n\n{second}",
    ]


# --- Which format ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mime_type", "form"),
    [
        ("plain", "text/markdown", "markdown"),
        ("plain", "TEXT/Markdown; charset=utf-8", "markdown"),
        ("# comment", "text/x-python", "code"),
        ("x", "text/javascript", "code"),
        ("# Title", "text/x-rst", "markdown"),
        ("# no heading", "application/pdf", "text"),
        ("# Title\n\ntext", None, "markdown"),
        ("a\n\n```\ncode\n```", "text/plain", "markdown"),
        (TABLE, "text/html", "markdown"),
        ("Just words.\n\n- and a list", None, "text"),
        ("#1 of all", None, "text"),
        ("", None, "text"),
    ],
)
def test_the_format_is_told_by_type_or_looks(
    text: str, mime_type: str | None, form: Format
) -> None:
    assert choose_format(text, mime_type) == form
