"""What conversion refuses, and how it says so: never a wrong vector, never a foreign exception."""

import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import KINDS, make_tiny

from memoryd.errors import ModelFileError
from memoryd.models.conversion import convert, describe_folder
from memoryd.models.gallery import GalleryEntry


def converted_tiny(folder: Path, file: Path) -> Path:
    convert(describe_folder(folder, "mine"), folder, file, "f32")
    return file


def edit(file: Path, path: Sequence[str | int], value: object) -> None:
    """Set what lies at `path` in a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")


@dataclass(frozen=True)
class Refused:
    """Describe a change to a tiny model's JSON file, and what the message says then."""

    kind: str
    file: str
    path: Sequence[str | int]
    value: object
    message: str


TOKENIZER, CONFIG = "tokenizer.json", "config.json"
DENSE = [{"path": "", "type": "x.Transformer"}, {"path": "2_Dense", "type": "x.Dense"}]
REFUSED = {
    "an architecture": Refused("bert", CONFIG, ["architectures"], ["T5Model"], "T5Model can't be"),
    "no architecture": Refused("bert", CONFIG, ["architectures"], [], "config.json .*architect"),
    "a width of words": Refused("bert", CONFIG, ["hidden_size"], "64x", "hidden_size: .*64x"),
    "a width below zero": Refused("bert", CONFIG, ["hidden_size"], -1, "hidden_size: .*-1"),
    "a huge width": Refused("bert", CONFIG, ["hidden_size"], 1 << 40, "hidden_size"),
    "heads that share nothing": Refused("bert", CONFIG, ["num_attention_heads"], 7, "7 heads"),
    "an activation": Refused("bert", CONFIG, ["hidden_act"], "relu", "hidden_act: .*relu"),
    "relative positions": Refused(
        "bert", CONFIG, ["position_embedding_type"], "relative_key", "position_embedding_type"
    ),
    "positions that are all padding": Refused(
        "xlm-roberta", CONFIG, ["pad_token_id"], 500, "no positions"
    ),
    "experts": Refused("nomic-bert", CONFIG, ["moe_every_n_layers"], 2, "moe_every_n_layers"),
    "scaled positions": Refused(
        "qwen3", CONFIG, ["rope_scaling"], {"type": "yarn"}, "rope_scaling"
    ),
    "a window": Refused("qwen3", CONFIG, ["use_sliding_window"], True, "use_sliding_window"),
    "a decoder": Refused(
        "gemma-embedding", CONFIG, ["use_bidirectional_attention"], False, "bidirectional"
    ),
    "windows alone": Refused(
        "gemma-embedding", CONFIG, ["layer_types"], ["sliding_attention"] * 6, "layer_types"
    ),
    "another scale": Refused(
        "gemma-embedding", CONFIG, ["query_pre_attn_scalar"], 64, "query_pre_attn_scalar"
    ),
    "too few layers": Refused(
        "bert", CONFIG, ["num_hidden_layers"], 2, "has the tensor encoder.layer.2"
    ),
    "too many layers": Refused(
        "bert", CONFIG, ["num_hidden_layers"], 4, "lacks the tensor encoder.layer.3"
    ),
    "a kind of tokenizer": Refused("bert", TOKENIZER, ["model", "type"], "WordLevel", "WordLevel"),
    "a normalizer": Refused("qwen3", TOKENIZER, ["normalizer"], {"type": "Lowercase"}, "Lowercase"),
    "a normalizer of another kind": Refused(
        "bert", TOKENIZER, ["normalizer"], {"type": "NFC"}, "BERT's normalizer"
    ),
    "ideographs together": Refused(
        "bert", TOKENIZER, ["normalizer", "handle_chinese_chars"], False, "handle_chinese_chars"
    ),
    "another splitting": Refused(
        "qwen3",
        TOKENIZER,
        ["pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"],
        "[a-z]+",
        "split otherwise",
    ),
    "a map that is none": Refused(
        "bert-unigram", TOKENIZER, ["normalizer", "precompiled_charsmap"], "?", "base64"
    ),
    "two tokens alike": Refused(
        "bert", TOKENIZER, ["model", "vocab", "##\u2581the"], 5, "two of its tokens are '\u2581the'"
    ),
    "a token without a row": Refused(
        "bert", TOKENIZER, ["model", "vocab", "the"], 9999, "tokens beyond the 312"
    ),
    "an unknown token that is unknown": Refused(
        "xlm-roberta", TOKENIZER, ["model", "unk_id"], 9999, "special token has no id"
    ),
    "two tokens at the beginning": Refused(
        "bert",
        TOKENIZER,
        ["post_processor", "special_tokens", "[CLS]", "ids"],
        [2, 2],
        "more than one special token",
    ),
    "bytes without tokens": Refused(
        "gemma-embedding", TOKENIZER, ["model", "vocab"], {"<unk>": 3}, "some of the bytes"
    ),
    "lower case that the tokenizer has not": Refused(
        "xlm-roberta", "sentence_bert_config.json", ["do_lower_case"], True, "do_lower_case"
    ),
    "a weighted mean": Refused(
        "bert", "1_Pooling/config.json", ["pooling_mode"], "weightedmean", "weightedmean"
    ),
    "two poolings": Refused(
        "bert", "1_Pooling/config.json", ["pooling_mode_cls_token"], True, "cls and mean"
    ),
    "no prompt in the pooling": Refused(
        "bert", "1_Pooling/config.json", ["include_prompt"], False, "include_prompt"
    ),
    "a module": Refused("bert", "modules.json", [1, "type"], "models.CNN", "CNN modules"),
    "a module elsewhere": Refused("bert", "modules.json", [1, "path"], "../x", "out of the folder"),
    "a dense layer that bends": Refused(
        "gemma-embedding",
        "2_Dense/config.json",
        ["activation_function"],
        "torch.nn.modules.activation.Tanh",
        "activation_function",
    ),
    "a dense layer of another width": Refused(
        "gemma-embedding", "2_Dense/config.json", ["in_features"], 32, "linear.weight"
    ),
    "one dense layer": Refused("gemma-embedding", "modules.json", [3, "type"], "Normalize", "two"),
    "weights elsewhere": Refused(
        "qwen3",
        "model.safetensors.index.json",
        ["weight_map", "norm.weight"],
        "../model.safetensors",
        "names the file",
    ),
    "a part that is missing": Refused(
        "qwen3",
        "model.safetensors.index.json",
        ["weight_map", "norm.weight"],
        "model-3.safetensors",
        "model-3.safetensors is missing",
    ),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_give_other_vectors_is_refused(tmp_path: Path, refused: Refused) -> None:
    folder = make_tiny(refused.kind, tmp_path / "model")
    entry = describe_folder(folder, "mine")
    edit(folder / refused.file, refused.path, refused.value)
    with pytest.raises(ModelFileError, match=refused.message) as raised:
        convert(entry, folder, tmp_path / "model.gguf", "f32")
    assert str(folder) in raised.value.message
    assert not (tmp_path / "model.gguf").exists()


def test_a_reranker_that_tells_documents_by_their_token_type_is_refused(tmp_path: Path) -> None:
    folder = make_tiny("bert-rank", tmp_path / "model")
    edit(folder / TOKENIZER, ["post_processor", "pair", 3, "Sequence", "type_id"], 1)
    converted_tiny(folder, tmp_path / "model.gguf")
    edit(folder / CONFIG, ["type_vocab_size"], 2)
    with pytest.raises(ModelFileError, match="its scores would be wrong"):
        converted_tiny(folder, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("bert", "config.json"),
        ("bert", "model.safetensors"),
        ("xlm-roberta", "tokenizer.json"),
        ("xlm-roberta", "1_Pooling/config.json"),
        ("gemma-embedding", "3_Dense/config.json"),
        ("gemma-embedding", "3_Dense/model.safetensors"),
        ("qwen3", "model-00002-of-00002.safetensors"),
    ],
)
def test_a_file_that_is_missing_or_broken_is_named(tmp_path: Path, kind: str, file: str) -> None:
    folder = make_tiny(kind, tmp_path / "model")
    entry = describe_folder(folder, "mine")
    for content in (b"{", b'[{"\xff": 1}]', (folder / file).read_bytes()[:-1], None):
        (folder / file).write_bytes(content or b"")
        if content is None:
            (folder / file).unlink()
        with pytest.raises(ModelFileError, match=str(folder / file)):
            convert(entry, folder, tmp_path / "model.gguf", "f32")


