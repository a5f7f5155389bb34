"""Filters that keep some of the windows: the nearest to a claim, the farthest, or any.

Each is a tag that the documents carry which it keeps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.windows import Windows
from memoryd.vectors.types import Vectors

Rows = npt.NDArray[np.int64]
Relation = Literal["near", "far", "any"]

KEPT_PERCENT = (50, 10, 1, 0.1, 0.01)
RELATIONS: tuple[Relation, ...] = ("near", "far", "any")
_CLAIMS = 20
_MOST_TAGS = 64  # of a document
_SEED = 11
# Sums of products of half-precision numbers differ by less between one order and another.
_SAME_COSINE = 1e-5


@dataclass(frozen=True)
class TagFilter:
    """Be a filter for one claim."""

    claim: int
    relation: Relation
    percent: float
    tag: str
    kept: Rows
    """The rows that it keeps."""

    def as_json(self) -> dict[str, object]:
        """Return it as a search has it."""
        return {"field": "tags", "any": [self.tag]}


def make_filters(windows: Windows) -> list[TagFilter]:
    """Return for each of some claims a filter of every relation and size.

    Those that keep any rows keep the same ones for every claim.
    """
    anything = np.random.default_rng(_SEED).permutation(len(windows.texts))
    claims = np.linspace(0, len(windows.claims) - 1, min(_CLAIMS, len(windows.claims)))
    return [
        each
        for claim in claims.astype(np.int64)
        for each in _filters_of(int(claim), windows, anything)
    ]


def _filters_of(claim: int, windows: Windows, anything: Rows) -> Iterator[TagFilter]:
    nearest = np.argsort(windows.vectors @ -windows.claim_vectors[claim], kind="stable")
    orders: dict[Relation, tuple[str, Rows]] = {
        "near": (f"near-{claim}", nearest),
        "far": (f"far-{claim}", nearest[::-1]),
        "any": ("any", anything),
    }
    for relation, (name, order) in orders.items():
        for percent in KEPT_PERCENT:
            kept = order[: max(1, round(len(order) * percent / 100))]
            yield TagFilter(claim, relation, percent, f"{name}-{percent}", kept)


def tags_of_rows(filters: Sequence[TagFilter], count: int) -> list[list[str]]:
    """Return the tags of each of `count` rows."""
    tags: list[list[str]] = [[] for _ in range(count)]
    for tag, kept in {each.tag: each.kept for each in filters}.items():
        for row in kept:
            tags[row].append(tag)
    if (most := max(map(len, tags))) > _MOST_TAGS:
        raise ValueError(f"a document would have {most} tags")
    return tags


class Truth:
    """Know the nearest of any rows, among vectors as a collection of half precision has them."""

    def __init__(self, windows: Windows) -> None:
        """Round the vectors."""
        self._vectors = _halve(windows.vectors)
        self._claims = _halve(windows.claim_vectors)

    def recall(
        self, claim: int, found: Sequence[int], limit: int, kept: Rows | None = None
    ) -> float:
        """Return which part of the `limit` nearest of `kept`, or of all rows, is among `found`.

        Of rows that are equally near any will do; one that isn't kept won't.
        """
        rows = np.arange(len(self._vectors)) if kept is None else kept
        cosines = self._vectors[rows] @ self._claims[claim]
        wanted = min(limit, len(rows))
        worst = np.partition(cosines, -wanted)[-wanted]
        right = set(rows[cosines >= worst - _SAME_COSINE].tolist())
        return min(wanted, len(right.intersection(found))) / wanted


def _halve(vectors: Vectors) -> Vectors:
    return vectors.astype(np.float16).astype(np.float32)
