"""Rank what a collection holds: each arm by its own scores, then all arms as one.

An arm is a way to search for one input: by its vector (dense) or by its words (lexical). The arms
are asked for their first hundred chunks, which is all that most pages need; for more only where
these don't fill the page. What the first hundred gave stands before what a deeper look adds, so
that the order doesn't depend on the page that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from memoryd.documents.types import Collection
from memoryd.memory.boosting import boost
from memoryd.memory.queries import ArmName, Plan, Query, ScoreType
from memoryd.memory.timings import Timings
from memoryd.storage.database import Connection
from memoryd.storage.dense import DensePlan, find_cosines, search_dense
from memoryd.storage.lexical_search import LexicalQuery, search_lexical
from memoryd.vectors.fusion import (
    Scored,
    best_of_documents,
    reciprocal_rank_fusion,
    relative_score_fusion,
)
from memoryd.vectors.rankings import Numbers, Ranking
from memoryd.vectors.types import Vector

_DEPTHS = (100, 1_000, 10_000, None)


@dataclass(frozen=True)
class Probe:
    """Be one input as the arms take it: a vector, (dimensions,), and words if it is a text."""

    vector: Vector
    words: LexicalQuery | None = None
    own_document: int | None = None
    """A document that is not to be found."""
    own_chunk: int | None = None
    """A chunk that is not to be found."""


@dataclass(frozen=True)
class Scope:
    """Hold what one search works with; the connection sees one snapshot."""

    connection: Connection
    collection: Collection
    query: Query
    probes: Sequence[Probe]
    timings: Timings
    plans: list[DensePlan] = field(default_factory=list)
    """Of the arms that were searched, the last one last."""


@dataclass(frozen=True)
class Arm:
    """Be what one arm found, down to some depth."""

    name: ArmName
    weight: float
    ranking: Ranking
    is_complete: bool
    """Whether a deeper look would find nothing more."""


@dataclass
class Found:
    """Be what was found, best first: documents, or chunks where these are not grouped."""

    scores: dict[int, float] = field(default_factory=dict)
    """By number, in order."""
    chunks: dict[int, float] = field(default_factory=dict)
    """The scores of their chunks by number, in order for each document."""
    documents: dict[int, int] = field(default_factory=dict)
    """The document of each of those chunks."""
    ranks: dict[ArmName, dict[int, int]] = field(default_factory=dict)
    """The rank of each of those chunks in each arm, from 1."""
    score_type: ScoreType = "cosine"
    plan: Plan = field(default_factory=lambda: Plan(None, None))


async def retrieve(scope: Scope, wanted: int) -> Found:
    """Return at least `wanted` documents or chunks, or all that match; raises what storage does."""
    found = Found()
    for depth in _DEPTHS:
        arms = await _search_arms(scope, depth)
        with scope.timings.of("fusion"):
            best = await _boost(scope, arms, _fuse(scope.query, arms, of_documents=True))
            _add(found, scope.query, arms, best)
        if len(found.scores) >= wanted or all(arm.is_complete for arm in arms):
            break
    found.score_type = _score_type(scope.query, arms)
    found.plan = _plan(scope, arms)
    return found


def _add(found: Found, query: Query, arms: Sequence[Arm], best: Scored) -> None:
    """Add what wasn't found before, with its chunks as this look ranks them."""
    new = {
        key: score
        for key, score in zip(best[0].tolist(), best[1].tolist(), strict=True)
        if key not in found.scores
    }
    found.scores |= new
    owners = _documents_of(arms)
    chunks, scores = _fuse(query, arms, of_documents=False)
    added = {
        chunk: score
        for chunk, score in zip(chunks.tolist(), scores.tolist(), strict=True)
        if (chunk if query.group_size is None else owners[chunk]) in new
    }
    found.chunks |= added
    found.documents |= {chunk: owners[chunk] for chunk in added}
    for arm in arms:
        ranks = found.ranks.setdefault(arm.name, {})
        for rank, chunk in enumerate(arm.ranking.chunks.tolist(), start=1):
            if chunk in added:
                ranks[chunk] = min(rank, ranks.get(chunk, rank))


