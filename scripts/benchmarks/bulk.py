"""Bulk embedding: memoryd and its peers on the same texts, in turns."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.child import ChildError
from benchmarks.contenders import CONTENDERS, MEMORYD, REFERENCE, Contender, Setup
from benchmarks.peer import Vectors
from benchmarks.peers import MissingError
from benchmarks.report import Report, Target
from benchmarks.texts import KINDS, Kind, cut_texts
from memoryd.vectors.similarity import normalize

_FORMATS = {
    "tokens/s": ",.0f",
    "cosine": ".5f",
    "least": ".5f",
    "memoryd : it": ".2f",
}
# What memoryd is held to, per kind of text; contenders without one are there to compare.
_FLOORS = {
    "torch-bf16": {"short": 1.0, "mid": 1.0, "long": 1.0},
    "onnx-fp32": {"short": 1.5, "mid": 1.5, "long": 1.1},
    "llama-server": {"short": 1.4, "mid": 1.4, "long": 1.4},
}
# Below this cosine to float32 a contender isn't a peer of equal quality.
_EQUAL_COSINE = 0.999
# Threads that spin after their work have gone to sleep by then.
_PAUSE_S = 0.05


@dataclass
class _Turns:
    """Collect what a contender did with one kind of texts."""

    setting: str
    tokens_per_s: list[float] = field(default_factory=list)
    vectors: Vectors | None = None


@asynccontextmanager
async def open_contenders(
    names: Sequence[str], setup: Setup, report: Report
) -> AsyncIterator[list[Contender]]:
    """Yield those that can take part, and report why others can't."""
    async with AsyncExitStack() as stack:
        opened = []
        for name in names:
            try:
                opened.append(await stack.enter_async_context(CONTENDERS[name](setup)))
            except MissingError as error:
                report.note(f"{name} is left out: {error}")
        yield opened


async def measure_bulk(
    report: Report, setup: Setup, contenders: Sequence[Contender], rounds: int, scale: float
) -> None:
    """Report tokens/s, cosine to float32 and ratios, a table for each kind of text."""
    for kind in KINDS:
        texts = cut_texts(setup.model, kind, max(2, round(kind.count * scale)))
        tokens = (await setup.model.embed(texts)).token_count
        turns = await _take_turns(report, contenders, texts, tokens, rounds)
        report.section(
            f"{kind.name}: {len(texts)} texts of about {kind.tokens} tokens, {tokens:,} in all",
            _FORMATS,
        )
        _report_kind(report, kind, turns)


async def _take_turns(
    report: Report, contenders: Sequence[Contender], texts: list[str], tokens: int, rounds: int
) -> dict[str, _Turns]:
    """Let every contender embed `texts` once per round."""
    turns: dict[str, _Turns] = {}
    for contender in contenders:
        try:
            turns[contender.name] = _Turns(await contender.prepare(texts))
        except (ChildError, RuntimeError) as error:
            report.note(f"{contender.name} fails on these texts: {error}")
    ready = [contender for contender in contenders if contender.name in turns]
    for number in range(rounds):
        # Backwards every other round: whoever comes first or last gains nothing by it.
        for contender in ready if number % 2 == 0 else reversed(ready):
            await asyncio.sleep(_PAUSE_S)
            seconds, vectors = await contender.embed(texts)
            turns[contender.name].tokens_per_s.append(tokens / seconds)
            turns[contender.name].vectors = normalize(vectors)
    return turns


def _report_kind(report: Report, kind: Kind, turns: dict[str, _Turns]) -> None:
    reference = turns[REFERENCE].vectors if REFERENCE in turns else None
    for name, taken in turns.items():
        figures = {"tokens/s": statistics.median(taken.tokens_per_s)}
        if reference is not None and taken.vectors is not None:
            cosines = np.einsum("td,td->t", taken.vectors, reference)
            figures |= {"cosine": float(cosines.mean()), "least": float(cosines.min())}
        if name == MEMORYD or MEMORYD not in turns:
            report.row(name, figures, remark=taken.setting)
            continue
        ratio = _ratio(turns[MEMORYD], taken)
        is_equal = figures.get("cosine", 1.0) >= _EQUAL_COSINE
        floor = _FLOORS.get(name, {}).get(kind.name)
        remark = taken.setting if is_equal else f"{taken.setting}; lower quality, so no target"
        report.row(
            name,
            figures | {"memoryd : it": ratio},
            {"memoryd : it": Target.at_least(floor)} if floor and is_equal else None,
            remark,
        )


def _ratio(ours: _Turns, theirs: _Turns) -> float:
    pairs = zip(ours.tokens_per_s, theirs.tokens_per_s, strict=True)
    return statistics.median(a / b for a, b in pairs)
