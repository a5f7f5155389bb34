"""A model's folder → a GGUF file."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

from memoryd.errors import ModelFileError
from memoryd.models.conversion.architectures import read_architecture
from memoryd.models.conversion.modules import DenseModule, Modules, read_dense, read_modules
from memoryd.models.conversion.plan import (
    Architecture,
    Fields,
    FieldValue,
    PlannedTensor,
    Shape,
    Source,
    Tensors,
)
from memoryd.models.conversion.stored_tensors import read_tensors
from memoryd.models.conversion.tokenizers import read_table, read_vocabulary, tokenizer_path
from memoryd.models.conversion.vocabulary import Vocabulary
from memoryd.models.gallery import GalleryEntry
from memoryd.models.weights import WeightType

# The writer logs each of its steps, which are of no use to who runs memoryd.
logging.getLogger("gguf").setLevel(logging.WARNING)

_FILE_TYPES: dict[WeightType, gguf.LlamaFileType] = {
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "f32": gguf.LlamaFileType.ALL_F32,
}
_MATRIX_TYPES: dict[WeightType, gguf.GGMLQuantizationType] = {
    "bf16": gguf.GGMLQuantizationType.BF16,
    "f32": gguf.GGMLQuantizationType.F32,
}
_NUMBER_BYTES = {gguf.GGMLQuantizationType.BF16: 2, gguf.GGMLQuantizationType.F32: 4}
# Small, and added to the activations or used once per text.
_ALWAYS_F32 = frozenset(
    f"{name}.weight"
    for name in ("position_embd", "token_types", "cls", "cls.output", "dense_2", "dense_3")
)


def convert(entry: GalleryEntry, folder: Path, target: Path, weight_type: WeightType) -> None:
    """Write the model whose files lie in `folder` to `target`, matrices as `weight_type`.

    `entry` gives what the file says of its origin, whether it is a reranker, and the pooling; where
    that is None, the folder's own files do. Everything is checked before `target` is written, and
    then tensors are read and written some rows at a time. Raises ModelFileError naming the file and
    what is wrong or missing, and OSError where `target` can't be written.
    """
    modules = read_modules(folder)
    architecture = read_architecture(modules.root)
    shape = architecture.read_shape(modules.root / "config.json")
    is_reranker = architecture.has_score_head or entry.kind == "reranker"
    if is_reranker and architecture.rank_fields is None:
        raise ModelFileError(f"{folder} has no head that scores pairs: it isn't a reranker")
    tokenizer = tokenizer_path(modules.root)
    vocabulary = read_vocabulary(tokenizer)
    _check_texts(modules, vocabulary)
    if is_reranker:
        _check_pairs(tokenizer, vocabulary, shape)
    dense = read_dense(modules.dense)
    source = Source(shape, read_tensors(modules.root), vocabulary.ids, dense, is_reranker)
    tensors = architecture.plan_tensors(source)
    fields = {
        **_origin_fields(entry),
        **shape.fields,
        gguf.Keys.LLM.POOLING_TYPE: _pooling(entry, modules, folder, is_reranker=is_reranker),
        **_dense_fields(architecture, dense),
        **(architecture.rank_fields or {} if is_reranker else {}),
        **vocabulary.fields,
        **read_table(tokenizer, vocabulary, tensors["token_embd.weight"].shape[0]),
        gguf.Keys.General.FILE_TYPE: int(_FILE_TYPES[weight_type]),
    }
    _write(target, architecture, fields, tensors, weight_type)


def _check_texts(modules: Modules, vocabulary: Vocabulary) -> None:
    if modules.lowercases and not vocabulary.lowercases:
        file = modules.root / "sentence_bert_config.json"
        raise ModelFileError(f"{file}: do_lower_case isn't supported for such a tokenizer")


def _check_pairs(tokenizer: Path, vocabulary: Vocabulary, shape: Shape) -> None:
    """Raise ModelFileError unless llama.cpp's callers can put a query and a document together.

    They put the tokens after a text between two texts, once or twice; token types are always 0.
    """
    enclosing = vocabulary.enclosing
    if enclosing.between not in (enclosing.after, enclosing.after * 2):
        raise ModelFileError(f"{tokenizer}: what it puts between two texts can't be had")
    types = shape.fields.get(gguf.Keys.Tokenizer.TOKEN_TYPE_COUNT, 1)
    if enclosing.second_type != 0 and types != 1:
        raise ModelFileError(
            f"{tokenizer}: the model tells a document from its query by their token types, which "
            "llama.cpp doesn't: its scores would be wrong"
        )


def _pooling(entry: GalleryEntry, modules: Modules, folder: Path, *, is_reranker: bool) -> int:
    pooling = "rank" if is_reranker else entry.pooling or modules.pooling
    if pooling is None:
        raise ModelFileError(
            f"{folder} doesn't say how its vectors are pooled: modules.json, and the "
            "1_Pooling/config.json that it names, are missing"
        )
    return int(gguf.PoolingType[pooling.upper()])


def _origin_fields(entry: GalleryEntry) -> Fields:
    weights = [file for file in entry.files if file.path.endswith(".safetensors")]
    repository = entry.repository
    said: dict[str, str] = {
        gguf.Keys.General.NAME: entry.name,
        gguf.Keys.General.DESCRIPTION: entry.description,
        gguf.Keys.General.LICENSE: entry.license,
        gguf.Keys.General.SOURCE_URL: f"https://huggingface.co/{repository}" if repository else "",
        "memoryd.source.sha256": " ".join(file.sha256 for file in weights if file.sha256),
    }
    return {key: text for key, text in said.items() if text}


def _dense_fields(architecture: Architecture, dense: Sequence[DenseModule]) -> Fields:
    if dense and not architecture.takes_dense:
        raise ModelFileError(f"{dense[0].path}: Dense modules aren't supported for such models")
    keys = gguf.Keys.LLM.DENSE_FEAT_IN_SIZE, gguf.Keys.LLM.DENSE_FEAT_OUT_SIZE
    return {
        key.format(arch="{arch}", dense=f"dense_{number}"): size
        for number, module in enumerate(dense, start=2)
        for key, size in zip(keys, reversed(module.weight.shape), strict=True)
    }


def _write(
    target: Path,
    architecture: Architecture,
    fields: Fields,
    tensors: Tensors,
    weight_type: WeightType,
) -> None:
    name = gguf.MODEL_ARCH_NAMES[architecture.gguf]
    writer = gguf.GGUFWriter(target, name)
    for key, value in fields.items():
        _add_field(writer, key.replace("{arch}", name), value)
    types = {name: _tensor_type(name, tensor, weight_type) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        size_bytes = math.prod(tensor.shape) * _NUMBER_BYTES[types[name]]
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size_bytes, types[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            _write_tensor(writer, tensor, types[name])
    finally:
        writer.close()


def _add_field(writer: gguf.GGUFWriter, key: str, value: FieldValue) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _tensor_type(
    name: str, tensor: PlannedTensor, weight_type: WeightType
) -> gguf.GGMLQuantizationType:
    is_matrix = len(tensor.shape) == 2 and name not in _ALWAYS_F32
    return _MATRIX_TYPES[weight_type] if is_matrix else gguf.GGMLQuantizationType.F32


def _write_tensor(
    writer: gguf.GGUFWriter, tensor: PlannedTensor, tensor_type: gguf.GGMLQuantizationType
) -> None:
    """Write `tensor` as `GGUFWriter.write_tensor_data` would, which takes whole tensors alone."""
    [file] = writer.fout or []
    writer.write_padding(file, file.tell())
    for part in tensor.parts:
        for block in part.blocks():
            gguf.quants.quantize(block + np.float32(tensor.added), tensor_type).tofile(file)
    writer.write_padding(file, file.tell())
