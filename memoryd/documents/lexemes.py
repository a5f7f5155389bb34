"""Words of texts and queries, made ready for Postgres' stemmers.

Postgres' parser knows file names, host names and signed numbers, so that `and/or` is one word to it
and `covid-19` holds the number -19; and it doesn't segment Chinese, Japanese and Korean. So it gets
nothing but words between spaces: all that is no letter, mark or digit becomes a space, and a run of
CJK characters becomes its overlapping pairs. The run's last character follows alone, so that each
character begins a word, and a query for a single one is one for words that begin with it.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# A word of n bytes takes up to n + 5 of the 1 MiB that a tsvector has, and n + 1 here with its
# space. As many characters as this fit into it, even where each takes 4 bytes.
_MAX_CHARS = 100_000
_MAX_PHRASES = 32
_MAX_PHRASE_WORDS = 64
_MAX_PREFIXES = 32
_MAX_WORD_BYTES = 2_046
"""What Postgres takes as a word of a tsquery (MAXSTRLEN in ts_type.h); it indexes none longer."""

_ASCII_WORDS = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
_KEPT_CODE_POINTS = 0x10000
# Iteration marks, kana with the mark of long vowels, bopomofo, Han with its extensions, hangul.
_CJK_RUN = re.compile(
    "[\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_QUOTATION_MARKS = str.maketrans("“”„‟«»", '"' * 6)
_QUOTED = re.compile('"([^"]*)"')
# It begins where a word does: else each of a long word's characters would be a beginning.
_STARRED = re.compile(r'(?<![^\s"*])([^\s"*]+)\*+(?!\w)')


class _WordCharacters(dict[int, int | None]):
    """Map letters, marks and digits to themselves, all else to a space, as far as was asked.

    What Unicode says is to be ignored, and stands inside of words, is left out
    (Default_Ignorable_Code_Point in DerivedCoreProperties.txt), and the dot of a Turkish capital I
    that stays for itself without case.
    """

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        is_of_word = character.isalnum() or unicodedata.category(character).startswith("M")
        result = code if is_of_word else ord(" ")
        if code < _KEPT_CODE_POINTS:  # the others are rare and many
            self[code] = result
        return result


_WORD_CHARACTERS = _WordCharacters(
    dict.fromkeys((0xAD, 0x307, 0x34F, 0x200C, 0x200D, 0x2060, *range(0xFE00, 0xFE10), 0xFEFF))
    | dict.fromkeys(range(0xE0100, 0xE01F0))
)


@dataclass(frozen=True)
class Phrase:
    """Be words that follow each other, as they do in a prepared text."""

    words: str
    is_open: bool
    """Whether the last one is but the beginning of a word: a single CJK character."""


@dataclass(frozen=True)
class QueryText:
    """Be what a query asks for: words to stem, beginnings of words, and phrases.

    `words` and `prefixes` have those of the phrases too.
    """

    words: str
    prefixes: tuple[str, ...]
    phrases: tuple[Phrase, ...]


def prepare_text(text: str) -> str:
    """Return the words of a text for `to_tsvector`, parted by spaces, without case."""
    folded = _fold(text)
    if not folded.isascii() and _CJK_RUN.search(folded):
        folded = " ".join(word for unit in _split(folded) for word in _stored_words(unit))
    return folded[:_MAX_CHARS]


def parse_query(text: str) -> QueryText:
    """Return the words, `"phrases"` and prefixes (`word*`) of a query.

    No text is wrong: a quotation mark without another, or a star alone, is a space. Of a very long
    text the beginning counts, and of very many phrases, words of one, or prefixes, the first.
    """
    text = unicodedata.normalize("NFKC", text[:_MAX_CHARS])[:_MAX_CHARS]
    text = text.translate(_QUOTATION_MARKS)
    quoted = [_split(_fold(each)) for each in _QUOTED.findall(text)]
    unquoted = _QUOTED.sub(" ", text)
    starred = [_split(_fold(each)) for each in _STARRED.findall(unquoted)]
    ends = [each.pop() for each in starred if each]
    units = _split(_fold(_STARRED.sub(" ", unquoted)))
    units += [unit for each in (*quoted, *starred) for unit in each]
    # A pair of CJK characters finds whatever begins with it.
    units += [end for end in ends if _is_cjk(end)]
    prefixes = [end for end in ends if not _is_cjk(end)]
    prefixes += [unit for unit in units if _is_cjk(unit) and len(unit) == 1]
    prefixes = [each for each in prefixes if len(each.encode()) <= _MAX_WORD_BYTES]
    return QueryText(
        " ".join(word for unit in units for word in _asked_words(unit)),
        tuple(dict.fromkeys(prefixes))[:_MAX_PREFIXES],
        tuple(_phrase(each) for each in quoted if each)[:_MAX_PHRASES],
    )


def _fold(text: str) -> str:
    """Return a text without case (Unicode's toNFKC_Casefold), with spaces for what is no word."""
    if text.isascii():
        return text.translate(_ASCII_WORDS)
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded).translate(_WORD_CHARACTERS)


def _split(folded: str) -> list[str]:
    """Return the words of a folded text, each run of CJK for itself."""
    return _CJK_RUN.sub(r" \g<0> ", folded).split()


def _is_cjk(unit: str) -> bool:
    return _CJK_RUN.match(unit) is not None


def _stored_words(unit: str) -> list[str]:
    return [*_pairs(unit), unit[-1]] if _is_cjk(unit) else [unit]


def _asked_words(unit: str) -> list[str]:
    """Return those by which `unit` is found, none for a single CJK character: that is a prefix."""
    return _pairs(unit) if _is_cjk(unit) else [unit]


def _pairs(run: str) -> list[str]:
    return [first + second for first, second in pairwise(run)]


def _phrase(units: Sequence[str]) -> Phrase:
    """Return a phrase; a run of CJK at its end may go on in a text."""
    words = [word for unit in units for word in _stored_words(unit)]
    is_open = _is_cjk(units[-1])
    if is_open and len(units[-1]) > 1:
        words.pop()
        is_open = False
    return Phrase(" ".join(words[:_MAX_PHRASE_WORDS]), is_open and len(words) <= _MAX_PHRASE_WORDS)
