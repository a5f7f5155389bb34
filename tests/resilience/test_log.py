"""What a running memoryd writes of requests: one line each, and how to find a fault."""

import asyncio
import re
import uuid

import asyncpg
import pytest
from memoryd_process import MemorydProcess
from wire import Client

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ .")


async def logged(server: MemorydProcess, text: str) -> str:
    """Return the log once `text` stands in it."""
    async with asyncio.timeout(5):
        while text not in server.said:  # noqa: ASYNC110 # another process writes it
            await asyncio.sleep(0.02)
    return server.said


@pytest.mark.parametrize(
    "path",
    [
        "/x%0Aforged line",
        "/x%0D%0Aforged line",
        "/x%0Dforged line",
        "/x%E2%80%A8forged line",
        "/x%C2%85forged line",
        "/x%0Bforged line",
        "/x%1B[2Jforged line",
        "/v1/collections/x%0Aforged line",
        "/v1/collections/default/documents/x%0Aforged line",
        "/v1/collections/default/documents?limit=%0Aforged line",
        "/api/x%0Aforged line",
    ],
)
async def test_a_path_writes_no_line_of_its_own(server: MemorydProcess, path: str) -> None:
    id_ = f"mark-{uuid.uuid4().hex}"
    async with Client(server.url) as client:
        await client.get(path.replace(" ", "%20"), headers={"X-Request-Id": id_})
    said = await logged(server, id_)
    assert "\x1b" not in said
    for line in said.splitlines():
        assert not line.startswith("forged line"), said[-2000:]
        assert "forged line" not in line or LINE.match(line)


@pytest.mark.parametrize(
    "given", ["a b", "é", "\t", "a\tb", '"quoted"', "<b>", "a;b", "a%0Ab", "x" * 5000, "{x}"]
)
async def test_a_strange_request_id_is_replaced(server: MemorydProcess, given: str) -> None:
    async with Client(server.url) as client:
        answer = await client.get("/health", headers={"X-Request-Id": given})
    used = answer.headers["X-Request-Id"]
    assert used != given
    assert re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", used)
    assert given[:200] not in server.said or given == "\t"


@pytest.mark.parametrize(
    "given",
    ["mine-1", "0af7651916cd43dd8448eb211c80319c", "2f1a6f3e-1c1f-4d0e-9d3c-0a8a5b6c7d8e", "a_b.c"],
)
async def test_a_good_request_id_is_echoed_and_logged(server: MemorydProcess, given: str) -> None:
    async with Client(server.url) as client:
        answer = await client.get("/v1/limits", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] == given
    assert given in await logged(server, given)


RULE = """
CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'zebra'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON {schema}.documents
FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()
"""


async def test_a_500_names_the_id_that_stands_beside_the_traceback(server: MemorydProcess) -> None:
    path = "/v1/collections/broken"
    async with Client(server.url) as client:
        (await client.post("/v1/collections", {"name": "broken"})).ok(201)
        connection = await asyncpg.connect(server.dsn)
        number = await connection.fetchval(
            "SELECT id FROM memoryd.collections WHERE name = 'broken'"
        )
        await connection.execute(RULE.format(schema=f"c_{number}"))
        await connection.close()
        try:
            for headers in ({}, {"X-Request-Id": "find-me-500"}):
                answer = await client.post(
                    f"{path}/documents", {"id": "a", "text": "hello"}, headers=headers
                )
                error = answer.refused(500, "internal_error")
                id_ = answer.headers["X-Request-Id"]
                assert id_ in error["message"]
                assert "zebra" not in error["message"]
                said = await logged(server, f"ms {id_}")
                assert re.search(rf"{id_}[^\n]*\nTraceback \(most recent call last\)", said)
                assert "zebra" in said
        finally:
            (await client.delete(path)).ok()


async def test_a_batchs_fault_stands_in_the_log_with_the_requests_id(
    server: MemorydProcess,
) -> None:
    path = "/v1/collections/broken-batch"
    async with Client(server.url) as client:
        (await client.post("/v1/collections", {"name": "broken-batch"})).ok(201)
        connection = await asyncpg.connect(server.dsn)
        number = await connection.fetchval(
            "SELECT id FROM memoryd.collections WHERE name = 'broken-batch'"
        )
        await connection.execute(RULE.format(schema=f"c_{number}"))
        await connection.close()
        try:
            answer = await client.post(
                f"{path}/documents", {"documents": [{"id": "a", "text": "hello"}]}
            )
            [outcome] = answer.ok()["documents"]
            assert outcome["error"]["code"] == "internal_error"
            id_ = answer.headers["X-Request-Id"]
            said = await logged(server, id_)
            assert re.search(r"\nTraceback \(most recent call last\)", said)
        finally:
            (await client.delete(path)).ok()