async def _search_arms(scope: Scope, depth: int | None) -> list[Arm]:
    arms = []
    scope.plans.clear()
    for probe in scope.probes:
        if scope.query.mode != "lexical":
            with scope.timings.of("dense"):
                arms.append(await _search_dense(scope, probe, depth))
        if probe.words is not None and scope.query.mode != "dense":
            with scope.timings.of("lexical"):
                arms.append(await _search_lexical(scope, probe, probe.words, depth))
    return arms


async def _search_dense(scope: Scope, probe: Probe, depth: int | None) -> Arm:
    query = scope.query
    ranking, plan = await search_dense(
        scope.connection,
        scope.collection,
        probe.vector,
        depth=depth,
        wanted=query.wanted,
        settings=query.dense,
    )
    scope.plans.append(plan)
    near = ranking
    if query.score_threshold is not None and query.rerank is None:
        near = ranking.where(ranking.scores >= query.score_threshold)
    is_complete = depth is None or len(near) < depth
    return Arm("dense", query.fusion.dense, _without_own(near, probe), is_complete)


async def _search_lexical(
    scope: Scope, probe: Probe, words: LexicalQuery, depth: int | None
) -> Arm:
    query = scope.query
    ranking = await search_lexical(
        scope.connection, scope.collection, words, depth=depth, wanted=query.wanted
    )
    is_complete = depth is None or len(ranking) < depth
    if query.score_threshold is not None and query.rerank is None:
        ranking = await _above_threshold(scope, probe, ranking, query.score_threshold)
    return Arm("lexical", query.fusion.lexical, _without_own(ranking, probe), is_complete)


async def _above_threshold(
    scope: Scope, probe: Probe, ranking: Ranking, threshold: float
) -> Ranking:
    """Leave out what is below the threshold: of bm25 in lexical search, else of the cosine."""
    if scope.query.mode == "lexical":
        return ranking.where(ranking.scores >= threshold)
    cosines = await find_cosines(
        scope.connection, scope.collection, probe.vector, ranking.chunks.tolist()
    )
    return ranking.where(
        np.array([cosines[chunk] >= threshold for chunk in ranking.chunks.tolist()], dtype=bool)
    )


def _without_own(ranking: Ranking, probe: Probe) -> Ranking:
    if probe.own_document is not None:
        return ranking.where(ranking.documents != probe.own_document)
    if probe.own_chunk is not None:
        return ranking.where(ranking.chunks != probe.own_chunk)
    return ranking


def _fuse(query: Query, arms: Sequence[Arm], *, of_documents: bool) -> Scored:
    """Return the numbers of chunks, or of documents where these are grouped, and their scores."""
    weights = [arm.weight for arm in arms]
    if of_documents and query.group_size is not None:
        best = [best_of_documents(arm.ranking) for arm in arms]
        scored = [(ranking.documents, ranking.scores) for ranking in best]
    else:
        scored = [(arm.ranking.chunks, arm.ranking.scores) for arm in arms]
    if len(scored) == 1:
        return scored[0]
    if query.fusion.method == "relative":
        return relative_score_fusion(scored, weights)
    return reciprocal_rank_fusion([keys for keys, _ in scored], weights, query.fusion.k)


async def _boost(scope: Scope, arms: Sequence[Arm], scored: Scored) -> Scored:
    """Return the numbers by their boosted scores, those of equal score by number."""
    keys, scores = scored
    if not scope.query.boosts or not len(keys):
        return scored
    owners = keys.tolist()
    if scope.query.group_size is None:
        documents = _documents_of(arms)
        owners = [documents[chunk] for chunk in owners]
    raised = await boost(scope.connection, scope.collection, scope.query.boosts, owners, scores)
    order = np.lexsort((keys, -raised))
    return keys[order], raised[order]


def _plan(scope: Scope, arms: Sequence[Arm]) -> Plan:
    is_lexical = any(arm.name == "lexical" for arm in arms)
    return Plan(scope.plans[-1] if scope.plans else None, "bm25" if is_lexical else None)


def _documents_of(arms: Sequence[Arm]) -> dict[int, int]:
    pairs: dict[int, int] = {}
    for arm in arms:
        numbers: tuple[Numbers, Numbers] = (arm.ranking.chunks, arm.ranking.documents)
        pairs.update(zip(numbers[0].tolist(), numbers[1].tolist(), strict=True))
    return pairs


def _score_type(query: Query, arms: Sequence[Arm]) -> ScoreType:
    if len(arms) > 1:
        return query.fusion.method
    return "cosine" if arms[0].name == "dense" else "bm25"
