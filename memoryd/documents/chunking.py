"""Split a document's text into chunks that a model can embed, by the model's own tokens.

The text is cut into units (sentences, lines, blocks), each is counted once, chunks are packed from
the sums, and each chunk is counted once more: no tokenizer's counts add up exactly. So a text is
tokenized about twice and never in one call that grows with it.
"""

# ruff: noqa: RUF001 # the punctuation of other scripts is meant
import itertools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from memoryd.documents.breaks import Break, Format, Piece, find_parts, find_pieces, join_pieces
from memoryd.errors import InvalidInputError

# More characters per token than ordinary text has. It bounds what a tokenizer is given (a few are
# slow or crash on huge words) and what is stored as a chunk (a million emoji can be one token).
_CHARS_PER_TOKEN = 16

# Units are about this small a part of a chunk where the text leaves the choice.
_UNITS_PER_CHUNK = 8


@dataclass(frozen=True)
class ChunkSpan:
    """Say where a chunk lies in its text, in code points: `text[start_char:end_char]`."""

    start_char: int
    end_char: int
    token_count: int
    """Tokens of the span alone, without prefix, title and special tokens."""


class _Unit(NamedTuple):
    """Hold a piece that fits into a chunk, and its tokens."""

    start: int
    end: int
    after: Break
    tokens: int
    is_block: bool = False


