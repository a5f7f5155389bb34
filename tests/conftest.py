"""A real Postgres, the real model, a toy one, and the real server on a socket."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from servers import Databases, Running, Serve
from toys import ToyLoader
from wire import Client

from memoryd.api.route import Route
from memoryd.api.routes import ROUTES
from memoryd.app import listen, working
from memoryd.config import Settings
from memoryd.embeddings.engine import Engine, EngineLimits
from memoryd.embeddings.library import fastest_weight_type
from memoryd.embeddings.model import EmbeddingModel
from memoryd.memory.collections import ensure_default
from memoryd.memory.models import ModelLoader
from memoryd.memory.state import Memory
from memoryd.models.cl100k import fetch_table
from memoryd.models.store import ensure_model
from memoryd.parsers.pool import open_parsers
from memoryd.postgres.server import Server, run_server
from memoryd.storage.database import Database, open_database

_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes private directories in it
_ROOM_BYTES = 4 << 30


def _work_in_memory() -> None:
    """Let temporary directories lie in memory where it has room: a new Postgres syncs much.

    Not pytest's own, which stay for three runs.
    """
    if not _MEMORY.is_dir():
        return
    state = os.statvfs(_MEMORY)
    if state.f_bavail * state.f_frsize < _ROOM_BYTES or state.f_flag & os.ST_NOEXEC:
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    tempfile.tempdir = str(_MEMORY)


_work_in_memory()


@pytest.fixture(scope="session")
def open_place() -> Iterator[Path]:
    """Give a directory that the user of Postgres can pass, which pytest's own is not for root."""
    path = Path(tempfile.mkdtemp(prefix="memoryd-tests-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the models directory: $MEMORYD_MODELS_DIR, else one of this run's own."""
    named = os.environ.get("MEMORYD_MODELS_DIR")
    return Path(named) if named else tmp_path_factory.mktemp("models")


@pytest_asyncio.fixture(scope="session")
async def model_file(models_dir: Path) -> Path:
    """Give the file of the default model, fetched where it isn't there."""
    return (await ensure_model("all-minilm", models_dir, fastest_weight_type())).path


@pytest_asyncio.fixture(scope="session")
async def cl100k_table(models_dir: Path) -> Path:
    """Give the table of cl100k in the models directory, fetched where it isn't there."""
    return await fetch_table(models_dir)


@pytest_asyncio.fixture(scope="session")
async def engine(models_dir: Path, model_file: Path) -> AsyncIterator[Engine]:
    """Give an engine with the real default model."""
    async with Engine(ModelLoader(models_dir)) as engine:
        yield engine


@pytest_asyncio.fixture(scope="session")
async def minilm(engine: Engine) -> EmbeddingModel:
    """Give the real default model."""
    return await engine.model("all-minilm")


@pytest_asyncio.fixture(scope="session")
async def postgres(open_place: Path) -> AsyncIterator[Server]:
    """Give one embedded Postgres for the whole run, which need not survive a power cut."""
    async with run_server(open_place / "data") as server:
        hurry = "ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET full_page_writes = off"
        for statement in (*hurry.split("; "), "SELECT pg_reload_conf()"):
            await Databases(server).run(statement, role="postgres")
        yield server


@pytest_asyncio.fixture(scope="session")
async def databases(postgres: Server) -> Databases:
    """Give the maker of databases, its template migrated."""
    databases = Databases(postgres)
    await databases.run("CREATE DATABASE migrated")
    async with open_database(databases.dsn("migrated"), max_connections=2):
        pass
    return databases


@pytest_asyncio.fixture
async def database_name(databases: Databases) -> AsyncIterator[str]:
    """Give a database with memoryd's schema and nothing in it."""
    async with databases.make() as name:
        yield name


@pytest_asyncio.fixture
async def empty_database_name(databases: Databases) -> AsyncIterator[str]:
    """Give a database with pgvector and nothing else."""
    async with databases.make("template1") as name:
        yield name


@pytest.fixture
def dsn(databases: Databases, database_name: str) -> str:
    """Give the address of a database with memoryd's schema and nothing in it."""
    return databases.dsn(database_name)


@pytest_asyncio.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """Give memoryd's storage over a database of the test's own."""
    async with open_database(dsn, max_connections=4) as database:
        yield database


@pytest_asyncio.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a plain connection to the test's database."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def serve(databases: Databases, models_dir: Path) -> Serve:
    """Give what starts a server on a free port, over a database of its own."""

    @asynccontextmanager
    async def start(
        engine: Engine | None = None,
        headers: dict[str, str] | None = None,
        database_connections: int = 4,
        routes: Sequence[Route] = (),
        dsn: str | None = None,
        **settings: Any,
    ) -> AsyncIterator[Running]:
        """Serve with `settings` and `routes` beside memoryd's; with the toy, or a given engine.

        `dsn` is another server's, where both are to share its database.
        """
        chosen = Settings(**{"port": 0, "models_dir": models_dir, "model": "toy", **settings})
        async with AsyncExitStack() as stack:
            if dsn is None:
                dsn = databases.dsn(await stack.enter_async_context(databases.make()))
            if engine is None:
                loader = ToyLoader(models_dir)
                waiting = chosen.max_waiting_requests
                engine = await stack.enter_async_context(Engine(loader, EngineLimits(waiting)))
            await engine.model(chosen.model)
            storage = await stack.enter_async_context(
                open_database(dsn, max_connections=database_connections)
            )
            parsers = await stack.enter_async_context(open_parsers())
            memory = Memory(chosen, storage, engine, ModelLoader.of(chosen), parsers)
            await stack.enter_async_context(working(memory))
            await ensure_default(memory)
            memory.worker.start()
            [url] = await stack.enter_async_context(listen(memory, [*ROUTES, *routes]))
            client = await stack.enter_async_context(Client(url, headers=headers))
            yield Running(client, memory, dsn)

    return start


@pytest_asyncio.fixture
async def running(serve: Serve) -> AsyncIterator[Running]:
    """Give a server of the test's own, with the toy model."""
    async with serve() as running:
        yield running


@pytest.fixture
def client(running: Running) -> Client:
    """Give a client of the test's own server, with the toy model."""
    return running.client


@pytest_asyncio.fixture(scope="session")
async def shared_running(serve: Serve) -> AsyncIterator[Running]:
    """Give a server with the toy model that tests share which leave nothing behind."""
    async with serve(max_body_bytes=1 << 20, max_text_chars=10_000) as running:
        yield running


@pytest.fixture(scope="session")
def shared_client(shared_running: Running) -> Client:
    """Give a client of the shared server with the toy model."""
    return shared_running.client


@pytest_asyncio.fixture(scope="session")
async def real_running(serve: Serve, engine: Engine) -> AsyncIterator[Running]:
    """Give a shared server with the real model."""
    async with serve(engine, model="all-minilm") as running:
        yield running


@pytest.fixture(scope="session")
def real_client(real_running: Running) -> Client:
    """Give a client of the shared server with the real model."""
    return real_running.client
