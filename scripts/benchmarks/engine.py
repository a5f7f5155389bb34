"""Bulk embedding beside llama_cpp.Llama.create_embedding: the same file, the same texts."""

import re
import statistics
import time
from collections.abc import Iterator

from benchmarks.data import read_abstracts
from benchmarks.local import load_model
from benchmarks.plain import Plain, run_plain
from benchmarks.settings import bench_settings
from memoryd.embeddings.engine import EmbeddingModel
from memoryd.embeddings.llama import fastest_weight_type
from memoryd.models.store import find_model

# Tokens per text, special ones included, and texts per round: about the same work each.
_KINDS = {"short": (24, 1_200), "mid": (160, 200), "long": (490, 60)}


async def run(rounds: int) -> None:
    """Print tokens per second of both and their ratio, the medians of alternating rounds."""
    async with load_model() as model:
        file = find_model(model.spec.name, bench_settings().models_dir, fastest_weight_type())
        if file is None:
            raise RuntimeError("the model was loaded, so its file is there")
        with run_plain(str(file.path)) as plain:
            print("tokens/s, medians")
            print(f"{'texts':>6} {'memoryd':>9} {'create_embedding':>17} {'ratio':>6}")
            for kind, (length, count) in _KINDS.items():
                await _compare(model, plain, kind, _texts(model, length, count), rounds)


async def _compare(
    model: EmbeddingModel, plain: Plain, kind: str, texts: list[str], rounds: int
) -> None:
    tokens = sum(len(model.encode_document("", text)) for text in texts)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(tokens / await _time_memoryd(model, texts))
        theirs.append(tokens / plain.time_s(texts))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"{kind:>6} {statistics.median(ours):>9.0f} {statistics.median(theirs):>17.0f}"
        f" {ratio:>6.2f}"
    )


async def _time_memoryd(model: EmbeddingModel, texts: list[str]) -> float:
    started = time.perf_counter()
    await model.embed(texts)
    return time.perf_counter() - started


def _texts(model: EmbeddingModel, length: int, count: int) -> list[str]:
    """Cut the corpus into `count` texts whose lengths vary by a third around `length` tokens."""
    texts: list[str] = []
    words = _words()
    while len(texts) < count:
        wanted = length - model.special_tokens + (len(texts) % 3 - 1) * length // 6
        wanted = min(wanted, model.max_tokens - model.special_tokens)
        text, tokens = [], 0
        while tokens < wanted:
            word = next(words)
            text.append(word)
            tokens += model.count_tokens(word)
        texts.append(" ".join(text if tokens == wanted else text[:-1]))
    return texts


def _words() -> Iterator[str]:
    for abstract in read_abstracts():
        yield from re.findall(r"\S+", abstract["text"])
