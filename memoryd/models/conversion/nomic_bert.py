"""NomicBERT, as nomic-embed-text v1 and v1.5 have it: rotary positions, SwiGLU, no biases.

Sources: llama.cpp's conversion/bert.py (NomicBertModel) and src/models/nomic-bert.cpp.
"""

from pathlib import Path
from typing import Annotated, Literal

import gguf
from pydantic import Field

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
    Shape,
    Source,
    TensorNames,
    Tensors,
    biased,
    plan_by_name,
)


class _Kind(FileContent):
    n_embd: Count | None = None


class _Config(FileContent):
    """Hold the settings under the names of GPT-2, as the model's authors publish them."""

    n_embd: Count
    n_layer: Count
    n_head: Count
    n_inner: Count
    n_positions: Count
    max_trained_positions: Count = 2048
    type_vocab_size: Count
    layer_norm_epsilon: Factor
    rotary_emb_base: Factor
    rotary_emb_fraction: Annotated[float, Field(ge=1, le=1)]
    rotary_emb_interleaved: Literal[False]
    rotary_emb_scale_base: None = None
    activation_function: Literal["swiglu"]
    causal: Literal[False] = False
    prenorm: Literal[False]
    qkv_proj_bias: Literal[False]
    mlp_fc1_bias: Literal[False]
    mlp_fc2_bias: Literal[False]
    use_rms_norm: Literal[False] | None = False
    moe_every_n_layers: Literal[0] | None = 0


class _NewConfig(FileContent):
    """Hold the settings as transformers writes them since its version 5."""

    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    type_vocab_size: Count
    layer_norm_eps: Factor
    rope_parameters: RopeParameters
    hidden_act: Literal["silu"]


def _read_shape(path: Path) -> Shape:
    if read_json(path, _Kind).n_embd is None:
        return _read_new_shape(path)
    config = read_json(path, _Config)
    check_heads(path, config.n_embd, config.n_head)
    # Beyond what it was trained for, the model needs positions scaled, which llama.cpp leaves out.
    context_tokens = min(config.n_positions, config.max_trained_positions)
    others = {
        gguf.Keys.Attention.LAYERNORM_EPS: config.layer_norm_epsilon,
        gguf.Keys.Attention.CAUSAL: False,
        gguf.Keys.Rope.FREQ_BASE: config.rotary_emb_base,
        gguf.Keys.Tokenizer.TOKEN_TYPE_COUNT: config.type_vocab_size,
    }
    return Shape(
        config.n_embd, context_tokens, config.n_layer, config.n_head, config.n_inner, others
    )


def _read_new_shape(path: Path) -> Shape:
    config = read_json(path, _NewConfig)
    check_heads(path, config.hidden_size, config.num_attention_heads)
    others = {
        gguf.Keys.Attention.LAYERNORM_EPS: config.layer_norm_eps,
        gguf.Keys.Attention.CAUSAL: False,
        gguf.Keys.Rope.FREQ_BASE: config.rope_parameters.rope_theta,
        gguf.Keys.Tokenizer.TOKEN_TYPE_COUNT: config.type_vocab_size,
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
    once={
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        **biased("emb_ln", "token_embd_norm"),
    },
    layer_path="encoder.layers.{}",
    layer={
        "attn.Wqkv.weight": "attn_qkv.weight",
        "attn.out_proj.weight": "attn_output.weight",
        "mlp.fc11.weight": "ffn_up.weight",
        "mlp.fc12.weight": "ffn_gate.weight",
        "mlp.fc2.weight": "ffn_down.weight",
        **biased("norm1", "attn_output_norm"),
        **biased("norm2", "layer_output_norm"),
    },
    prefixes=("bert.",),
    unused=("pooler.", "cls."),
)


def _plan_tensors(source: Source) -> Tensors:
    return plan_by_name(source, _NAMES)


NOMIC_BERT = Architecture(gguf.MODEL_ARCH.NOMIC_BERT, _read_shape, _plan_tensors)
