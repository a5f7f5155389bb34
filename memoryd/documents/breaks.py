"""Find where a text can be broken into chunks, and how good each place is.

A piece is the least that is taken as a whole: a sentence, a line, or a block that is kept together
where it fits a chunk: a table, a list or a code block of Markdown, a definition of code.
"""

# ruff: noqa: RUF001 # the punctuation of other scripts is meant
import re
from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import pairwise
from typing import Literal, NamedTuple

from memoryd.documents.markdown import BlockKind, scan_blocks

Format = Literal["text", "markdown", "code"]
BlockParts = Literal["", "prose", "lines"]


class Break(IntEnum):
    """Rank the places where a text can be broken, the worst first."""

    AFTER_HEADING = 0
    CHARACTER = 1
    WORD = 2
    WRAPPED_LINE = 3
    SENTENCE = 4
    LINE = 5
    PARAGRAPH = 6
    HEADING = 7


class Piece(NamedTuple):
    """Hold a stretch of text without surrounding whitespace, and the break that follows it."""

    start: int
    end: int
    after: Break
    block: BlockParts = ""
    """What a block is made of, which has pieces of its own; empty where it isn't one."""


_NOT_CODE = frozenset(("text/x-rst", "text/x-markdown", "text/x-log"))
_CODE = frozenset(
    ("text/javascript", "application/javascript", "application/typescript", "application/x-sh")
)
_PLAIN = frozenset(("application/pdf", "application/json", "application/x-ndjson", "text/csv"))
_LOOKED_AT_CHARS = 20_000


def choose_format(text: str, mime_type: str | None) -> Format:
    """Return what `text` is by its type, or where that leaves it open, by what it looks like."""
    told = (mime_type or "").partition(";")[0].strip().lower()
    if told == "text/markdown":
        return "markdown"
    if told in _CODE or (told.startswith("text/x-") and told not in _NOT_CODE):
        return "code"
    if told in _PLAIN:
        return "text"
    looks_marked = any(block.kind != "list" for block in scan_blocks(text[:_LOOKED_AT_CHARS]))
    return "markdown" if looks_marked else "text"


def find_pieces(text: str, content: Piece, form: Format) -> Iterator[Piece]:
    """Yield the pieces of `content`, a stretch of `text` of that form, in order."""
    if form == "markdown":
        return _markdown_pieces(text, content)
    if form == "code":
        return _definitions(_code_lines(text, content))
    return _prose_pieces(text, content)


def find_parts(text: str, block: Piece) -> Iterator[Piece]:
    """Yield the pieces of a block that doesn't fit a chunk."""
    if block.block == "lines":
        return _code_lines(text, block)
    return _prose_pieces(text, block)


# --- Prose -----------------------------------------------------------------------------------
# Every pattern is linear: runs are possessive, and each begins where no earlier match can.

_LINE_END = r"\n\r\f\v\x1c-\x1e\x85\u2028\u2029"
_CLOSERS = r"\"'’”»›)\]}」』）】》〉〕］｣*_"
_BREAKS = re.compile(
    rf"""
      (?P<lines> (?<!\s) [^\S{_LINE_END}]*+ [{_LINE_END}] \s*+ )
    | (?P<sentence>  # not after an initial: "J. Smith", "e.g. BERT"
        (?: (?<!\b[^\W\d_]) \. | [!?…؟।॥] ) [{_CLOSERS}]*+ [^\S{_LINE_END}]++ (?! [{_LINE_END}] ) )
    | (?<= [\w)%\]]{{2}} ) [.!?] (?= [A-Z][\w-]*+[ ,] )  # the space got lost: "infants.We found"
    | [。！？｡．] [{_CLOSERS}]*+ (?! [。！？｡．] ) [^\S{_LINE_END}]*+ (?! [{_LINE_END}] )
    """,
    re.VERBOSE,
)
_HEADING = re.compile(r"#{1,6}[ \t]+\S")
_BLANK_LINE = re.compile(r"[\f\u2029]|\n[^\S\n]*+\n|\r[^\S\r\n]*+\r")
_SENTENCE_END = frozenset(".!?…:。！？｡．")


def _prose_pieces(text: str, content: Piece) -> Iterator[Piece]:
    """Yield the sentences and lines."""
    start = content.start
    in_heading = _HEADING.match(text, start) is not None
    for match in _BREAKS.finditer(text, content.start, content.end):
        # A sentence doesn't begin in lower case: the stop was an abbreviation's.
        if match.end() == content.end or (
            match.lastgroup == "sentence" and text[match.end()].islower()
        ):
            continue
        end = match.start() + len(match[0].rstrip())
        after = Break.SENTENCE
        if match.lastgroup == "lines":
            after = _line_break(text, end, match.end())
        yield Piece(start, end, Break.AFTER_HEADING if in_heading else after)
        start = match.end()
        if match.lastgroup == "lines":
            in_heading = _HEADING.match(text, start) is not None
    yield Piece(start, content.end, content.after)


