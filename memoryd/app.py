"""The composition root: what is built, in which order, and how long it lives."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from aiohttp import web

from memoryd.api.observability import http_logger
from memoryd.api.route import Route
from memoryd.api.routes import METRICS_ROUTES, ROUTES, build_app
from memoryd.config import Settings
from memoryd.documents.parsing.types import ParsingLimits
from memoryd.embeddings.engine import Engine, EngineLimits, Loader
from memoryd.errors import SetupError
from memoryd.memory.backups import protect
from memoryd.memory.collections import ensure_default
from memoryd.memory.expiry import sweeping_up
from memoryd.memory.indexing import JOB_TYPE as INDEX
from memoryd.memory.indexing import indexing, watching
from memoryd.memory.job_runner import JobRunner
from memoryd.memory.model_aliases import check_aliases
from memoryd.memory.models import ModelLoader
from memoryd.memory.reembedding import JOB_TYPE as REEMBED
from memoryd.memory.reembedding import reembedding
from memoryd.memory.state import Memory
from memoryd.memory.storing import store_draft
from memoryd.memory.worker import Worker
from memoryd.parsers.pool import ProcessLimits, open_parsers
from memoryd.postgres.access import reach
from memoryd.postgres.server import Server, read_lock, run_server
from memoryd.storage.database import open_database
from memoryd.storage.snapshots import read_behind

logger = logging.getLogger(__name__)

# From the signal: when what still waits for the engine is refused, and when connections are cut.
# With half a second for Postgres, all is over in less than two.
_REFUSE_AFTER_S = 0.9
_CUT_AFTER_S = 1.3
# How long a thread may keep Python's lock from another: a tenth of the usual. Those that chunk and
# tokenize would hold up those that encode and answer.
_SWITCH_INTERVAL_S = 0.0005
_NO_ADMIN = (
    "nobody can make or revoke API keys: there are some, but none with the scope admin that never "
    "expires, and MEMORYD_API_KEY is not set. Set it; to do without it, make such a key before, "
    "with `memoryd keys create --name admin --scope admin`"
)


@asynccontextmanager
async def open_memory(
    settings: Settings, loader: Loader | None = None
) -> AsyncIterator[tuple[Memory, Server | None]]:
    """Open all that the use cases need, and close it in the opposite order.

    The model is loaded while Postgres starts. Raises SetupError, and ModelFileError for a model
    that can't be used, saying what mends it.
    """
    models = ModelLoader.of(settings)
    check_aliases(models)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine(loader or models, _limits(settings)))
        loading = asyncio.create_task(engine.model(settings.model))
        stack.callback(loading.cancel)
        server, dsn = None, ""
        if settings.database_url:
            dsn = settings.database_url.get_secret_value()
        else:
            server = await stack.enter_async_context(run_server(settings.data_dir))
            await protect(server, settings)
            dsn = server.dsn
        memory = await _compose(stack, settings, engine, models, dsn)
        await _check_keys(memory)
        await loading
        await ensure_default(memory)
        memory.worker.start()
        yield memory, server


async def _compose(
    stack: AsyncExitStack, settings: Settings, engine: Engine, models: ModelLoader, dsn: str
) -> Memory:
    """Return what the use cases work with, over an open engine and a database that runs."""
    most = settings.database_connections
    storage = open_database(dsn, max_connections=most, idle_s=settings.lease_s)
    database = await stack.enter_async_context(storage)
    parsers = await stack.enter_async_context(open_parsers(limits=_parser_limits(settings)))
    memory = Memory(settings, database, engine, models, parsers)
    await stack.enter_async_context(working(memory))
    return memory


@asynccontextmanager
async def open_worker(settings: Settings, loader: Loader | None = None) -> AsyncIterator[Memory]:
    """Open what stores the documents that others accept, and let it begin.

    It works beside the memoryd that serves the embedded database, or on the user's own one. Models
    are loaded when a document wants them. Raises SetupError where there is no such database.
    """
    models = ModelLoader.of(settings)
    check_aliases(models)
    async with AsyncExitStack() as stack:
        dsn = await _find_served(settings)
        engine = await stack.enter_async_context(Engine(loader or models, _limits(settings)))
        memory = await _compose(stack, settings, engine, models, dsn)
        memory.worker.start()
        yield memory


async def _find_served(settings: Settings) -> str:
    """Return the address of the database that others serve."""
    if settings.database_url:
        return settings.database_url.get_secret_value()
    if read_lock(settings.data_dir) is None:
        raise SetupError(
            f"no memoryd serves {settings.data_dir}: start `memoryd serve` first, whose database "
            "this shares, or name a Postgres of your own with --database-url"
        )
    async with reach(settings.data_dir) as access:
        dsn = access.dsn
    if await read_behind(dsn):
        raise SetupError(
            "the memoryd that serves this database is an older version: stop it, and start this "
            "one's `memoryd serve`, which upgrades the database after a backup"
        )
    return dsn


@asynccontextmanager
async def working(memory: Memory) -> AsyncIterator[None]:
    """Give `memory` a worker, run jobs and sweep what expires, and end all that it does at the end.

    `memory.worker.start` lets the worker begin.
    """
    store = partial(store_draft, memory)
    memory.worker = Worker(
        memory.database,
        store,
        lease_s=memory.settings.lease_s,
        count=memory.engine.metrics.documents.count,
    )
    kinds = {REEMBED: reembedding(memory), INDEX: indexing(memory)}
    memory.runner = JobRunner(memory.database, kinds, memory.settings.lease_s)
    memory.runner.start()
    memory.statistics.start()
    threshold = memory.settings.hnsw_threshold
    async with (
        sweeping_up(memory.database),
        watching(memory.database, memory.runner, threshold),
    ):
        try:
            yield
        finally:
            await memory.stop()


def _parser_limits(settings: Settings) -> ProcessLimits:
    return ProcessLimits(parsing=ParsingLimits(text_chars=settings.max_text_chars))


def _limits(settings: Settings) -> EngineLimits:
    return EngineLimits(
        max_waiting_requests=settings.max_waiting_requests,
        memory_bytes=settings.memory_budget_bytes,
        long_input_bytes=settings.long_input_bytes,
        keep_alive_s=settings.keep_alive_s,
    )


@asynccontextmanager
async def listen(memory: Memory, routes: list[Route] = ROUTES) -> AsyncIterator[list[str]]:
    """Serve HTTP while the block runs, and yield the URLs, one for each port.

    At the end nothing new is taken on; what is under way gets over a second, documents that are
    not begun are answered as not stored.
    """
    settings = memory.settings
    runner = web.AppRunner(
        build_app(memory, routes),
        access_log=None,
        logger=http_logger,
        handle_signals=False,
        handler_cancellation=True,  # a client that has left needs no embeddings
        shutdown_timeout=_CUT_AFTER_S / 2,  # aiohttp waits for it twice before it cuts
    )
    await runner.setup()
    try:
        yield [await _listen_on(runner, settings.host, port) for port in settings.port]
    finally:
        memory.is_stopping = True
        memory.worker.stop_claiming()
        refusal = asyncio.get_running_loop().call_later(_REFUSE_AFTER_S, _refuse, memory)
        await runner.cleanup()
        refusal.cancel()
        _refuse(memory)


def _refuse(memory: Memory) -> None:
    """Answer all that still wait: with an error, or with the job that goes on after a restart."""
    memory.engine.refuse()
    memory.worker.stop_waiting()


@asynccontextmanager
async def listen_metrics(memory: Memory) -> AsyncIterator[str | None]:
    """Serve the metrics alone while the block runs, and yield the URL; None where no port is set.

    They want no key there: what scrapes them often has none to send.
    """
    settings = memory.settings
    if settings.metrics_port is None:
        yield None
        return
    runner = web.AppRunner(
        build_app(memory, METRICS_ROUTES),
        access_log=None,
        logger=http_logger,
        handle_signals=False,
        shutdown_timeout=0,
    )
    await runner.setup()
    try:
        url = await _listen_on(runner, settings.host, settings.metrics_port, "--metrics-port")
        logger.info("metrics are at %s/metrics", url)
        yield url
    finally:
        await runner.cleanup()


async def _listen_on(runner: web.AppRunner, host: str, port: int, option: str = "--port") -> str:
    """Return the URL at which `runner` listens too from now on; port 0 picks a free one."""
    before = len(runner.addresses)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SetupError(
            f"cannot listen on {host} port {port}: {error.strerror}. "
            f"Another server may use it: choose another with {option}"
        ) from error
    return _url(host, runner.addresses[before][1])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_exposure(settings: Settings, *, has_keys: bool = False) -> None:
    """Raise SetupError where others could reach memoryd without a key and nobody has allowed it."""
    if settings.api_key or has_keys or not settings.must_have_key:
        return
    raise SetupError(
        f"{settings.host or 'an empty host'} can be reached from other machines: set "
        "MEMORYD_API_KEY, make a key with `memoryd keys create` while memoryd listens on "
        "127.0.0.1, or say --allow-no-key true where whoever reaches it may do everything"
    )


async def _check_keys(memory: Memory) -> None:
    """Raise SetupError where a key is missing, and tell where keys are out of everybody's hands."""
    check_exposure(memory.settings, has_keys=await memory.keys.exist())
    if await memory.keys.lack_admin():
        logger.warning(_NO_ADMIN)


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run memoryd until SIGINT or SIGTERM; `announce` is called with each URL once it listens."""
    _be_ended_by_signals()
    try:
        async with (
            open_memory(settings) as (memory, server),
            listen(memory) as urls,
            listen_metrics(memory),
        ):
            gc.freeze()  # what lives as long as the process isn't searched for garbage again
            if server:
                server.announce(urls[0])
            for url in urls:
                announce(url)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        logger.info("stopped")


async def work(settings: Settings, announce: Callable[[], None]) -> None:
    """Store what others accept until SIGINT or SIGTERM, which gives back what is under way.

    `announce` is called once it has begun.
    """
    _be_ended_by_signals()
    try:
        async with open_worker(settings) as memory, listen_metrics(memory):
            announce()
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        logger.info("stopped")


def _be_ended_by_signals() -> None:
    """Let SIGINT and SIGTERM cancel this task."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    main = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, main.cancel)  # type: ignore[union-attr] # inside a coroutine there is a task
