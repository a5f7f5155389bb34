"""A batch larger than what is stored at once leaves memoryd free for others."""

import asyncio
from pathlib import Path
from typing import Any

from servers import Serve
from toys import ToyLoader
from wire import Answer

from memoryd.embeddings.engine import Engine

PATH = "/v1/collections/default/documents"
OTHERS = "/v1/collections/others/documents"
COUNT = 300


def batch(name: str) -> dict[str, Any]:
    return {"documents": [{"id": f"{name}{number}", "text": "cat dog"} for number in range(COUNT)]}


async def test_what_is_enqueued_is_stored_while_clients_wait_for_large_batches(
    serve: Serve, models_dir: Path
) -> None:
    loader = ToyLoader(models_dir, delay_s=0.05)
    async with Engine(loader) as engine, serve(engine) as running:
        client = running.client
        (await client.post("/v1/collections", {"name": "others"})).ok(201)
        posting: list[asyncio.Task[Answer]] = [
            asyncio.create_task(client.post(PATH, batch(name))) for name in "ab"
        ]
        async with asyncio.timeout(20):
            while not (await client.get(f"{PATH}?limit=1")).ok()["documents"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            (await client.post(f"{OTHERS}?wait=false", {"id": "o", "text": "cat"})).ok(202)
            while not (await client.get(f"{OTHERS}/o")).ok()["version"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            assert not all(task.done() for task in posting)
            for task in posting:
                outcomes = (await task).ok()["documents"]
                assert {outcome["status"] for outcome in outcomes} == {"stored"}
