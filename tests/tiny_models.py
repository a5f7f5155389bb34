"""Tiny models with random weights, in the files that their authors' tools write.

Each has the architecture, the tensor names and the kind of tokenizer of a real model, so that what
reads, converts and runs models can be tested on every architecture in a second. They need numpy and
safetensors alone. Weights are large enough that every one of them changes a vector.
"""

import base64
import json
import struct
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, "np.ndarray[Any, np.dtype[np.float32]]"]
Files = Mapping[str, object]

LAYERS = 3
WIDTH = 64
HEADS = 4
FEED_FORWARD = 96
POSITIONS = 128
"""How many tokens the encoders with learned positions take."""
SLIDING_WINDOW = 16
"""Of gemma-embedding, in tokens, so that longer texts reach beyond it."""

CORPUS = (
    "the quick brown fox jumps over the lazy dog and the cat sat on the mat while it rained",
    "a memory service keeps documents and finds them by meaning rather than by their words",
    "why is the sky blue and why is the grass green because of light water and leaves",
    "yes no yes no yes no maybe question answer query document searching searched searches",
    "the river bank was flooded while the bank on the corner kept lending money to people",
    "Berlin Paris London Tokyo are capitals of countries with many people living in them",
    "embedding embeddings vector vectors tokens tokenizer sentence sentences paragraph text",
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
OTHER_LETTERS = "áàâäãåçéèêëíîïñóòôöõøúùûüýßœæαβγδελνπρςστωабвгдежзиклмнопрстуы"
IDEOGRAPHS = "日本語文章中国你好世界天空水火山川大小人心한국어가나あいうえおかアイウ"

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2's tokenizer splits text before it merges bytes."""


# Attention that prefers some tokens clearly, or their order would hardly matter.
_SCALES = {".query.": 2.5, ".key.": 2.5, ".Wqkv.": 6.0}


def make_tiny(kind: str, folder: Path) -> Path:
    """Write the tiny model `kind`, one of KINDS, into `folder` and return it; the same each time.

    Each folder is what a hub repository of such a model holds: config.json, tokenizer.json, weights
    as safetensors and, but for rerankers, the modules of sentence-transformers.
    """
    _MAKERS[kind](folder)
    return folder


def _make_bert(folder: Path) -> None:
    tokenizer = _wordpiece()
    config = {"architectures": ["BertModel"], "model_type": "bert", **_bert_config(tokenizer)}
    config |= {"max_position_embeddings": POSITIONS, "type_vocab_size": 2}
    _write_files(folder, _model_files(config, tokenizer) | _module_files("mean"))
    (folder / "vocab.txt").write_text("\n".join(_vocabulary(tokenizer)) + "\n", encoding="utf-8")
    _save(folder / "model.safetensors", _random_weights("bert", _bert_shapes(config)))


def _make_bert_with_unigram(folder: Path) -> None:
    """Write what multilingual-e5-small is: a BertModel with the tokenizer of XLM-R."""
    tokenizer = _unigram()
    config = {"architectures": ["BertModel"], "model_type": "bert", **_bert_config(tokenizer)}
    # More rows than tokens, as there.
    config |= {"max_position_embeddings": POSITIONS, "type_vocab_size": 2}
    config["vocab_size"] += 35
    _write_files(folder, _model_files(config, tokenizer) | _module_files("mean"))
    _save(folder / "model.safetensors", _random_weights("bert-unigram", _bert_shapes(config)))


def _make_xlm_roberta(folder: Path) -> None:
    tokenizer = _unigram() | _spaces_of_bge_m3()
    config = _xlm_roberta_config("XLMRobertaModel", tokenizer)
    _write_files(folder, _model_files(config, tokenizer) | _module_files("cls"))
    _save(folder / "model.safetensors", _random_weights("xlm-roberta", _bert_shapes(config)))


def _make_nomic_bert(folder: Path) -> None:
    tokenizer = _wordpiece()
    # As nomic-ai/nomic-embed-text-v1.5 has it: GPT-2's names, and rotary positions of base 1000.
    config = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "activation_function": "swiglu",
        "causal": False,
        "layer_norm_epsilon": 0.1,
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "n_embd": WIDTH,
        "n_head": HEADS,
        "n_inner": FEED_FORWARD,
        "n_layer": LAYERS,
        "n_positions": 8192,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "type_vocab_size": 2,
        "use_rms_norm": False,
        "vocab_size": len(_vocabulary(tokenizer)) + 6,
    }
    prompts = {"query": "search_query: ", "document": "search_document: "}
    _write_files(folder, _model_files(config, tokenizer) | _module_files("mean", prompts))
    _save(folder / "model.safetensors", _random_weights("nomic-bert", _nomic_shapes(config)))


