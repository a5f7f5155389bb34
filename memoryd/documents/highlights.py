"""Find the sentences of a chunk, and choose those to be highlighted."""

import heapq
import re
from collections.abc import Iterator, Sequence

from memoryd.documents.breaks import Break, Piece, find_pieces

MAX_HIGHLIGHTS = 3
"""Of one chunk."""
MAX_SENTENCE_CHARS = 600
"""A longer stretch without an end is cut between words."""

_WORD_CHARACTER = re.compile(r"[^\W_]")
_PART = re.compile(
    rf"\S(?:.{{0,{MAX_SENTENCE_CHARS - 2}}}\S)?(?!\S)|\S{{1,{MAX_SENTENCE_CHARS}}}", re.DOTALL
)


def find_sentences(text: str) -> list[tuple[int, int]]:
    """Return where each sentence of `text` starts and ends, in code points and in order.

    A line that ends without a stop is a sentence too, unless the next one goes on in lower case.
    What has neither letter nor digit is left out. Takes linear time.
    """
    content = Piece(len(text) - len(text.lstrip()), len(text.rstrip()), Break.HEADING)
    return [
        part
        for start, end in _unwrapped(find_pieces(text, content, "text"))
        for part in _parts(text, start, end)
        if _WORD_CHARACTER.search(text, *part)
    ]


def choose(scores: Sequence[float], limit: int = MAX_HIGHLIGHTS) -> list[int]:
    """Return the positions of the `limit` best scores above 0, best first, else in order."""
    best = heapq.nlargest(limit, range(len(scores)), key=scores.__getitem__)
    return [position for position in best if scores[position] > 0]


def _unwrapped(pieces: Iterator[Piece]) -> Iterator[tuple[int, int]]:
    """Yield the pieces, lines that were only wrapped joined."""
    start: int | None = None
    for piece in pieces:
        start = piece.start if start is None else start
        if piece.after != Break.WRAPPED_LINE:
            yield start, piece.end
            start = None


def _parts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    if end - start <= MAX_SENTENCE_CHARS:
        yield start, end
        return
    for match in _PART.finditer(text, start, end):
        yield match.span()
