"""The architectures that can be converted, by the names that config.json has for them."""

from pathlib import Path

from pydantic import Field

from memoryd.errors import ModelFileError
from memoryd.models.conversion.bert import (
    BERT,
    BERT_RERANKER,
    XLM_ROBERTA,
    XLM_ROBERTA_RERANKER,
)
from memoryd.models.conversion.gemma import GEMMA_EMBEDDING
from memoryd.models.conversion.json_files import FileContent, read_json
from memoryd.models.conversion.nomic_bert import NOMIC_BERT
from memoryd.models.conversion.plan import Architecture
from memoryd.models.conversion.qwen3 import QWEN3

ARCHITECTURES: dict[str, Architecture] = {
    "BertModel": BERT,
    "BertForMaskedLM": BERT,
    "BertForSequenceClassification": BERT_RERANKER,
    "XLMRobertaModel": XLM_ROBERTA,
    "XLMRobertaForSequenceClassification": XLM_ROBERTA_RERANKER,
    "NomicBertModel": NOMIC_BERT,
    "Qwen3Model": QWEN3,
    "Qwen3ForCausalLM": QWEN3,
    "Gemma3TextModel": GEMMA_EMBEDDING,
}


class _Config(FileContent):
    architectures: list[str] = Field(min_length=1)


def read_architecture(root: Path) -> Architecture:
    """Return the architecture of the model whose config.json lies in `root`.

    Raises ModelFileError naming those that can be had.
    """
    path = root / "config.json"
    [name, *_] = read_json(path, _Config).architectures
    if name not in ARCHITECTURES:
        raise ModelFileError(
            f"{path}: the architecture {name} can't be converted; {', '.join(ARCHITECTURES)} can"
        )
    return ARCHITECTURES[name]
