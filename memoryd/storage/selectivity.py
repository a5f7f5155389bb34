"""How many vectors a filter keeps, and what it costs to find them: estimated, never counted."""

import time
from dataclasses import dataclass
from typing import Any

import orjson

from memoryd.documents.filters import Filter
from memoryd.documents.types import Collection
from memoryd.storage.database import Connection
from memoryd.storage.filters import compile_filter
from memoryd.storage.tables import collection_schema, vector_table

# Enough to tell a hundredth from a tenth, read in about a millisecond.
_SAMPLED_DOCUMENTS = 1_000
# An old estimate costs time, never a row.
_LIFETIME_S = 60.0
_MOST_KNOWN = 1_000
# A row that is looked up, by its document and that by an index of the filter, costs as much as this
# many of those that are read one after the other: measured with documents of a kilobyte.
_LOOKED_UP = 4.0

_Key = tuple[Any, ...]


@dataclass(frozen=True)
class Estimate:
    """Say how many vectors there are, how many of them are kept, and what reading these costs.

    The cost is in vectors that are read one after the other.
    """

    total: float
    kept: float
    reading_cost: float

    @property
    def kept_part(self) -> float:
        """The part of the vectors that is kept, in [0, 1]."""
        return self.kept / self.total if self.total else 0.0


@dataclass(frozen=True)
class _Known:
    estimate: Estimate
    until: float


# Collections of different databases may have the same number, but not the same time as well.
# Filters that Python takes for equal, for 1 and for true, share an estimate: it is only that.
_known: dict[_Key, _Known] = {}


async def estimate_kept(
    connection: Connection, collection: Collection, wanted: Filter | None
) -> Estimate:
    """Return an estimate for a filter, a minute old at most; None keeps all."""
    key = (collection.number, collection.created_at, collection.active.number, wanted)
    known = _known.get(key)
    if known is not None and known.until > time.monotonic():
        return known.estimate
    estimate = await _estimate(connection, collection, wanted)
    _remember(key, estimate)
    return estimate


def _remember(key: _Key, estimate: Estimate) -> None:
    _known.pop(key, None)
    while len(_known) >= _MOST_KNOWN:
        del _known[next(iter(_known))]
    _known[key] = _Known(estimate, time.monotonic() + _LIFETIME_S)


async def _estimate(
    connection: Connection, collection: Collection, wanted: Filter | None
) -> Estimate:
    if wanted is None:
        total = (await _explain(connection, collection, None))["vectors"]["Plan Rows"]
        return Estimate(total, total, total)
    plans = await _explain(connection, collection, wanted)
    total, documents = plans["vectors"]["Plan Rows"], plans["documents"]["Plan Rows"]
    kept = total * await _sample(connection, collection, wanted, documents)
    reads_all = b'"Seq Scan"' in orjson.dumps(plans["kept"])
    return Estimate(total, kept, kept * _LOOKED_UP + (documents if reads_all else 0))


async def _explain(
    connection: Connection, collection: Collection, wanted: Filter | None
) -> dict[str, dict[str, Any]]:
    """Return how Postgres would read the vectors, the documents, and those that a filter keeps.

    It knows from the size of a table how many rows there are, also where they are new.
    """
    schema = collection_schema(collection.number)
    arguments: list[Any] = []
    condition = "true" if wanted is None else compile_filter(wanted, arguments)
    tables = {
        "vectors": f"{schema}.{vector_table(collection.active.number)}",
        "documents": f"{schema}.documents",
        "kept": f"{schema}.documents WHERE {condition}",
    }
    parts = ", ".join(
        f"{name} AS MATERIALIZED (SELECT FROM {rows})" for name, rows in tables.items()
    )
    explained = await connection.fetchval(
        f"EXPLAIN (FORMAT JSON) WITH {parts} SELECT FROM {', '.join(tables)}", *arguments
    )
    [whole] = orjson.loads(explained)
    nodes = {each.get("Subplan Name"): each for each in whole["Plan"]["Plans"]}
    return {name: nodes[f"CTE {name}"] for name in tables}


async def _sample(
    connection: Connection, collection: Collection, wanted: Filter, documents: float
) -> float:
    """Return the part of some documents that a filter keeps, of whole pages here and there."""
    arguments: list[Any] = [min(100.0, 100 * _SAMPLED_DOCUMENTS / max(documents, 1))]
    condition = compile_filter(wanted, arguments)
    row = await connection.fetchrow(
        f"SELECT count(*) AS sampled, count(*) FILTER (WHERE {condition}) AS kept"
        f" FROM {collection_schema(collection.number)}.documents TABLESAMPLE SYSTEM ($1)",
        *arguments,
    )
    assert row is not None  # noqa: S101 - an aggregate gives one row
    return float(row["kept"] / max(row["sampled"], 1))
