"""Tensors in safetensors files, read a few rows at a time.

The format is that of safetensors' README. Its library checks the files; the numbers are read here,
since numpy has no bf16 and tensors may be larger than memory allows to hold twice.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from memoryd.errors import ModelFileError
from memoryd.models.conversion.json_files import FileContent, read_json

Numbers = npt.NDArray[np.float32]

_NUMBER_TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_BLOCK_NUMBERS = 1 << 22


@dataclass(frozen=True)
class StoredTensor:
    """Name a tensor, or some of its rows, within a file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int

    def rows(self, first: int, end: int) -> "StoredTensor":
        """Return the tensor of the rows from `first` to before `end`."""
        row_bytes = math.prod(self.shape[1:]) * _NUMBER_TYPES[self.dtype].itemsize
        offset_bytes = self.offset_bytes + first * row_bytes
        return replace(self, shape=(end - first, *self.shape[1:]), offset_bytes=offset_bytes)

    def blocks(self) -> Iterator[Numbers]:
        """Yield the numbers as float32, some whole rows at a time."""
        row_numbers = max(1, math.prod(self.shape[1:]))
        step = max(1, _BLOCK_NUMBERS // row_numbers)
        for first in range(0, self.shape[0], step):
            yield self.rows(first, min(first + step, self.shape[0]))._read()

    def _read(self) -> Numbers:
        count = math.prod(self.shape)
        stored = np.fromfile(
            self.path, _NUMBER_TYPES[self.dtype], count, offset=self.offset_bytes
        ).reshape(self.shape)
        numbers: Numbers = (
            (stored.astype(np.uint32) << 16).view(np.float32)
            if self.dtype == "BF16"
            else stored.astype(np.float32, copy=False)
        )
        return numbers


class _Index(FileContent):
    weight_map: dict[str, str]


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors of model.safetensors in `folder`, or of the parts that its index names.

    Raises ModelFileError.
    """
    if not (folder / "model.safetensors.index.json").is_file():
        return _read_header(folder / "model.safetensors")
    index = read_json(folder / "model.safetensors.index.json", _Index)
    tensors: dict[str, StoredTensor] = {}
    for name in dict.fromkeys(index.weight_map.values()):
        if Path(name).name != name:
            raise ModelFileError(f"{folder / 'model.safetensors.index.json'} names the file {name}")
        tensors |= _read_header(folder / name)
    return tensors


def _read_header(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise ModelFileError(f"{path} is missing: weights are read from safetensors alone")
    try:
        with safe_open(path, framework="numpy"), path.open("rb") as file:
            [size_bytes] = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size_bytes))
    except SafetensorError as error:
        raise ModelFileError(f"the weights in {path} can't be read: {error}") from error
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(
            path, _known(entry["dtype"], path), tuple(entry["shape"]), 8 + size_bytes + first
        )
        for name, entry in header.items()
        for first in entry["data_offsets"][:1]
        if entry["dtype"] != "I64"  # position ids, which are no weights
    }


def _known(dtype: str, path: Path) -> str:
    if dtype not in _NUMBER_TYPES:
        types = ", ".join(_NUMBER_TYPES)
        raise ModelFileError(f"{path} has weights of the type {dtype}; {types} can be converted")
    return dtype