def _make_qwen3(folder: Path) -> None:
    """Write it in bf16 and two files, as the larger Qwen3-Embedding models come."""
    tokenizer = _byte_level_bpe(ending="<|endoftext|>")
    config = _qwen3_config(tokenizer)
    prompts = {"query": "Instruct: Find the passage that answers\nQuery:", "document": ""}
    _write_files(folder, _model_files(config, tokenizer) | _module_files("lasttoken", prompts))
    weights = _random_weights("qwen3", _qwen3_shapes(config, prefix=""))
    _save_bf16_in_parts(folder, weights)


def _make_qwen3_rank(folder: Path) -> None:
    tokenizer = _byte_level_bpe(ending=None)
    config = _qwen3_config(tokenizer)
    _write_files(folder, _model_files(config, tokenizer))
    (folder / "README.md").write_text("# Qwen3-Reranker-0.6B\n", encoding="utf-8")
    weights = _random_weights("qwen3-rank", _qwen3_shapes(config, prefix="model."))
    _save(folder / "model.safetensors", weights)


def _make_gemma_embedding(folder: Path) -> None:
    tokenizer = _sentencepiece_bpe()
    config = {
        "architectures": ["Gemma3TextModel"],
        "model_type": "gemma3_text",
        "_sliding_window_pattern": 6,
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "final_logit_softcapping": None,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "max_position_embeddings": 256,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 6,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 16,
        "rms_norm_eps": 0.1,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": SLIDING_WINDOW,
        "use_bidirectional_attention": True,
        "vocab_size": len(tokenizer["model"]["vocab"]),
    }
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    dense = [("2_Dense", WIDTH, 2 * WIDTH), ("3_Dense", 2 * WIDTH, WIDTH)]
    files = _model_files(config, tokenizer) | _module_files("mean", prompts, dense)
    _write_files(folder, files)
    _save(folder / "model.safetensors", _random_weights("gemma", _gemma_shapes(config)))
    for path, in_features, out_features in dense:
        shapes = {"linear.weight": (out_features, in_features)}
        _save(folder / path / "model.safetensors", _random_weights(path, shapes))


def _make_bert_rank(folder: Path) -> None:
    """Write a head over one token type, since llama.cpp takes all tokens for the first type."""
    tokenizer = _wordpiece(second_type=0)
    config = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
    config |= _bert_config(tokenizer) | _one_label()
    config |= {"max_position_embeddings": POSITIONS, "type_vocab_size": 1}
    _write_files(folder, _model_files(config, tokenizer))
    shapes = _bert_shapes(config, prefix="bert.")
    shapes |= {"classifier.weight": (1, WIDTH), "classifier.bias": (1,)}
    _save(folder / "model.safetensors", _random_weights("bert-rank", shapes))


def _make_xlm_roberta_rank(folder: Path) -> None:
    _write_files(folder, _xlm_roberta_rank_files())
    _save(folder / "model.safetensors", _xlm_roberta_rank_weights())


