"""BERT and XLM-RoBERTa, as encoders and as rerankers.

Sources: llama.cpp's conversion/bert.py and src/models/bert.cpp; for the heads
BertForSequenceClassification and RobertaClassificationHead of transformers; for the names in Jina's
files convert_roberta_weights_to_flash.py of its xlm-roberta-flash-implementation.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import gguf

from memoryd.errors import ModelFileError
from memoryd.models.conversion.json_files import (
    Count,
    Factor,
    FileContent,
    TokenId,
    check_heads,
    read_json,
)
from memoryd.models.conversion.plan import (
    Architecture,
    PlannedTensor,
    Shape,
    Source,
    TensorNames,
    Tensors,
    biased,
    plan_by_name,
)


class _Config(FileContent):
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    type_vocab_size: Count
    layer_norm_eps: Factor
    # llama.cpp computes GELU by tanh; the difference is far below that of bf16.
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh"]
    position_embedding_type: Literal["absolute"] | None = "absolute"
    is_decoder: Literal[False] = False


class _RobertaConfig(_Config):
    pad_token_id: TokenId


def _read_bert(path: Path) -> Shape:
    config = read_json(path, _Config)
    return _shape(path, config, config.max_position_embeddings)


def _read_roberta(path: Path) -> Shape:
    config = read_json(path, _RobertaConfig)
    context_tokens = config.max_position_embeddings - _unused_positions(config)
    if context_tokens < 1:
        raise ModelFileError(f"{path}: no positions follow that of the padding")
    return _shape(path, config, context_tokens)


def _unused_positions(config: _RobertaConfig) -> int:
    """Positions are counted from the id after the padding token's."""
    return config.pad_token_id + 1


def _shape(path: Path, config: _Config, context_tokens: int) -> Shape:
    check_heads(path, config.hidden_size, config.num_attention_heads)
    others = {
        gguf.Keys.Attention.LAYERNORM_EPS: config.layer_norm_eps,
        gguf.Keys.Attention.CAUSAL: False,
        gguf.Keys.Tokenizer.TOKEN_TYPE_COUNT: config.type_vocab_size,
    }
    return Shape(
        config.hidden_size,
        context_tokens,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        others,
    )


_NAMES = TensorNames(
    once={
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "embeddings.position_embeddings.weight": "position_embd.weight",
        **biased("embeddings.LayerNorm", "token_embd_norm"),
    },
    layer_path="encoder.layer.{}",
    layer={
        **biased("attention.self.query", "attn_q"),
        **biased("attention.self.key", "attn_k"),
        **biased("attention.self.value", "attn_v"),
        **biased("attention.output.dense", "attn_output"),
        **biased("attention.output.LayerNorm", "attn_output_norm"),
        **biased("intermediate.dense", "ffn_up"),
        **biased("output.dense", "ffn_down"),
        **biased("output.LayerNorm", "layer_output_norm"),
    },
    prefixes=("bert.", "roberta."),
    # Heads for masked words and for whole texts, which embeddings don't pass.
    unused=("pooler.", "cls.", "lm_head.", "embeddings.position_ids"),
)
# The same model as Jina's implementation of XLM-RoBERTa has it, in jina-reranker-v2 for one.
_JINA_NAMES = replace(
    _NAMES,
    once={
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "embeddings.position_embeddings.weight": "position_embd.weight",
        **biased("emb_ln", "token_embd_norm"),
    },
    layer_path="encoder.layers.{}",
    layer={
        **biased("mixer.Wqkv", "attn_qkv"),
        **biased("mixer.out_proj", "attn_output"),
        **biased("norm1", "attn_output_norm"),
        **biased("mlp.fc1", "ffn_up"),
        **biased("mlp.fc2", "ffn_down"),
        **biased("norm2", "layer_output_norm"),
    },
)
# Both heads: a matrix, tanh, and a matrix of one row.
_BERT_HEAD = biased("pooler.dense", "cls") | biased("classifier", "cls.output")
_ROBERTA_HEAD = biased("classifier.dense", "cls") | biased("classifier.out_proj", "cls.output")


def _plan_encoder(source: Source) -> Tensors:
    return plan_by_name(source, _NAMES)


def _plan_roberta_encoder(source: Source) -> Tensors:
    return _drop_positions(source, plan_by_name(source, _roberta_names(source)))


def _plan_bert_reranker(source: Source) -> Tensors:
    names = replace(_NAMES, once={**_NAMES.once, **_BERT_HEAD})
    return _with_one_score(plan_by_name(source, names))


def _plan_roberta_reranker(source: Source) -> Tensors:
    names = _roberta_names(source)
    with_head = replace(names, once={**names.once, **_ROBERTA_HEAD})
    return _with_one_score(_drop_positions(source, plan_by_name(source, with_head)))


def _roberta_names(source: Source) -> TensorNames:
    is_jinas = any(name.endswith("emb_ln.weight") for name in source.stored)
    return _JINA_NAMES if is_jinas else _NAMES


def _drop_positions(source: Source, tensors: Tensors) -> Tensors:
    [positions] = tensors["position_embd.weight"].parts
    rows = positions.shape[0]
    used = positions.rows(rows - source.shape.context_tokens, rows)
    return tensors | {"position_embd.weight": PlannedTensor((used,))}


def _with_one_score(tensors: Tensors) -> Tensors:
    head = tensors["cls.output.weight"]
    if head.shape[0] != 1:
        path = head.parts[0].path
        raise ModelFileError(f"{path} is a classifier of {head.shape[0]} classes, not a reranker")
    return tensors


BERT = Architecture(gguf.MODEL_ARCH.BERT, _read_bert, _plan_encoder)
BERT_RERANKER = Architecture(
    gguf.MODEL_ARCH.BERT, _read_bert, _plan_bert_reranker, rank_fields={}, has_score_head=True
)
XLM_ROBERTA = Architecture(gguf.MODEL_ARCH.BERT, _read_roberta, _plan_roberta_encoder)
XLM_ROBERTA_RERANKER = Architecture(
    gguf.MODEL_ARCH.BERT, _read_roberta, _plan_roberta_reranker, rank_fields={}, has_score_head=True
)
