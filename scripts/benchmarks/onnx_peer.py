"""ONNX Runtime with the authors' tokenizer: a child process in the peers' environment.

The texts are sorted by length, then padded within each batch.
"""

import sys
from collections.abc import Sequence

import numpy as np
import onnxruntime
from tokenizers import Encoding
from transformers import AutoTokenizer

from benchmarks.child import batches, number_of_cores
from benchmarks.peer import Vectors, serve_batching_peer

_MAX_TOKENS = 512


def _main(folder: str, file: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = number_of_cores()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def embed(texts: list[str], batch_size: int) -> Vectors:
        encoded = tokenizer.encode_batch(texts)
        order = sorted(range(len(texts)), key=lambda row: -len(encoded[row].ids))
        vectors: list[Vectors | None] = [None] * len(texts)
        for rows in batches(order, batch_size):
            part = _embed_batch(session, [encoded[row] for row in rows])
            for row, vector in zip(rows, part, strict=True):
                vectors[row] = vector
        return np.stack(vectors)

    serve_batching_peer(embed)


def _embed_batch(session: onnxruntime.InferenceSession, encoded: Sequence[Encoding]) -> Vectors:
    """Return the means over each text's tokens, shape (len(encoded), dimensions)."""
    ids = np.zeros((len(encoded), len(encoded[0].ids)), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, encoding in enumerate(encoded):
        ids[row, : len(encoding.ids)] = encoding.ids
        mask[row, : len(encoding.ids)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    states = session.run(None, inputs)[0]
    return np.einsum("btd,bt->bd", states, mask.astype(np.float32)) / mask.sum(1, keepdims=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
