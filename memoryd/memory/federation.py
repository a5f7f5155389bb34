"""Search several collections as one, by the ranks of what each of them finds."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace

from memoryd.documents.types import Collection
from memoryd.errors import InvalidInputError
from memoryd.memory.queries import Query, Result, Results
from memoryd.memory.search import search
from memoryd.memory.search_batches import map_few
from memoryd.memory.state import Memory
from memoryd.memory.timings import Timings


@dataclass(frozen=True)
class FederatedResult:
    """Be a result of one of several collections."""

    collection: str
    rank: int
    """In that collection, from 1."""
    score: float
    """Over all of them."""
    result: Result


@dataclass(frozen=True)
class FederatedResults:
    """Be one page of what was found in several collections."""

    results: list[FederatedResult]
    collections: dict[str, Results]
    """What each of them gave, by name."""
    next_offset: int | None
    took_ms: float


async def search_several(
    memory: Memory, collections: Mapping[str, Collection], query: Query
) -> FederatedResults:
    """Return what matches the query best in any of the collections, which are given by name.

    Scores are those of reciprocal rank fusion, 1 / (k + rank): no document is in two collections,
    so each has one rank. The first of `collections` comes first among equals. Raises what `search`
    raises; a vector must have the width of all.
    """
    timings = Timings()
    # One more than the page needs tells whether another follows.
    deep = replace(query, offset=0, limit=query.end + 1)

    async def find(name: str) -> Results:
        try:
            return await search(memory, collections[name], deep)
        except InvalidInputError as error:
            located = copy(error)  # of two collections with the same model both may have got it
            located.message = f"in the collection {name!r}: {error.message}"
            raise located from error

    found = dict(zip(collections, await map_few(find, collections), strict=True))
    ranked = [
        FederatedResult(name, rank, 1 / (query.fusion.k + rank), result)
        for name, results in found.items()
        for rank, result in enumerate(results.results, start=1)
    ]
    ranked.sort(key=lambda each: each.rank)  # stable: equals stay in the order of collections
    return FederatedResults(
        ranked[query.offset : query.end],
        found,
        next_offset=query.end if len(ranked) > query.end else None,
        took_ms=timings.total_ms(),
    )
