"""What HTTP costs: the server's tokens per second and lone queries beside the bare engine."""

import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.child import Child, number_of_cores, run_child
from benchmarks.llama_server import embedding_bodies, read_answers
from benchmarks.report import Report, Target
from benchmarks.texts import SHORT, cut_texts
from memoryd.embeddings.model import EmbeddingModel

EMBEDDINGS_PATH = "/v1/embeddings"
# Short texts are where HTTP costs most per token.
_TEXTS = 640
_MANY_CLIENTS, _MANY_TEXTS = 64, 32
_SHARE = Target.at_least(92)
_LONE_RATIO = Target.at_most(1.6)
_LONE_QUERY = "what does vitamin c do in the body"  # 10 tokens with [CLS] and [SEP]
_LONE_COUNT = 100


@dataclass
class _Load:
    """Be a way of sending texts, and what was measured of it."""

    clients: int
    size: int
    """Texts per request."""
    texts: list[str]
    tokens: int
    percent: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)
    cpu_percent: list[float] = field(default_factory=list)

    @property
    def is_judged(self) -> bool:
        return self.size > 1 or self.clients == _MANY_CLIENTS


async def measure_http(
    report: Report, model: EmbeddingModel, url: str, clients: Child, rounds: int, scale: float
) -> None:
    """Report tokens/s over HTTP for 1, 8 and 64 clients as a percentage of those in process."""
    loads = [
        await _make_load(model, count, size, scale)
        for size in (max(2, round(_MANY_TEXTS * scale)), 1)
        for count in (1, 8, _MANY_CLIENTS)
    ]
    alone, cosine = [], 1.0
    for _ in range(rounds):
        in_process = await _in_process_tokens_per_s(model, loads[0])
        alone.append(in_process)
        for load in loads:
            cosine = min(cosine, await _send(model, url, clients, load, in_process))
    _report_loads(report, loads, statistics.median(alone))
    report.note(f"vectors over HTTP beside those in process: least cosine {cosine:.6f}")


async def _make_load(model: EmbeddingModel, clients: int, size: int, scale: float) -> _Load:
    texts = cut_texts(model, SHORT, max(round(_TEXTS * scale), clients * size))
    return _Load(clients, size, texts, (await model.embed(texts)).token_count)


async def _in_process_tokens_per_s(model: EmbeddingModel, load: _Load) -> float:
    started = time.perf_counter()
    await model.embed(load.texts)
    return load.tokens / (time.perf_counter() - started)


async def _send(
    model: EmbeddingModel, url: str, clients: Child, load: _Load, in_process: float
) -> float:
    """Add a measurement to `load`; return the least cosine to a few vectors made in process."""
    bodies = embedding_bodies(load.texts, load.size)
    answer = clients.call(
        "send_all", url=url, path=EMBEDDINGS_PATH, bodies=bodies, clients=load.clients
    )
    tokens_per_s = load.tokens / answer["seconds"]
    load.tokens_per_s.append(tokens_per_s)
    load.percent.append(100 * tokens_per_s / in_process)
    load.cpu_percent.append(100 * answer["cpu_s"] / answer["seconds"])
    few = slice(None, None, 1 + len(load.texts) // 16)
    expected = (await model.embed(load.texts[few])).vectors
    return float(np.einsum("td,td->t", read_answers(answer["answers"])[few], expected).min())


def _report_loads(report: Report, loads: Iterable[_Load], in_process: float) -> None:
    report.section(
        "over HTTP, short texts by POST /v1/embeddings (base64), % of in process",
        {"tokens/s": ",.0f", "%": ".1f", "client CPU %": ".1f"},
    )
    report.row("in process", {"tokens/s": in_process})
    for load in loads:
        plural = "s" if load.clients > 1 else ""
        report.row(
            f"{load.clients} client{plural}, {load.size} text{'s' * (load.size > 1)} a request",
            {
                "tokens/s": statistics.median(load.tokens_per_s),
                "%": statistics.median(load.percent),
                "client CPU %": statistics.median(load.cpu_percent),
            },
            {"%": _SHARE} if load.is_judged else None,
        )


async def measure_lone_query(
    report: Report, model: EmbeddingModel, gguf: Path, url: str, clients: Child, rounds: int
) -> None:
    """Report a query of 10 tokens on an idle machine: bare, in process, over HTTP."""
    (body,) = embedding_bodies([_LONE_QUERY], 1)
    times: dict[str, list[float]] = {}
    ratios = []
    with run_child("benchmarks.bare", str(gguf)) as bare:
        for _ in range(rounds):
            bare_s = {
                threads: bare.call("encode", text=_LONE_QUERY, threads=threads, count=_LONE_COUNT)
                for threads in {1, number_of_cores()}
            }
            for threads, seconds in bare_s.items():
                times.setdefault(f"bare encode, threads: {threads}", []).extend(seconds)
            times.setdefault("embed_query in process", []).extend(await _query_s(model))
            http_s = clients.call(
                "ask_in_turn", url=url, path=EMBEDDINGS_PATH, body=body, count=_LONE_COUNT
            )
            times.setdefault("over HTTP", []).extend(http_s)
            best = min(map(statistics.median, bare_s.values()))
            ratios.append(statistics.median(http_s) / best)
    _report_lone(report, times, statistics.median(ratios))


async def _query_s(model: EmbeddingModel) -> list[float]:
    seconds = []
    for _ in range(_LONE_COUNT):
        started = time.perf_counter()
        await model.embed_query(_LONE_QUERY)
        seconds.append(time.perf_counter() - started)
    return seconds


def _report_lone(report: Report, times: Mapping[str, Sequence[float]], ratio: float) -> None:
    report.section(
        "a lone query of 10 tokens, POST /v1/embeddings; ratio to the faster bare encode",
        {"p50 ms": ".2f", "p99 ms": ".2f", "ratio": ".2f"},
    )
    for label, seconds in times.items():
        figures = {
            "p50 ms": 1e3 * float(np.percentile(seconds, 50)),
            "p99 ms": 1e3 * float(np.percentile(seconds, 99)),
        }
        if label == "over HTTP":
            report.row(label, figures | {"ratio": ratio}, {"ratio": _LONE_RATIO})
        else:
            report.row(label, figures)


def search_bodies(texts: Sequence[str]) -> list[str]:
    """Return bodies for POST /v1/collections/{c}/search."""
    return [json.dumps({"query": text, "limit": 10}) for text in texts]
