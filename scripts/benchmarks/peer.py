"""What every peer's child process has in common: texts in, seconds and vectors out."""

import base64
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.child import serve_calls

Vectors = npt.NDArray[np.float32]
Embed = Callable[[list[str], int], Vectors]
"""Texts and a batch size to vectors, shape (texts, dimensions)."""

# Larger ones were never faster: padded batches outgrow the caches.
_BATCH_SIZES = (2, 8, 32)


def serve_peer(embed: Callable[[list[str]], Vectors]) -> None:
    """Answer `prepare` and `embed` with a function that takes all texts at once."""

    def prepare(texts: list[str]) -> str:
        embed(texts)
        return ""

    serve_calls({"prepare": prepare, "embed": lambda texts: _timed(embed, texts)})


def serve_batching_peer(embed: Embed) -> None:
    """Answer likewise, with the batch size that is fastest for the texts that `prepare` brings."""
    chosen = _BATCH_SIZES[-1]

    def prepare(texts: list[str]) -> str:
        nonlocal chosen
        part = texts[::3]
        embed(part, chosen)
        chosen = min(_BATCH_SIZES, key=lambda size: _time_s(lambda: embed(part, size)))
        return f"batches of {chosen}"

    serve_calls(
        {
            "prepare": prepare,
            "embed": lambda texts: _timed(lambda batch: embed(batch, chosen), texts),
        }
    )


def read_vectors(answer: dict[str, Any]) -> Vectors:
    """Return the vectors of an answer to `embed`."""
    flat = np.frombuffer(base64.b64decode(answer["vectors"]), np.float32)
    return flat.reshape(answer["count"], -1)


def _timed(embed: Callable[[list[str]], Vectors], texts: list[str]) -> dict[str, Any]:
    started = time.perf_counter()
    vectors = embed(texts)
    seconds = time.perf_counter() - started
    data = np.ascontiguousarray(vectors, dtype=np.float32).tobytes()
    return {"seconds": seconds, "count": len(texts), "vectors": base64.b64encode(data).decode()}


def _time_s(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
