"""Vectors of the default model that take minutes to make: embedded once, in this process, and kept.

They lie in $MEMORYD_BENCH_CACHE, else in ~/.cache/memoryd/bench, under a name that changes with the
texts. What was embedded before a break-off isn't embedded again.
"""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import orjson

from benchmarks.child import batches
from benchmarks.local import load_model
from memoryd.embeddings.model import EmbeddingModel
from memoryd.vectors.types import Vectors

_PART = 2_000


def cache_folder() -> Path:
    """Return where benchmarks keep what takes long to make."""
    default = Path.home() / ".cache" / "memoryd" / "bench"
    return Path(os.environ.get("MEMORYD_BENCH_CACHE", default))


async def embed_chunks(name: str, chunks: Sequence[tuple[str, str]]) -> Vectors:
    """Return the unit vectors of chunks, each a title and a text, shape (chunks, dimensions)."""
    path = _path(name, chunks)
    if not path.is_file():
        async with load_model() as model:
            parts = [part async for part in _embed_parts(path, model, chunks)]
        _save(path, np.concatenate([np.load(part) for part in parts]))
        shutil.rmtree(_parts(path))
    return np.asarray(np.load(path))


async def embed_queries(name: str, queries: Sequence[str]) -> Vectors:
    """Return the unit vectors of queries, shape (queries, dimensions)."""
    path = _path(name, queries)
    if not path.is_file():
        async with load_model() as model:
            _save(path, np.concatenate([await model.embed_query(query) for query in queries]))
    return np.asarray(np.load(path))


def _path(name: str, texts: object) -> Path:
    digest = hashlib.blake2b(orjson.dumps(texts), digest_size=6).hexdigest()
    return cache_folder() / f"{name}-{digest}.npy"


def _parts(path: Path) -> Path:
    return path.with_suffix(".parts")


def _save(path: Path, vectors: Vectors) -> None:
    """Write a file that is there wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (unfinished := path.with_suffix(".unfinished")).open("wb") as file:
        np.save(file, vectors)
    unfinished.rename(path)


async def _embed_parts(
    path: Path, model: EmbeddingModel, chunks: Sequence[tuple[str, str]]
) -> AsyncIterator[Path]:
    """Yield a file for each part of `chunks`; those that are there stay as they are."""
    for number, part in enumerate(batches(chunks, _PART)):
        saved = _parts(path) / f"{number:04}.npy"
        if not saved.is_file():
            print(f"embedding {path.stem}: {number * _PART:,} of {len(chunks):,}", flush=True)
            inputs = [model.encode_document(title, text) for title, text in part]
            _save(saved, await model.embed_inputs(inputs))
        yield saved
