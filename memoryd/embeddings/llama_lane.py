"""One context of llama.cpp each, that encodes batch after batch.

llama.cpp aborts the process where a batch breaks its rules, so every rule is checked here before
each call: tokens within the context's batch, ids within the vocabulary, positions within what the
model was trained for, no empty sequence, no more sequences than the context has.
"""

import ctypes
import mmap
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import llama_cpp.llama_cpp as llama
import numpy as np
import numpy.typing as npt

from memoryd.embeddings.library import noting_buffer_sizes
from memoryd.embeddings.types import Pooling, Tokens
from memoryd.errors import OutOfMemoryError
from memoryd.vectors.types import Vectors

_POOLING_TYPES: dict[Pooling, int] = {
    "none": llama.LLAMA_POOLING_TYPE_NONE,
    "mean": llama.LLAMA_POOLING_TYPE_MEAN,
    "cls": llama.LLAMA_POOLING_TYPE_CLS,
    "last": llama.LLAMA_POOLING_TYPE_LAST,
    "rank": llama.LLAMA_POOLING_TYPE_RANK,
}
# Pooled from one token alone, so that a decoder may read an input piece by piece.
_OF_ONE_TOKEN: frozenset[Pooling] = frozenset({"last", "rank"})
PIECE_TOKENS = 512
"""How many tokens of a long input a decoder reads at once."""
FLOAT_BYTES = 4
_MADV_DONTNEED = 4  # sys/mman.h of Linux

# The same function without letting go of Python's lock: it only reads a pointer, and getting the
# lock back while other threads want it takes milliseconds, once per input.
_get_embeddings_seq = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ctypes.cast(llama.llama_get_embeddings_seq, ctypes.c_void_p).value or 0
)


_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

# llama.cpp asks a function whether to go on, before each step of a computation. It is strlen of a
# buffer, 0 until a byte is set: a function of Python's would wait for the interpreter's lock.
_strlen = ctypes.cast(ctypes.CDLL(None).strlen, llama.ggml_abort_callback)


@dataclass(frozen=True)
class ModelShape:
    """Say what lanes must know of a model."""

    dimensions: int
    score_count: int
    vocabulary_size: int
    max_tokens: int
    is_decoder: bool
    """Whether contexts keep keys and values."""
    is_causal: bool
    """Whether no token sees those after it."""
    on_gpu: bool
    kept_bytes_per_token: int
    """What keys and values take for each token."""
    activations: int
    """About how many numbers llama.cpp holds per token while it computes."""


