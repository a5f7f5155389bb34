import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import KINDS, make_tiny, save_bf16

from memoryd.errors import ModelFileError
from memoryd.models.conversion import convert, describe_folder
from memoryd.models.gallery import GalleryEntry
from memoryd.models.weights import WEIGHT_TYPES, WeightType

# Of sentence-transformers with the same files.
BLUE = [0.010071, -0.001759, 0.050072, 0.046930]
GREEN = [-0.009803, 0.060425]


@pytest.fixture(scope="module", params=WEIGHT_TYPES)
def converted(
    request: pytest.FixtureRequest,
    entry: GalleryEntry,
    model_files: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    weight_type: WeightType = request.param
    target = tmp_path_factory.mktemp("converted") / f"all-minilm-{weight_type}.gguf"
    convert(entry, model_files, target, weight_type)
    return target


@pytest.fixture(scope="module")
def llama(converted: Path) -> Iterator[llama_cpp.Llama]:
    llama = llama_cpp.Llama(
        str(converted), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, verbose=False
    )
    yield llama
    llama.close()


def embed(llama: llama_cpp.Llama, text: str) -> np.ndarray:
    vector = np.array(llama.embed(text), dtype=np.float32)
    return np.divide(vector, np.linalg.norm(vector))


def test_the_converted_model_gives_the_figures_of_sentence_transformers(
    llama: llama_cpp.Llama,
) -> None:
    np.testing.assert_allclose(embed(llama, "why is the sky blue?")[:4], BLUE, atol=0.0015)
    np.testing.assert_allclose(embed(llama, "why is the grass green?")[:2], GREEN, atol=0.0015)


def test_the_converted_vocabulary_splits_words_as_bert_does(llama: llama_cpp.Llama) -> None:
    assert llama.tokenize(b"why is the sky blue?") == [101, 2339, 2003, 1996, 3712, 2630, 1029, 102]
    # Lower case, no accents, "##" pieces: em ##bed ##ding.
    assert llama.tokenize("Émbedding".encode()) == [101, 7861, 8270, 4667, 102]


def test_the_file_says_what_it_was_made_from(converted: Path, entry: GalleryEntry) -> None:
    fields = gguf.GGUFReader(converted).fields
    assert fields["general.name"].contents() == "all-minilm"
    assert fields["general.license"].contents() == "apache-2.0"
    assert fields["general.source.url"].contents().endswith(entry.repository)
    assert fields["memoryd.source.sha256"].contents() == entry.files[-1].sha256


def test_matrices_alone_are_bf16(converted: Path) -> None:
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(converted).tensors}
    matrices = {name for name, type_name in types.items() if type_name == "BF16"}
    assert len(types) == 101
    if converted.stem.endswith("bf16"):
        per_layer = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"]
        layers = {f"blk.{layer}.{matrix}.weight" for layer in range(6) for matrix in per_layer}
        assert matrices == {"token_embd.weight", *layers}
    else:
        assert not matrices


def test_vocab_txt_alone_gives_the_tokenizer_of_tokenizer_json(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path / "model")
    whole = fields_of(converted_tiny(folder, tmp_path / "whole.gguf"))
    (folder / "tokenizer.json").unlink()
    assert fields_of(converted_tiny(folder, tmp_path / "list.gguf")) == whole


def test_the_tokenizers_own_settings_go_before_those_of_tokenizer_json(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path / "model")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    fields = fields_of(converted_tiny(folder, tmp_path / "model.gguf"))
    assert fields["tokenizer.ggml.normalizer.lowercase"] is False
    assert fields["tokenizer.ggml.normalizer.strip_accents"] is False


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_and_small_matrices_stay_in_float32(tmp_path: Path, kind: str) -> None:
    folder = make_tiny(kind, tmp_path / "model")
    file = tmp_path / "model.gguf"
    convert(describe_folder(folder, kind), folder, file, "bf16")
    tensors = gguf.GGUFReader(file).tensors
    exact = {tensor.name for tensor in tensors if tensor.tensor_type.name == "F32"}
    small = ("norm", "bias", "position_embd", "token_types", "cls", "dense_")
    assert exact == {
        tensor.name for tensor in tensors if any(part in tensor.name for part in small)
    }


