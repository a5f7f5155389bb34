"""Routes of search."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from memoryd.api import limits
from memoryd.api.bodies import parse, read_json
from memoryd.api.collections import find, find_named
from memoryd.api.errors import json_response
from memoryd.api.queries import read_query
from memoryd.api.search_answers import BatchAnswer, search_answer, several_answer
from memoryd.api.search_bodies import (
    BatchBody,
    SearchBody,
    SearchQuery,
    SeveralBody,
    StoredChunkBody,
    StoredDocumentBody,
)
from memoryd.api.state import MEMORY
from memoryd.documents.types import Collection
from memoryd.errors import InvalidInputError, NotFoundError, TooLargeError
from memoryd.memory.federation import search_several as run_several
from memoryd.memory.search import search as run_search
from memoryd.memory.search_batches import search_batch as run_batch


async def search(request: web.Request) -> web.Response:
    """Find the documents whose chunks match a query best."""
    collection = await find(request)
    return await _search(request, collection, parse(SearchBody, await read_json(request)))


async def search_by_query_string(request: web.Request) -> web.Response:
    """Find the documents whose chunks match a text best."""
    collection = await find(request)
    body = parse(SearchBody, read_query(request, SearchQuery).fields())
    return await _search(request, collection, body)


async def _search(request: web.Request, collection: Collection, body: SearchBody) -> web.Response:
    results = await run_search(request.app[MEMORY], collection, body.to_query())
    return json_response(search_answer(results, body))


async def search_batch(request: web.Request) -> web.Response:
    """Answer several searches of a collection; one that is wrong fails all, by its number."""
    collection = await find(request)
    searches = parse(BatchBody, await read_json(request)).searches
    queries = [body.to_query(f"searches[{at}].") for at, body in enumerate(searches)]
    found = await run_batch(request.app[MEMORY], collection, queries)
    answer: BatchAnswer = {
        "results": [
            search_answer(results, body) for results, body in zip(found, searches, strict=True)
        ]
    }
    return json_response(answer)


async def search_several(request: web.Request) -> web.Response:
    """Find what matches a query best in several collections, by its rank in each.

    The collections may have different models, so scores of one say nothing beside those of
    another. The n-th result of each has the score 1 / (k + n), and of equal ones those of the
    collection that is named first come first.
    """
    body = parse(SeveralBody, await read_json(request))
    collections = await _find_all(request, body)
    _check_several(body)
    found = await run_several(request.app[MEMORY], collections, body.to_query())
    return json_response(several_answer(found, body))


async def _find_all(request: web.Request, body: SeveralBody) -> dict[str, Collection]:
    """Return the collections by the names that they were asked by, in their order."""
    found: dict[str, Collection] = {}
    for at, name in enumerate(body.collections):
        param = f"collections[{at}]"
        with _naming(param):
            collection = await find_named(request, name)
        if any(other.number == collection.number for other in found.values()):
            raise InvalidInputError(f"{param}: {name!r} is a collection that is named twice", param)
        found[name] = collection
    return found


@contextmanager
def _naming(param: str) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        error.param = param
        raise


def _check_several(body: SeveralBody) -> None:
    if isinstance(body.query, StoredDocumentBody | StoredChunkBody):
        raise InvalidInputError(
            "query: what is stored in one collection can't be looked for in several: search by a "
            "text or a vector",
            "query",
        )
    if body.offset + body.limit > limits.SEVERAL_DEPTH:
        raise TooLargeError(
            f"offset: offset + limit can be {limits.SEVERAL_DEPTH} at most over several "
            "collections",
            "offset",
        )
