"""Gemma 3 as an encoder: embeddinggemma.

Sources: llama.cpp's conversion/gemma.py (EmbeddingGemma) and src/models/gemma-embedding.cpp.
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
    RopeParameters,
    check_heads,
    read_json,
)
from memoryd.models.conversion.plan import (
    Architecture,
    Fields,
    PlannedTensor,
    Shape,
    Source,
    TensorNames,
    Tensors,
    plan_by_name,
)

ATTENTION = gguf.Keys.Attention


class _RopeParameters(FileContent):
    full_attention: RopeParameters
    sliding_attention: RopeParameters


class _Config(FileContent):
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    query_pre_attn_scalar: Count
    intermediate_size: Count
    max_position_embeddings: Count
    sliding_window: Count
    layer_types: list[Literal["sliding_attention", "full_attention"]]
    rms_norm_eps: Factor
    rope_theta: Factor = 1_000_000.0
    rope_local_base_freq: Factor = 10_000.0
    rope_scaling: None = None
    rope_parameters: _RopeParameters | None = None
    hidden_activation: Literal["gelu_pytorch_tanh"]
    attention_bias: Literal[False]
    use_bidirectional_attention: Literal[True]

    @property
    def rope_bases(self) -> tuple[float, float]:
        """Return the base of layers that see all tokens, and that of the others."""
        if rope := self.rope_parameters:
            return rope.full_attention.rope_theta, rope.sliding_attention.rope_theta
        return self.rope_theta, self.rope_local_base_freq


def _read_shape(path: Path) -> Shape:
    config = read_json(path, _Config)
    if config.query_pre_attn_scalar != config.head_dim:
        raise ModelFileError(f"{path}: query_pre_attn_scalar isn't head_dim, which llama.cpp takes")
    if len(config.layer_types) != config.num_hidden_layers:
        raise ModelFileError(f"{path}: layer_types doesn't name the type of each layer")
    if len(set(config.layer_types)) < 2:
        # It ends the process over an attention mask that no layer uses.
        raise ModelFileError(f"{path}: llama.cpp needs layers of both types in layer_types")
    check_heads(path, config.num_attention_heads, config.num_key_value_heads)
    rope_base, rope_base_swa = config.rope_bases
    others: Fields = {
        ATTENTION.HEAD_COUNT_KV: config.num_key_value_heads,
        ATTENTION.KEY_LENGTH: config.head_dim,
        ATTENTION.VALUE_LENGTH: config.head_dim,
        ATTENTION.LAYERNORM_RMS_EPS: config.rms_norm_eps,
        ATTENTION.SLIDING_WINDOW: config.sliding_window,
        ATTENTION.SLIDING_WINDOW_PATTERN: [
            layer_type == "sliding_attention" for layer_type in config.layer_types
        ],
        gguf.Keys.Rope.FREQ_BASE: rope_base,
        gguf.Keys.Rope.FREQ_BASE_SWA: rope_base_swa,
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
        "post_attention_layernorm.weight": "post_attention_norm.weight",
        "pre_feedforward_layernorm.weight": "ffn_norm.weight",
        "mlp.gate_proj.weight": "ffn_gate.weight",
        "mlp.up_proj.weight": "ffn_up.weight",
        "mlp.down_proj.weight": "ffn_down.weight",
        "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    },
    prefixes=("model.",),
    unused=("lm_head.",),
)


def _plan_tensors(source: Source) -> Tensors:
    tensors = plan_by_name(source, _NAMES)
    return {
        # Gemma multiplies by one more than what is stored.
        name: replace(tensor, added=1.0) if name.endswith("norm.weight") else tensor
        for name, tensor in tensors.items()
    } | _plan_dense(source)


def _plan_dense(source: Source) -> Tensors:
    """Return the two matrices after the pooling, or none."""
    if not source.dense:
        return {}
    if len(source.dense) != 2:
        raise ModelFileError(f"{source.dense[0].path}: two Dense modules are supported, or none")
    first, second = (module.weight for module in source.dense)
    if first.shape != second.shape[::-1] or first.shape[1] != source.shape.dimensions:
        raise ModelFileError(f"{source.dense[1].path}: its widths aren't those of the model")
    return {
        "dense_2.weight": PlannedTensor((first,)),
        "dense_3.weight": PlannedTensor((second,)),
    }


GEMMA_EMBEDDING = Architecture(
    gguf.MODEL_ARCH.GEMMA_EMBEDDING, _read_shape, _plan_tensors, takes_dense=True
)
