"""What goes into a GGUF file, before any of it is written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf

from memoryd.errors import ModelFileError
from memoryd.models.conversion.modules import DenseModule
from memoryd.models.conversion.stored_tensors import StoredTensor

FieldValue = bool | int | float | str | bytes | Sequence[str] | Sequence[int] | Sequence[float]
Fields = dict[str, FieldValue]
"""Values by GGUF's keys; `{arch}` in a key stands for the architecture's name."""


@dataclass(frozen=True)
class PlannedTensor:
    """Say where a tensor's rows come from, and what is added to each number."""

    parts: tuple[StoredTensor, ...]
    added: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of all parts together."""
        return sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]


Tensors = dict[str, PlannedTensor]
"""Tensors by GGUF's names."""


@dataclass(frozen=True)
class Shape:
    """Hold what a config.json says of a model; `others` are what not every architecture has."""

    dimensions: int
    context_tokens: int
    layers: int
    heads: int
    feed_forward: int
    others: Mapping[str, FieldValue]

    @property
    def fields(self) -> Fields:
        """Return all of it in GGUF's terms."""
        return {
            gguf.Keys.LLM.BLOCK_COUNT: self.layers,
            gguf.Keys.LLM.CONTEXT_LENGTH: self.context_tokens,
            gguf.Keys.LLM.EMBEDDING_LENGTH: self.dimensions,
            gguf.Keys.LLM.FEED_FORWARD_LENGTH: self.feed_forward,
            gguf.Keys.Attention.HEAD_COUNT: self.heads,
            **self.others,
        }


@dataclass(frozen=True)
class Source:
    """Hold what a model's tensors are planned from; `token_ids` are by the tokens' texts."""

    shape: Shape
    stored: Mapping[str, StoredTensor]
    token_ids: Mapping[str, int]
    dense: Sequence[DenseModule]
    is_reranker: bool


@dataclass(frozen=True)
class Architecture:
    """Say how the folders of an architecture become a GGUF file."""

    gguf: gguf.MODEL_ARCH
    read_shape: Callable[[Path], Shape]
    """Reads a config.json; raises ModelFileError."""
    plan_tensors: Callable[[Source], Tensors]
    """Raises ModelFileError."""
    rank_fields: Fields | None = None
    """What a reranker's file says besides; None where there is no way to score pairs."""
    has_score_head: bool = False
    """Whether such a folder is a reranker's always."""
    takes_dense: bool = False
    """Whether Dense modules may follow the pooling."""


@dataclass(frozen=True)
class TensorNames:
    """Hold GGUF's names by those of a folder; `layer` holds those within the layer `{}`."""

    once: Mapping[str, str]
    layer_path: str
    layer: Mapping[str, str]
    prefixes: tuple[str, ...]
    """What may stand before all names."""
    unused: tuple[str, ...]
    """Beginnings of names that have no part in vectors or scores."""


# What older files keep although it follows from the configuration.
_DERIVED = ".rotary_emb.inv_freq"


def biased(source: str, target: str) -> dict[str, str]:
    """Return the names of the two tensors of a layer with a bias."""
    return {f"{source}.{part}": f"{target}.{part}" for part in ("weight", "bias")}


def plan_by_name(source: Source, names: TensorNames) -> Tensors:
    """Return the tensors of `source` under GGUF's names, each whole.

    Raises ModelFileError where one is missing, or one is there whose part in the model is unknown.
    """
    stored = {_plain_name(name, names): tensor for name, tensor in source.stored.items()}
    targets = dict(names.once)
    for layer in range(source.shape.layers):
        path = names.layer_path.format(layer)
        targets |= {f"{path}.{old}": f"blk.{layer}.{new}" for old, new in names.layer.items()}
    if missing := targets.keys() - stored.keys():
        raise ModelFileError(f"{_folder(source)} lacks the tensor {min(missing)}")
    extra = {
        name
        for name in stored.keys() - targets.keys()
        if not name.startswith(names.unused) and not name.endswith(_DERIVED)
    }
    if extra:
        raise ModelFileError(
            f"{_folder(source)} has the tensor {min(extra)}, unknown in such models"
        )
    if empty := {old for old in targets if 0 in (stored[old].shape or (0,))}:
        raise ModelFileError(f"{_folder(source)} has nothing in the tensor {min(empty)}")
    return {new: PlannedTensor((stored[old],)) for old, new in targets.items()}


def _plain_name(name: str, names: TensorNames) -> str:
    for prefix in names.prefixes:
        name = name.removeprefix(prefix)
    # The names that TensorFlow gave to what norms multiply with and add.
    if name.endswith(".gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if name.endswith(".beta") else name


def _folder(source: Source) -> Path | str:
    return next((tensor.path.parent for tensor in source.stored.values()), "the model's folder")
