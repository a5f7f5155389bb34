"""Recall of the index, alone and beneath filters, and what filters cost."""

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.report import Report, Target
from benchmarks.scene import LIMIT, Scene
from benchmarks.window_filters import TagFilter, Truth
from benchmarks.windows import Windows

T = TypeVar("T")

_RECALL = Target.at_least(0.99)
_TO_UNFILTERED = Target.at_most(3)
_TO_EXACT = Target.at_most(1.3)
_EXACT = {"params": {"exact": True}}
_RELATED = {
    "near": "nearest to the query",
    "far": "farthest from the query",
    "any": "at random",
}
_FORMATS = {
    "recall@10": ".4f",
    "short by": "d",
    "p50 ms": ".2f",
    "unfiltered": ".2f",
    "exact": ".2f",
    "to unfiltered": ".2f",
    "to exact": ".2f",
}


async def measure_recall(report: Report, scene: Scene) -> None:
    """Report how many of the ten nearest windows are found without a filter."""
    truth, by_exact, by_truth, plans = Truth(scene.windows), [], [], Counter[str]()
    for claim in range(len(scene.windows.claims)):
        found, plan = await scene.find(claim)
        exactly, _ = await scene.find(claim, **_EXACT)
        plans[plan] += 1
        by_exact.append(len({*found} & {*exactly}) / len(exactly))
        by_truth.append(truth.recall(claim, found, LIMIT))
    report.section("recall@10 of dense search", {"recall@10": ".4f", "least": ".2f"})
    for label, recalls in (("beside params.exact", by_exact), ("beside numpy", by_truth)):
        figures = {"recall@10": statistics.fmean(recalls), "least": min(recalls)}
        report.row(label, figures, {"recall@10": _RECALL}, _in_words(plans))


@dataclass
class _Found:
    """Collect what searches with filters of one kind found, and how long they took."""

    recalls: list[float] = field(default_factory=list)
    short_by: int = 0
    """Rows that an exact search would have found."""
    plans: Counter[str] = field(default_factory=Counter)
    times_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def p50_ms(self, way: str) -> float:
        return 1e3 * statistics.median(self.times_s[way])


_Kinds = dict[tuple[str, float], _Found]


async def measure_filters(report: Report, scene: Scene, rounds: int) -> None:
    """Report recall and time for filters of every kind, beside no filter and an exact search."""
    kinds: _Kinds = defaultdict(_Found)
    await _find_all(scene, kinds)
    for number in range(rounds):
        _time_all(scene, kinds, number)
    report.section("dense search with a filter, ms over HTTP, vectors of queries cached", _FORMATS)
    for (relation, percent), found in kinds.items():
        _report_kind(report, relation, percent, found)


async def _find_all(scene: Scene, kinds: _Kinds) -> None:
    truth = Truth(scene.windows)
    for each in scene.filters:
        kind = kinds[each.relation, each.percent]
        found, plan = await scene.find(each.claim, filter=each.as_json())
        kind.recalls.append(truth.recall(each.claim, found, LIMIT, each.kept))
        kind.short_by += min(LIMIT, len(each.kept)) - len(found)
        kind.plans[plan] += 1


def _time_all(scene: Scene, kinds: _Kinds, number: int) -> None:
    """Ask with each filter, without it and exactly, another one first in every round."""
    asked = [
        (each, *body)
        for each in scene.filters
        for body in _rotated(_bodies(scene.windows, each), number)
    ]
    times_s = scene.time_each(body for _, _, body in asked)
    for (each, way, _), seconds in zip(asked, times_s, strict=True):
        kinds[each.relation, each.percent].times_s[way].append(seconds)


def _bodies(windows: Windows, each: TagFilter) -> list[tuple[str, dict[str, Any]]]:
    body = {"query": windows.claims[each.claim], "mode": "dense", "limit": LIMIT}
    filtered = {**body, "filter": each.as_json()}
    return [("unfiltered", body), ("filtered", filtered), ("exact", filtered | _EXACT)]


def _rotated(bodies: list[T], number: int) -> list[T]:
    first = number % len(bodies)
    return bodies[first:] + bodies[:first]


def _report_kind(report: Report, relation: str, percent: float, found: _Found) -> None:
    filtered, unfiltered = found.p50_ms("filtered"), found.p50_ms("unfiltered")
    exact = found.p50_ms("exact")
    targets = {"recall@10": _RECALL, "short by": Target.at_most(0)}
    if relation == "near":
        targets["to unfiltered"] = _TO_UNFILTERED
    elif relation == "far":
        targets["to exact"] = _TO_EXACT
    figures = {
        "recall@10": statistics.fmean(found.recalls),
        "short by": found.short_by,
        "p50 ms": filtered,
        "unfiltered": unfiltered,
        "exact": exact,
        "to unfiltered": filtered / unfiltered,
        "to exact": filtered / exact,
    }
    report.row(f"{percent} % {_RELATED[relation]}", figures, targets, _in_words(found.plans))


def _in_words(plans: Counter[str]) -> str:
    return ", ".join(f"{plan} {count}" for plan, count in plans.most_common())
