"""sentence-transformers on torch: a child process in the peers' environment.

`encode` sorts the texts by length itself.
"""

import sys

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.child import number_of_cores
from benchmarks.peer import Vectors, serve_batching_peer

_MAX_TOKENS = 512


def _main(folder: str, dtype: str) -> None:
    torch.set_num_threads(number_of_cores())
    model = SentenceTransformer(
        folder, device="cpu", local_files_only=True, model_kwargs={"dtype": getattr(torch, dtype)}
    )
    model.max_seq_length = _MAX_TOKENS

    def embed(texts: list[str], batch_size: int) -> Vectors:
        return model.encode(texts, batch_size=batch_size, show_progress_bar=False)

    serve_batching_peer(embed)


if __name__ == "__main__":
    _main(*sys.argv[1:])