def test_a_folder_that_does_not_say_how_to_pool_is_refused(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path / "model")
    (folder / "modules.json").unlink()
    entry = describe_folder(folder, "mine")
    assert entry.pooling is None
    with pytest.raises(ModelFileError, match=r"1_Pooling/config\.json"):
        convert(entry, folder, tmp_path / "model.gguf", "f32")


def test_a_model_without_a_head_makes_no_reranker(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path / "model")
    with pytest.raises(ModelFileError, match="isn't a reranker"):
        convert(GalleryEntry("mine", kind="reranker"), folder, tmp_path / "model.gguf", "f32")


def test_a_classifier_of_several_classes_is_no_reranker(tmp_path: Path) -> None:
    folder = make_tiny("xlm-roberta-rank", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.out_proj.weight"] = np.zeros((3, 64), dtype=np.float32)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match="a classifier of 3 classes"):
        converted_tiny(folder, tmp_path / "model.gguf")


def test_weights_of_a_type_that_is_not_known_are_refused(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file(weights | {name: weights[name].astype(np.int8)}, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match="weights of the type I8"):
        converted_tiny(folder, tmp_path / "model.gguf")


ANY_VALUES = (None, -1, 0, 1.5, 10**30, "", "x", True, False, [], {}, [1, "x"], {"type": "x"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_with_any_value_changed_is_converted_or_refused(tmp_path: Path, kind: str) -> None:
    folder = make_tiny(kind, tmp_path / "model")
    random_ = random.Random(kind)  # noqa: S311 - the same changes in every run
    for file in sorted(folder.rglob("*.json")):
        original = file.read_text(encoding="utf-8")
        for _ in range(8):
            edit(file, a_path(json.loads(original), random_), random_.choice(ANY_VALUES))
            with suppress(ModelFileError):
                converted_tiny(folder, tmp_path / "model.gguf")
            file.write_text(original, encoding="utf-8")


def a_path(content: Any, random_: random.Random) -> list[str | int]:
    """Return the path to some value in `content`, at some depth."""
    keys = list(content) if isinstance(content, dict) else range(len(content))
    key = random_.choice(keys)
    inner = content[key]
    if isinstance(inner, dict | list) and inner and random_.random() < 0.8:
        return [key, *a_path(inner, random_)]
    return [key]
