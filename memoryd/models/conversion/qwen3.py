"""Qwen3, as Qwen3-Embedding and Qwen3-Reranker have it.

Sources: llama.cpp's conversion/qwen.py and src/models/qwen3.cpp.
"""

from pathlib import Path
from typing import Literal

import gguf

from memoryd.errors import ModelFileError
from memoryd.models.conversion.json_files import (
    Count,
    Factor,
    FileContent,
    RopeParameters,
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
    plan_by_name,
)

ATTENTION = gguf.Keys.Attention

RERANK_TEMPLATE = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n"
    "<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n"
    "<think>\n\n</think>\n\n"
)
"""How Qwen3-Reranker's README puts a query and a document together."""


class _Config(FileContent):
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    intermediate_size: Count
    max_position_embeddings: Count
    rms_norm_eps: Factor
    rope_theta: Factor | None = None
    rope_scaling: None = None
    rope_parameters: RopeParameters | None = None
    hidden_act: Literal["silu"]
    attention_bias: Literal[False]
    use_sliding_window: Literal[False]


def _read_shape(path: Path) -> Shape:
    config = read_json(path, _Config)
    rope_theta = config.rope_parameters.rope_theta if config.rope_parameters else config.rope_theta
    if rope_theta is None:
        raise ModelFileError(f"{path} can't be used: rope_theta is missing")
    check_heads(path, config.num_attention_heads, config.num_key_value_heads)
    others = {
        ATTENTION.HEAD_COUNT_KV: config.num_key_value_heads,
        ATTENTION.KEY_LENGTH: config.head_dim,
        ATTENTION.VALUE_LENGTH: config.head_dim,
        ATTENTION.LAYERNORM_RMS_EPS: config.rms_norm_eps,
        gguf.Keys.Rope.FREQ_BASE: rope_theta,
    }
    return Shape(
        config.hidden_size,
        config.max_position_embeddings,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        others,
    )


_NAMES = TensorNames(
    once={"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"},
    layer_path="layers.{}",
    layer={
        "input_layernorm.weight": "attn_norm.weight",
        "self_attn.q_proj.weight": "attn_q.weight",
        "self_attn.k_proj.weight": "attn_k.weight",
        "self_attn.v_proj.weight": "attn_v.weight",
        "self_attn.q_norm.weight": "attn_q_norm.weight",
        "self_attn.k_norm.weight": "attn_k_norm.weight",
        "self_attn.o_proj.weight": "attn_output.weight",
        "post_attention_layernorm.weight": "ffn_norm.weight",
        "mlp.gate_proj.weight": "ffn_gate.weight",
        "mlp.up_proj.weight": "ffn_up.weight",
        "mlp.down_proj.weight": "ffn_down.weight",
    },
    prefixes=("model.",),
    unused=("lm_head.",),
)


def _plan_tensors(source: Source) -> Tensors:
    tensors = plan_by_name(source, _NAMES)
    if source.is_reranker:
        return tensors | {"cls.output.weight": _answers(source, tensors)}
    return tensors


def _answers(source: Source, tensors: Tensors) -> PlannedTensor:
    """Return the rows of the head over all words that give "yes" and "no" their chances."""
    [words] = tensors["token_embd.weight"].parts
    head = source.stored.get("lm_head.weight", words)
    rows = []
    for answer in ("yes", "no"):
        row = source.token_ids.get(answer)
        if row is None:
            raise ModelFileError(
                f"{head.path.parent / 'tokenizer.json'} lacks the token {answer!r}"
            )
        rows.append(head.rows(row, row + 1))
    return PlannedTensor(tuple(rows))


QWEN3 = Architecture(
    gguf.MODEL_ARCH.QWEN3,
    _read_shape,
    _plan_tensors,
    rank_fields={
        gguf.Keys.Classifier.OUTPUT_LABELS: ["yes", "no"],
        gguf.Keys.Tokenizer.CHAT_TEMPLATES: ["rerank"],
        gguf.Keys.Tokenizer.CHAT_TEMPLATE_N.format(name="rerank"): RERANK_TEMPLATE,
    },
)
