"""Bytes → characters, for files that don't say how they are encoded."""

import codecs
import re
from itertools import pairwise

from charset_normalizer import CharsetMatch, from_bytes

_SAMPLE_BYTES = 32 << 10
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does: first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What text files of before UTF-8 are in; of all that exist, a short text fits too many.
_LEGACY = [
    *("cp1252", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp1251", "koi8_r", "cp1250"),
    *("cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
]
_ISO_2022_ESCAPE = b"\x1b$"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MOST_CONTROL_OF_UTF8 = 0.1
_MOST_CONTROL = 0.002
_MOST_NUL_OF_TEXT_BYTE = 0.05
_LEAST_NUL_OF_HIGH_BYTE = 0.3


def decode(data: bytes, declared: str | None = None) -> str | None:
    """Return the text of `data`, or None where it isn't text.

    A byte order mark decides, else valid UTF-8, else the `declared` encoding, else what the bytes
    look like.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    wide = _wide_encoding(data)
    if wide:
        return data.decode(wide, "replace")
    controls = len(_CONTROL.findall(data, 0, _SAMPLE_BYTES)) / max(1, min(len(data), _SAMPLE_BYTES))
    text = _try(data, "iso2022_jp" if _ISO_2022_ESCAPE in data else "utf-8")
    if text is not None:
        return text if controls <= _MOST_CONTROL_OF_UTF8 else None
    if controls > _MOST_CONTROL:
        return None
    text = _try(data, declared) if declared else None
    return _guess(data) if text is None else text


def _wide_encoding(data: bytes) -> str | None:
    """Return the UTF-16 that `data` is in, by the NULs of its high bytes."""
    sample = data[: _SAMPLE_BYTES & ~1]
    if len(sample) < 4 or len(data) % 2:
        return None
    count = len(sample) // 2
    even, odd = sample[::2].count(0) / count, sample[1::2].count(0) / count
    if odd > _LEAST_NUL_OF_HIGH_BYTE and even < _MOST_NUL_OF_TEXT_BYTE:
        return "utf-16-le"
    if even > _LEAST_NUL_OF_HIGH_BYTE and odd < _MOST_NUL_OF_TEXT_BYTE:
        return "utf-16-be"
    return None


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return str(data, encoding)
    except (LookupError, ValueError):  # an unknown one, or one that these bytes are not in
        return None


def _guess(data: bytes) -> str | None:
    matches = list(from_bytes(data[:_SAMPLE_BYTES], cp_isolation=_LEGACY))
    if not matches:
        return None
    best = min(matches, key=_rank)
    return data.decode(best.encoding, "replace")


def _rank(match: CharsetMatch) -> tuple[float, float, int, int]:
    """Rank the encodings that are as likely by what the text looks like, then by use."""
    order = _LEGACY.index(match.encoding)
    return match.chaos, -match.coherence, _oddity(str(match)), order


def _oddity(text: str) -> int:
    """Count capitals within words; a text of accented letters for the most part is odd too."""
    capitals = sum(a.islower() and b.isupper() for a, b in pairwise(text))
    accented = sum("\x80" < char < "\u0370" and char.isalpha() for char in text)
    return capitals + (2 * accented > sum(map(str.isalpha, text)))