def _line_break(text: str, end: int, start: int) -> Break:
    """Rank the break between a line that ends at `end` and text that goes on at `start`."""
    if _HEADING.match(text, start):
        return Break.HEADING
    if _BLANK_LINE.search(text, end, start):
        return Break.PARAGRAPH
    indented = text[start - 1] in " \t"
    if text[start].islower() and not indented and text[end - 1] not in _SENTENCE_END:
        return Break.WRAPPED_LINE
    return Break.LINE


# --- Markdown --------------------------------------------------------------------------------


class _Stretch(NamedTuple):
    start: int
    end: int
    kind: BlockKind | None
    """None of prose."""


def _markdown_pieces(text: str, content: Piece) -> Iterator[Piece]:
    """Yield the blocks of Markdown, and the sentences between them."""
    stretches = list(_stretches(text, content))
    breaks = [_break_before(text, here, following) for here, following in pairwise(stretches)]
    for stretch, after in zip(stretches, [*breaks, content.after], strict=True):
        if stretch.kind is None:
            yield from _prose_pieces(text, Piece(stretch.start, stretch.end, after))
        elif stretch.kind == "heading":
            yield Piece(stretch.start, stretch.end, Break.AFTER_HEADING)
        else:
            block: BlockParts = "prose" if stretch.kind == "list" else "lines"
            yield Piece(stretch.start, stretch.end, after, block)


def _stretches(text: str, content: Piece) -> Iterator[_Stretch]:
    """Yield blocks and what is between them, without surrounding whitespace and blank ones."""
    start = content.start
    for block in scan_blocks(text):
        yield from _stripped(text, start, block.start, None)
        yield from _stripped(text, max(start, block.start), block.end, block.kind)
        start = block.end
    yield from _stripped(text, start, content.end, None)


def _stripped(text: str, start: int, end: int, kind: BlockKind | None) -> Iterator[_Stretch]:
    found = text[start:end]
    end = start + len(found.rstrip())
    start += len(found) - len(found.lstrip())
    if start < end:
        yield _Stretch(start, end, kind)


def _break_before(text: str, here: _Stretch, following: _Stretch) -> Break:
    if following.kind == "heading":
        return Break.HEADING
    is_apart = _BLANK_LINE.search(text, here.end, following.start)
    return Break.PARAGRAPH if is_apart else Break.LINE


# --- Code ------------------------------------------------------------------------------------

_CODE_LINE = re.compile(r"([^\S\n\r]*+)(\S[^\n\r]*+)")
# Lines that end or go on with what stands above them.
_CLOSING = re.compile(
    r"[)\]}]|(?:else|elif|elseif|except|rescue|ensure|finally|catch|end|fi|done|esac|\*/|</|```)"
)


def _code_lines(text: str, content: Piece) -> Iterator[Piece]:
    """Yield the lines of code that aren't blank."""
    lines = list(_CODE_LINE.finditer(text, content.start, content.end))
    breaks = [_code_break(text, here, following) for here, following in pairwise(lines)]
    for line, after in zip(lines, [*breaks, content.after], strict=True):
        yield Piece(line.start(2), line.start(2) + len(line[2].rstrip()), after)


def _code_break(text: str, here: re.Match[str], following: re.Match[str]) -> Break:
    """Rank the break between two lines: by blank lines, and by indentation."""
    depth, depth_before = len(following[1]), len(here[1])
    is_apart = text.count("\n", here.end(), following.start()) > 1
    if _CLOSING.match(following[2]):
        return Break.WORD
    if not depth and is_apart:
        return Break.PARAGRAPH
    if is_apart or (not depth and (depth_before or _CLOSING.match(here[2]))):
        return Break.LINE
    if depth == depth_before:
        return Break.WRAPPED_LINE if depth else Break.SENTENCE
    return Break.SENTENCE if depth < depth_before else Break.WORD


def _definitions(lines: Iterable[Piece]) -> Iterator[Piece]:
    """Yield what stands between blank lines at the left margin: definitions with their bodies."""
    start: int | None = None
    for line in lines:
        start = line.start if start is None else start
        if line.after >= Break.PARAGRAPH:
            yield Piece(start, line.end, line.after, "lines")
            start = None


# --- Joining ---------------------------------------------------------------------------------


def join_pieces(pieces: Iterable[Piece], width: int) -> Iterator[Piece]:
    """Join neighbors up to `width` characters, since each call of a tokenizer has its cost."""
    held: Piece | None = None
    for piece in pieces:
        if held and piece.end - held.start <= width and held.after < Break.HEADING:
            held = Piece(held.start, piece.end, piece.after)
            continue
        if held:
            yield held
        held = piece
    if held:
        yield held
