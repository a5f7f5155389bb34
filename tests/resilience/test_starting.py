"""Starting on the user's own Postgres: unreachable, or new and shared by two."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from memoryd_process import command, environment
from servers import Databases
from toys import ToyLoader
from wire import Client

from memoryd.app import listen, open_memory
from memoryd.config import Settings


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_a_postgres_that_refuses_is_told_in_one_line(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    port = closed_port()
    url = f"postgresql://someone:s3cret@127.0.0.1:{port}/memories"
    process = await asyncio.create_subprocess_exec(
        *command(data_dir, models_dir),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment(), "MEMORYD_DATABASE_URL": url},
    )
    printed, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert printed == b""
    [line] = said.decode().splitlines()
    assert line.startswith("memoryd: cannot connect to the database")
    assert str(port) in line
    assert "s3cret" not in line


@pytest.mark.parametrize("has_pgvector", [True, False])
async def test_memoryds_that_start_on_one_new_database_all_come_up(
    databases: Databases, models_dir: Path, has_pgvector: bool
) -> None:
    async with databases.make("template1") as name, AsyncExitStack() as stack:
        role = "memoryd"
        if not has_pgvector:
            role = "postgres"  # who may create it
            await databases.run("DROP EXTENSION vector", name, role)
        settings = Settings.model_validate(
            {
                "port": 0,
                "models_dir": models_dir,
                "model": "toy",
                "database_url": databases.dsn(name, role),
                "database_connections": 2,
            }
        )
        stopping = asyncio.Event()
        urls: list[str] = []
        all_up = asyncio.Event()

        async def run() -> None:
            async with (
                open_memory(settings, ToyLoader(models_dir)) as (memory, _),
                listen(memory) as [url],
            ):
                urls.append(url)
                if len(urls) == 4:
                    all_up.set()
                await stopping.wait()

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(run())
            group.create_task(asyncio.wait_for(all_up.wait(), 20))
            await all_up.wait()
            clients = [await stack.enter_async_context(Client(url)) for url in urls]
            for number, client in enumerate(clients):
                await client.store(id=f"d{number}", text="cat")
            for client in clients:
                assert len(await client.found("cat")) == 4
                page = (await client.get("/v1/collections")).ok()["collections"]
                assert [collection["name"] for collection in page] == ["default"]
            stopping.set()
