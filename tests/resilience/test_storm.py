"""Many clients at the same documents in all orders: no two of them wait for each other for ever."""

import asyncio
import random
import time
from collections import Counter
from typing import Any

import asyncpg
from ingesting import post_json, post_lines
from servers import Running, Serve
from wholeness import ended_jobs, find_faults
from wire import Answer, Client

from memoryd.postgres.server import Server

CLIENTS, DOCUMENTS, STORM_S = 12, 60, 6
PATH = "/v1/collections/default/documents"
WORDS = ("cat", "dog", "fish", "bird", "horse", "apple", "pear", "plum")
SOMETIME = "2100-01-01T00:00:00Z"
REFUSALS = {404, 409, 429, 503}
"""404 and 409: others deleted the document or cancelled the job meanwhile."""


class Storm:
    """Do at random what clients can do to documents, and count the answers by their status."""

    def __init__(self, running: Running, seed: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self._client = running.client
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._jobs: list[str] = []

    async def rage(self) -> None:
        """Go on for some seconds."""
        ends = time.monotonic() + STORM_S
        acts = [self.post, self.post, self.post_one, self.delete, self.cancel, self.search]
        while time.monotonic() < ends:
            answer = await self._chance.choice(acts)(self._client)
            self.statuses[answer.status] += 1
            assert answer.status in {200, 202} | REFUSALS, (answer.status, answer.data[:500])

    def document(self) -> dict[str, Any]:
        """Return new content, or other attributes, of one of the few documents."""
        chance = self._chance
        return {
            "id": f"d{chance.randrange(DOCUMENTS)}",
            "text": " ".join(chance.choices(WORDS, k=chance.choice((1, 1, 30)))),
            "metadata": {"n": chance.randrange(3)},
            "expires_at": chance.choice((None, SOMETIME)),
            "on_conflict": chance.choice(("replace", "replace", "skip")),
        }

    async def post(self, client: Client) -> Answer:
        """Store a batch in any order, some documents more than once."""
        batch = [self.document() for _ in range(self._chance.randint(2, 30))]
        wait = self._chance.choice(("?wait=false", "?wait_s=0.05", "?wait_s=10"))
        send = self._chance.choice((post_json, post_lines))
        answer = await send(client, f"{PATH}{wait}", batch)
        if answer.status in (200, 202):
            told = answer.json
            self._jobs += [told["job"]["id"]] if told["job"] else []
            self.failures.update(
                outcome["error"]["code"] for outcome in told["documents"] if outcome["error"]
            )
        return answer

    async def post_one(self, client: Client) -> Answer:
        """Store one document."""
        return await client.post(PATH, self.document())

    async def delete(self, client: Client) -> Answer:
        """Delete one document."""
        return await client.delete(f"{PATH}/d{self._chance.randrange(DOCUMENTS)}")

    async def cancel(self, client: Client) -> Answer:
        """Cancel a job that may have ended, or look for something where there is none."""
        if not self._jobs:
            return await self.search(client)
        return await client.delete(f"/v1/jobs/{self._jobs.pop()}")

    async def search(self, client: Client) -> Answer:
        """Search."""
        body = {"query": self._chance.choice(WORDS), "limit": 5}
        return await client.post("/v1/collections/default/search", body)


def told_of_deadlocks(postgres: Server) -> str:
    """Return what Postgres' log has about them: who waited for whom with which statement."""
    logs = sorted(postgres.postmaster.layout.log_dir.glob("*.log"))
    text = "".join(path.read_text(errors="replace") for path in logs)
    return "".join(part[:4000] for part in text.split("deadlock detected")[1:])


async def test_no_client_is_caught_in_a_deadlock_with_others(
    serve: Serve, postgres: Server
) -> None:
    async with serve(database_connections=8, lease_s=2) as running:
        storms = [Storm(running, seed) for seed in range(CLIENTS)]
        await asyncio.gather(*(storm.rage() for storm in storms))
        statuses = sum((storm.statuses for storm in storms), Counter())
        failures = sum((storm.failures for storm in storms), Counter())
        assert statuses[200] > 20
        assert set(failures) <= {"conflict"}, failures
        await ended_jobs(running.dsn, within_s=30)
        assert await find_faults(running.dsn, "c_1") == {}
        await asyncio.sleep(1.1)  # Postgres gathers its statistics once a second
        connection = await asyncpg.connect(running.dsn)
        try:
            deadlocks = await connection.fetchval(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
        finally:
            await connection.close()
        assert deadlocks == 0, told_of_deadlocks(postgres)
