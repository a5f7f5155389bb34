"""Decoders whose embedding is the last token's: read before the next word is guessed.

A context made for embeddings computes the odds of each word of the vocabulary after each token,
and drops them: a third of all work for a model of 0.6 billion weights, and hundreds of megabytes
for the results. Here the vector that this starts from is taken, and the computation ends there.
"""

import ctypes
from collections.abc import Sequence

import llama_cpp.llama_cpp as llama
import numpy as np

from memoryd.embeddings.llama_lane import FLOAT_BYTES, LlamaLane, ModelShape
from memoryd.embeddings.types import Tokens
from memoryd.vectors.types import Vectors

# The output of the last layer, normalized: what pooling works with in llama.cpp (qwen3.cpp).
_WANTED = b"result_norm"

# The same library: the package itself has no names for what is in ggml.
_ggml = ctypes.CDLL(llama._lib._name)
_get_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(("ggml_get_name", _ggml))
_get_size = ctypes.PYFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(("ggml_nbytes", _ggml))
_copy = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)(
    ("ggml_backend_tensor_get", _ggml)
)


class LastTokenLane(LlamaLane):
    """Hold a context that gives the last token's vector of each sequence."""

    def __init__(
        self, model: object, shape: ModelShape, max_tokens: int, max_sequences: int
    ) -> None:
        """Create a context; raise OutOfMemoryError if llama.cpp can't."""
        self._read_vectors: list[Vectors] = []
        self._callback = llama.ggml_backend_sched_eval_callback(self._evaluate)
        super().__init__(model, shape, max_tokens, max_sequences, "last")

    @property
    def memory_bytes(self) -> int:
        """What the context's buffers hold now.

        llama.cpp reserves room for the odds of all words, and nothing is ever written there.
        """
        unused = self.max_tokens * self._shape.vocabulary_size * FLOAT_BYTES
        return max(0, super().memory_bytes - unused)

    def _context_params(self) -> llama.llama_context_params:
        params = super()._context_params()
        params.embeddings = False
        params.cb_eval = self._callback
        return params

    def _evaluate(self, tensor: int, is_asked: bool, _data: object) -> bool:
        """Say which tensor is wanted; once it is computed, take it and end the computation."""
        if is_asked:
            return bool(_get_name(tensor) == _WANTED)
        size = _get_size(tensor)
        rows = np.empty((size // (4 * self._shape.dimensions), self._shape.dimensions), np.float32)
        _copy(tensor, rows.ctypes.data, 0, size)
        self._read_vectors += list(rows)
        return False

    def _count_outputs(self, batch: Sequence[Tokens]) -> int:
        return len(batch)

    def _decode(self, batch: Sequence[Tokens]) -> bool:
        self._read_vectors.clear()
        self._is_output[:] = 0
        self._is_output[np.cumsum([len(tokens) for tokens in batch]) - 1] = 1
        return super()._decode(batch) and len(self._read_vectors) == len(batch)

    def _read(self, _batch: Sequence[Tokens]) -> Sequence[Vectors]:
        return list(self._read_vectors)