@pytest.mark.parametrize("stored", ["F16", "BF16"])
def test_weights_of_half_the_size_are_widened(tmp_path: Path, stored: str) -> None:
    folder = make_tiny("bert", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    rounded = {name: round_as(stored, values) for name, values in weights.items()}
    if stored == "F16":
        halves = {name: values.astype(np.float16) for name, values in rounded.items()}
        save_file(halves, folder / "model.safetensors")
    else:
        save_bf16(folder / "model.safetensors", rounded)
    tensors = gguf.GGUFReader(converted_tiny(folder, tmp_path / "model.gguf")).tensors
    words = next(tensor for tensor in tensors if tensor.name == "token_embd.weight")
    assert np.array_equal(words.data, rounded["embeddings.word_embeddings.weight"])


def round_as(stored: str, values: np.ndarray) -> np.ndarray:
    if stored == "F16":
        return values.astype(np.float16).astype(np.float32)
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


def test_names_of_older_files_are_found(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path / "model")
    before = gguf.GGUFReader(converted_tiny(folder, tmp_path / "new.gguf"))
    older = {
        f"bert.{name}".replace("Norm.weight", "Norm.gamma").replace(
            "Norm.bias", "Norm.beta"
        ): weight
        for name, weight in load_file(folder / "model.safetensors").items()
    }
    assert sum(name.endswith(("gamma", "beta")) for name in older) == 14
    save_file(older, folder / "model.safetensors")
    after = gguf.GGUFReader(converted_tiny(folder, tmp_path / "old.gguf"))
    assert_same_tensors(after, before)


def assert_same_tensors(left: gguf.GGUFReader, right: gguf.GGUFReader) -> None:
    assert [tensor.name for tensor in left.tensors] == [tensor.name for tensor in right.tensors]
    for one, other in zip(left.tensors, right.tensors, strict=True):
        assert np.array_equal(one.data, other.data)


DESCRIPTIONS: dict[str, dict[str, object]] = {
    "bert": {"architecture": "bert", "context_tokens": 128, "pooling": "mean"},
    "xlm-roberta": {"architecture": "bert", "context_tokens": 128, "pooling": "cls"},
    "nomic-bert": {
        "architecture": "nomic-bert",
        "context_tokens": 2048,
        "query_prefix": "search_query: ",
        "document_prefix": "search_document: ",
    },
    "qwen3": {"architecture": "qwen3", "context_tokens": 512, "pooling": "last"},
    "gemma-embedding": {
        "architecture": "gemma-embedding",
        "context_tokens": 256,
        "pooling": "mean",
        "query_prefix": "task: search result | query: ",
    },
    "xlm-roberta-rank": {"kind": "reranker", "pooling": "rank", "trained_tokens": None},
    "qwen3-rank": {"kind": "reranker", "pooling": "rank", "trained_tokens": None},
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_folder_says_what_its_model_is(tmp_path: Path, kind: str) -> None:
    entry = describe_folder(make_tiny(kind, tmp_path), "mine")
    expected = {"name": "mine", "kind": "embedding", "dimensions": 64, "trained_tokens": 96}
    expected |= DESCRIPTIONS[kind]
    assert {key: getattr(entry, key) for key in expected} == expected


def test_the_pooling_that_is_asked_for_goes_before_that_of_the_folder(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path / "model")
    file = tmp_path / "model.gguf"
    convert(GalleryEntry("mine", pooling="cls"), folder, file, "f32")
    assert fields_of(file)["bert.pooling_type"] == gguf.PoolingType.CLS
    convert(GalleryEntry("mine"), folder, file, "f32")
    assert fields_of(file)["bert.pooling_type"] == gguf.PoolingType.MEAN


def test_the_file_says_which_tokens_stand_around_a_text(tmp_path: Path) -> None:
    folder = make_tiny("qwen3", tmp_path / "model")
    fields = fields_of(converted_tiny(folder, tmp_path / "model.gguf"))
    tokens = fields["tokenizer.ggml.tokens"]
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.ggml.add_eos_token"] is True
    assert tokens[fields["tokenizer.ggml.eos_token_id"]] == "<|endoftext|>"


def test_a_reranker_that_answers_in_words_carries_its_template(tmp_path: Path) -> None:
    folder = make_tiny("qwen3-rank", tmp_path / "model")
    fields = fields_of(converted_tiny(folder, tmp_path / "model.gguf"))
    assert fields["qwen3.classifier.output_labels"] == ["yes", "no"]
    assert "<Query>: {query}" in fields["tokenizer.chat_template.rerank"]


def converted_tiny(folder: Path, file: Path) -> Path:
    convert(describe_folder(folder, "mine"), folder, file, "f32")
    return file


def fields_of(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


def test_weights_that_cannot_be_read_are_reported(
    entry: GalleryEntry, model_files: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((model_files / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelFileError, match=r"the weights in .*model\.safetensors can't be read"):
        convert(entry, tmp_path, tmp_path / "x.gguf", "f32")
