"""What a GGUF says of itself before its weights: its keys and values, and which tensors it has.

The format: ggml's docs/gguf.md. It is read here because gguf's own reader makes an object of each
element of a list, which takes it most of a second for a vocabulary of 30,000 words, and believes
what a broken file says of the length of its lists.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import IO, Any

from gguf import GGMLQuantizationType

from memoryd.errors import ModelFileError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Beyond these a file is broken: vocabularies have fewer than a million words, models fewer tensors.
_MOST_ITEMS = 4 << 20
_MOST_ENTRIES = 1 << 16
_MOST_STRING_BYTES = 16 << 20
_MOST_AXES = 8
_SHORT_LIST = 5
_STRING, _ARRAY = 8, 9
# struct's letters for the types of values, by their numbers.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"} | {
    12: "d"
}


@dataclass(frozen=True)
class GgufHeader:
    """Hold the keys and values of a GGUF, how many weights it has, and of which type most are."""

    values: dict[str, Any]
    parameter_count: int
    weight_type: str
    """As ggml calls it, such as BF16 or Q8_0."""

    @property
    def architecture(self) -> str:
        """Return what the keys of the model's own figures begin with."""
        return str(self.values.get("general.architecture", "unknown"))

    def own(self, key: str) -> Any:
        """Return the value of a key of the architecture, None where the file hasn't it."""
        return self.values.get(f"{self.architecture}.{key}")


def read_header(path: Path, longest_list: int = _SHORT_LIST) -> GgufHeader:
    """Return what the file at `path` says; of lists longer than `longest_list`, no elements.

    It is read once for each version of the file. Raises ModelFileError for a file that can't be
    read, or is no GGUF.
    """
    try:
        status = path.stat()
        return _read_version(path, status.st_mtime_ns, status.st_size, longest_list)
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror}") from error


def read_whole_header(path: Path) -> GgufHeader:
    """Return what the file at `path` says, with all elements of all lists.

    Raises what `read_header` raises.
    """
    try:
        return _read(path, path.stat().st_size, _MOST_ITEMS)
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror}") from error


@lru_cache(maxsize=256)
def _read_version(path: Path, _mtime_ns: int, size: int, longest_list: int) -> GgufHeader:
    return _read(path, size, longest_list)


def _read(path: Path, size: int, longest_list: int) -> GgufHeader:
    with path.open("rb") as file:
        reader = _Reader(file, size, longest_list)
        try:
            return reader.header()
        except (ValueError, EOFError) as error:
            raise ModelFileError(f"{path} is no GGUF that can be read: {error}") from error


class _Reader:
    """Read one file from its beginning; raise EOFError at its end, ValueError for nonsense."""

    def __init__(self, file: IO[bytes], size: int, longest_list: int) -> None:
        self._file = file
        self._size = size
        self._longest_list = longest_list

    def header(self) -> GgufHeader:
        if self._bytes(4) != _MAGIC or self._number("I") not in _VERSIONS:
            raise ValueError("it begins in another way")
        tensors, entries = self._count(_MOST_ENTRIES), self._count(_MOST_ENTRIES)
        values = {self._string(): self._value(self._number("I")) for _ in range(entries)}
        counts: Counter[str] = Counter()
        for weight_type, count in self._tensors(tensors):
            counts[weight_type] += count
        most = max(counts, key=lambda each: counts[each], default="")
        return GgufHeader(values, counts.total(), most)

    def _tensors(self, count: int) -> Iterator[tuple[str, int]]:
        """Yield the type of each tensor and how many numbers it has."""
        for _ in range(count):
            self._string()
            axes = [self._number("Q") for _ in range(self._number("I", _MOST_AXES))]
            kind = self._number("I")
            self._number("Q")  # where its numbers are
            yield GGMLQuantizationType(kind).name, prod(axes)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._list(self._number("I"), self._count(_MOST_ITEMS))
        return self._scalars(kind, 1)[0]

    def _list(self, kind: int, count: int) -> list[Any]:
        if count > self._longest_list:
            self._skip_list(kind, count)
            return []
        if kind == _STRING:
            return [self._string() for _ in range(count)]
        return list(self._scalars(kind, count))

    def _skip_list(self, kind: int, count: int) -> None:
        if kind != _STRING:
            self._skip(struct.calcsize(self._letter(kind)) * count)
            return
        for _ in range(count):
            self._skip(self._count(_MOST_STRING_BYTES))

    def _scalars(self, kind: int, count: int) -> tuple[Any, ...]:
        form = f"<{count}{self._letter(kind)}"
        return struct.unpack(form, self._bytes(struct.calcsize(form)))

    def _letter(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ValueError(f"it has a value of the unknown type {kind}")
        return _SCALARS[kind]

    def _string(self) -> str:
        return self._bytes(self._count(_MOST_STRING_BYTES)).decode("utf-8", "replace")

    def _count(self, most: int) -> int:
        return self._number("Q", most)

    def _number(self, letter: str, most: int | None = None) -> int:
        number: int = struct.unpack(f"<{letter}", self._bytes(struct.calcsize(letter)))[0]
        if most is not None and number > most:
            raise ValueError(f"it has {number} of what can be {most} at most")
        return number

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError("it ends too early")
        return data

    def _skip(self, count: int) -> None:
        if self._file.seek(count, os.SEEK_CUR) > self._size:
            raise EOFError("it ends too early")
