"""`memoryd worker`: a process that shares the work of those that listen."""

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from memoryd_process import environment, serving
from wire import Client


@asynccontextmanager
async def working(
    data_dir: Path, models_dir: Path, *options: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a worker until the block ends; yield it and where its metrics are."""
    places = ("--data-dir", str(data_dir), "--models-dir", str(models_dir))
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "memoryd", "worker", *places, *options),
            *("--metrics-port", "0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert b"memoryd works" in line, said(log)
            found = re.search(r"metrics are at (http://\S+)/metrics", said(log))
            assert found
            yield process, found[1]
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def said(log: IO[bytes]) -> str:
    return os.pread(log.fileno(), 1 << 20, 0).decode()


async def stored_by(url: str) -> float:
    """Return how many documents the process behind the metrics has stored."""
    async with Client(url) as client:
        text = (await client.get("/metrics")).data.decode()
    found = re.search(r'^memoryd_documents_total\{status="stored"\} (\S+)$', text, re.MULTILINE)
    assert found
    return float(found[1])


async def enqueue(client: Client, count: int, name: str) -> str:
    documents = [
        {"id": f"{name}{number}", "text": f"Note {number} of {name}."} for number in range(count)
    ]
    path = "/v1/collections/default/documents?wait=false"
    id_: str = (await client.post(path, {"documents": documents})).ok(202)["job"]["id"]
    return id_


async def ended(client: Client, id_: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            job = (await client.get(f"/v1/jobs/{id_}")).ok()
            if job["finished_at"] is not None:
                return job
            await asyncio.sleep(0.1)


async def test_a_worker_shares_the_embedded_database_and_gives_back_what_it_holds(
    data_dir: Path, models_dir: Path
) -> None:
    long = ("--lease-s", "600")
    async with (
        serving(data_dir, models_dir, *long) as served,
        Client(served.url) as client,
        working(data_dir, models_dir, *long) as (process, metrics),
    ):
        first = await enqueue(client, 500, "first")
        assert (await ended(client, first))["counts"]["stored"] == 500
        by_worker = await stored_by(metrics)
        assert 0 < by_worker < 500
        assert by_worker + await stored_by(served.url) == 500

        second = await enqueue(client, 500, "second")
        while await stored_by(metrics) == by_worker:  # noqa: ASYNC110 # a server tells nobody
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert time.monotonic() - started < 8  # whole seconds where others keep the cores busy
        assert (await ended(client, second))["counts"]["stored"] == 500


async def test_what_a_killed_worker_held_is_stored_by_others_when_its_lease_ends(
    data_dir: Path, models_dir: Path
) -> None:
    short = ("--lease-s", "2")
    async with (
        serving(data_dir, models_dir) as served,
        Client(served.url) as client,
        working(data_dir, models_dir, *short) as (process, metrics),
    ):
        job = await enqueue(client, 500, "note")
        while await stored_by(metrics) == 0:  # noqa: ASYNC110 # a server tells nobody
            await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
        assert (await ended(client, job))["counts"]["stored"] == 500


async def test_without_a_memoryd_that_serves_a_worker_says_what_to_do(
    data_dir: Path, models_dir: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "memoryd", "worker", "--data-dir", str(data_dir)),
        *("--models-dir", str(models_dir)),
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert err.decode().startswith(f"memoryd: no memoryd serves {data_dir}: start `memoryd serve`")
    assert "--database-url" in err.decode()
    assert "data" not in os.listdir(data_dir.parent)  # noqa: PTH208 # as short