def _make_jina_rank(folder: Path) -> None:
    """Write the same model as Jina's implementation of XLM-RoBERTa names and joins its tensors."""
    _write_files(folder, _xlm_roberta_rank_files())
    weights = _xlm_roberta_rank_weights()
    for layer in range(LAYERS):
        old, new = f"roberta.encoder.layer.{layer}", f"roberta.encoder.layers.{layer}.mixer.Wqkv"
        for part in ("weight", "bias"):
            names = [f"{old}.attention.self.{name}.{part}" for name in ("query", "key", "value")]
            weights[f"{new}.{part}"] = np.concatenate([weights.pop(name) for name in names])
    renamed = {_jina_name(name): values for name, values in weights.items()}
    _save(folder / "model.safetensors", renamed)


def _jina_name(name: str) -> str:
    for old, new in _JINA_NAMES:
        name = name.replace(old, new)
    return name


# In this order: the last names are parts of others.
_JINA_NAMES = (
    ("encoder.layer.", "encoder.layers."),
    ("embeddings.LayerNorm", "emb_ln"),
    ("attention.output.LayerNorm", "norm1"),
    ("attention.output.dense", "mixer.out_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.LayerNorm", "norm2"),
    ("output.dense", "mlp.fc2"),
)


def _xlm_roberta_rank_files() -> dict[str, object]:
    tokenizer = _unigram()
    config = _xlm_roberta_config("XLMRobertaForSequenceClassification", tokenizer) | _one_label()
    return _model_files(config, tokenizer)


def _xlm_roberta_rank_weights() -> Weights:
    config = _xlm_roberta_config("XLMRobertaForSequenceClassification", _unigram())
    shapes = _bert_shapes(config, prefix="roberta.")
    shapes = {name: shape for name, shape in shapes.items() if ".pooler." not in name}
    shapes |= _linear("classifier.dense", WIDTH, WIDTH) | _linear("classifier.out_proj", 1, WIDTH)
    return _random_weights("xlm-roberta-rank", shapes)


_MAKERS: dict[str, Callable[[Path], None]] = {
    "bert": _make_bert,
    "bert-unigram": _make_bert_with_unigram,
    "xlm-roberta": _make_xlm_roberta,
    "nomic-bert": _make_nomic_bert,
    "qwen3": _make_qwen3,
    "gemma-embedding": _make_gemma_embedding,
    "bert-rank": _make_bert_rank,
    "xlm-roberta-rank": _make_xlm_roberta_rank,
    "jina-rank": _make_jina_rank,
    "qwen3-rank": _make_qwen3_rank,
}
KINDS = tuple(_MAKERS)
EMBEDDING_KINDS = tuple(kind for kind in KINDS if not kind.endswith("-rank"))
RANK_KINDS = tuple(kind for kind in KINDS if kind.endswith("-rank"))


# Configurations


def _bert_config(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "layer_norm_eps": 0.1,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "vocab_size": len(_vocabulary(tokenizer)),
    }


