"""Export the model to ONNX, and quantize it: a script for the peers' environment.

Eager attention is exported, since ONNX Runtime knows its pattern and fuses it.
"""

import sys
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from transformers import AutoModel

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_AXES = {0: "texts", 1: "tokens"}


class _TokenEmbeddings(nn.Module):
    """Return the last layer's states alone, shape (texts, tokens, dimensions)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def export(folder: str, file: Path) -> None:
    """Write the float32 graph of the model in `folder` to `file`."""
    model = AutoModel.from_pretrained(
        folder, attn_implementation="eager", add_pooling_layer=False, dtype=torch.float32
    )
    ids = torch.randint(1_000, 2_000, (3, 17))
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0  # else the tracer takes the mask for a constant
    torch.onnx.export(
        _TokenEmbeddings(model).eval(),
        (ids, mask, torch.zeros_like(ids)),
        file,
        input_names=list(_INPUTS),
        output_names=["token_embeddings"],
        dynamic_axes=dict.fromkeys((*_INPUTS, "token_embeddings"), _AXES),
        opset_version=17,
        dynamo=False,
    )


def _main(folder: str, fp32: Path, int8: Path) -> None:
    part = fp32.with_suffix(".part")
    export(folder, part)
    quantize_dynamic(part, int8, per_channel=True, weight_type=QuantType.QInt8)
    part.replace(fp32)  # last, since it stands for both


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
