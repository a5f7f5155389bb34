"""What runs the clients' scripts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from servers import Running
from vendors import Runner


@pytest_asyncio.fixture(scope="session")
async def runner(
    real_running: Running, cl100k_table: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runner]:
    """Give what runs scripts, which ask the server with the real model."""
    folder = tmp_path_factory.mktemp("scripts")
    runner = Runner(real_running.client.url, folder, cl100k_table.parent)
    yield runner
    await runner.close()
