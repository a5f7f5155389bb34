"""Nearest vectors of a collection, by a scan of all that count or by an approximate index.

An index is asked only where that is quicker than to read what the filter keeps, and what it can't
find is found by reading: no filter ever costs a row. All run in the caller's transaction, of which
they see the snapshot; settings are LOCAL to it, and none of them changes how others are planned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from memoryd.documents.filters import Filter
from memoryd.documents.types import Collection, DenseIndex, Generation
from memoryd.storage.arrays import read_doubles, read_integers
from memoryd.storage.database import Connection
from memoryd.storage.filters import compile_filter
from memoryd.storage.selectivity import Estimate, estimate_kept
from memoryd.storage.tables import collection_schema, embedding_type, vector_table
from memoryd.storage.vector_indexes import describe_key
from memoryd.vectors.rankings import Ranking, rank
from memoryd.vectors.types import Vector

DensePlan = Literal[
    "exact", "filtered_exact", "hnsw", "hnsw_iterative", "hnsw_completed", "binary_rerank"
]
"""`exact` reads all vectors, `filtered_exact` those that the filter keeps.

`hnsw` and `binary_rerank` ask the index once, `hnsw_iterative` until it has found enough that the
filter keeps; where it didn't, `hnsw_completed` read what the filter keeps.
"""

_EF_SEARCH = 160
_MOST_EF_SEARCH = 1_000
# How many rows a first look at what a filter keeps goes over at most: twice the time of an
# unfiltered search.
_FIRST_LOOK = 200
# Candidates that an index finds by the signs of their numbers, for each that is wanted.
_OVERSAMPLING = 8
# What the index costs for each row that it goes over, and whose document it looks up, in rows of an
# exact scan: measured at 384 dimensions. Signs are compared faster.
_LOOK_COSTS = {"hnsw": 20.0, "binary": 5.0}
# The most of the time of an exact scan that may be spent on an index in vain: on a first look, and
# on going on where that has found some.
_FIRST_PART = 0.25
_WHOLE_PART = 0.7
# Going on doesn't pay either where the filter keeps less than this part of what it keeps elsewhere:
# far from the query the index finds many, but not the nearest.
_LEAST_PART = 0.5
# How much farther than expected the second look goes: what is kept is spread unevenly.
_SLACK = 1.5


@dataclass(frozen=True)
class DenseSettings:
    """Say how thoroughly to look: at all vectors, or at how many candidates of the index."""

    exact: bool = False
    ef_search: int | None = None


@dataclass(frozen=True)
class _Search:
    """Hold what one search asks."""

    connection: Connection
    collection: Collection
    vector: Vector
    wanted: Filter | None
    depth: int | None

    @property
    def generation(self) -> Generation:
        return self.collection.active

    @property
    def table(self) -> str:
        return _table(self.collection)

    @property
    def query(self) -> str:
        """The first argument, as SQL."""
        return f"$1::{embedding_type(self.generation.precision, self.generation.dimensions)}"

    @property
    def limit(self) -> str:
        # As a literal: Postgres takes an argument for a tenth of the table.
        return "" if self.depth is None else f" LIMIT {self.depth:d}"


async def search_dense(
    connection: Connection,
    collection: Collection,
    vector: Vector,
    *,
    depth: int | None,
    wanted: Filter | None,
    settings: DenseSettings,
) -> tuple[Ranking, DensePlan]:
    """Return the `depth` chunks nearest to `vector` (dimensions,) that `wanted` keeps; None: all.

    Scores are cosines. There are fewer only where there are no more.
    """
    search = _Search(connection, collection, vector, wanted, depth)
    index = collection.active.dense_index
    found = None
    if index is not None and not settings.exact and depth is not None:
        found = await _ask(_Look(search, index, depth, settings.ef_search))
    if index is None or found is None:
        return await _read(search), "exact" if wanted is None else "filtered_exact"
    if depth is not None and len(found) < depth:
        return await _read(search), "hnsw_completed"
    if index.type == "binary":
        return found, "binary_rerank"
    return found, "hnsw" if wanted is None else "hnsw_iterative"


@dataclass(frozen=True)
class _Look:
    """Hold how an index is asked; `depth` are the rows that are wanted of it in the end."""

    search: _Search
    index: DenseIndex
    depth: int
    asked_ef_search: int | None

    @property
    def ef_search(self) -> int:
        """How many candidates the index keeps in view."""
        return self.asked_ef_search or min(max(_EF_SEARCH, self.candidates), _MOST_EF_SEARCH)

    @property
    def candidates(self) -> int:
        """How many rows the index is to find."""
        return self.depth * (_OVERSAMPLING if self.index.type == "binary" else 1)

    def costs(self, rows: float) -> float:
        """Return what it costs to go over that many, in rows of an exact scan."""
        return rows * _LOOK_COSTS[self.index.type]


async def _ask(look: _Look) -> Ranking | None:
    """Return what the index finds, maybe too few; None where reading is quicker from the start."""
    estimate = await estimate_kept(
        look.search.connection, look.search.collection, look.search.wanted
    )
    if look.search.wanted is None:
        if look.costs(look.candidates) > estimate.reading_cost:
            return None
        return await _search_index(look, look.ef_search, 2 * look.candidates)
    return await _ask_filtered(look, estimate)


async def _ask_filtered(look: _Look, estimate: Estimate) -> Ranking | None:
    """Look at the nearest rows, and go on where these promise that it pays.

    What a filter keeps may lie near the query or far from it: that is seen in the first look.
    """
    expected = look.candidates / max(estimate.kept_part, 1e-9)
    ef = int(max(look.ef_search, min(expected, _FIRST_LOOK)))
    if look.costs(ef) > _FIRST_PART * estimate.reading_cost:
        return None
    found = await _search_index(look, ef, None)
    part = len(found) / ef
    if len(found) >= look.depth or part < _LEAST_PART * estimate.kept_part:
        return found
    needed = look.candidates / max(part, 1 / ef)
    if look.costs(needed) > _WHOLE_PART * estimate.reading_cost:
        return found
    return await _search_index(look, ef, int(_SLACK * needed))


async def _search_index(look: _Look, ef: int, most_rows: int | None) -> Ranking:
    """Return the best of what the index finds until it has gone over about `most_rows`.

    None: over `ef`, at one look.
    """
    search = look.search
    iterative = (
        "SET LOCAL hnsw.iterative_scan = off"
        if most_rows is None  # with a limit of one row it would go over all that it has passed by
        else "SET LOCAL hnsw.iterative_scan = relaxed_order;"
        f" SET LOCAL hnsw.max_scan_tuples = {most_rows:d}; SET LOCAL hnsw.scan_mem_multiplier = 2"
    )
    await search.connection.execute(
        f"SET LOCAL hnsw.ef_search = {ef:d}; {iterative};"
        " SET LOCAL random_page_cost = 1.1"  # at the default, the index looks dear to the planner
    )
    if look.index.type == "binary":
        # Vectors of this size lie apart: the table looks small to the planner, quick to read.
        await search.connection.execute("SET LOCAL enable_seqscan = off")
    arguments: list[Any] = [search.vector]
    condition = _condition_of_row(search, arguments)
    near = _order_of_index(search, look.index)
    found = await _fetch(
        search,
        f"WITH near AS MATERIALIZED (SELECT chunk_id, document_id, embedding"
        f" FROM {search.table} AS v{condition} ORDER BY {near} LIMIT {look.candidates:d})"
        f" SELECT chunk_id, document_id, embedding <=> {search.query} AS distance FROM near",
        arguments,
    )
    if look.index.type == "binary":  # what others ask in this transaction is planned as ever
        await search.connection.execute("SET LOCAL enable_seqscan TO DEFAULT")
    return found


def _order_of_index(search: _Search, index: DenseIndex) -> str:
    """Return the distance that the index is made for."""
    operator = "<~>" if index.type == "binary" else "<=>"
    stored, query = (
        describe_key(search.generation, index, value) for value in ("embedding", search.query)
    )
    return f"{stored} {operator} {query}"


def _condition_of_row(search: _Search, arguments: list[Any]) -> str:
    """Return what the filter asks of each row in turn, which the planner can't make a join of."""
    if search.wanted is None:
        return ""
    schema = collection_schema(search.collection.number)
    condition = compile_filter(search.wanted, arguments)
    return f" WHERE (SELECT {condition} FROM {schema}.documents WHERE documents.id = v.document_id)"


