"""Toys of each kind behind one server."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from servers import Running, Serve
from toys import JUDGE, SPELLER, TOY, ToyShelf
from wire import Client

from memoryd.embeddings.engine import Engine


@pytest_asyncio.fixture(scope="session")
async def kinds(serve: Serve) -> AsyncIterator[Running]:
    """Give a server of toys that tests share which leave nothing behind.

    One embeds and is the default model, one scores, one doesn't pool.
    """
    shelf = ToyShelf(TOY, JUDGE, SPELLER)
    shelf.poolings |= {JUDGE: "rank", SPELLER: "none"}
    async with Engine(shelf) as engine, serve(engine) as running:
        yield running


@pytest.fixture(scope="session")
def toys(kinds: Running) -> Client:
    """Give a client of the server with toys of each kind."""
    return kinds.client
