"""Ctrl-C in the middle of one very long document."""

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest
from memoryd_process import serving
from test_stopping import DOCUMENTS, stop
from wire import Answer, Client


def long_text() -> str:
    """Return a text that takes many seconds to cut, for its words are in no vocabulary."""
    letters = random.Random(1)  # noqa: S311 # no secret
    return "".join(letters.choices("abcdefghijklmnopqrstuvwxyzäßéñ ", k=5_000_000))


async def status_of(posting: asyncio.Task[Answer]) -> str:
    """Return the status of the document as it was told, "unknown" where nothing was."""
    try:
        answer = await posting
    except aiohttp.ClientError:
        return "unknown"
    if answer.status == 503:  # it was not accepted yet
        return "refused"
    return str(answer.ok(202)["documents"][0]["status"])


@pytest.mark.parametrize("begun_s", [0.8])
async def test_ctrl_c_ends_soon_however_long_the_document(
    data_dir: Path, models_dir: Path, model_file: Path, begun_s: float
) -> None:
    text = long_text()
    async with serving(data_dir, models_dir) as running, Client(running.url) as client:
        posting = asyncio.create_task(client.post(DOCUMENTS, {"id": "long", "text": text}))
        await asyncio.sleep(begun_s)
        assert not posting.done()
        assert await stop(running) < 2.5
        assert running.process.returncode == 0
        told = await asyncio.wait_for(status_of(posting), 5)
        assert told in ("queued", "refused", "unknown")
        assert "Traceback" not in running.said
    async with serving(data_dir, models_dir) as running, Client(running.url) as client:
        shown = await client.get(f"{DOCUMENTS}/long")
        if told == "queued":
            assert shown.ok()["status"] == "queued"
        if told == "refused":
            assert shown.status == 404
        if shown.status == 200:
            (await client.delete(f"{DOCUMENTS}/long")).ok()
        assert (await client.get("/v1/collections/default")).ok()["chunks"] == 0
        await client.store(id="after", text="The server goes on.")
        assert (await client.found("goes on", limit=1)) == ["after"]
