"""A request that is sent again with its Idempotency-Key is done once, and answered alike."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest
from aiohttp import ClientError, FormData
from job_ends import end_of, eventually
from servers import Running, Serve
from wire import Answer, Client

from memoryd.api import limits
from memoryd.storage import idempotency

DOCUMENTS = "/v1/collections/default/documents"
REPLAYED = "Idempotency-Replayed"
NDJSON = {"Content-Type": "application/x-ndjson"}


async def post(
    client: Client, data: Any, key: str = "k1", path: str = DOCUMENTS, **headers: str
) -> Answer:
    given = {"Idempotency-Key": key, **headers}
    return await client.ask("POST", path, data=data, headers=given)


def document(text: str = "cat", **fields: Any) -> bytes:
    return orjson.dumps({"id": "a", "text": text, **fields})


def form(text: bytes = b"cat", **fields: str) -> FormData:
    made = FormData()
    for name, value in fields.items():
        made.add_field(name, value)
    made.add_field("file", text, filename="a.txt", content_type="text/plain")
    return made


def lines(*texts: str) -> bytes:
    return b"\n".join(orjson.dumps({"id": text, "text": text}) for text in texts)


async def version_of(client: Client, id_: str = "a") -> int:
    version: int = (await client.get(f"{DOCUMENTS}/{id_}")).ok()["version"]
    return version


async def test_the_same_again_is_answered_alike_and_does_nothing(client: Client) -> None:
    first = await post(client, document())
    await client.store(id="a", text="dog")
    again = await post(client, document())
    assert (first.status, first.data) == (again.status, again.data)
    assert REPLAYED not in first.headers
    assert again.headers[REPLAYED] == "true"
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["text"] == "dog"


async def test_without_a_key_and_with_another_it_is_done_again(client: Client) -> None:
    await post(client, document())
    answer = (await post(client, document(), "k2")).ok()
    assert answer["documents"][0]["status"] == "unchanged"
    answer = (await client.ask("POST", DOCUMENTS, data=document())).ok()
    assert answer["documents"][0]["status"] == "unchanged"


async def test_lines_are_taken_on_once(client: Client) -> None:
    first = await post(client, lines("cat", "dog"), **NDJSON)
    again = await post(client, lines("cat", "dog"), **NDJSON)
    assert first.ok(202) == again.ok(202)
    assert again.headers[REPLAYED] == "true"
    job = await end_of(client, first.json["job"]["id"])
    assert job["counts"]["total"] == 2
    assert len((await client.get("/v1/jobs")).ok()["jobs"]) == 1
    packed = gzip.compress(lines("cat", "dog"))
    again = await post(client, packed, **NDJSON, **{"Content-Encoding": "gzip"})
    assert again.headers[REPLAYED] == "true"


async def test_files_are_taken_on_once_whatever_the_boundary(client: Client) -> None:
    path = f"{DOCUMENTS}?wait=true"
    first = await post(client, form(tags="x"), path=path)
    again = await post(client, form(tags="x"), path=path)
    assert first.ok() == again.ok()
    assert again.headers[REPLAYED] == "true"
    assert await version_of(client, "a.txt") == 1


def other_form(name: str, filename: str, content_type: str, text: bytes) -> FormData:
    made = FormData()
    made.add_field(name, text, filename=filename, content_type=content_type)
    return made


OTHERS: list[tuple[Any, Any, dict[str, Any]]] = [
    (document, lambda: document("dog"), {}),
    (document, lambda: document(tags=["x"]), {}),
    (document, lambda: document() + b" ", {}),
    (document, document, {"path": f"{DOCUMENTS}?wait_s=10"}),
    (document, document, {"If-Match": "1"}),
    (document, document, NDJSON),
    (document, form, {}),
    (form, lambda: form(b"dog"), {}),
    (form, lambda: form(tags="x"), {}),
    (lambda: form(title="xy"), lambda: form(title="x", tags="y"), {}),
    (form, lambda: other_form("file", "b.txt", "text/plain", b"cat"), {}),
    (form, lambda: other_form("file", "a.txt", "text/csv", b"cat"), {}),
    (form, lambda: other_form("files", "a.txt", "text/plain", b"cat"), {}),
]


@pytest.mark.parametrize(("first", "other", "options"), OTHERS, ids=range(len(OTHERS)))
async def test_another_request_of_the_same_key_is_refused(
    client: Client, first: Any, other: Any, options: dict[str, Any]
) -> None:
    assert (await post(client, first())).status in (200, 202)
    answer = await post(client, other(), **options)
    assert answer.refused(422, "conflict")["param"] == "Idempotency-Key"
    assert (await post(client, first())).headers[REPLAYED] == "true"


async def test_each_collection_has_its_own_keys(client: Client) -> None:
    (await client.post("/v1/collections", {"name": "other"})).ok(201)
    await post(client, document())
    answer = await post(client, document(), path="/v1/collections/other/documents")
    assert answer.ok()["documents"][0]["status"] == "stored"
    assert REPLAYED not in answer.headers


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"{", {}, 400),
        (document("  "), {}, 400),
        (document("nan"), {}, 400),
        (document(), {"If-Match": "7"}, 409),
        (document("x" * 10_001), {}, 413),
        (b"", NDJSON, 400),
        (b"{}", NDJSON, 200),
    ],
)
async def test_a_refusal_is_answered_alike_too(
    shared_client: Client, data: bytes, headers: dict[str, str], status: int
) -> None:
    key = f"refused {hash((data, status))}"
    first = await post(shared_client, data, key, **headers)
    again = await post(shared_client, data, key, **headers)
    assert first.status == again.status == status
    assert first.data == again.data
    assert again.headers[REPLAYED] == "true"


async def test_while_the_first_is_under_way_the_second_is_told_to_come_again(
    running: Running,
) -> None:
    client, model = running.client, await running.memory.engine.model("toy")
    model._backend.gate.clear()  # type: ignore[attr-defined] # the toy's
    first = asyncio.create_task(post(client, document()))

    async def is_listed() -> bool:
        return (await client.get(f"{DOCUMENTS}/a")).status == 200

    await eventually(is_listed)
    second = await post(client, document())
    assert second.refused(409, "conflict")["param"] == "Idempotency-Key"
    assert 1 <= int(second.headers["Retry-After"]) <= 5
    model._backend.gate.set()  # type: ignore[attr-defined] # the toy's
    assert (await first).ok()["documents"][0]["status"] == "stored"
    assert (await post(client, document())).data == (await first).data


async def test_many_at_once_are_done_once(client: Client) -> None:
    answers = await asyncio.gather(*(post(client, document()) for _ in range(20)))
    assert {answer.status for answer in answers} <= {200, 409}
    done = [answer for answer in answers if answer.status == 200]
    assert len({answer.data for answer in done}) == 1
    assert sum(REPLAYED not in answer.headers for answer in done) == 1
    assert await version_of(client) == 1


async def test_a_client_that_left_gets_the_answer_when_it_comes_again(running: Running) -> None:
    client, model = running.client, await running.memory.engine.model("toy")
    model._backend.gate.clear()  # type: ignore[attr-defined] # the toy's
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await post(client, document())
    model._backend.gate.set()  # type: ignore[attr-defined] # the toy's

    async def again() -> Answer | None:
        answer = await post(client, document())
        return answer if answer.status == 200 else None

    answer = await eventually(again)
    assert answer.headers[REPLAYED] == "true"
    assert answer.ok()["documents"][0]["status"] == "stored"


async def test_a_body_that_broke_off_leaves_the_key_free(running: Running) -> None:
    client = running.client

    async def pieces() -> AsyncIterator[bytes]:
        yield lines("cat", "dog") + b"\n{"
        await asyncio.sleep(1)
        raise OSError("the cable was pulled")

    with pytest.raises((ClientError, OSError)):
        await post(client, pieces(), **NDJSON)

    async def again() -> Answer | None:
        answer = await post(client, lines("cat", "dog"), **NDJSON)
        return answer if answer.status != 409 else None

    answer = await eventually(again)
    assert REPLAYED not in answer.headers
    assert {each["id"] for each in answer.json["documents"]} == {"cat", "dog"}


async def test_a_process_that_died_before_it_answered_leaves_the_key_usable(
    serve: Serve,
) -> None:
    async with serve(lease_s=1) as running:
        client, connection = running.client, await asyncpg.connect(running.dsn)
        await post(client, document())
        await connection.execute(
            "UPDATE memoryd.idempotency_keys SET status = NULL, answer = NULL, request_hash = NULL,"
            " lease_until = now() + interval '0.5 s'"
        )
        (await post(client, document())).refused(409)
        await asyncio.sleep(0.7)
        answer = await post(client, document())
        assert answer.ok()["documents"][0]["status"] == "unchanged"
        assert (await post(client, document())).data == answer.data
        await connection.close()


async def test_a_key_is_kept_while_its_request_takes_longer_than_a_lease(serve: Serve) -> None:
    async with serve(lease_s=1) as running:
        client, model = running.client, await running.memory.engine.model("toy")
        model._backend.gate.clear()  # type: ignore[attr-defined] # the toy's
        first = asyncio.create_task(post(client, document()))
        await asyncio.sleep(2.5)
        (await post(client, document())).refused(409)
        model._backend.gate.set()  # type: ignore[attr-defined] # the toy's
        (await first).ok()


async def test_what_memoryd_could_not_do_is_done_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client
    monkeypatch.setattr(running.memory, "_held_bytes", 1 << 40)
    (await post(client, document())).refused(429)
    monkeypatch.setattr(running.memory, "_held_bytes", 0)
    answer = await post(client, document())
    assert answer.ok()["documents"][0]["status"] == "stored"
    assert REPLAYED not in answer.headers


async def test_keys_are_kept_for_a_day(running: Running) -> None:
    client, connection = running.client, await asyncpg.connect(running.dsn)
    hours = (await client.get("/v1/limits")).ok()["idempotency_key_hours"]
    assert hours == 24
    for key, age in (("young", "23:59"), ("old", "24:01")):
        await post(client, document(), key)
        await connection.execute(
            "UPDATE memoryd.idempotency_keys SET created_at = now() - $1::text::interval"
            " WHERE key = $2",
            age,
            key,
        )
    assert REPLAYED in (await post(client, document(), "young")).headers
    other = await post(client, document("dog"), "old")  # before it is swept
    assert other.ok()["documents"][0]["status"] == "replaced"
    await connection.execute(
        "UPDATE memoryd.idempotency_keys SET created_at = now() - interval '25 h' WHERE key = 'old'"
    )
    await idempotency.delete_old(running.memory.database)
    kept = await connection.fetch("SELECT key FROM memoryd.idempotency_keys")
    assert [row["key"] for row in kept] == ["young"]
    await connection.close()


@pytest.mark.parametrize("key", ["", "x" * (limits.IDEMPOTENCY_KEY_CHARS + 1), "ü", "a\tb"])
async def test_a_wrong_key_is_refused(shared_client: Client, key: str) -> None:
    answer = await post(shared_client, document(), key)
    assert answer.refused(400, "invalid_value")["param"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["x", "a b", "x" * limits.IDEMPOTENCY_KEY_CHARS, "'; --", "%00"])
async def test_any_printable_key_works(client: Client, key: str) -> None:
    (await post(client, document(), key)).ok()
    assert REPLAYED in (await post(client, document(), key)).headers
