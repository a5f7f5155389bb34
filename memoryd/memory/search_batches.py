"""Many searches at once: their texts embedded together, and few of them in the database."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from typing import TypeVar

from memoryd.documents.types import Collection
from memoryd.errors import InvalidInputError, MemorydError, NotFoundError
from memoryd.memory.queries import Query, Results
from memoryd.memory.search import search
from memoryd.memory.state import Memory

# Each search holds a connection, of which there are 8 for all requests.
_SEARCHES_AT_ONCE = 4
# As many texts wait for the model; other requests' must find a place beside them.
_TEXTS_AT_ONCE = 64

T = TypeVar("T")
R = TypeVar("R")


async def search_batch(
    memory: Memory, collection: Collection, queries: Sequence[Query]
) -> list[Results]:
    """Return what each query finds, in their order.

    Raises what `search` raises for one of them, whose errors name it as `searches[2].…`.
    """
    with suppress(InvalidInputError):  # of one query, which its search will tell with its number
        await _embed(memory, collection, queries)

    async def find(numbered: tuple[int, Query]) -> Results:
        at, query = numbered
        try:
            return await search(memory, collection, query)
        except (InvalidInputError, NotFoundError) as error:
            raise _located(error, f"searches[{at}]") from error

    return await map_few(find, enumerate(queries))


async def map_few(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """Return what `work` returns for each item, in their order; few are worked on at once.

    The first error ends all.
    """
    places = asyncio.Semaphore(_SEARCHES_AT_ONCE)

    async def run(item: T) -> R:
        async with places:
            return await work(item)

    tasks = [asyncio.ensure_future(run(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _embed(memory: Memory, collection: Collection, queries: Sequence[Query]) -> None:
    """Have the vectors of all texts kept, so that the searches find them there."""
    wanted = {
        (query.instruction or collection.active.instruction, text): None
        for query in queries
        for text in query.texts
    }
    texts_of: dict[str | None, list[str]] = {}
    for instruction, text in wanted:
        texts_of.setdefault(instruction, []).append(text)
    for instruction, texts in texts_of.items():
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            some = texts[start : start + _TEXTS_AT_ONCE]
            await memory.query_vectors.get_many(memory.engine, collection.model, some, instruction)


def _located(error: InvalidInputError | NotFoundError, at: str) -> MemorydError:
    """Return the error as one of the search at that place; others may have got the same."""
    located = copy(error)
    begins_with_param = error.param is not None and error.message.startswith(error.param)
    located.message = f"{at}.{error.message}" if begins_with_param else f"{at}: {error.message}"
    located.param = at if error.param is None else f"{at}.{error.param}"
    return located
