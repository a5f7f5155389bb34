"""A process that is stopped past its lease and wakes up writes nothing that others have done."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from fleet import LEASE_S, fleet
from ingesting import DOCUMENTS, SCHEMA, make_collection, note
from wholeness import ended_jobs, find_faults

COUNT = 200
IDS = [f"n{number}" for number in range(COUNT)]

VERSIONS = """
SELECT external_id, version, text FROM c_2.documents ORDER BY id
"""
HELD = "SELECT count(*) FROM c_2.drafts WHERE claimed_by IS NOT NULL AND outcome IS NULL"


async def versions(dsn: str) -> dict[str, tuple[int, str]]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(VERSIONS)
    finally:
        await connection.close()
    return {row["external_id"]: (row["version"], row["text"]) for row in rows}


async def held(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        count: int = await connection.fetchval(HELD)
    finally:
        await connection.close()
    return count


def expected(version: int, stored: int) -> dict[str, tuple[int, str]]:
    """Return what stands there when the text of `version` was stored as version `stored`."""
    return {
        str(item["id"]): (stored, str(item["text"]))
        for item in (note(number, version) for number in range(COUNT))
    }


@pytest.mark.parametrize("wait", ["?wait=false", "?wait_s=5"])
async def test_a_process_that_wakes_up_never_overwrites_what_others_stored(
    dsn: str, tmp_path: Path, tiny_models: Path, wait: str
) -> None:
    async with fleet(1, dsn, tmp_path, tiny_models) as [sleeper]:
        await make_collection(sleeper.client)
        body = {"documents": [note(number) for number in range(COUNT)]}
        posting = asyncio.create_task(sleeper.client.post(f"{DOCUMENTS}{wait}", body))
        # Asked often, so that the process stops while it has claimed some and not stored them.
        while not await held(dsn):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        os.kill(sleeper.running.process.pid, signal.SIGSTOP)
        try:
            assert await held(dsn)
            async with fleet(1, dsn, tmp_path / "others", tiny_models) as [other]:
                newer: dict[str, Any] = {
                    "documents": [note(number, version=2) for number in range(COUNT)]
                }
                answer = await other.client.post(f"{DOCUMENTS}?wait_s=60", newer)
                outcomes = answer.ok()["documents"]
                assert {outcome["status"] for outcome in outcomes} == {"replaced"}
                assert await versions(dsn) == expected(2, stored=2)
                os.kill(sleeper.running.process.pid, signal.SIGCONT)
                await posting
                await asyncio.sleep(2 * LEASE_S)
                await ended_jobs(dsn, within_s=40)
                assert await versions(dsn) == expected(2, stored=2)
                assert await find_faults(dsn, SCHEMA) == {}
                assert "Traceback" not in sleeper.running.said, sleeper.running.said
        finally:
            os.kill(sleeper.running.process.pid, signal.SIGCONT)
