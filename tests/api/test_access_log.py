"""What is logged of each request: enough to find it again, and never a text."""

import asyncio
import hashlib
import logging
import re
from typing import Any

import pytest
from polling import until
from servers import Running, Serve
from wire import Client
from yarl import URL

from memoryd.api.notes import NOTES, hash_user
from memoryd.api.route import Route

LONG = "cat " * 100  # more than the toy model takes


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    records = [record for record in caplog.records if record.name == "memoryd.access"]
    return [record.fields for record in records]  # type: ignore[attr-defined] # given as extra


@pytest.fixture(autouse=True)
def all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "memoryd.access")


async def test_a_request_is_logged_with_what_it_was_and_cost(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"model": "toy", "input": ["cat dog", LONG], "truncate": True}
    answer = await client.post("/v1/embeddings", body, headers={"X-Request-Id": "mine-1"})
    usage = answer.ok()["usage"]
    [entry] = entries(caplog)
    milliseconds = entry.pop("milliseconds")
    assert 0 < milliseconds < 10_000
    assert entry == {
        "request_id": "mine-1",
        "method": "POST",
        "route": "/v1/embeddings",
        "path": "/v1/embeddings",
        "status": 200,
        "tokens": usage["total_tokens"],
        "truncated": 1,
        "user": "",
        "key": "",
    }
    assert usage["total_tokens"] > 60


async def test_the_log_and_the_metrics_tell_the_same_of_a_request(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/v1/models/toy", "/nothing"):
        await running.client.get(path)
    read = running.memory.engine.metrics.registry.get_sample_value
    for entry in entries(caplog):
        labels = {"route": entry["route"] or "unmatched", "method": "GET"}
        seconds = read("memoryd_http_request_duration_seconds_sum", labels)
        assert seconds is not None
        assert round(seconds * 1000, 1) == entry["milliseconds"]
        counted = {**labels, "status": str(entry["status"])}
        assert read("memoryd_http_requests_total", counted) == 1


async def test_the_line_for_people_says_the_same(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"model": "toy", "input": LONG}
    await client.post("/v1/embeddings", body, headers={"X-Request-Id": "mine-1"})
    await client.get("/nothing?q=secret")
    first, second = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        r"POST /v1/embeddings 200 \d+\.\d ms mine-1 route=/v1/embeddings tokens=\d+ truncated=1",
        first,
    )
    assert re.fullmatch(r"GET /nothing 404 \d+\.\d ms [0-9a-f]{32}", second)


async def test_the_route_is_a_pattern_and_the_path_as_it_was_sent(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await client.get("/v1/collections/default/documents/a%2Fb%0Ac?x=secret")
    [entry] = entries(caplog)
    assert entry["route"] == "/v1/collections/{collection}/documents/{id}"
    assert entry["path"] == "/v1/collections/default/documents/a%2Fb%0Ac"
    assert entry["status"] == 400


async def test_the_key_is_logged_by_its_id_alone(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    made = (await client.post("/v1/keys", {"name": "a", "scopes": ["admin"]})).ok(201)
    headers = {"Authorization": f"Bearer {made['key']}"}
    reader = (await client.post("/v1/keys", {"name": "b"}, headers=headers)).ok(201)
    (await client.get("/v1/limits", headers=headers)).ok()
    refused = {"X-Api-Key": reader["key"]}
    (await client.ask("DELETE", "/v1/keys/k1", headers=refused)).refused(403)
    (await client.get("/v1/limits", headers={"X-Api-Key": "mk_k1_" + "0" * 48})).refused(401)
    (await client.get("/health", headers=headers)).ok()
    logged = [(entry["status"], entry["key"]) for entry in entries(caplog)]
    assert logged == [(201, ""), (201, "k1"), (200, "k1"), (403, "k2"), (401, ""), (200, "")]
    assert made["key"][-48:] not in caplog.text
    assert reader["key"][-48:] not in caplog.text


async def test_the_key_of_the_settings_is_in_no_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(api_key="s3cret") as running:
        for key in ("s3cret", "s3cret-wrong"):
            await running.client.get("/v1/limits", headers={"X-Api-Key": key})
    assert len(entries(caplog)) == 2
    assert "s3cret" not in caplog.text


async def test_a_user_is_logged_as_a_hash(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for user in ("anne@example.org", "anne@example.org", "bert@example.org", None):
        body = {"model": "toy", "input": "cat", "user": user}
        (await client.post("/v1/embeddings", body)).ok()
    first, again, other, nobody = [entry["user"] for entry in entries(caplog)]
    assert first == again == hash_user("anne@example.org")
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert first != hashlib.blake2b(b"anne@example.org", digest_size=8).hexdigest()
    assert other not in (first, "")
    assert nobody == ""
    assert f"user={first}" in caplog.text
    assert "anne" not in caplog.text


async def test_a_client_that_leaves_is_logged_as_499(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    entered = asyncio.Event()

    async def hang(request: Any) -> Any:
        request[NOTES].tokens = 7
        entered.set()
        await asyncio.sleep(60)

    async with serve(routes=[Route("GET", "/hang", hang)]) as running:
        asking = asyncio.create_task(running.client.get("/hang"))
        async with asyncio.timeout(5):
            await entered.wait()
        asking.cancel()
        await until(lambda: bool(entries(caplog)))  # the server notices it by itself
    [entry] = entries(caplog)
    assert (entry["status"], entry["tokens"], entry["route"]) == (499, 7, "/hang")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v1/limits HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\x01\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'{"model": "toy", "input": "s3cret"}\r\n\r\n',
    ],
)
async def test_what_cannot_be_read_is_not_quoted_in_the_log(
    client: Client, caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    assert b" 400 " in await send(client, request_)
    assert "can't be read" in caplog.text
    assert "s3cret" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_an_expectation_that_nobody_knows_is_answered(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
    assert b" 417 " in await send(client, head + b"Expect: tea\r\n\r\n{}")
    assert "Traceback" not in caplog.text


async def send(client: Client, data: bytes) -> bytes:
    """Send bytes as they are, and return the first line of the answer."""
    url = URL(client.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(data)
    async with asyncio.timeout(5):
        line = await reader.readline()
    writer.close()
    return line