async def _read(search: _Search) -> Ranking:
    """Read all vectors that the filter keeps."""
    arguments: list[Any] = [search.vector]
    rows = _kept_rows(search, arguments)
    return await _fetch(
        search,
        # Plus nothing: an index of this distance must not be used, it might not find all.
        f"SELECT chunk_id, document_id, (embedding <=> {search.query}) + 0 AS distance"
        f" FROM {rows} ORDER BY distance, chunk_id{search.limit}",
        arguments,
    )


def _kept_rows(search: _Search, arguments: list[Any]) -> str:
    if search.wanted is None:
        return search.table
    schema = collection_schema(search.collection.number)
    condition = compile_filter(search.wanted, arguments)
    kept = f"SELECT documents.id FROM {schema}.documents WHERE {condition}"
    # Quicker than a join for few as for half of all, and right however many the planner expects.
    return f"{search.table} WHERE document_id = ANY (ARRAY({kept}))"


async def _fetch(search: _Search, sql: str, arguments: Sequence[Any]) -> Ranking:
    """Return the best of the rows of a statement."""
    row = await search.connection.fetchrow(
        "SELECT array_send(array_agg(chunk_id)) AS chunks,"
        " array_send(array_agg(document_id)) AS documents,"
        f" array_send(array_agg(distance)) AS distances FROM ({sql}) AS found",
        *arguments,
    )
    assert row is not None  # noqa: S101 - an aggregate gives one row
    return rank(
        read_integers(row["chunks"]),
        read_integers(row["documents"]),
        1.0 - read_doubles(row["distances"]),
        search.depth,
    )


