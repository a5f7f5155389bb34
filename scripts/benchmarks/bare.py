"""One text through llama.cpp with nothing around it: a child process, and what a query is held to.

Its threads wait as memoryd's do.
"""

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.child import serve_calls
from memoryd.embeddings.llama import LlamaBackend

_MAX_TOKENS, _MAX_SEQUENCES = 64, 8


def _main(path: str) -> None:
    backend = LlamaBackend(Path(path))
    lane = backend.open_lane(_MAX_TOKENS, _MAX_SEQUENCES, backend.pooling)

    def encode(text: str, threads: int, count: int) -> list[float]:
        tokens = np.concatenate((backend.before, backend.tokenize(text), backend.after))
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            lane.encode([tokens], threads)
            seconds.append(time.perf_counter() - started)
        return seconds

    serve_calls({"encode": encode})


if __name__ == "__main__":
    _main(sys.argv[1])
