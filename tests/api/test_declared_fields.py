"""Fields that a collection declares, from the request to the index that a filter uses."""

import asyncio
from typing import Any

import pytest
from filter_oracle import of
from servers import Running

DEFAULT = "/v1/collections/default"
INDEXES = (
    "SELECT array_agg(indexdef) FROM pg_indexes WHERE schemaname = 'c_1'"
    " AND starts_with(indexname, 'documents_field_')"
)


async def declare(running: Running, fields: dict[str, Any]) -> list[str]:
    """Declare fields, and return the indexes once there are as many."""
    (await running.client.patch(DEFAULT, {"index": {"fields": fields}})).ok()
    async with running.memory.database.connection() as connection, asyncio.timeout(20):
        while True:
            found: list[str] = await connection.fetchval(INDEXES) or []
            if len(found) == len(fields):
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["number", "string"])
async def test_a_declared_field_is_indexed_and_finds_the_same(running: Running, kind: str) -> None:
    client = running.client
    values = [1, 2, 3, "1", "2", "3", None, [1], {"y": 1}]
    await client.post(
        f"{DEFAULT}/documents",
        {"documents": [{"text": "cat", "metadata": {"x": value}} for value in values]},
    )
    asked = [of("gt", 1), of("lte", "2"), of("prefix", "3")]

    async def counts() -> list[int]:
        answers = [await client.post(f"{DEFAULT}/count", {"filter": each}) for each in asked]
        return [answer.ok()["count"] for answer in answers]

    before = await counts()
    assert before == [2, 2, 1]
    [definition] = await declare(running, {"x": kind})
    assert "'x'" in definition
    assert f"'{kind}'" in definition
    assert (await client.get(DEFAULT)).ok()["index"]["fields"] == {"x": kind}
    assert await counts() == before
    assert await declare(running, {}) == []
    assert await counts() == before
