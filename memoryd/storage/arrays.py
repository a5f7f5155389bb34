"""Columns of numbers from Postgres, without Python's work for each row.

A statement gives a column as `array_send(array_agg(x))`, the binary form of an array; what is read
here is one dimension without NULLs (array_send in PostgreSQL's arrayfuncs.c): the number of
dimensions, a flag, the type, the count and the first index, then each element after its length.
"""

import numpy as np
import numpy.typing as npt

from memoryd.vectors.rankings import Numbers, Scores

_HEAD_BYTES = 20
_INTEGER = np.dtype([("size", ">i4"), ("value", ">i8")])
_DOUBLE = np.dtype([("size", ">i4"), ("value", ">f8")])


def read_integers(sent: bytes | None) -> Numbers:
    """Return an array of bigint (n,), empty for None, which is what no rows give."""
    return _read(sent, _INTEGER).astype(np.int64)


def read_doubles(sent: bytes | None) -> Scores:
    """Return an array of double precision (n,), empty for None."""
    return _read(sent, _DOUBLE).astype(np.float64)


def _read(sent: bytes | None, element: np.dtype[np.void]) -> npt.NDArray[np.generic]:
    values: npt.NDArray[np.generic] = np.frombuffer(
        sent or b"", element, offset=_HEAD_BYTES if sent else 0
    )["value"]
    return values
