"""What tokens are in the text that they came from."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

_CONTINUATION, _CONTINUATION_MASK = 0x80, 0xC0  # of bytes that begin no character of UTF-8
_LEFT_OUT = "CM"  # categories of Unicode: control characters, marks
_KNOWN_CHARS = 1 << 14


@dataclass(frozen=True)
class Span:
    """Say where something stands in a text, in characters (Unicode code points)."""

    start: int
    stop: int


@dataclass(frozen=True)
class Token:
    """Hold one token of a text, as a tokenizer's users see it."""

    id: int
    text: str
    """Its part of the text where that is known, else what the vocabulary says."""
    is_special: bool
    """Whether it surrounds the text and is no part of it."""
    span: Span | None
    """None: special, or not to be told."""


def locate(text: str, pieces: Sequence[bytes]) -> list[Span | None]:
    """Return where each of a text's tokens stands in it, None where that can't be told for sure.

    `pieces` are what the vocabulary says of the tokens. Where they make up the text byte by byte,
    each stands where its bytes do; one with a part of a character has the whole of it. Tokenizers
    that change texts, to lower case say, are followed by what both have in common: letters without
    case, accents and spaces. That is done from the start, then from the end, up to a token which
    the vocabulary can't spell; what such a one alone leaves over is its own.
    """
    if b"".join(pieces) == text.encode("utf-8", "replace"):
        return _locate_bytes(text, pieces)
    return _locate_letters(text, pieces)


def piece_text(text: str, piece: bytes, span: Span | None) -> str:
    """Return a token's part of `text`, else what the vocabulary says of it."""
    return text[span.start : span.stop] if span else piece.decode("utf-8", "replace").strip()


def _locate_bytes(text: str, pieces: Sequence[bytes]) -> list[Span | None]:
    data = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8)
    chars = np.cumsum((data & _CONTINUATION_MASK) != _CONTINUATION) - 1
    stops = np.cumsum([len(piece) for piece in pieces])
    return [
        Span(int(chars[stop - len(piece)]), int(chars[stop - 1]) + 1) if piece else None
        for piece, stop in zip(pieces, stops, strict=True)
    ]


def _locate_letters(text: str, pieces: Sequence[bytes]) -> list[Span | None]:
    folded = [_fold(char) for char in text]
    letters = "".join(folded)
    origins = np.repeat(np.arange(len(text)), [len(part) for part in folded])
    return [
        Span(int(origins[start]), int(origins[stop - 1]) + 1) if start < stop else None
        for start, stop in _follow(letters, [_fold_piece(piece) for piece in pieces])
    ]


def _follow(letters: str, pieces: Sequence[str | None]) -> list[tuple[int, int]]:
    """Return where each of `pieces` begins and ends in `letters`, (0, 0) for what isn't known."""
    ahead = [0, *_match(letters, pieces)]
    rest = [piece and piece[::-1] for piece in pieces[len(ahead) - 1 :]]
    behind = [0, *_match(letters[ahead[-1] :][::-1], rest[::-1])]
    back = [len(letters) - at for at in behind[::-1]]
    unknown = len(pieces) - (len(ahead) - 1) - (len(back) - 1)
    between = [(ahead[-1], back[0])] if unknown == 1 else [(0, 0)] * unknown
    return [*pairwise(ahead), *between, *pairwise(back)]


def _match(letters: str, pieces: Sequence[str | None]) -> list[int]:
    """Return where the first of `pieces` end in `letters`, as long as each follows the other."""
    ends: list[int] = []
    for piece in pieces:
        start = ends[-1] if ends else 0
        if piece is None or not letters.startswith(piece, start):
            break
        ends.append(start + len(piece))
    return ends


def _fold_piece(piece: bytes) -> str | None:
    """Return the letters of a token, None where it has a part of a character."""
    try:
        return "".join(map(_fold, piece.decode()))
    except UnicodeDecodeError:
        return None


@lru_cache(_KNOWN_CHARS)
def _fold(char: str) -> str:
    """Return what tokenizers leave of a character, at least: nothing of accents and of spaces."""
    return "".join(
        part
        for part in unicodedata.normalize("NFKD", char.lower())
        if not part.isspace() and unicodedata.category(part)[0] not in _LEFT_OUT
    )
