"""Exports and imports, and what collections hold, to the last bit."""

import asyncio
import base64
from typing import Any

import asyncpg
import numpy as np
import orjson
from servers import Running
from toys import DIMENSIONS
from wire import Answer, Client

LONG = ". ".join(f"Cat number {number} met the dog" for number in range(60))
# What a collection holds, to the last bit of its vectors; numbers of rows aside.
ROWS = """
SELECT d.external_id, d.content_hash, d.title, d.text, d.mime_type, d.language, d.metadata::text,
  d.tags, d.expires_at, d.created_at, d.sections::text, d.has_own_chunks, c.position, c.start_char,
  c.end_char, c.token_count, c.hash, c.text AS chunk, c.page, c.headings, v.embedding::text
FROM {0}.documents d JOIN {0}.chunks_1 c ON c.document_id = d.id
JOIN {0}.vectors_1 v ON v.chunk_id = c.id ORDER BY d.id, c.position
"""


def path(action: str, collection: str = "default") -> str:
    """Return the path of a collection, or of what is below it."""
    return f"/v1/collections/{collection}/{action}".rstrip("/")


def lines(*documents: Any) -> bytes:
    """Return values as NDJSON."""
    return b"".join(orjson.dumps(each) + b"\n" for each in documents)


def parsed(data: bytes) -> list[Any]:
    """Return what NDJSON holds."""
    return [orjson.loads(line) for line in data.splitlines()]


def base64_of(vector: Any) -> str:
    """Return a vector as it stands in a line."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def unit(axis: int) -> list[float]:
    """Return a vector along one axis."""
    return [1.0 if each == axis else 0.0 for each in range(DIMENSIONS)]


async def export(client: Client, collection: str = "default", vectors: str = "true") -> bytes:
    """Return a whole export."""
    answer = await client.get(path(f"export?vectors={vectors}", collection))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return answer.data


async def send(client: Client, data: bytes, collection: str = "default", query: str = "") -> Answer:
    """Import and return the answer."""
    return await client.ask("POST", path("import", collection) + query, data=data)


async def import_(client: Client, data: bytes, collection: str = "default", query: str = "") -> Any:
    """Import and return the answer, once its job has ended."""
    answer = await send(client, data, collection, query)
    told = answer.ok(202 if answer.json["job"] else 200)
    if told["job"]:
        await ended(client, told["job"]["id"])
    return told


async def ended(client: Client, job: str) -> Any:
    """Return a job once it has ended."""
    async with asyncio.timeout(15):
        while True:
            told = (await client.get(f"/v1/jobs/{job}")).ok()
            if told["finished_at"]:
                return told
            await asyncio.sleep(0.02)


async def rows_of(running: Running, number: int) -> list[dict[str, Any]]:
    """Return all of a collection but the numbers of its rows, in their order."""
    connection = await asyncpg.connect(running.dsn)
    try:
        return [dict(row) for row in await connection.fetch(ROWS.format(f"c_{number}"))]
    finally:
        await connection.close()


async def fill(client: Client, collection: str = "default") -> None:
    """Store documents of all kinds."""
    await client.store(
        collection,
        id="full",
        title="Ünï 猫",
        text=f"# Cats 😀\n\n{LONG}\n\n# Dogs\n\nA dog.",
        mime_type="text/markdown",
        language="german",
        metadata={"a": {"b": [1, 2.5, None, "ü"]}},
        tags=["x", "y"],
        expires_at="2999-01-01T00:00:00+02:00",
    )
    await client.store(collection, id="plain", text="A red apple.")
    await client.store(
        collection,
        id="own",
        title="T",
        chunks=[
            {"text": "a cat"},
            {"text": "a dog", "vector": (np.arange(DIMENSIONS) / 7 + 0.1).tolist()},
        ],
    )
