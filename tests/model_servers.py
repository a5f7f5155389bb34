"""memoryd over a models directory of the test's own, with tiny models that are really run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from servers import Running, Serve
from tiny_models import make_tiny

from memoryd.config import Settings
from memoryd.embeddings.engine import Engine
from memoryd.embeddings.measurements import find_measurement, fingerprint, keep_measurement
from memoryd.embeddings.trial import Trial
from memoryd.memory.models import ModelLoader
from memoryd.models.conversion import convert, describe_folder


def put_tiny(kind: str, target: Path) -> Path:
    """Write a GGUF of that kind of tiny model, and return where it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_tiny(kind, target.stem))
    return target


@cache
def _tiny(kind: str, name: str) -> bytes:
    with TemporaryDirectory() as folder:
        source, target = make_tiny(kind, Path(folder) / "source"), Path(folder) / "model.gguf"
        convert(describe_folder(source, name), source, target, "f32")
        return target.read_bytes()


# Of default models, which are tried when their servers start: half a second for each.
_TRIALS: dict[str, Trial] = {}


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
    key = fingerprint(default, None, 0)
    if trial := _TRIALS.get(key):
        with suppress(OSError):  # where it can't be kept, it is tried again
            keep_measurement(models_dir, key, trial)
    loader = ModelLoader.of(Settings(**chosen))
    async with Engine(loader) as engine, serve(engine, **chosen) as running:
        if trial := find_measurement(models_dir, key):
            _TRIALS[key] = trial
        yield running
