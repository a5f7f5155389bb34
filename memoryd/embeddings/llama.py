"""llama.cpp through llama-cpp-python's low-level calls: the only import of llama_cpp.

llama.cpp aborts the process where a batch breaks its rules, so every rule is checked here before
each call: tokens within the context's batch, ids within the vocabulary, positions within what the
model was trained for, no empty sequence, no more sequences than the context has.
"""

import ctypes
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import llama_cpp.llama_cpp as llama
import numpy as np

from memoryd.embeddings.types import Tokens
from memoryd.errors import ModelFileError
from memoryd.vectors.types import Vectors

logger = logging.getLogger(__name__)

# ggml's levels: 2 is info, 3 is warning, 4 is error. It calls from its own threads.
_LOG_LEVELS = {3: logging.DEBUG, 4: logging.WARNING}


@llama.llama_log_callback  # type: ignore[untyped-decorator] # ctypes function types are untyped
def _log(level: int, text: bytes, _user_data: object) -> None:
    if level in _LOG_LEVELS:
        logger.log(_LOG_LEVELS[level], "%s", text.decode("utf-8", "replace").rstrip())


# The same function without letting go of Python's lock: it only reads a pointer, and getting the
# lock back while other threads want it takes milliseconds, once per input.
_get_embeddings_seq = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ctypes.cast(llama.llama_get_embeddings_seq, ctypes.c_void_p).value or 0
)

llama.llama_log_set(_log, ctypes.c_void_p(0))
llama.llama_backend_init()


def fastest_weight_type() -> Literal["bf16", "f32"]:
    """Return the type of weights that this build of llama.cpp multiplies fastest.

    Its BF16 kernels for CPUs need AVX512_BF16 (ggml-cpu/llamafile/sgemm.cpp); elsewhere BF16 is
    slower than F32. The build decides, and not the CPU: one for many CPUs leaves them out.
    """
    return "bf16" if b"AVX512_BF16 = 1" in llama.llama_print_system_info() else "f32"


class LlamaBackend:
    """Hold one embedding model in GGUF."""

    def __init__(self, path: Path) -> None:
        """Load the model at `path`; raise ModelFileError if llama.cpp can't."""
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = llama.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ModelFileError(f"{path} is not a model that llama.cpp can load: delete it")
        self._vocab = llama.llama_model_get_vocab(self._model)
        self.vocabulary_size: int = llama.llama_vocab_n_tokens(self._vocab)
        self.dimensions: int = llama.llama_model_n_embd(self._model)
        self.max_tokens: int = llama.llama_model_n_ctx_train(self._model)
        specials = self._tokenize("", add_special=True)
        # A beginning token, if the model adds one, comes first; all others end the input.
        beginning = int(llama.llama_vocab_get_add_bos(self._vocab) and len(specials) > 0)
        self._before, self._after = specials[:beginning], specials[beginning:]
        self.special_tokens = len(specials)

    def tokenize(self, text: str) -> Tokens:
        """Return the ids of `text` without special tokens.

        Text is text: "[SEP]" in it is five characters, never the special token, so that nobody
        changes an embedding's structure from inside a document.
        """
        return self._tokenize(text, add_special=False)

    def _tokenize(self, text: str, *, add_special: bool) -> Tokens:
        data = text.encode("utf-8", "replace")
        # One token per byte at most, plus special ones; the untouched end of the buffer is free.
        tokens = np.empty(len(data) + 8, dtype=np.int32)
        buffer = tokens.ctypes.data_as(ctypes.POINTER(llama.llama_token))
        count = llama.llama_tokenize(
            self._vocab, data, len(data), buffer, len(tokens), add_special, False
        )
        if count < 0:
            tokens = np.empty(-count, dtype=np.int32)
            buffer = tokens.ctypes.data_as(ctypes.POINTER(llama.llama_token))
            count = llama.llama_tokenize(
                self._vocab, data, len(data), buffer, len(tokens), add_special, False
            )
        return tokens[:count].copy()

    def wrap(self, tokens: Tokens) -> Tokens:
        """Return `tokens` between the model's special tokens."""
        return np.concatenate((self._before, tokens, self._after))

    def open_lane(self, max_tokens: int, max_sequences: int) -> "LlamaLane":
        """Return a lane with a llama context of its own, sharing the weights."""
        return LlamaLane(self, self._model, max_tokens, max_sequences)

    def close(self) -> None:
        """Free the model."""
        llama.llama_model_free(self._model)


