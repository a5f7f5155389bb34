"""How long a client waits for its documents, and what goes on without it."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from job_ends import end_of, eventually
from servers import Running
from wire import Client

DOCUMENTS = "/v1/collections/default/documents"
BATCH = {"documents": [{"id": "a", "text": "cat"}, {"id": "b", "text": "dog"}]}


@contextmanager
def closed_gate(model: Any) -> Iterator[None]:
    """Keep the toy from encoding during the block."""
    model._backend.gate.clear()
    try:
        yield
    finally:
        model._backend.gate.set()


async def test_a_document_is_found_when_it_is_answered(client: Client) -> None:
    for query in ("", "?wait=true", "?wait_s=30"):
        word = {"": "cat", "?wait=true": "dog"}.get(query, "fish")
        answer = (await client.post(f"{DOCUMENTS}{query}", {"id": word, "text": word})).ok(200)
        assert (answer["documents"][0]["status"], answer["job"]) == ("stored", None)
        assert await client.found(word, limit=1) == [word]


@pytest.mark.parametrize("query", ["?wait=false", "?wait_s=0", "?wait=true&wait_s=0"])
@pytest.mark.parametrize("body", [BATCH, BATCH["documents"][0]], ids=["batch", "one"])
async def test_a_client_that_doesnt_wait_gets_a_job(
    client: Client, query: str, body: dict[str, Any]
) -> None:
    answer = (await client.post(DOCUMENTS + query, body)).ok(202)
    assert {each["status"] for each in answer["documents"]} == {"queued"}
    count = len(answer["documents"])
    job = await end_of(client, answer["job"]["id"])
    assert job["counts"] == {"stored": count, "failed": 0, "total": count}
    (await client.get(f"{DOCUMENTS}/a")).ok()


async def test_what_needs_no_work_needs_no_job(client: Client) -> None:
    await client.post(DOCUMENTS, BATCH)
    answer = (await client.post(f"{DOCUMENTS}?wait=false", BATCH)).ok(200)
    assert [each["status"] for each in answer["documents"]] == ["unchanged", "unchanged"]
    assert answer["job"] is None


async def test_what_takes_longer_than_the_client_waits_goes_on(running: Running) -> None:
    client, model = running.client, await running.memory.engine.model("toy")
    with closed_gate(model):
        started = time.perf_counter()
        answer = (await client.post(f"{DOCUMENTS}?wait_s=0.5", BATCH)).ok(202)
        assert 0.5 <= time.perf_counter() - started < 5
        assert [each["status"] for each in answer["documents"]] == ["queued", "queued"]
        assert answer["job"]["counts"]["total"] == 2
    job = await end_of(client, answer["job"]["id"])
    assert job["counts"] == {"stored": 2, "failed": 0, "total": 2}


async def test_a_client_that_leaves_has_its_documents_stored(running: Running) -> None:
    client, model = running.client, await running.memory.engine.model("toy")
    with closed_gate(model):
        asking = asyncio.create_task(client.post(DOCUMENTS, BATCH))

        async def is_listed() -> bool:
            return (await client.get(f"{DOCUMENTS}/b")).status == 200

        await eventually(is_listed)
        asking.cancel()

    async def both_are_found() -> bool:
        return sorted(await client.found("cat dog")) == ["a", "b"]

    await eventually(both_are_found)


async def test_a_version_goes_with_one_document(client: Client) -> None:
    headers = {"If-Match": "1"}
    batch, one = orjson.dumps(BATCH), orjson.dumps({"id": "a", "text": "fish"})
    answer = await client.ask("POST", DOCUMENTS, data=batch, headers=headers)
    assert answer.refused(400)["param"] == "If-Match"
    (await client.ask("POST", DOCUMENTS, data=one, headers=headers)).refused(409, "conflict")
    await client.post(DOCUMENTS, BATCH)
    answer = await client.ask("POST", DOCUMENTS, data=one, headers=headers)
    assert answer.ok()["documents"][0]["version"] == 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *(("wait=1", "wait"), ("wait=yes", "wait"), ("wait=", "wait"), ("wait=null", "wait")),
        *(("wait_s=301", "wait_s"), ("wait_s=-1", "wait_s"), ("wait_s=x", "wait_s")),
        *(("wait_s=nan", "wait_s"), ("wait_s=", "wait_s"), ("waits=1", "waits")),
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
async def test_a_wrong_parameter_is_refused_by_its_name(
    shared_client: Client, query: str, param: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    path = f"{DOCUMENTS}?{query}"
    answer = await shared_client.ask("POST", path, data=b'{"text": "cat"}', headers=headers)
    assert answer.refused(400)["param"] == param


async def test_an_expiry_is_kept(client: Client) -> None:
    await client.store(id="a", text="cat", expires_at="2199-01-01T01:00:00+01:00")
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["expires_at"] == "2199-01-01T00:00:00Z"
    outcome = await client.store(id="a", text="cat")
    assert outcome["status"] == "updated"
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["expires_at"] is None
