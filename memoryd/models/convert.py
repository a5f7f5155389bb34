"""A model's files → GGUF, the file format of llama.cpp.

The format: ggml's docs/gguf.md. What a BertModel needs in it: llama.cpp's conversion/bert.py; which
tensors keep F32: `tensor_allows_quantization` of its src/llama-quant.cpp.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors import SafetensorError, safe_open

from memoryd.errors import ModelFileError
from memoryd.models.gallery import GalleryEntry
from memoryd.models.weights import WeightType

# The writer logs each of its steps, which are of no use to who runs memoryd.
logging.getLogger("gguf").setLevel(logging.WARNING)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORD_START = "\u2581"
FILE_TYPES: dict[WeightType, gguf.LlamaFileType] = {
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "f32": gguf.LlamaFileType.ALL_F32,
}
MATRIX_TYPES: dict[WeightType, gguf.GGMLQuantizationType] = {
    "bf16": gguf.GGMLQuantizationType.BF16,
    "f32": gguf.GGMLQuantizationType.F32,
}
# Added to the activations rather than multiplied with them, and small.
ADDED_WEIGHTS = frozenset({"position_embd.weight", "token_types.weight"})


def convert_bert(
    entry: GalleryEntry, directory: Path, target: Path, weight_type: WeightType
) -> None:
    """Write the BertModel whose files lie in `directory` to `target`, matrices as `weight_type`.

    Needs config.json, tokenizer_config.json, vocab.txt and model.safetensors. Tensors are read and
    written one by one, so it takes memory for the largest alone. Raises ModelFileError.
    """
    config = _read_json(directory / "config.json")
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.BERT])
    _add_origin(writer, entry)
    _add_shape(writer, entry, config)
    writer.add_file_type(FILE_TYPES[weight_type])
    _add_vocabulary(writer, directory, config)
    try:
        _write_tensors(writer, directory / "model.safetensors", config, weight_type)
    except SafetensorError as error:
        raise ModelFileError(f"the weights of {entry.name} can't be read: {error}") from error
    finally:
        writer.close()


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _add_origin(writer: gguf.GGUFWriter, entry: GalleryEntry) -> None:
    weights = next(file for file in entry.files if file.path == "model.safetensors")
    writer.add_name(entry.name)
    writer.add_description(entry.description)
    writer.add_license(entry.license)
    writer.add_source_url(f"https://huggingface.co/{entry.repository}")
    writer.add_string("memoryd.source.sha256", weights.sha256)


def _add_shape(writer: gguf.GGUFWriter, entry: GalleryEntry, config: Mapping[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType[entry.pooling.upper()])


def _add_vocabulary(writer: gguf.GGUFWriter, directory: Path, config: Mapping[str, Any]) -> None:
    # One token per line, whatever characters it has: splitlines() would break at U+2028 and others.
    words = (directory / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    ids = {word: words.index(word) for word in SPECIAL_TOKENS}
    special, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_gguf_token(word) for word in words])
    writer.add_token_types([special if word in ids else normal for word in words])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_mask_token_id(ids["[MASK]"])
    tokenizer = _read_json(directory / "tokenizer_config.json")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", tokenizer["do_lower_case"])


def _gguf_token(word: str) -> str:
    """Mark where words start; BERT's vocabulary marks the pieces inside words, by `##`."""
    if word in SPECIAL_TOKENS:
        return word
    return word[2:] if word.startswith("##") else WORD_START + word


def _write_tensors(
    writer: gguf.GGUFWriter, path: Path, config: Mapping[str, Any], weight_type: WeightType
) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    with safe_open(path, framework="numpy") as tensors:
        written: list[tuple[str, gguf.GGMLQuantizationType]] = []
        for source in tensors.keys():  # noqa: SIM118 - not a mapping, though it has keys
            # None: position ids and the pooler, which embedding doesn't use.
            if name := names.get_name(source, try_suffixes=(".weight", ".bias")):
                shape = tensors.get_slice(source).get_shape()
                tensor_type = _tensor_type(name, len(shape), weight_type)
                _announce(writer, name, shape, tensor_type)
                written.append((source, tensor_type))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for source, tensor_type in written:
            weights = tensors.get_tensor(source).astype(np.float32, copy=False)
            writer.write_tensor_data(gguf.quants.quantize(weights, tensor_type))


def _tensor_type(name: str, rank: int, weight_type: WeightType) -> gguf.GGMLQuantizationType:
    is_matrix = rank == 2 and name.endswith(".weight") and name not in ADDED_WEIGHTS
    return MATRIX_TYPES[weight_type] if is_matrix else gguf.GGMLQuantizationType.F32


def _announce(
    writer: gguf.GGUFWriter, name: str, shape: list[int], tensor_type: gguf.GGMLQuantizationType
) -> None:
    block_size, type_size = gguf.GGML_QUANT_SIZES[tensor_type]
    size_bytes = int(np.prod(shape)) // block_size * type_size
    writer.add_tensor_info(name, shape, np.dtype(np.float32), size_bytes, tensor_type)
