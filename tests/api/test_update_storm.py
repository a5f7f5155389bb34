import asyncio
import itertools
import random
import re
import time
from collections import Counter
from typing import Any

import asyncpg
from servers import Running, Serve
from wire import Client

WRITERS, DOCUMENTS, STORM_S = 8, 100, 8.0
PATH = "/v1/collections/default/documents"
WORDS = ("cat", "dog", "fish", "bird", "horse")

# Chunks in the wrong place, and vectors without their chunk or in the wrong document.
FAULTS = """
SELECT (SELECT count(*) FROM c_1.documents d WHERE (SELECT array_agg(position ORDER BY position)
    FROM c_1.chunks_1 c WHERE c.document_id = d.id) IS DISTINCT FROM
    ARRAY(SELECT generate_series(0, (SELECT count(*) FROM c_1.chunks_1 c
      WHERE c.document_id = d.id)::int - 1)))
  + (SELECT count(*) FROM c_1.chunks_1 c JOIN c_1.documents d ON d.id = c.document_id
    WHERE substr(d.text, start_char + 1, end_char - start_char) <> c.text)
  + (SELECT count(*) FROM c_1.chunks_1 c FULL JOIN c_1.vectors_1 v ON v.chunk_id = c.id
    WHERE c.document_id IS DISTINCT FROM v.document_id)
  + (SELECT count(*) FROM c_1.drafts)
"""
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


class Storm:
    """Write and read the same documents at random, and count what was done."""

    def __init__(self, client: Client) -> None:
        self.done: Counter[str] = Counter()
        self._client = client
        self._numbers = itertools.count(1)
        self._ends = 0.0

    async def rage(self) -> None:
        """Go on for some seconds."""
        self._ends = time.monotonic() + STORM_S
        writers = (self._write(random.Random(seed)) for seed in range(WRITERS))  # noqa: S311 - no secret
        readers = (self._search, self._search, self._show, self._list_chunks)
        await asyncio.gather(*writers, *(self._read(reader) for reader in readers))

    def text(self, chance: random.Random) -> str:
        """Return a text of one to ten chunks that all name its number, the last one an end."""
        number = next(self._numbers)
        parts = [f"v{number} {chance.choice(WORDS)}" for _ in range(chance.randint(5, 150))]
        return " ".join(parts) + f" end{number}"

    async def _write(self, chance: random.Random) -> None:
        while time.monotonic() < self._ends:
            document = {"id": f"d{chance.randrange(DOCUMENTS)}", "text": self.text(chance)}
            outcome = await self._client.store(**document)
            assert outcome["status"] in ("stored", "replaced")
            self.done["writes"] += 1

    async def _read(self, read: Any) -> None:
        for number in itertools.count():
            if time.monotonic() > self._ends:
                return
            await read(number)
            self.done[read.__name__] += 1

    async def _search(self, number: int) -> None:
        found = await self._client.search(WORDS[number % 5], limit=20, group_size=100)
        for result in found["results"]:
            check_whole(result["chunks"])

    async def _show(self, number: int) -> None:
        answer = await self._client.get(f"{PATH}/d{number % DOCUMENTS}")
        assert answer.status in (200, 404), answer
        if answer.status == 200 and answer.json["version"]:
            named = set(re.findall(r"(?:v|end)(\d+)", answer.json["text"]))
            assert len(named) == 1

    async def _list_chunks(self, number: int) -> None:
        answer = await self._client.get(f"{PATH}/d{number % DOCUMENTS}/chunks?limit=1000")
        assert answer.status in (200, 404), answer
        if answer.status == 200 and answer.json["chunks"]:
            check_whole(answer.json["chunks"])


def check_whole(chunks: list[dict[str, Any]]) -> None:
    """Fail unless these are all chunks of one version."""
    named = {number for chunk in chunks for number in re.findall(r"v(\d+)", chunk["text"])}
    assert len(named) == 1, named
    ordered = sorted(chunks, key=lambda chunk: int(chunk["index"]))
    assert [chunk["index"] for chunk in ordered] == list(range(len(chunks)))
    assert ordered[-1]["text"].endswith(f"end{named.pop()}")


async def check_end(running: Running) -> None:
    """Fail unless each document has exactly its chunks and vectors, and nothing else is left."""
    connection = await asyncpg.connect(running.dsn)
    try:
        assert await connection.fetchval("SELECT count(*) FROM c_1.documents") == DOCUMENTS
        assert await connection.fetchval(FAULTS) == 0
        await asyncio.sleep(1.1)  # Postgres gathers its statistics once a second
        assert await connection.fetchval(DEADLOCKS) == 0
    finally:
        await connection.close()


async def test_whoever_reads_in_a_storm_of_updates_sees_whole_versions_only(serve: Serve) -> None:
    async with serve() as running:
        storm = Storm(running.client)
        batch = [
            {"id": f"d{number}", "text": storm.text(random.Random(number))}  # noqa: S311 - no secret
            for number in range(DOCUMENTS)
        ]
        (await running.client.post(PATH, {"documents": batch})).ok()
        await storm.rage()
        print({name: f"{count / STORM_S:.0f}/s" for name, count in storm.done.items()})
        assert all(count > 20 for count in storm.done.values()), storm.done
        await check_end(running)