class LlamaLane:
    """Hold one llama context and the arrays of its batch; used by one thread at a time."""

    def __init__(
        self, backend: LlamaBackend, model: object, max_tokens: int, max_sequences: int
    ) -> None:
        """Create a context; raise ModelFileError if llama.cpp can't."""
        # Mean pooling aborts unless the sequences divide the tokens.
        self.max_tokens = max_tokens - max_tokens % max_sequences
        self.max_sequences = max_sequences
        self._backend = backend
        self._context = llama.llama_init_from_model(model, self._context_params())
        if not self._context:
            raise ModelFileError(f"llama.cpp can't make a context of {self.max_tokens} tokens")
        self._threads = 1
        self._row_type = ctypes.c_float * backend.dimensions
        self._position = np.empty(self.max_tokens, dtype=np.int32)
        self._ones = np.ones(self.max_tokens, dtype=np.int32)
        self._logits = np.ones(self.max_tokens, dtype=np.int8)
        self._sequence = np.arange(self.max_sequences, dtype=np.int32)
        self._sequence_addresses = self._sequence.ctypes.data + 4 * np.arange(
            self.max_sequences, dtype=np.uint64
        )

    def _context_params(self) -> llama.llama_context_params:
        params: llama.llama_context_params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.max_tokens
        params.n_seq_max = self.max_sequences
        params.n_threads = params.n_threads_batch = 1
        params.embeddings = True
        params.kv_unified = True
        # It skips tiles of the attention mask that are wholly masked: three times as fast.
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.no_perf = True
        return params

    def encode(self, batch: Sequence[Tokens], threads: int) -> Vectors:
        """Return the pooled embeddings of `batch`; a row is NaN where the model fails."""
        if threads != self._threads:
            llama.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads
        vectors = np.full((len(batch), self._backend.dimensions), np.nan, dtype=np.float32)
        if self._is_sound(batch) and self._decode(batch):
            self._read(vectors)
        elif len(batch) > 1:
            # Which input it was is not told: each alone, so that only the bad one fails.
            for row, tokens in enumerate(batch):
                vectors[row] = self.encode([tokens], threads)
        return vectors

    def _is_sound(self, batch: Sequence[Tokens]) -> bool:
        """Say whether llama.cpp takes `batch`; it ends the process over one that it doesn't."""
        lengths = [len(tokens) for tokens in batch]
        ids = np.concatenate(batch)
        return bool(
            0 < len(batch) <= self.max_sequences
            and min(lengths) > 0
            and sum(lengths) <= self.max_tokens
            and max(lengths) <= self._backend.max_tokens
            and ids.min() >= 0
            and ids.max() < self._backend.vocabulary_size
        )

    def _decode(self, batch: Sequence[Tokens]) -> bool:
        lengths = np.fromiter(map(len, batch), dtype=np.int64, count=len(batch))
        total = int(lengths.sum())
        starts = np.cumsum(lengths) - lengths
        tokens = np.ascontiguousarray(np.concatenate(batch), dtype=np.int32)
        positions = self._position[:total]
        np.subtract(np.arange(total), np.repeat(starts, lengths), out=positions, casting="unsafe")
        sequences = np.repeat(self._sequence_addresses[: len(batch)], lengths)
        memory = llama.llama_get_memory(self._context)
        if memory:  # decoders keep keys and values of the batch before
            llama.llama_memory_clear(memory, False)
        # Always decode: llama_encode segfaults on decoders, and encoders give the same either way.
        code: int = llama.llama_decode(self._context, self._batch(tokens, positions, sequences))
        return code == 0

    def _batch(
        self,
        tokens: Tokens,
        positions: Tokens,
        sequences: "np.ndarray[tuple[int], np.dtype[np.uint64]]",
    ) -> llama.llama_batch:
        integers = ctypes.POINTER(ctypes.c_int32)
        return llama.llama_batch(
            n_tokens=len(tokens),
            token=tokens.ctypes.data_as(integers),
            embd=None,
            pos=positions.ctypes.data_as(integers),
            n_seq_id=self._ones.ctypes.data_as(integers),
            seq_id=sequences.ctypes.data_as(ctypes.POINTER(integers)),
            logits=self._logits.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def _read(self, vectors: Vectors) -> None:
        for row in range(len(vectors)):
            if address := _get_embeddings_seq(self._context, row):
                vectors[row] = self._row_type.from_address(address)

    def close(self) -> None:
        """Free the context."""
        llama.llama_free(self._context)