async def find_cosines(
    connection: Connection, collection: Collection, vector: Vector, chunks: Sequence[int]
) -> dict[int, float]:
    """Return the cosines of `vector` (dimensions,) and those chunks, by chunk number."""
    search = _Search(connection, collection, vector, None, None)
    rows = await connection.fetch(
        f"SELECT chunk_id, 1 - (embedding <=> {search.query}) AS cosine"
        f" FROM {search.table} WHERE chunk_id = ANY($2)",
        vector,
        chunks,
    )
    return {row["chunk_id"]: row["cosine"] for row in rows}


async def find_vectors(
    connection: Connection, collection: Collection, chunks: Sequence[int]
) -> dict[int, Vector]:
    """Return the vectors of those chunks, by chunk number."""
    rows = await connection.fetch(
        f"SELECT chunk_id, embedding FROM {_table(collection)} WHERE chunk_id = ANY($1)",
        chunks,
    )
    return {row["chunk_id"]: row["embedding"].to_numpy().astype(np.float32) for row in rows}


async def mean_vector(
    connection: Connection, collection: Collection, document_number: int
) -> Vector | None:
    """Return the unit vector between those of a document's chunks, (dimensions,).

    None where it has no chunks, or where they cancel each other out.
    """
    dimensions = collection.dimensions
    mean = await connection.fetchval(
        f"SELECT l2_normalize(avg(l2_normalize(embedding)::vector({dimensions:d})))"
        f" FROM {_table(collection)} WHERE document_id = $1",
        document_number,
    )
    vector: Vector | None = None if mean is None else mean.to_numpy().astype(np.float32)
    return vector if vector is not None and vector.any() else None


def _table(collection: Collection) -> str:
    return f"{collection_schema(collection.number)}.{vector_table(collection.active.number)}"
