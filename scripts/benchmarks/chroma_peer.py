"""Chroma in this process or as a server of its own: a child process in the stores' environment."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import chromadb
from chromadb.api import ClientAPI

from benchmarks.child import batches
from benchmarks.store_peer import Rows, serve_store

_SETTINGS = chromadb.Settings(anonymized_telemetry=False)
_HOST = "127.0.0.1"
_START_S, _POLL_S = 30.0, 0.1


class _Chroma:
    """Keep collections at hand, as an application does."""

    def __init__(self, client: ClientAPI) -> None:
        self._client = client
        self._collections: dict[str, chromadb.Collection] = {}

    def add(self, name: str, rows: Rows) -> Callable[[], None]:
        # Whatever else it has by default: m 16, ef_construction 100, ef_search 100.
        collection = self._client.create_collection(
            name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        self._collections[name] = collection
        parts = list(batches(range(len(rows.texts)), self._client.get_max_batch_size()))

        def run() -> None:
            for part in parts:
                texts = rows.texts[part[0] : part[-1] + 1]
                vectors = rows.vectors[part[0] : part[-1] + 1]
                collection.add([str(number) for number in part], vectors, documents=texts)

        return run

    def index(self, name: str) -> None:
        pass  # adding has left nothing out

    def load(self, name: str, rows: Rows) -> None:
        self.add(name, rows)()

    def drop(self, name: str) -> None:
        self._client.delete_collection(name)
        del self._collections[name]

    def search(self, name: str, vector: list[float], limit: int) -> list[int]:
        found = self._collections[name].query(query_embeddings=[vector], n_results=limit)
        return [int(number) for number in found["ids"][0]]


@contextmanager
def _library(folder: str) -> Iterator[ClientAPI]:
    yield chromadb.PersistentClient(folder, _SETTINGS)


@contextmanager
def _server(folder: str) -> Iterator[ClientAPI]:
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("chroma"))
    command = [program, "run", "--path", folder, "--host", _HOST, "--port", str(port)]
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        try:
            yield _connect(port)
        finally:
            process.terminate()


def _connect(port: int) -> ClientAPI:
    """Return a client once the server answers; raise TimeoutError where it doesn't."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with suppress(ValueError):  # what the client makes of a refused connection
            return chromadb.HttpClient(_HOST, port, settings=_SETTINGS)
        time.sleep(_POLL_S)
    raise TimeoutError(f"Chroma's server didn't start within {_START_S:.0f} s")


_WAYS = {"library": _library, "server": _server}


def _main(rows: str, folder: str, way: str) -> None:
    with _WAYS[way](folder) as client:
        serve_store(_Chroma(client), Path(rows))


if __name__ == "__main__":
    _main(*sys.argv[1:])
