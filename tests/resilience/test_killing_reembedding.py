"""Killed in the middle of a change of model: it goes on, and nothing is there twice or missing."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import asyncpg
from memoryd_process import serving
from wire import Client

COUNT = 600
COLLECTION = "/v1/collections/default"
# Documents that have not one chunk with one vector in each generation.
UNEVEN = """
SELECT count(*) FROM c_1.documents d
WHERE 1 <> (SELECT count(*) FROM c_1.chunks_1 c JOIN c_1.vectors_1 v ON v.chunk_id = c.id
            WHERE c.document_id = d.id)
   OR 1 <> (SELECT count(*) FROM c_1.chunks_2 c JOIN c_1.vectors_2 v ON v.chunk_id = c.id
            WHERE c.document_id = d.id)
"""


async def show(client: Client, job: dict[str, Any]) -> Any:
    return (await client.get(f"/v1/jobs/{job['id']}")).ok()


async def wait_for(client: Client, job: dict[str, Any], done: int | None = None) -> Any:
    """Return the job once so many documents are done; None: once it has ended."""
    while True:
        now = await show(client, job)
        if now["finished_at"] or (done is not None and now["progress"]["done"] >= done):
            return now
        await asyncio.sleep(0.01)


async def test_a_change_of_model_survives_kills(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    start = (data_dir, models_dir, "--lease-s", "2")
    async with asyncio.timeout(120):
        async with serving(*start) as running, Client(running.url) as client:
            for first in range(0, COUNT, 300):
                batch = [{"id": f"n{n}", "text": f"note {n}"} for n in range(first, first + 300)]
                (await client.post(f"{COLLECTION}/documents", {"documents": batch})).ok()
            body = {"model": "all-minilm", "precision": "full"}
            job = (await client.post(f"{COLLECTION}/model", body)).ok(202)["job"]
            await wait_for(client, job, 100)
            running.process.kill()
            assert await running.process.wait() == -signal.SIGKILL
        async with serving(*start) as running, Client(running.url) as client:
            assert (await client.found("note 17", limit=1)) == ["n17"]
            before = (await show(client, job))["progress"]["done"]
            assert 100 <= before < COUNT
            await wait_for(client, job, before + 100)
            running.process.kill()
            await running.process.wait()
        async with serving(*start) as running, Client(running.url) as client:
            ended = await wait_for(client, job)
            assert (ended["status"], ended["attempt"]) == ("completed", 3)
            assert ended["counts"] == {"stored": COUNT, "failed": 0}
            assert (await client.found("note 17", limit=1)) == ["n17"]
            connection = await asyncpg.connect(running.dsn)
            try:
                assert await connection.fetchval(UNEVEN) == 0
            finally:
                await connection.close()
