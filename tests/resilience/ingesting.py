"""A client that ingests, and remembers what was acknowledged."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson
from fleet import Member
from wire import Answer, Client

COLLECTION = "notes"
DOCUMENTS = f"/v1/collections/{COLLECTION}/documents"
SCHEMA = "c_2"
"""Of the first collection after "default"."""

NDJSON = {"Content-Type": "application/x-ndjson"}
ACKNOWLEDGED = {"stored", "queued", "unchanged", "replaced", "updated", "skipped"}


def note(number: int, version: int = 1) -> dict[str, Any]:
    """Return a short text, every tenth of them one of several chunks."""
    text = f"Note {number} of version {version}. " * (12 if number % 10 == 0 else 1)
    return {"id": f"n{number}", "text": text}


def batches_of(documents: Sequence[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    """Return the documents in lists of `size`."""
    return [list(documents[start : start + size]) for start in range(0, len(documents), size)]


async def make_collection(client: Client) -> None:
    """Make the collection with chunks of a few words."""
    limits = {"max_tokens": 32, "overlap_tokens": 0}
    (await client.post("/v1/collections", {"name": COLLECTION, "chunking": limits})).ok(201)


async def post_json(client: Client, path: str, documents: list[dict[str, Any]]) -> Answer:
    """Post documents as one body of JSON."""
    return await client.post(path, {"documents": documents})


async def post_lines(client: Client, path: str, documents: list[dict[str, Any]]) -> Answer:
    """Post documents as NDJSON."""
    lines = b"".join(orjson.dumps(document) + b"\n" for document in documents)
    return await client.ask("POST", path, data=lines, headers=NDJSON)


async def list_ids(client: Client) -> list[str]:
    """Return the ids of all documents as the API lists them."""
    ids: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await client.get(f"{DOCUMENTS}?limit=1000{cursor and '&cursor='}{cursor}")).ok()
        ids += [document["id"] for document in page["documents"]]
        cursor = page["next_cursor"]
    return ids


class Ingest:
    """Post each batch once, to any member that is up, by several clients at a time."""

    def __init__(
        self,
        members: Sequence[Member],
        batches: Sequence[list[dict[str, Any]]],
        chance: random.Random,
    ) -> None:
        self.acknowledged: dict[str, str] = {}
        self.lost_answers = 0
        self._members = members
        self._left = list(batches)
        self._chance = chance
        self.posted = 0

    async def run(self, clients: int = 4) -> None:
        """Post all batches."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._post_all())

    async def _post_all(self) -> None:
        while self._left:
            batch = self._left.pop()
            await self._post(batch)
            self.posted += len(batch)

    async def _post(self, batch: list[dict[str, Any]]) -> None:
        member = self._chance.choice(self._members)
        wait = self._chance.choice(("?wait=false", "?wait_s=1", "?wait_s=5"))
        send = self._chance.choice((post_json, post_lines))
        await member.is_up.wait()
        try:
            answer = await send(member.client, f"{DOCUMENTS}{wait}", batch)
        except (
            aiohttp.ClientError,
            RuntimeError,
        ):  # killed, and RuntimeError: the session is closed
            self.lost_answers += 1
            return
        self._note(answer)
        if answer.status == 503:
            await asyncio.sleep(0.2)

    def _note(self, answer: Answer) -> None:
        if answer.status == 503:
            self.lost_answers += 1
            return
        assert answer.status in (200, 202), (answer.status, answer.data[:500])
        for outcome in answer.json["documents"]:
            assert outcome["status"] in ACKNOWLEDGED, outcome
            self.acknowledged[outcome["id"]] = outcome["status"]
