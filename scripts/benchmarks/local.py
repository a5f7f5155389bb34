"""The engine in this process, without a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.settings import bench_settings
from memoryd.app import GalleryLoader
from memoryd.embeddings.engine import EmbeddingModel, Engine


@asynccontextmanager
async def load_model() -> AsyncIterator[EmbeddingModel]:
    """Yield the default model."""
    settings = bench_settings()
    async with Engine(GalleryLoader(settings.models_dir)) as engine:
        yield await engine.model(settings.model)
