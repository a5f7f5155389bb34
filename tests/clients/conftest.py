"""The server that the clients talk to."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from servers import Running, Serve
from vendors import cl100k_folder

from memoryd.embeddings.engine import Engine


@pytest_asyncio.fixture(scope="session")
async def served(serve: Serve, engine: Engine) -> AsyncIterator[Running]:
    """Give a server with the real model, which finds the table of cl100k where tiktoken does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cl100k_folder()))
        async with serve(engine, model="all-minilm") as running:
            yield running