def split(
    text: str,
    *,
    max_tokens: int,
    overlap_tokens: int,
    count_tokens: Callable[[str], int],
    form: Format = "text",
) -> list[ChunkSpan]:
    """Split `text` into spans of at most `max_tokens`, as `count_tokens` counts each of them.

    `count_tokens` counts a string without special tokens. The spans begin and end with
    characters other than whitespace and cover every such character; a blank text has none. They
    are in order, and none lies within another. Each repeats the end of the one before, whole
    sentences or else words, in at most `overlap_tokens` and half of `max_tokens`, but not across
    a heading. A text that fits is one span. No span has over 16 characters per `max_tokens`.
    Tables, lists and code blocks of Markdown, and definitions of code, stay whole where they fit.

    Raises InvalidInputError if a single character has more than `max_tokens`, or that is below 1.
    """
    if max_tokens < 1:
        raise InvalidInputError(f"max_tokens = {max_tokens} leaves no room for text")
    content = Piece(len(text) - len(text.lstrip()), len(text.rstrip()), Break.HEADING)
    if content.start >= content.end:
        return []
    source = _Source(text, max_tokens, count_tokens)
    tokens = source.tokens(content)
    if tokens is not None and tokens <= max_tokens:
        return [ChunkSpan(content.start, content.end, tokens)]
    units = list(source.joined_units(find_pieces(text, content, form)))
    return list(_Packer(source, units, min(overlap_tokens, max_tokens // 2)).pack())


# --- Units that fit --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """Hold the text, the limit and the tokenizer."""

    text: str
    max_tokens: int
    count_tokens: Callable[[str], int]

    def count(self, start: int, end: int) -> int:
        return self.count_tokens(self.text[start:end])

    def tokens(self, piece: Piece) -> int | None:
        """Return the tokens of `piece`, or None if it is longer than a chunk can be."""
        if piece.end - piece.start > _CHARS_PER_TOKEN * self.max_tokens:
            return None
        return self.count(piece.start, piece.end)

    def joined_units(self, pieces: Iterable[Piece]) -> Iterator[_Unit]:
        """Yield the units of `pieces`, the short ones joined."""
        for piece in join_pieces(pieces, self.max_tokens // _UNITS_PER_CHUNK):
            yield from self.units(piece)

    def units(self, piece: Piece) -> Iterator[_Unit]:
        """Yield `piece`, or what it has to be cut into."""
        tokens = self.tokens(piece)
        if tokens is not None and tokens <= self.max_tokens:
            yield _Unit(piece.start, piece.end, piece.after, tokens, bool(piece.block))
            return
        if piece.block:
            yield from self.joined_units(find_parts(self.text, piece))
            return
        for part in _cut(self.text, piece, self._width(piece, tokens)):
            yield from self.units(part)

    def _width(self, piece: Piece, tokens: int | None) -> int:
        """Return how many characters of `piece` make a unit, or one that can be counted."""
        if tokens is None:
            return _CHARS_PER_TOKEN * self.max_tokens // 2
        length = piece.end - piece.start
        if length == 1:
            raise InvalidInputError(
                f"max_tokens = {self.max_tokens} leaves no room for a character of {tokens} tokens"
            )
        return max(1, length * self.max_tokens // (_UNITS_PER_CHUNK * tokens))


_SOFT_BREAK = re.compile(r"\s++|(?<=[，、；：])(?=\S)")
_SOLID = re.compile(r"\S")
_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)


def _cut(text: str, piece: Piece, width: int) -> Iterator[Piece]:
    """Cut `piece` into parts of about `width` characters, between words where it has words."""
    start = piece.start
    while piece.end - start > width:
        end, after = _cut_point(text, start, width, piece.end)
        yield Piece(start, start + len(text[start:end].rstrip()), after)
        start = next(_SOLID.finditer(text, end)).start()
    yield Piece(start, piece.end, piece.after)


def _cut_point(text: str, start: int, width: int, end: int) -> tuple[int, Break]:
    """Return where to cut what begins at `start`, and how good a break that is.

    A word that is longer than `width` stays whole here, and is cut if it doesn't fit a chunk.
    """
    limit = start + width
    soft = [match.start() for match in _SOFT_BREAK.finditer(text[start + 1 : limit + 1])]
    if soft:
        return start + 1 + soft[-1], Break.WORD
    farther = _SOFT_BREAK.search(text, limit + 1, min(end, start + _UNITS_PER_CHUNK * width))
    if farther:
        return farther.start(), Break.WORD
    cut = limit
    while cut > start + (width + 1) // 2 and _belongs_to_previous(text, cut):
        cut -= 1
    return cut, Break.CHARACTER


def _belongs_to_previous(text: str, index: int) -> bool:
    """Say whether the character at `index` is drawn as part of the one before (not complete)."""
    return (
        unicodedata.category(text[index]) in {"Mn", "Mc", "Me"}
        or _ZERO_WIDTH_JOINER in text[index - 1 : index + 1]
        or ord(text[index]) in _SKIN_TONES
    )


# --- Chunks from units -----------------------------------------------------------------------


def _weight(tokens: int, characters: int) -> int:
    """Return the tokens to reckon with, so that sparse text fills a chunk too."""
    return max(tokens, -(-characters // _CHARS_PER_TOKEN))


# What stands between two such breaks is about one thing: it isn't mixed with parts of others.
_GROUPS = (Break.HEADING, Break.PARAGRAPH, Break.LINE)
# A paragraph that would make less than this part of a chunk goes with the start of the next.
_LEAST_PART = 4


class _Lead(NamedTuple):
    """Say where a chunk starts and what it has before its first new unit."""

    start: int
    weight: int


@dataclass(frozen=True)
class _Packer:
    source: _Source
    units: list[_Unit]
    overlap_tokens: int

    @cached_property
    def _sums(self) -> list[int]:
        """What the units before each unit weigh, and all of them."""
        starts = [unit.start for unit in self.units[1:]] + [self.units[-1].end]
        weights = (
            _weight(unit.tokens, following - unit.start)
            for unit, following in zip(self.units, starts, strict=True)
        )
        return list(itertools.accumulate(weights, initial=0))

    @cached_property
    def _group_ends(self) -> dict[Break, list[int]]:
        """The last unit of each section, paragraph and line, as far as each break ends one."""
        last = len(self.units) - 1
        return {
            rank: [i for i, unit in enumerate(self.units) if unit.after >= rank or i == last]
            for rank in _GROUPS
        }

    def pack(self) -> Iterator[ChunkSpan]:
        """Yield chunks until no unit is left."""
        first = 0
        lead = _Lead(self.units[0].start, 0)
        while first < len(self.units):
            last, span = self._fill(first, lead)
            yield span
            if last + 1 < len(self.units):
                lead = self._lead(first, last)
            first = last + 1

    def _fill(self, first: int, lead: _Lead) -> tuple[int, ChunkSpan]:
        """Return the last unit of the chunk that begins with `lead` and `first`, and its span.

        The sums say what should fit; the count of the span decides.
        """
        max_tokens = limit = self.source.max_tokens
        while True:
            last = self._last(first, lead, limit)
            end = self.units[last].end
            tokens = self.source.count(lead.start, end)
            if tokens <= max_tokens:
                return last, ChunkSpan(lead.start, end, tokens)
            if last == first:  # which fits alone
                lead, limit = _Lead(self.units[first].start, 0), max_tokens
            else:
                expected = lead.weight + self._sums[last + 1] - self._sums[first]
                limit = min(limit * max_tokens // tokens, expected - 1)

    def _last(self, first: int, lead: _Lead, limit: int) -> int:
        """Return the unit after which it is best to break, within `limit` tokens.

        Sections, paragraphs and lines that fit are taken whole. Of one that doesn't, the best
        break in the second half of the chunk is taken, the latest of equals; what remains for two
        chunks is divided in the middle, if it can be.
        """
        sums, base = self._sums, self._sums[first] - lead.weight
        whole, end = self._whole_groups(first, base, limit)
        if whole is not None:
            return whole
        target, least = limit, limit // 2
        two_chunks = sums[end + 1] - base + self.overlap_tokens
        if two_chunks <= 2 * limit:
            target, least = two_chunks // 2, max(limit // 4, two_chunks - limit)
        farthest = max(first, bisect_right(sums, base + limit) - 2)
        nearest = min(farthest, max(first, bisect_left(sums, base + least) - 1))
        best = max(
            range(nearest, farthest + 1),
            key=lambda i: (self.units[i].after, -abs(sums[i + 1] - base - target)),
        )
        return self._before_heading(first, best)

    def _whole_groups(self, first: int, base: int, limit: int) -> tuple[int | None, int]:
        """Return the last of the whole groups that fit, if any do, and of what has to be cut.

        The rest of a group of which the start was cut off is taken alone.
        """
        end = len(self.units) - 1
        for rank in _GROUPS:
            ends = self._group_ends[rank]
            group = bisect_left(ends, first)
            end = ends[group]
            if self._sums[end + 1] - base > limit:
                continue
            if first and self.units[first - 1].after < rank:
                return end, end
            farthest = bisect_right(self._sums, base + limit) - 2
            whole = ends[bisect_right(ends, farthest) - 1]
            if rank == Break.HEADING or self._sums[whole + 1] - base >= limit // _LEAST_PART:
                return whole, whole
            return None, ends[bisect_left(ends, whole + 1)]
        return None, end

    def _before_heading(self, first: int, last: int) -> int:
        """Return the last unit of `first` to `last` that isn't a heading, or `last`."""
        for index in range(last, first - 1, -1):
            if self.units[index].after != Break.AFTER_HEADING:
                return index
        return last

    def _lead(self, first: int, last: int) -> _Lead:
        """Return how the chunk after the one of units `first` to `last` begins."""
        following = self.units[last + 1].start
        needed = self._sums[last + 2] - self._sums[last + 1]
        room = min(self.overlap_tokens, self.source.max_tokens - needed)
        if room > 0 and self.units[last].after != Break.HEADING:
            end = self.units[last].end
            for start in self._overlap_starts(first, last, room):
                weight = _weight(self.source.count(start, end), following - start)
                if weight <= room:
                    return _Lead(start, weight)
        return _Lead(following, 0)

    def _overlap_starts(self, first: int, last: int, room: int) -> Iterator[int]:
        """Yield where an overlap of `room` tokens could start, the longest first."""
        whole = max(first + 1, bisect_left(self._sums, self._sums[last + 1] - room))
        if whole <= last:
            yield from (unit.start for unit in self.units[whole : last + 1])
            return
        unit = self.units[last]
        length = unit.end - unit.start
        width = min(length - 1, length * room // _weight(unit.tokens, length))
        while width > 0:
            yield _overlap_start(self.source.text, unit.end - width, unit)
            width = width * 3 // 4


_LINE_START = re.compile(r"(?<=\n)\s*+\S")
_WORD_START = re.compile(r"(?<=\s)\S")


def _overlap_start(text: str, start: int, unit: _Unit) -> int:
    """Return the first start of a word of `unit` from `start` on, or else of a character.

    Of a block, it is that of a line if there is one.
    """
    end = unit.end
    line = _LINE_START.search(text, start, end) if unit.is_block else None
    found = line or _WORD_START.search(text, start, end)
    if found:
        return found.end() - 1
    while start < end - 1 and _belongs_to_previous(text, start):
        start += 1
    return start
