"""What every store's child process has in common: rows in, seconds and what was found out."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.child import serve_calls

_VECTORS, _CLAIMS, _TEXTS = "vectors.npy", "claims.npy", "texts.json"


@dataclass(frozen=True)
class Rows:
    """Be texts with their vectors; each is known by its number."""

    texts: list[str]
    vectors: npt.NDArray[np.float32]
    """Shape (texts, dimensions)."""

    def first(self, count: int) -> "Rows":
        """Return some of them."""
        return Rows(self.texts[:count], self.vectors[:count])


class Store(Protocol):
    """Be a vector store as its users have it, with HNSW."""

    def add(self, name: str, rows: Rows) -> Callable[[], None]:
        """Make a collection; return what adds the rows to it, nothing being left to prepare."""
        ...

    def index(self, name: str) -> None:
        """Build the index that adding has left out."""
        ...

    def load(self, name: str, rows: Rows) -> None:
        """Make a collection with the rows and an index, in any way that is fast."""
        ...

    def drop(self, name: str) -> None:
        """Delete a collection."""
        ...

    def search(self, name: str, vector: list[float], limit: int) -> list[int]:
        """Return the numbers of the nearest rows; their texts were fetched too."""
        ...


def write_rows(
    folder: Path,
    texts: list[str],
    vectors: npt.NDArray[np.float32],
    claims: npt.NDArray[np.float32],
) -> None:
    """Write what serve_store reads."""
    np.save(folder / _VECTORS, vectors)
    np.save(folder / _CLAIMS, claims)
    (folder / _TEXTS).write_text(json.dumps(texts))


def serve_store(store: Store, folder: Path) -> None:
    """Answer calls with the rows that `write_rows` wrote into `folder`."""
    rows = Rows(json.loads((folder / _TEXTS).read_text()), np.load(folder / _VECTORS))
    claims = np.load(folder / _CLAIMS).tolist()

    def add(name: str, count: int) -> float:
        run = store.add(name, rows.first(count))
        return _timed(run)[0]

    def index(name: str) -> float:
        return _timed(partial(store.index, name))[0]

    def load(name: str) -> float:
        return _timed(partial(store.load, name, rows))[0]

    def search(name: str, numbers: list[int], limit: int) -> list[tuple[float, Any]]:
        return [_timed(partial(store.search, name, claims[number], limit)) for number in numbers]

    calls: dict[str, Callable[..., Any]] = {"add": add, "index": index, "load": load}
    serve_calls({**calls, "search": search, "drop": store.drop})


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done
