"""llama_cpp.Llama.create_embedding, as its users have it: a child process."""

import sys

import llama_cpp
import numpy as np

from benchmarks.child import number_of_cores
from benchmarks.peer import Vectors, serve_peer


def _main(path: str) -> None:
    model = llama_cpp.Llama(
        path,
        embedding=True,
        n_ctx=512,
        n_batch=512,
        n_ubatch=512,
        n_threads=number_of_cores(),
        n_threads_batch=number_of_cores(),
        verbose=False,
    )

    def embed(texts: list[str]) -> Vectors:
        rows = model.create_embedding(texts)["data"]
        return np.array([row["embedding"] for row in rows], dtype=np.float32)

    serve_peer(embed)


if __name__ == "__main__":
    _main(sys.argv[1])
