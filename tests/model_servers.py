"""memoryd over a models directory of the test's own, with tiny models that are really run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from servers import Running, Serve
from tiny_models import make_tiny

from memoryd.config import Settings
from memoryd.embeddings.engine import Engine
from memoryd.memory.models import ModelLoader
from memoryd.models.conversion import convert, describe_folder


def put_tiny(kind: str, target: Path) -> Path:
    """Write a GGUF of that kind of tiny model, and return where it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = make_tiny(kind, target.parent / f".made-{target.stem}")
    convert(describe_folder(source, target.stem), source, target, "f32")
    return target


@asynccontextmanager
async def serve_tiny(
    serve: Serve, models_dir: Path, *kinds: str, **settings: Any
) -> AsyncIterator[Running]:
    """Serve the models of `models_dir`, with tiny ones called by their kinds beside them.

    Collections work with one called "tiny", where `settings` name no other; it is a BERT.
    """
    chosen = {"models_dir": models_dir, "model": "tiny", "measure_models": False, **settings}
    default = models_dir / f"{chosen['model']}.gguf"
    if not default.exists():
        put_tiny("bert", default)
    for kind in kinds:
        put_tiny(kind, models_dir / f"{kind}.gguf")
    loader = ModelLoader.of(Settings(**chosen))
    async with Engine(loader) as engine, serve(engine, **chosen) as running:
        yield running
