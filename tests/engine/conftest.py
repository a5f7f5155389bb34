"""Tiny models with random weights, converted once."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from openers import OpenTiny
from opening import open_model
from tiny_models import KINDS, make_tiny

from memoryd.embeddings.engine import LONG_INPUT_BYTES
from memoryd.embeddings.llama import LlamaBackend
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import ModelSpec, Pooling, Tuning
from memoryd.models.conversion import convert, describe_folder


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the GGUF of each kind of tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    files = {}
    for kind in KINDS:
        source = make_tiny(kind, folder / kind)
        files[kind] = folder / f"{kind}.gguf"
        convert(describe_folder(source, kind), source, files[kind], "f32")
    return files


@pytest.fixture(scope="session")
def tiny_backends(tiny_files: dict[str, Path]) -> Iterator[dict[str, LlamaBackend]]:
    """Give each tiny model, loaded; nobody may close it."""
    backends = {kind: LlamaBackend(path) for kind, path in tiny_files.items()}
    yield backends
    for backend in backends.values():
        backend.close()


@pytest.fixture(scope="session")
def open_tiny(tiny_files: dict[str, Path]) -> OpenTiny:
    """Give what opens a tiny model with lanes and a queue."""

    @asynccontextmanager
    async def start(
        kind: str,
        tuning: Tuning | None = None,
        *,
        pooling: Pooling | None = None,
        max_tokens: int | None = None,
        long_input_bytes: int = LONG_INPUT_BYTES,
        max_waiting_requests: int = 512,
    ) -> AsyncIterator[EmbeddingModel]:
        tuning = tuning or Tuning(lanes=2)
        backend = LlamaBackend(tiny_files[kind], pooling=pooling)
        model = open_model(
            backend,
            ModelSpec(kind, max_tokens=max_tokens),
            tuning,
            max_waiting_requests=max_waiting_requests,
            long_input_bytes=long_input_bytes,
        )
        try:
            yield model
        finally:
            await model.close()

    return start
