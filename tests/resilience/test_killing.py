"""Killed in the middle of an ingest: what was acknowledged is there, nothing is there twice."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from memoryd_process import MemorydProcess, serving
from wholeness import ended_jobs, find_faults
from wire import Client

COUNT, BATCH, WORKERS = 2000, 25, 4
COLLECTION = "notes"
DOCUMENTS = f"/v1/collections/{COLLECTION}/documents"
QUICK = ("--lease-s", "2")


def document(number: int) -> dict[str, Any]:
    """Return a short text, every tenth of them one of several chunks."""
    return {"id": f"n{number}", "text": f"Note {number}. " * (12 if number % 10 == 0 else 1)}


BATCHES = [
    [document(number) for number in range(first, first + BATCH)] for first in range(0, COUNT, BATCH)
]


async def make_collection(client: Client) -> None:
    limits = {"max_tokens": 32, "overlap_tokens": 0}
    (await client.post("/v1/collections", {"name": COLLECTION, "chunking": limits})).ok(201)


class Ingest:
    """Post all batches over several connections, and note what was acknowledged."""

    def __init__(self, client: Client, when_started: Callable[[], None] | None = None) -> None:
        self.acknowledged: dict[str, str] = {}
        self.retries = 0
        self._client = client
        self._left = list(reversed(BATCHES))
        self._when_started = when_started

    async def run(self) -> None:
        """Post until all is acknowledged; raises aiohttp.ClientError where the server goes away."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while self._left:
            batch = self._left.pop()
            while batch:
                batch = await self._post(batch)
            if self._when_started and len(self.acknowledged) > COUNT // 4:
                self._when_started()
                self._when_started = None

    async def _post(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Post documents and return those to post again."""
        answer = await self._client.post(f"{DOCUMENTS}?wait_s=5", {"documents": batch})
        if answer.status == 503:
            answer.refused(503)
            return await self._wait(batch)
        failed = set()
        assert answer.status in (200, 202), (answer.status, answer.data[:500])
        for outcome in answer.json["documents"]:
            if outcome["status"] == "failed":
                assert outcome["error"]["code"] == "overloaded", outcome
                failed.add(outcome["id"])
            else:
                self.acknowledged[outcome["id"]] = outcome["status"]
        return await self._wait([item for item in batch if item["id"] in failed])

    async def _wait(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if batch:
            self.retries += 1
            await asyncio.sleep(0.1)
        return batch


async def check_whole(running: MemorydProcess, count: int | None = None) -> None:
    """Check that no document is there by half, and all of `count` are there."""
    await ended_jobs(running.dsn, within_s=30)
    assert await find_faults(running.dsn, "c_2") == {}
    if count is not None:
        connection = await asyncpg.connect(running.dsn)
        try:
            assert await connection.fetchval("SELECT count(*) FROM c_2.documents") == count
        finally:
            await connection.close()


async def stored_ids(client: Client) -> list[str]:
    ids: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await client.get(f"{DOCUMENTS}?limit=1000{cursor and '&cursor='}{cursor}")).ok()
        ids += [document["id"] for document in page["documents"]]
        cursor = page["next_cursor"]
    return ids


async def test_killed_memoryd_keeps_what_it_acknowledged(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    async with serving(data_dir, models_dir, *QUICK) as running, Client(running.url) as client:
        await make_collection(client)
        before = Ingest(client, running.process.kill)
        try:
            await before.run()
        except* aiohttp.ClientError:
            pass
        assert await running.process.wait() == -signal.SIGKILL
        assert COUNT // 4 < len(before.acknowledged) < COUNT
    async with serving(data_dir, models_dir, *QUICK) as running, Client(running.url) as client:
        await check_whole(running)
        ids = await stored_ids(client)
        assert set(before.acknowledged) <= set(ids)
        assert len(ids) == len(set(ids)) < COUNT
        again = Ingest(client)
        await again.run()
        assert {again.acknowledged[id_] for id_ in ids} == {"unchanged"}
        assert len(again.acknowledged) == COUNT
        await check_whole(running, COUNT)


async def test_killed_postgres_comes_back_and_keeps_what_was_acknowledged(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    async with serving(data_dir, models_dir, *QUICK) as running, Client(running.url) as client:
        await make_collection(client)
        first = running.postmaster_pid
        ingest = Ingest(client, lambda: os.kill(first, signal.SIGKILL))
        async with asyncio.timeout(60):
            await ingest.run()
        assert running.postmaster_pid != first
        assert len(ingest.acknowledged) == COUNT
        await check_whole(running, COUNT)
        again = Ingest(client)
        await again.run()
        assert set(again.acknowledged.values()) == {"unchanged"}
        assert (await client.get("/health/ready")).status == 200
        assert await client.found("Note 17.", COLLECTION, limit=1) == ["n17"]


async def test_ready_says_when_postgres_is_gone_and_when_it_is_back(
    server: MemorydProcess,
) -> None:
    async with Client(server.url) as client:
        os.kill(server.postmaster_pid, signal.SIGKILL)
        statuses = []
        async with asyncio.timeout(20):
            while statuses[-1:] != [200] or 503 not in statuses:
                answer = await client.get("/health/ready")
                statuses.append(answer.status)
                if answer.status == 503:
                    assert answer.json["checks"]["database"] != "ok"
                    assert (await client.get("/health")).status == 200
        (await client.get("/v1/collections")).ok()
