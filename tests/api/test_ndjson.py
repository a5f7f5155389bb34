"""Documents in NDJSON: line by line, however many, whatever becomes of the sender."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import orjson
import psutil
import pytest
from aiohttp import ClientError
from job_ends import end_of, eventually, first_job
from polling import until
from servers import Running, Serve
from wire import Answer, Client

from memoryd.api import limits
from memoryd.api.ndjson import LineSplitter

DOCUMENTS = "/v1/collections/default/documents"
TYPE = {"Content-Type": "application/x-ndjson"}
LINE_BYTES = limits.LINE_BYTES


def lines_of(documents: Sequence[Any]) -> bytes:
    return b"".join(orjson.dumps(document) + b"\n" for document in documents)


def numbered(count: int, word: str = "cat") -> list[dict[str, Any]]:
    return [{"id": f"d{number}", "text": word} for number in range(count)]


async def send(client: Client, data: Any, query: str = "", **headers: str) -> Answer:
    return await client.ask("POST", DOCUMENTS + query, data=data, headers={**TYPE, **headers})


def resident_bytes() -> int:
    size: int = psutil.Process().memory_info().rss
    return size


async def test_lines_are_accepted_at_once_and_a_job_stores_them(client: Client) -> None:
    answer = (await send(client, lines_of(numbered(3)))).ok(202)
    assert [each["id"] for each in answer["documents"]] == ["d0", "d1", "d2"]
    assert {each["status"] for each in answer["documents"]} == {"queued"}
    job = await end_of(client, answer["job"]["id"])
    assert (job["status"], job["counts"]) == ("completed", {"stored": 3, "failed": 0, "total": 3})
    assert job["progress"] == {"done": 3, "total": 3, "unit": "documents"}
    assert sorted(await client.found("cat")) == ["d0", "d1", "d2"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "Application/X-NDJSON; charset=UTF-8",
        'application/jsonl; charset="utf-8"',
        "application/jsonl; charset=us-ascii",
    ],
)
async def test_each_name_of_the_type_is_known(client: Client, content_type: str) -> None:
    data = lines_of([{"id": "ä", "text": "cat ä"}, {"id": "b", "text": "dog"}])
    headers = {"Content-Type": content_type}
    answer = await client.ask("POST", f"{DOCUMENTS}?wait=true", data=data, headers=headers)
    assert [each["status"] for each in answer.ok()["documents"]] == ["stored", "stored"]
    assert (await client.get(f"{DOCUMENTS}/%C3%A4")).ok()["text"] == "cat ä"


@pytest.mark.parametrize(
    "data",
    [
        b'{"id": "a", "text": "cat"}\n{"id": "b", "text": "dog"}\n',
        b'{"id": "a", "text": "cat"}\n{"id": "b", "text": "dog"}',
        b'{"id": "a", "text": "cat"}\r\n\r\n{"id": "b", "text": "dog"}\r\n',
        b'\n\n  \n{"id": "a", "text": "cat"}\n\n\t{"id": "b", "text": "dog"} \n\n',
    ],
)
async def test_line_ends_and_blank_lines_dont_matter(client: Client, data: bytes) -> None:
    answer = (await send(client, data, "?wait=true")).ok()
    assert [each["id"] for each in answer["documents"]] == ["a", "b"]


async def test_a_client_that_waits_is_told_what_became_of_each(client: Client) -> None:
    await client.store(id="same", text="cat")
    await client.store(id="other", text="cat")
    documents = [
        {"id": "same", "text": "cat"},
        {"id": "other", "text": "cat", "tags": ["x"]},
        {"id": "same", "text": "dog"},
        {"id": "new", "text": "fish"},
        {"id": "bad", "text": "nan"},
        {"id": "other", "text": "bird", "on_conflict": "skip"},
    ]
    answer = (await send(client, lines_of(documents), "?wait=true")).ok()
    statuses = [each["status"] for each in answer["documents"]]
    assert statuses == ["unchanged", "updated", "replaced", "stored", "failed", "skipped"]
    assert answer["documents"][2]["version"] == 2
    assert answer["documents"][3]["chunks"] == answer["documents"][3]["embedded"] == 1
    assert answer["documents"][4]["error"]["code"] == "invalid_value"
    assert answer["job"] is None
    (await client.get(f"{DOCUMENTS}/bad")).refused(404)
    assert (await client.get("/v1/jobs")).ok()["jobs"] == []


async def test_a_client_that_waits_too_short_is_told_of_the_job(running: Running) -> None:
    client, model = running.client, await running.memory.engine.model("toy")
    model._backend.gate.clear()  # type: ignore[attr-defined] # the toy's
    answer = (await send(client, lines_of(numbered(3)), "?wait=true&wait_s=0.2")).ok(202)
    assert {each["status"] for each in answer["documents"]} == {"queued"}
    model._backend.gate.set()  # type: ignore[attr-defined] # the toy's
    job = await end_of(client, answer["job"]["id"])
    assert job["counts"] == {"stored": 3, "failed": 0, "total": 3}


async def test_all_fields_of_a_document_come_through(client: Client) -> None:
    document = {
        "id": "a",
        "title": "T",
        "text": "cat",
        "mime_type": "text/markdown",
        "language": "german",
        "metadata": {"a": 1},
        "tags": ["x"],
        "expires_at": "2199-01-01T00:00:00Z",
    }
    (await send(client, lines_of([document]), "?wait=true")).ok()
    shown = (await client.get(f"{DOCUMENTS}/a")).ok()
    assert {key: shown[key] for key in document} == document


BAD_LINES = [
    (b"{", "invalid_value", None, None),
    (b"[]", "invalid_value", None, None),
    (b"5", "invalid_value", None, None),
    (b'"text"', "invalid_value", None, None),
    (b'{"id": "x"}', "missing_field", "text", "x"),
    (b'{"id": "x", "text": " "}', "invalid_value", "text", "x"),
    (b'{"id": "x", "text": "cat", "titel": 1}', "unknown_field", "titel", "x"),
    (b'{"id": 5, "text": "cat"}', "invalid_value", "id", None),
    (b'{"text": "\xff"}', "invalid_value", None, None),
    (b'\xef\xbb\xbf{"text": "cat"}', "invalid_value", None, None),
    (rb'{"text": "\u0000"}', "invalid_value", "text", None),
    (rb'{"text": "\ud800"}', "invalid_value", None, None),
    (b'{"text": "cat"} {"text": "dog"}', "invalid_value", None, None),
    (b'{"documents": [{"text": "cat"}]}', "unknown_field", "documents", None),
    (b'{"text": "' + b"x" * 5_000_001 + b'"}', "too_large", "text", None),
    (b'{"text": "' + b"x" * LINE_BYTES + b'"}', "too_large", None, None),
    (b"[" * 100_000, "invalid_value", None, None),
    (b"[" + b"1," * (1 << 20) + b"1]", "too_large", None, None),
]


@pytest.mark.parametrize(("line", "code", "param", "id_"), BAD_LINES, ids=range(len(BAD_LINES)))
async def test_a_line_that_is_no_document_fails_alone_by_its_number(
    client: Client, line: bytes, code: str, param: str | None, id_: str | None
) -> None:
    data = lines_of([{"id": "a", "text": "cat"}]) + b"\n" + line + b"\n" + lines_of(numbered(1))
    answer = (await send(client, data, "?wait=true")).ok()
    first, bad, last = answer["documents"]
    assert (first["status"], bad["status"], last["status"]) == ("stored", "failed", "stored")
    assert (bad["id"], bad["error"]["code"], bad["error"]["param"]) == (id_, code, param)
    assert bad["error"]["message"].startswith("line 3: ")


async def test_the_job_counts_what_was_settled_at_once(client: Client) -> None:
    await client.store(id="d0", text="cat")
    await client.store(id="d1", text="cat")
    documents = [
        *numbered(1),
        {"id": "d1", "text": "cat", "tags": ["x"]},
        {"id": "d1", "text": "dog", "on_conflict": "skip"},
        {"id": "d0", "text": "dog", "on_conflict": "error"},
        {"text": ""},
        {"id": "new", "text": "fish"},
    ]
    answer = (await send(client, lines_of(documents))).ok(202)
    job = await end_of(client, answer["job"]["id"])
    assert job["status"] == "completed"
    assert job["counts"] == {
        "unchanged": 1,
        "updated": 1,
        "skipped": 1,
        "failed": 2,
        "stored": 1,
        "total": 6,
    }
    assert job["progress"] == {"done": 6, "total": 6, "unit": "documents"}
    failures = (await client.get(f"/v1/jobs/{job['id']}/failures")).ok()["failures"]
    assert sorted(str(failure["id"]) for failure in failures) == ["None", "d0"]
    assert any("line 5: " in failure["error"]["message"] for failure in failures)


async def test_where_nothing_is_left_to_do_there_is_no_job(client: Client) -> None:
    await client.store(id="d0", text="cat")
    answer = (await send(client, lines_of([*numbered(1), {"text": ""}]))).ok(200)
    assert [each["status"] for each in answer["documents"]] == ["unchanged", "failed"]
    assert answer["job"] is None
    assert (await client.get("/v1/jobs")).ok()["jobs"] == []


async def test_a_job_of_which_all_failed_has_failed(serve: Serve) -> None:
    async with serve(max_documents=1) as running:
        answer = (await send(running.client, b"{}\n{}\n{}\n")).ok(202)
        job = await end_of(running.client, answer["job"]["id"])
        assert (job["status"], job["counts"]) == ("failed", {"failed": 3, "total": 3})


async def test_beyond_as_many_lines_as_a_batch_has_only_failures_are_listed(
    serve: Serve,
) -> None:
    async with serve(max_documents=4) as running:
        documents: list[Any] = [*numbered(6), {"id": "x"}, *numbered(3), *[{"id": "y"}] * 5]
        answer = (await send(running.client, lines_of(documents))).ok(202)
        ids = [each["id"] for each in answer["documents"]]
        assert ids == ["d0", "d1", "d2", "d3", "x", "y", "y", "y"]
        job = await end_of(running.client, answer["job"]["id"])
        assert (job["counts"]["total"], job["counts"]["failed"]) == (15, 6)
        waited = (await send(running.client, lines_of(numbered(9, "dog")), "?wait=true")).ok(200)
        assert waited["job"]["status"] == "completed"
        assert waited["job"]["counts"]["total"] == 9
        assert len(waited["documents"]) == 4


async def test_one_id_in_many_lines_ends_as_the_last(client: Client) -> None:
    documents = [{"id": "a", "text": f"cat {number}"} for number in range(30)]
    answer = (await send(client, lines_of(documents), "?wait=true")).ok()
    assert answer["documents"][0]["status"] == "stored"
    assert {each["status"] for each in answer["documents"][1:]} == {"replaced"}
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["text"] == "cat 29"


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\n\t\n"])
async def test_a_body_without_lines_is_refused(shared_client: Client, data: bytes) -> None:
    (await send(shared_client, data)).refused(400, "invalid_value")


async def test_another_charset_and_a_version_are_refused(shared_client: Client) -> None:
    other = {"Content-Type": "application/x-ndjson; charset=utf-16"}
    data = lines_of(numbered(1))
    answer = await shared_client.ask("POST", DOCUMENTS, data=data, headers=other)
    assert answer.refused(400)["param"] == "Content-Type"
    assert (await send(shared_client, data, **{"If-Match": "1"})).refused(400)["param"] == (
        "If-Match"
    )


async def test_the_limit_of_a_body_is_none_of_a_stream(serve: Serve) -> None:
    async with serve(max_body_bytes=10_000) as running:
        documents = [{"id": f"d{n}", "text": "cat " * 300} for n in range(40)]
        answer = (await send(running.client, lines_of(documents), "?wait=true")).ok()
        assert {each["status"] for each in answer["documents"]} == {"stored"}


async def test_a_compressed_stream_is_read(client: Client) -> None:
    data = gzip.compress(lines_of(numbered(500)))
    answer = (await send(client, data, "?wait=true", **{"Content-Encoding": "gzip"})).ok()
    assert len(answer["documents"]) == 500


async def test_a_compressed_line_without_end_takes_no_memory(client: Client) -> None:
    bomb = gzip.compress(b" " * (256 << 20) + b"\n" + lines_of(numbered(1)), 9)
    before = resident_bytes()
    answer = (await send(client, bomb, "?wait=true", **{"Content-Encoding": "gzip"})).ok()
    assert answer["documents"][0]["error"]["code"] == "too_large"
    assert answer["documents"][1]["status"] == "stored"
    assert resident_bytes() - before < 100 << 20


async def test_what_is_no_gzip_is_the_clients_error(shared_client: Client) -> None:
    data = gzip.compress(lines_of(numbered(1)))[:-9]
    answer = await send(shared_client, b"\x00" + data, **{"Content-Encoding": "gzip"})
    assert answer.status == 400


async def trickle(pieces: Sequence[bytes], pause_s: float) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(pause_s)


async def test_lines_that_come_slowly_are_stored_as_they_come(running: Running) -> None:
    client, go_on = running.client, asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield lines_of(numbered(2)) + b'{"id": "half", "te'
        await go_on.wait()
        yield b'xt": "dog"}\n'

    sending = asyncio.create_task(send(client, pieces()))

    async def both_are_found() -> bool:
        return len(await client.found("cat")) == 2

    await eventually(both_are_found)
    job = await first_job(client, "running")
    assert job["progress"]["total"] == 2
    assert running.memory.database.count_connections().used == 0
    go_on.set()
    answer = (await sending).ok(202)
    assert [each["id"] for each in answer["documents"]] == ["d0", "d1", "half"]
    job = await end_of(client, answer["job"]["id"])
    assert job["counts"] == {"stored": 3, "failed": 0, "total": 3}


async def test_what_a_client_sent_before_it_broke_off_is_stored(running: Running) -> None:
    client = running.client

    async def pieces() -> AsyncIterator[bytes]:
        yield lines_of(numbered(300)) + b'{"id": "half", "te'
        await asyncio.sleep(1)
        raise OSError("the cable was pulled")

    with pytest.raises((ClientError, OSError)):
        await send(client, pieces())
    assert (await first_job(client, "completed"))["counts"] == {
        "stored": 300,
        "failed": 0,
        "total": 300,
    }
    (await client.get(f"{DOCUMENTS}/half")).refused(404)
    (await client.get(f"{DOCUMENTS}/d299")).ok()


async def test_the_job_of_a_process_that_died_midway_ends_with_what_it_has(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoryd.memory.streaming.Stream.renew_forever", asyncio.Event().wait)
    async with serve(lease_s=1) as running:
        client, go_on = running.client, asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield lines_of(numbered(2))
            await go_on.wait()
            yield lines_of(numbered(4))

        sending = asyncio.create_task(send(client, pieces()))
        assert (await first_job(client, "completed"))["counts"] == {
            "stored": 2,
            "failed": 0,
            "total": 2,
        }
        go_on.set()  # it was not dead, but asleep
        (await sending).refused(409, "conflict")


async def test_a_stream_stays_open_longer_than_a_lease(serve: Serve) -> None:
    async with serve(lease_s=1) as running:
        data = trickle([lines_of([{"id": f"d{n}", "text": "cat"}]) for n in range(5)], 1)
        answer = (await send(running.client, data)).ok(202)
        job = await end_of(running.client, answer["job"]["id"])
        assert job["counts"] == {"stored": 5, "failed": 0, "total": 5}


async def test_a_job_that_is_canceled_takes_no_more_lines(running: Running) -> None:
    client, go_on = running.client, asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield lines_of(numbered(2))
        await go_on.wait()
        yield lines_of(numbered(4))

    sending = asyncio.create_task(send(client, pieces()))
    job = await first_job(client)
    (await client.delete(f"/v1/jobs/{job['id']}")).ok()
    go_on.set()
    (await sending).refused(409, "conflict")
    (await client.get(f"{DOCUMENTS}/d3")).refused(404)


async def test_nothing_is_read_while_a_batch_is_taken_on(running: Running) -> None:
    client, sent = running.client, 0
    blocker = await asyncpg.connect(running.dsn)
    await blocker.execute("BEGIN; LOCK TABLE memoryd.jobs IN ACCESS EXCLUSIVE MODE")

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for number in range(20_000):
            data = lines_of([{"id": f"d{number % 50}", "text": "x" * 1000}])
            sent += len(data)
            yield data

    sending = asyncio.create_task(send(client, pieces()))
    await until(lambda: sent > 300_000)

    async def stands_still() -> bool:
        before = sent
        await asyncio.sleep(0.5)
        return sent == before

    await eventually(stands_still)
    assert sent < 12 << 20  # the buffers of the sockets, and of the server
    await blocker.close()
    answer = (await sending).ok(202)
    (await client.delete(f"/v1/jobs/{answer['job']['id']}")).ok()


async def test_the_many_lines_of_one_stream_take_no_memory(serve: Serve) -> None:
    async with serve(max_documents=10) as running:
        documents = [lines_of([{"id": f"d{n}", "text": "x" * 4000}]) for n in range(256)]

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(60):
                yield b"".join(documents)

        await send(running.client, b"".join(documents))
        before = resident_bytes()
        answer = (await send(running.client, pieces())).ok(202)
        assert resident_bytes() - before < 64 << 20
        assert answer["job"]["progress"]["total"] == 60 * 256
        (await running.client.delete(f"/v1/jobs/{answer['job']['id']}")).ok()


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_the_bytes_come(step: int) -> None:
    data = b"ab\n\n  \r\nabcdefgh\nabcdefghi\ncd\r\nx"
    splitter = LineSplitter(8)
    lines = [
        line
        for start in range(0, len(data), step)
        for line in splitter.feed(data[start : start + step])
    ]
    lines += splitter.finish()
    assert [(line.number, line.data) for line in lines] == [
        *((1, b"ab"), (4, b"abcdefgh"), (5, None), (6, b"cd\r"), (7, b"x"))
    ]
