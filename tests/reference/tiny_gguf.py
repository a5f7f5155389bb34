"""A tiny model's folder → GGUF, and what memoryd's engine gives for it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tiny_models import make_tiny

from memoryd.embeddings.llama import LlamaBackend
from memoryd.models.conversion import convert, describe_folder
from memoryd.models.weights import WeightType

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TinyModel:
    """Hold a model's folder and its GGUF."""

    kind: str
    folder: Path
    file: Path


def make_gguf(kind: str, place: Path, weight_type: WeightType) -> TinyModel:
    """Make the tiny model `kind` below `place` and convert it."""
    folder = make_tiny(kind, place / kind)
    return convert_tiny(kind, folder, place / f"{kind}.gguf", weight_type)


def convert_tiny(kind: str, folder: Path, file: Path, weight_type: WeightType) -> TinyModel:
    """Convert a folder as one that a user brings."""
    convert(describe_folder(folder, kind), folder, file, weight_type)
    return TinyModel(kind, folder, file)


@contextmanager
def load(model: TinyModel) -> Iterator[LlamaBackend]:
    """Load a GGUF for as long as the context lasts."""
    backend = LlamaBackend(model.file)
    try:
        yield backend
    finally:
        backend.close()


def encode_alone(backend: LlamaBackend, inputs: Sequence[Sequence[int]]) -> Vectors:
    """Return what the engine gives for each input of token ids, one by one."""
    lane = backend.open_lane(max(map(len, inputs)), 1, backend.pooling)
    try:
        rows = [lane.encode([np.array(ids, dtype=np.int32)], 1)[0] for ids in inputs]
    finally:
        lane.close()
    return np.stack(rows)
