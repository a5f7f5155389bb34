"""Postgres killed and started again while two memoryds ingest: they go on by themselves."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from fleet import LEASE_S, Member, fleet
from ingesting import SCHEMA, Ingest, batches_of, list_ids, make_collection, note
from polling import until
from wholeness import ended_jobs, find_faults

from memoryd.postgres.server import Server, run_server
from memoryd.storage.database import ensure_pgvector

COUNT, BATCH = 800, 20
RECOVERY_S = 10


@pytest_asyncio.fixture
async def mortal(data_dir: Path) -> AsyncIterator[Server]:
    """Give a Postgres of the test's own, which is started again when it dies."""
    async with run_server(data_dir) as server:
        yield server


async def kill(server: Server) -> None:
    """Kill Postgres with all its backends, and wait until it has been noticed."""
    process = server.postmaster.process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    await until(lambda: not server.is_ready)


async def answered_again_after_s(member: Member) -> float:
    """Return how long after Postgres is back it takes until a request is answered."""
    started = time.monotonic()
    while True:
        if (await member.client.get("/v1/collections/notes/documents?limit=1")).status == 200:
            return time.monotonic() - started
        await asyncio.sleep(0.02)


async def test_memoryd_goes_on_by_itself_when_postgres_was_killed_under_load(
    mortal: Server, tmp_path: Path, tiny_models: Path
) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    await ensure_pgvector(mortal.dsn)
    batches = batches_of([note(number) for number in range(COUNT)], BATCH)
    async with fleet(2, mortal.dsn, tmp_path, tiny_models) as members:
        await make_collection(members[0].client)
        ingest = Ingest(members, batches, chance)
        ingesting = asyncio.create_task(ingest.run())
        for moment in (COUNT // 8, COUNT // 2):
            await until(lambda least=moment: ingest.posted >= least)
            await kill(mortal)
            await until(lambda: mortal.is_ready)
            waits = await asyncio.gather(*map(answered_again_after_s, members))
            assert max(waits) < RECOVERY_S
        await ingesting
        listed = await list_ids(members[0].client)
        assert set(ingest.acknowledged) <= set(listed)
        assert ingest.lost_answers
        jobs = await ended_jobs(mortal.dsn, within_s=20 + 3 * LEASE_S)
        assert {job["status"] for job in jobs} <= {"completed"}
        assert await find_faults(mortal.dsn, SCHEMA) == {}
        again = Ingest(members, batches, chance)
        await again.run()
        await ended_jobs(mortal.dsn, within_s=20)
        assert sorted(await list_ids(members[1].client)) == sorted(f"n{i}" for i in range(COUNT))
        assert {again.acknowledged[id_] for id_ in listed} == {"unchanged"}
        assert await find_faults(mortal.dsn, SCHEMA) == {}
        for member in members:
            assert "Traceback" not in member.running.said, member.running.said
