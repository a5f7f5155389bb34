"""Models of llama.cpp, through llama-cpp-python's low-level calls."""

import ctypes
import os
from pathlib import Path

import llama_cpp.llama_cpp as llama

from memoryd.embeddings.last_token import LastTokenLane
from memoryd.embeddings.library import can_use_gpu
from memoryd.embeddings.llama_lane import LlamaLane, ModelShape, estimate_lane_bytes
from memoryd.embeddings.types import Pooling, Side, Tokens
from memoryd.embeddings.vocabulary import Vocabulary, join_pair, read_pair_template
from memoryd.errors import ModelFileError

# By llama.cpp's numbers (llama_pooling_type in llama.h).
_POOLINGS: dict[str, Pooling] = {"0": "none", "1": "mean", "2": "cls", "3": "last", "4": "rank"}
# Whose graph is known to have what LastTokenLane reads.
_STOPPED_EARLY = frozenset({"qwen3"})
# Whose scores llama.cpp puts through a softmax (build_pooling in llama-graph.cpp).
_PROBABLE = frozenset({"qwen3", "qwen3vl"})
_HALF_BYTES = 2  # keys and values are kept as float16


class LlamaBackend:
    """Hold one model in GGUF."""

    def __init__(self, path: Path, *, pooling: Pooling | None = None, gpu_layers: int = 0) -> None:
        """Load the model at `path`, with `gpu_layers` of it on the GPU (-1: all).

        `pooling` stands in for what the file says. Raises ModelFileError where llama.cpp can't
        load it, or nothing says how vectors are pooled.
        """
        params = llama.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        self.model = llama.llama_model_load_from_file(os.fsencode(path), params)
        if not self.model:
            raise ModelFileError(f"{path} is not a model that llama.cpp can load: delete it")
        try:
            self._read_file(path, pooling)
            self._shape = self._read_shape(on_gpu=gpu_layers != 0 and can_use_gpu())
        except ModelFileError:
            self.close()
            raise
        self.is_decoder, self.on_gpu = self._shape.is_decoder, self._shape.on_gpu
        self.gives_probabilities = self.pooling == "rank" and self.architecture in _PROBABLE

    def _read_file(self, path: Path, pooling: Pooling | None) -> None:
        self.architecture = self._value("general.architecture") or "unknown"
        self.dimensions: int = llama.llama_model_n_embd_out(self.model)
        self.max_tokens: int = llama.llama_model_n_ctx_train(self.model)
        self.weights_bytes: int = llama.llama_model_size(self.model)
        # llama.cpp leaves out this step of Qwen's tokenizer.
        is_composed = self._value("tokenizer.ggml.pre") == "qwen2"
        # llama.cpp's own default (llama-vocab.cpp) for what files leave out.
        adds_space = self._value("tokenizer.ggml.model") in ("t5", "llama")
        if said := self._value("tokenizer.ggml.add_space_prefix"):
            adds_space = said == "true"
        self._vocabulary = Vocabulary(self.model, is_composed=is_composed, adds_space=adds_space)
        self.vocabulary_size = self._vocabulary.size
        self.pooling = pooling or self._own_pooling(path)
        if self.pooling == "rank" and not self._has_head():
            raise ModelFileError(f"{path} has no head that gives scores: it is no reranker")
        self.before, self.after = self._vocabulary.before, self._vocabulary.after
        if self.architecture == "qwen3" and self.pooling == "last" and not len(self.after):
            # Files made before llama.cpp's converter knew of it don't say that it is added.
            self.after = self._vocabulary.end_token()
        self._pair_template = read_pair_template(self._vocabulary, self._rerank_template())

    def _read_shape(self, *, on_gpu: bool) -> ModelShape:
        is_decoder = self._has_memory()
        width: int = llama.llama_model_n_embd(self.model)
        return ModelShape(
            dimensions=self.dimensions,
            score_count=llama.llama_model_n_cls_out(self.model),
            vocabulary_size=self.vocabulary_size,
            max_tokens=self.max_tokens,
            is_decoder=is_decoder,
            is_causal=is_decoder and self._number("attention.causal", 1) == 1,
            on_gpu=on_gpu,
            kept_bytes_per_token=self._kept_bytes_per_token(width) if is_decoder else 0,
            activations=2 * self._number("feed_forward_length", 4 * width) + 8 * width,
        )

    def _value(self, key: str) -> str | None:
        """Return what the file says under `key`."""
        buffer = ctypes.create_string_buffer(256)
        length = llama.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def _number(self, key: str, default: int) -> int:
        """Return what the file says under `key` of its architecture."""
        said = self._value(f"{self.architecture}.{key}")
        if said in ("true", "false"):
            return int(said == "true")
        return int(said) if said and said.isdigit() else default

    def _has_memory(self) -> bool:
        """Say whether contexts keep keys and values: those of encoders don't."""
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 16
        params.embeddings = True
        context = llama.llama_init_from_model(self.model, params)
        if not context:
            raise ModelFileError("llama.cpp can't make a context for the model")
        memory = llama.llama_get_memory(context)
        llama.llama_free(context)
        return bool(memory)

    def _own_pooling(self, path: Path) -> Pooling:
        said = self._value(f"{self.architecture}.pooling_type") or ""
        if said in _POOLINGS:
            return _POOLINGS[said]
        if not self._has_memory():
            return "mean"
        raise ModelFileError(
            f"{path} is a model that generates text: nothing in it says how its vectors are pooled"
        )

    def _has_head(self) -> bool:
        return self._value(f"{self.architecture}.pooling_type") == "4" or bool(
            self._rerank_template()
        )

    def _rerank_template(self) -> str | None:
        template: bytes | None = llama.llama_model_chat_template(self.model, b"rerank")
        return template.decode("utf-8", "replace") if template else None

    def _kept_bytes_per_token(self, width: int) -> int:
        of_a_head = width // max(1, llama.llama_model_n_head(self.model))
        numbers = self._number("attention.key_length", of_a_head) + self._number(
            "attention.value_length", of_a_head
        )
        layers: int = llama.llama_model_n_layer(self.model)
        heads: int = llama.llama_model_n_head_kv(self.model)
        return layers * heads * numbers * _HALF_BYTES

    def tokenize(
        self, text: str, max_tokens: int | None = None, *, parse_special: bool = False
    ) -> Tokens:
        """Return the ids of `text` without special tokens around it.

        In no text is a special token meant, unless `parse_special` says so. Of a long text that has
        more than `max_tokens`, the rest may be left out.
        """
        return self._vocabulary.tokenize(text, max_tokens, parse_special=parse_special)

    def piece(self, token: int) -> bytes:
        """Return what `token` stands for in a text: UTF-8, or a part of a character's."""
        return self._vocabulary.piece(token)

    def detokenize(self, tokens: Tokens, *, skip_special: bool = False) -> str:
        """Return the text that `tokens` stand for."""
        return self._vocabulary.text_of(tokens, skip_special=skip_special)

    def join(
        self, query: str, document: str, max_tokens: int, side: Side = "right"
    ) -> tuple[Tokens, int]:
        """Return a reranker's input for a pair, and how many tokens were cut for it to fit."""
        return join_pair(self._vocabulary, self._pair_template, query, document, max_tokens, side)

    def open_lane(self, max_tokens: int, max_sequences: int, pooling: Pooling) -> LlamaLane:
        """Return a lane with a llama context of its own, sharing the weights."""
        if pooling == "last" and self.architecture in _STOPPED_EARLY and not self.on_gpu:
            return LastTokenLane(self.model, self._shape, max_tokens, max_sequences)
        return LlamaLane(self.model, self._shape, max_tokens, max_sequences, pooling)

    def estimate_lane_bytes(self, max_tokens: int, pooling: Pooling) -> int:
        """Return about what a lane for one input of `max_tokens` takes at most."""
        return estimate_lane_bytes(self._shape, pooling, max_tokens)

    def close(self) -> None:
        """Free the model."""
        llama.llama_model_free(self.model)
