"""Documents with vectors into a collection, and the wait until it searches as it is going to."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterable

import orjson

from benchmarks.server import Running
from benchmarks.settings import bench_settings
from memoryd.vectors.types import Vector

_SENT_BYTES = 256 << 10
_POLL_S = 0.1
_MOST_S = 7_200.0


def record(number: int, text: str, vector: Vector, **fields: object) -> bytes:
    """Return a line of an import: document `number`, with one chunk of its own."""
    chunks = [{"text": text, "vector": as_base64(vector)}]
    return orjson.dumps({"id": str(number), "chunks": chunks, **fields}) + b"\n"


def as_base64(vector: Vector) -> str:
    """Return a vector as records have it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


async def import_records(server: Running, collection: str, records: Iterable[bytes]) -> float:
    """Import new documents; return how long it took, in seconds.

    Raises RuntimeError unless each was stored.
    """
    started = time.perf_counter()
    url = f"{server.url}/v1/collections/{collection}/import"
    async with server.session.post(url, data=_pieces(records)) as response:
        answer = orjson.loads(await response.read())
    if set(answer.get("counts", ())) != {"stored"}:
        raise RuntimeError(f"not stored: {str(answer)[:600]}")
    return time.perf_counter() - started


async def _pieces(records: Iterable[bytes]) -> AsyncIterator[bytes]:
    piece = bytearray()
    for line in records:
        piece += line
        if len(piece) >= _SENT_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


async def wait_for_hnsw(server: Running, collection: str) -> float:
    """Wait until vectors are searched by HNSW and all is indexed; return the seconds.

    Few vectors have HNSW because it is asked for here. Raises RuntimeError where that takes hours.
    """
    started = time.perf_counter()
    path = f"/v1/collections/{collection}"
    if (await server.request("GET", path))["chunks"] < bench_settings().hnsw_threshold:
        await server.request("PATCH", path, {"index": {"dense": {"type": "hnsw"}}})
    while (waited_s := time.perf_counter() - started) < _MOST_S:
        index = (await server.request("GET", path))["index"]
        are_ready = all(index[kind]["status"] == "ready" for kind in ("dense", "lexical"))
        if are_ready and index["dense"]["type"] == "hnsw":
            return waited_s
        await asyncio.sleep(_POLL_S)
    raise RuntimeError(f"after {waited_s:.0f} s the indexes are {index}")