class LlamaLane:
    """Hold one llama context and the arrays of its batch; used by one thread at a time."""

    def __init__(
        self,
        model: object,
        shape: ModelShape,
        max_tokens: int,
        max_sequences: int,
        pooling: Pooling,
    ) -> None:
        """Create a context; raise OutOfMemoryError if llama.cpp can't."""
        # Mean pooling aborts unless the sequences divide the tokens.
        self.max_tokens = max_tokens - max_tokens % max_sequences
        self.max_sequences = max_sequences
        self._shape = shape
        self._pooling = pooling
        self._piece_tokens = longest_piece(shape, pooling, self.max_tokens, max_sequences)
        with noting_buffer_sizes() as sizes:
            self._context = llama.llama_init_from_model(model, self._context_params())
        if not self._context:
            raise OutOfMemoryError(
                f"llama.cpp can't make a context of {self.max_tokens} tokens: it lacks memory"
            )
        self._buffer_bytes = sum(sizes)
        self._outputs = 0
        self._note_outputs(max_sequences)
        self._abort = ctypes.create_string_buffer(2)
        llama.llama_set_abort_callback(self._context, _strlen, self._abort)
        self._threads = 1
        self._width = shape.score_count if pooling == "rank" else shape.dimensions
        self._row_type = ctypes.c_float * self._width
        self._position = np.empty(self.max_tokens, dtype=np.int32)
        self._ones = np.ones(self.max_tokens, dtype=np.int32)
        self._is_output = np.ones(self.max_tokens, dtype=np.int8)
        self._sequence = np.arange(max_sequences, dtype=np.int32)
        self._sequence_addresses = self._sequence.ctypes.data + 4 * np.arange(
            max_sequences, dtype=np.uint64
        )

    def _context_params(self) -> llama.llama_context_params:
        params: llama.llama_context_params = llama.llama_context_default_params()
        params.n_ctx = self.max_tokens
        params.n_batch = params.n_ubatch = self._piece_tokens
        params.n_seq_max = self.max_sequences
        params.n_threads = params.n_threads_batch = 1
        params.embeddings = True
        params.kv_unified = True
        params.pooling_type = _POOLING_TYPES[self._pooling]
        # It skips tiles of the attention mask that are wholly masked: three times as fast.
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.no_perf = True
        return params

    @property
    def memory_bytes(self) -> int:
        """What the context's buffers hold now."""
        return self._buffer_bytes + self._outputs * self._output_bytes

    @property
    def _output_bytes(self) -> int:
        """What each token takes of the buffer that llama.cpp keeps for results."""
        logits = 0 if self._has_idle_logits else self._shape.vocabulary_size
        return (logits + self._shape.dimensions) * FLOAT_BYTES

    @property
    def _has_idle_logits(self) -> bool:
        """Encoders write no logits, though llama.cpp keeps a buffer for them."""
        on_host = sys.platform == "linux" and not self._shape.on_gpu
        return on_host and not self._shape.is_decoder

    def _note_outputs(self, outputs: int) -> None:
        """Count the buffer for results, which only grows, and give back the part for logits.

        It has a float for each word of the vocabulary and each token: 60 MiB at 512 tokens for a
        vocabulary of BERT's, 488 MiB for one of XLM-R's. llama.cpp fills it with zeros once.
        """
        if outputs <= self._outputs:
            return
        self._outputs = outputs
        if self._has_idle_logits:
            start = ctypes.cast(llama.llama_get_logits(self._context), ctypes.c_void_p).value or 0
            _give_back(start, outputs * self._shape.vocabulary_size * FLOAT_BYTES)

    def encode(self, batch: Sequence[Tokens], threads: int) -> Sequence[Vectors]:
        """Return the embeddings of `batch`; one is NaN where the model fails on its input."""
        if threads != self._threads:
            llama.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads
        if self._is_sound(batch) and self._decode(batch):
            return self._read(batch)
        if len(batch) == 1:
            return [np.full(self._width, np.nan, dtype=np.float32)]
        # Which input it was is not told: each alone, so that only the bad one fails.
        return [self.encode([tokens], threads)[0] for tokens in batch]

    def cancel(self) -> None:
        """Let what `encode` is doing end soon; all that it does afterwards fails."""
        self._abort[0] = b"x"

    def _is_sound(self, batch: Sequence[Tokens]) -> bool:
        """Say whether llama.cpp takes `batch`; it ends the process over one that it doesn't."""
        lengths = [len(tokens) for tokens in batch]
        if not 0 < len(batch) <= self.max_sequences or min(lengths) == 0:
            return False
        ids = np.concatenate(batch)
        return bool(
            len(ids) <= self.max_tokens
            and max(lengths) <= self._shape.max_tokens
            and ids.min() >= 0
            and ids.max() < self._shape.vocabulary_size
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
        for start in range(0, total, self._piece_tokens):
            piece = slice(start, start + self._piece_tokens)
            # Always decode: llama_encode segfaults on decoders, and encoders give the same.
            code: int = llama.llama_decode(
                self._context,
                self._batch(
                    tokens[piece], positions[piece], sequences[piece], self._is_output[piece]
                ),
            )
            if code != 0:
                return False
        self._note_outputs(self._count_outputs(batch))
        return True

    def _count_outputs(self, batch: Sequence[Tokens]) -> int:
        """Return for how many tokens at most llama.cpp held results at once."""
        return min(sum(map(len, batch)), self._piece_tokens)

    def _batch(
        self,
        tokens: Tokens,
        positions: Tokens,
        sequences: npt.NDArray[np.uint64],
        is_output: npt.NDArray[np.int8],
    ) -> llama.llama_batch:
        integers = ctypes.POINTER(ctypes.c_int32)
        return llama.llama_batch(
            n_tokens=len(tokens),
            token=tokens.ctypes.data_as(integers),
            embd=None,
            pos=positions.ctypes.data_as(integers),
            n_seq_id=self._ones.ctypes.data_as(integers),
            seq_id=sequences.ctypes.data_as(ctypes.POINTER(integers)),
            logits=is_output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def _read(self, batch: Sequence[Tokens]) -> Sequence[Vectors]:
        if self._pooling == "none":
            return self._read_tokens(batch)
        vectors = np.full((len(batch), self._width), np.nan, dtype=np.float32)
        for row in range(len(batch)):
            if address := _get_embeddings_seq(self._context, row):
                vectors[row] = np.ctypeslib.as_array(self._row_type.from_address(address))
        return list(vectors)

    def _read_tokens(self, batch: Sequence[Tokens]) -> Sequence[Vectors]:
        rows = sum(map(len, batch))
        pointer = llama.llama_get_embeddings(self._context)
        vectors = np.ctypeslib.as_array(pointer, (rows, self._shape.dimensions)).copy()
        return np.split(vectors, np.cumsum([len(tokens) for tokens in batch])[:-1])

    def close(self) -> None:
        """Free the context."""
        llama.llama_free(self._context)


def longest_piece(shape: ModelShape, pooling: Pooling, max_tokens: int, max_sequences: int) -> int:
    """Return how many tokens go into one call: a decoder may read one long input in pieces."""
    in_pieces = shape.is_causal and pooling in _OF_ONE_TOKEN and max_sequences == 1
    return min(max_tokens, PIECE_TOKENS) if in_pieces else max_tokens


def estimate_lane_bytes(shape: ModelShape, pooling: Pooling, max_tokens: int) -> int:
    """Return about what a lane for one input of `max_tokens` takes at most."""
    piece = longest_piece(shape, pooling, max_tokens, 1)
    results = piece * (shape.vocabulary_size + shape.dimensions) * FLOAT_BYTES
    # A mask of float32 and one of float16, and a few activations per token.
    mask = piece * max_tokens * 6
    activations = piece * shape.activations * FLOAT_BYTES
    return results + mask + activations + max_tokens * shape.kept_bytes_per_token


def _give_back(start: int, size_bytes: int) -> None:
    """Return the whole pages of a buffer to the system; what reads them sees zeros."""
    page = mmap.PAGESIZE
    first, end = -(-start // page) * page, (start + size_bytes) // page * page
    if start and end > first:
        _madvise(first, end - first, _MADV_DONTNEED)
