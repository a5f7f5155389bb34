"""A server with a toy of each kind: one that embeds, one that scores, one that doesn't pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servers import Running, Serve
from toys import ToyShelf

from memoryd.embeddings.engine import Engine

TOY, JUDGE, SPELLER = "toy", "judge", "speller"


@asynccontextmanager
async def serve_kinds(serve: Serve) -> AsyncIterator[Running]:
    """Serve the toys; the one that embeds is the default model."""
    shelf = ToyShelf(TOY, JUDGE, SPELLER)
    shelf.poolings |= {JUDGE: "rank", SPELLER: "none"}
    async with Engine(shelf) as engine, serve(engine) as running:
        yield running
