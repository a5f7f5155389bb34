"""The engine in this process, without a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.settings import bench_settings
from memoryd.embeddings.engine import Engine
from memoryd.embeddings.library import fastest_weight_type
from memoryd.embeddings.model import EmbeddingModel
from memoryd.memory.models import ModelLoader
from memoryd.models.store import find_model


@asynccontextmanager
async def load_model() -> AsyncIterator[EmbeddingModel]:
    """Yield the default model."""
    settings = bench_settings()
    async with Engine(ModelLoader(settings.models_dir)) as engine:
        yield await engine.model(settings.model)


def model_file() -> Path:
    """Return the GGUF of the default model, once it was loaded."""
    settings = bench_settings()
    file = find_model(settings.model, settings.models_dir, fastest_weight_type())
    if file is None:
        raise RuntimeError(f"{settings.model} was not loaded before")
    return file.path