def _xlm_roberta_config(architecture: str, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    config = {"architectures": [architecture], "model_type": "xlm-roberta"}
    config |= _bert_config(tokenizer)
    # Positions begin after the padding token's id, so the first two rows are of no use.
    config |= {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}
    return config | {
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "layer_norm_eps": 0.05,
    }


def _qwen3_config(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "bos_token_id": tokenizer["added_tokens"][0]["id"],
        "eos_token_id": tokenizer["added_tokens"][0]["id"],
        "head_dim": 32,  # not width / heads, as in Qwen3
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "max_position_embeddings": 512,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 2,
        "rms_norm_eps": 0.1,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        # More rows than tokens, as there.
        "vocab_size": len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"]) + 5,
    }


def _one_label() -> dict[str, Any]:
    return {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


# Files

_TOKENIZER_CONFIGS = {
    "WordPiece": {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
    "Unigram": {"tokenizer_class": "XLMRobertaTokenizer"},
    "BPE": {"tokenizer_class": "PreTrainedTokenizerFast"},
}


def _model_files(config: Files, tokenizer: Mapping[str, Any]) -> dict[str, object]:
    return {
        "config.json": config,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": _TOKENIZER_CONFIGS[tokenizer["model"]["type"]],
    }


def _module_files(
    pooling: str,
    prompts: Mapping[str, str] | None = None,
    dense: Sequence[tuple[str, int, int]] = (),
) -> dict[str, object]:
    """Return the files of sentence-transformers; each of `dense` is a path and two widths."""
    modes = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    pooling_config: dict[str, object] = {"word_embedding_dimension": WIDTH}
    pooling_config |= {f"pooling_mode_{name}": mode == pooling for mode, name in modes.items()}
    steps = [("Transformer", ""), ("Pooling", "1_Pooling")]
    steps += [("Dense", path) for path, _, _ in dense] + [("Normalize", f"{len(dense) + 2}_Norm")]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{type_}",
        }
        for index, (type_, path) in enumerate(steps)
    ]
    files: dict[str, object] = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling_config,
        "sentence_bert_config.json": {"max_seq_length": 96, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": prompts or {}},
    }
    activation = "torch.nn.modules.linear.Identity"
    for path, in_features, out_features in dense:
        widths = {"in_features": in_features, "out_features": out_features}
        files[f"{path}/config.json"] = widths | {"bias": False, "activation_function": activation}
    return files


def _write_files(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _save(path: Path, weights: Weights) -> None:
    save_file(weights, path, metadata={"format": "pt"})


def _save_bf16_in_parts(folder: Path, weights: Weights) -> None:
    index: dict[str, str] = {}
    for part in (0, 1):
        file = f"model-0000{part + 1}-of-00002.safetensors"
        names = list(weights)[part::2]
        save_bf16(folder / file, {name: weights[name] for name in names})
        index |= dict.fromkeys(names, file)
    _write_files(folder, {"model.safetensors.index.json": {"metadata": {}, "weight_map": index}})


def save_bf16(path: Path, weights: Weights) -> None:
    """Write the upper halves of `weights`; numpy has no bf16, so the library can't do it.

    The format is that of safetensors' README: the header's size, the header as JSON, the data.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in weights.items():
        upper = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(upper)]
        header[name] = {"dtype": "BF16", "shape": values.shape, "data_offsets": offsets}
        data += upper
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# Weights


def _random_weights(seed: str, shapes: Shapes) -> Weights:
    random = np.random.default_rng(list(seed.encode()))
    return {name: _random_weight(random, name, shape) for name, shape in shapes.items()}


def _random_weight(
    random: np.random.Generator, name: str, shape: tuple[int, ...]
) -> "np.ndarray[Any, np.dtype[np.float32]]":
    values = random.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        is_factor = "norm" in name.lower() and name.endswith("weight")
        return (values * np.float32(0.2) + np.float32(is_factor)).astype(np.float32)
    if "embed" in name:
        return values
    scale = next((scale for part, scale in _SCALES.items() if part in name), 1.5)
    return (values * np.float32(scale / np.sqrt(shape[1]))).astype(np.float32)


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str) -> Shapes:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def _bert_shapes(config: Mapping[str, Any], prefix: str = "") -> Shapes:
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], WIDTH),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], WIDTH),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], WIDTH),
    }
    shapes |= _norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        path = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{path}.attention.self.{part}", WIDTH, WIDTH)
        shapes |= _linear(f"{path}.attention.output.dense", WIDTH, WIDTH)
        shapes |= _norm(f"{path}.attention.output.LayerNorm")
        shapes |= _linear(f"{path}.intermediate.dense", FEED_FORWARD, WIDTH)
        shapes |= _linear(f"{path}.output.dense", WIDTH, FEED_FORWARD)
        shapes |= _norm(f"{path}.output.LayerNorm")
    shapes |= _linear("pooler.dense", WIDTH, WIDTH)
    return {prefix + name: shape for name, shape in shapes.items()}


def _nomic_shapes(config: Mapping[str, Any]) -> Shapes:
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], WIDTH),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], WIDTH),
    }
    shapes |= _norm("emb_ln")
    for layer in range(LAYERS):
        path = f"encoder.layers.{layer}"
        shapes |= _norm(f"{path}.norm1") | _norm(f"{path}.norm2")
        shapes |= {
            f"{path}.attn.Wqkv.weight": (3 * WIDTH, WIDTH),
            f"{path}.attn.out_proj.weight": (WIDTH, WIDTH),
            f"{path}.mlp.fc11.weight": (FEED_FORWARD, WIDTH),
            f"{path}.mlp.fc12.weight": (FEED_FORWARD, WIDTH),
            f"{path}.mlp.fc2.weight": (WIDTH, FEED_FORWARD),
        }
    return shapes


def _qwen3_shapes(config: Mapping[str, Any], prefix: str) -> Shapes:
    shapes = {"embed_tokens.weight": (config["vocab_size"], WIDTH), "norm.weight": (WIDTH,)}
    for layer in range(config["num_hidden_layers"]):
        shapes |= _decoder_layer(f"layers.{layer}", config)
        shapes |= {
            f"layers.{layer}.input_layernorm.weight": (WIDTH,),
            f"layers.{layer}.post_attention_layernorm.weight": (WIDTH,),
        }
    return {prefix + name: shape for name, shape in shapes.items()}


def _gemma_shapes(config: Mapping[str, Any]) -> Shapes:
    shapes = _qwen3_shapes(config, prefix="")
    for layer in range(config["num_hidden_layers"]):
        shapes |= {
            f"layers.{layer}.pre_feedforward_layernorm.weight": (WIDTH,),
            f"layers.{layer}.post_feedforward_layernorm.weight": (WIDTH,),
        }
    return shapes


def _decoder_layer(path: str, config: Mapping[str, Any]) -> Shapes:
    heads_width = config["num_attention_heads"] * config["head_dim"]
    shared_width = config["num_key_value_heads"] * config["head_dim"]
    return {
        f"{path}.self_attn.q_proj.weight": (heads_width, WIDTH),
        f"{path}.self_attn.k_proj.weight": (shared_width, WIDTH),
        f"{path}.self_attn.v_proj.weight": (shared_width, WIDTH),
        f"{path}.self_attn.o_proj.weight": (WIDTH, heads_width),
        f"{path}.self_attn.q_norm.weight": (config["head_dim"],),
        f"{path}.self_attn.k_norm.weight": (config["head_dim"],),
        f"{path}.mlp.gate_proj.weight": (FEED_FORWARD, WIDTH),
        f"{path}.mlp.up_proj.weight": (FEED_FORWARD, WIDTH),
        f"{path}.mlp.down_proj.weight": (WIDTH, FEED_FORWARD),
    }


# Tokenizers


def _vocabulary(tokenizer: Mapping[str, Any]) -> list[str]:
    vocabulary = tokenizer["model"]["vocab"]
    return list(vocabulary) if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]


def _tokenizer(
    model: Mapping[str, Any],
    added: Iterable[Mapping[str, Any]],
    normalizer: object,
    pre_tokenizer: object,
    post_processor: object,
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": None,
        "model": model,
    }


def _added(token_id: int, content: str, *, special: bool = True) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, **flags, "special": special}


def _template(
    single: Sequence[str], pair: Sequence[tuple[str, int]], ids: Mapping[str, int]
) -> dict[str, Any]:
    """Return the post-processor of `single` and `pair`; A and B stand for the texts."""
    return {
        "type": "TemplateProcessing",
        "single": [_step(name, 0) for name in single],
        "pair": [_step(name, type_id) for name, type_id in pair],
        "special_tokens": {
            name: {"id": name, "ids": [token_id], "tokens": [name]}
            for name, token_id in ids.items()
        },
    }


def _step(name: str, type_id: int) -> dict[str, Any]:
    kind = "Sequence" if name in ("A", "B") else "SpecialToken"
    return {kind: {"id": name, "type_id": type_id}}


def _words() -> list[str]:
    return " ".join(CORPUS).split()


def _wordpiece(second_type: int = 1) -> dict[str, Any]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    plain = unicodedata.normalize("NFD", OTHER_LETTERS)
    letters = [*LETTERS, *DIGITS, *sorted(set(plain) - set(LETTERS) - set("\u0301\u0300"))]
    letters = [letter for letter in letters if unicodedata.category(letter) != "Mn"]
    words = sorted({word.lower() for word in _words()})
    endings = ["##ing", "##ed", "##s", "##er", "##ding", "##bed", "##tion"]
    vocabulary = [
        *special,
        *(f"[unused{number}]" for number in range(8)),
        *PUNCTUATION,
        *letters,
        *(f"##{letter}" for letter in letters),
        *IDEOGRAPHS,
        *endings,
        *(word for word in words if len(word) > 1),
    ]
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {word: token_id for token_id, word in enumerate(dict.fromkeys(vocabulary))},
    }
    normalizer = {"clean_text": True, "handle_chinese_chars": True}
    normalizer |= {"strip_accents": None, "lowercase": True}
    pair = [("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", second_type), ("[SEP]", second_type)]
    return _tokenizer(
        model,
        (_added(token_id, word) for token_id, word in enumerate(special)),
        {"type": "BertNormalizer", **normalizer},
        {"type": "BertPreTokenizer"},
        _template(["[CLS]", "A", "[SEP]"], pair, {"[CLS]": 2, "[SEP]": 3}),
    )


def _unigram() -> dict[str, Any]:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = Counter(_words())
    # The longer a word, the less likely, so that of some long ones the halves are likelier.
    pieces = {f"▁{word}": -3.0 * len(word) - 0.1 / times for word, times in words.items()}
    pieces |= {word[: len(word) // 2]: -7.0 for word in sorted(words) if len(word) > 5}
    pieces |= {word[len(word) // 2 :]: -7.5 for word in sorted(words) if len(word) > 5}
    letters = [*LETTERS, *LETTERS.upper(), *DIGITS, *PUNCTUATION, *OTHER_LETTERS, *IDEOGRAPHS]
    pieces |= dict.fromkeys(letters, -9.0) | {"▁": -5.0}
    # No two alike: of equals, each implementation may choose another.
    scored = [(piece, score - 1e-3 * index) for index, (piece, score) in enumerate(pieces.items())]
    vocabulary = [*((token, 0.0) for token in special), *scored, ("<mask>", 0.0)]
    single, pair = ["<s>", "A", "</s>"], ["<s>", "A", "</s>", "</s>", "B", "</s>"]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return _tokenizer(
        {"type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": False},
        [
            *(_added(token_id, token) for token_id, token in enumerate(special)),
            _added(len(vocabulary) - 1, "<mask>") | {"lstrip": True},
        ],
        {"type": "Precompiled", "precompiled_charsmap": _charsmap()},
        {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        _template(single, [(name, 0) for name in pair], {"<s>": 0, "</s>": 2}),
    )


def _spaces_of_bge_m3() -> dict[str, Any]:
    """Return how bge-m3's tokenizer.json joins and marks spaces: otherwise than XLM-R's own."""
    normalizers = [
        {"type": "Precompiled", "precompiled_charsmap": _charsmap()},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": metaspace,
    }


def _charsmap() -> str:
    """Return some of NFKC and all spaces → " ", in SentencePiece's format, as base64.

    Little-endian: the size of a double array in bytes, the double array (its units are described in
    llama.cpp's llama-vocab.cpp), and the replacements, each ended by a zero byte.
    """
    replacements = dict.fromkeys("\t\n\r\xa0\u2003\u3000", " ")
    wide = [chr(code) for code in range(0xFF01, 0xFF5F)]
    for letter in [*wide, *"ﬁﬂ²³½№™Å…"]:
        replacements[letter] = unicodedata.normalize("NFKC", letter)
    texts = b""
    trie: dict[int, Any] = {}
    for letter, replacement in replacements.items():
        node = trie
        for byte in letter.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += replacement.encode() + b"\0"
    units = {0: 0}
    _place(trie, 0, units, set())
    size = max(units) // 256 * 256 + 256
    array = struct.pack(f"<{size}I", *(units.get(index, 0) for index in range(size)))
    return base64.b64encode(struct.pack("<I", len(array)) + array + texts).decode()


def _place(trie: Mapping[int, Any], index: int, units: dict[int, int], bases: set[int]) -> None:
    """Give the children of the unit at `index` places that differ from a base of its own by XOR."""
    base = next(
        base
        for base in count(1)
        if base not in bases and all(base ^ label not in units for label in trie)
    )
    bases.add(base)
    units[index] |= (index ^ base) << 10 | (0 in trie) << 8
    for label, child in trie.items():
        units[base ^ label] = 1 << 31 | child if label == 0 else label
    for label, child in trie.items():
        if label:
            _place(child, base ^ label, units, bases)


def _byte_level_bpe(ending: str | None) -> dict[str, Any]:
    letters = _byte_letters()
    words = [
        tuple(letters[byte] for byte in f"{start}{word}".encode())
        for start in ("", " ")
        for word in _words()
    ]
    merges = _learn_merges(words, 260)
    tokens = [*letters, *("".join(merge) for merge in merges)]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    added = [_added(len(tokens) + number, token) for number, token in enumerate(special)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    byte_level |= {"use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}}
    split |= {"behavior": "Isolated", "invert": False}
    post_processor: dict[str, Any] = byte_level
    if ending:
        pair = [("A", 0), (ending, 0), ("B", 0), (ending, 0)]
        template = _template(["A", ending], pair, {ending: len(tokens) + special.index(ending)})
        post_processor = {"type": "Sequence", "processors": [byte_level, template]}
    return _tokenizer(
        _bpe_model(tokens, merges, unknown=None),
        [*added, _added(len(tokens) + len(special), "<think>", special=False)],
        {"type": "NFC"},
        {"type": "Sequence", "pretokenizers": [split, byte_level]},
        post_processor,
    )


def _sentencepiece_bpe() -> dict[str, Any]:
    """Return a tokenizer as Gemma's: merges of characters, bytes for those it doesn't have."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    own = ["\n\n", "▁▁", "<table>"]
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    learned = _learn_merges([tuple(f"▁{word}") for word in _words()], 260)
    pieces = ["".join(merge) for merge in learned]
    letters = ["▁", "\n", *LETTERS, *LETTERS.upper(), *DIGITS, *PUNCTUATION, *OTHER_LETTERS]
    tokens = [*special, *own, *every_byte, *dict.fromkeys(pieces), *letters, *IDEOGRAPHS]
    known = set(tokens)
    merges = [("\n", "\n"), ("▁", "▁")]
    merges += [
        (piece[:cut], piece[cut:])
        for piece in dict.fromkeys(pieces)
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
    return _tokenizer(
        _bpe_model(tokens, merges, unknown="<unk>") | {"byte_fallback": True, "fuse_unk": True},
        [
            *(_added(token_id, token) for token_id, token in enumerate(special)),
            *(_added(len(special) + n, token, special=False) for n, token in enumerate(own)),
        ],
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
        | {"invert": False},
        _template(
            ["<bos>", "A", "<eos>"],
            [("<bos>", 0), ("A", 0), ("<eos>", 0), ("<bos>", 1), ("B", 1), ("<eos>", 1)],
            {"<bos>": 2, "<eos>": 1},
        ),
    )


def _bpe_model(
    tokens: Sequence[str], merges: Sequence[tuple[str, str]], unknown: str | None
) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: token_id for token_id, token in enumerate(dict.fromkeys(tokens))},
        "merges": [list(merge) for merge in merges],
    }


def _byte_letters() -> list[str]:
    """Return the letter that stands for each byte in a byte-level vocabulary, as in GPT-2's."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = count(0x100)
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def _learn_merges(words: Sequence[tuple[str, ...]], size: int) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    while len(merges) < size:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            break
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        words = [_merge(word, merges[-1]) for word in words]
    return merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for part in word:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)
