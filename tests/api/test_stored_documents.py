import asyncio
import itertools
import time
from collections import Counter
from datetime import datetime
from typing import Any
from urllib.parse import quote

import asyncpg
import orjson
import pytest
from servers import Running
from toys import ToyBackend
from wire import Answer, Client

DOCUMENTS = "/v1/collections/default/documents"
DELETE = f"{DOCUMENTS}/delete"
LATER = "2100-01-31T12:00:00Z"


async def patch(client: Client, id_: str, value: Any, **options: Any) -> Answer:
    return await client.ask("PATCH", f"{DOCUMENTS}/{id_}", data=orjson.dumps(value), **options)


async def show(client: Client, id_: str) -> Any:
    return (await client.get(f"{DOCUMENTS}/{id_}")).ok()


async def store_later(client: Client, **document: Any) -> str:
    """Submit a document and return the id of the job that stores it."""
    answer = (await client.post(f"{DOCUMENTS}?wait=false", document)).ok(202)
    assert [outcome["status"] for outcome in answer["documents"]] == ["queued"]
    id_: str = answer["job"]["id"]
    return id_


async def end_of(client: Client, job: str) -> str:
    """Wait for the end of a job and return its status."""
    async with asyncio.timeout(15):
        while True:
            status: str = (await client.get(f"/v1/jobs/{job}")).ok()["status"]
            if status not in ("queued", "running"):
                return status
            await asyncio.sleep(0.02)


async def toy_of(running: Running) -> ToyBackend:
    model = await running.memory.engine.model("toy")
    backend: Any = model._backend
    assert isinstance(backend, ToyBackend)
    return backend


async def fill(client: Client, *documents: dict[str, Any]) -> None:
    batch = [{"text": "cat", **document} for document in documents]
    outcomes = (await client.post(DOCUMENTS, {"documents": batch})).ok()["documents"]
    assert {outcome["status"] for outcome in outcomes} == {"stored"}


async def ids_of(client: Client, filter_: Any = None) -> list[str]:
    """Return all ids by pages of two."""
    found: list[str] = []
    parameters = "" if filter_ is None else f"&filter={quote(orjson.dumps(filter_))}"
    cursor = ""
    while cursor is not None:
        at = f"&cursor={cursor}" if cursor else ""
        page = (await client.get(f"{DOCUMENTS}?limit=2{parameters}{at}")).ok()
        assert len(page["documents"]) <= 2
        found += [document["id"] for document in page["documents"]]
        cursor = page["next_cursor"]
    return found


# --- PATCH ---------------------------------------------------------------------------------


async def test_a_patch_merges_metadata_replaces_tags_sets_expiry_and_embeds_nothing(
    running: Running,
) -> None:
    client, toy = running.client, await toy_of(running)
    await client.store(
        id="a", text="cat", metadata={"kept": 1, "gone": 2, "in": {"x": 1, "y": 2}}, tags=["old"]
    )
    before, encoded = await show(client, "a"), toy.encoded
    change = {
        "metadata": {"gone": None, "in": {"y": None, "z": [1, None]}, "new": True},
        "tags": ["a", "b"],
        "expires_at": LATER,
    }
    patched = (await patch(client, "a", change)).ok()
    assert patched["metadata"] == {"kept": 1, "in": {"x": 1, "z": [1, None]}, "new": True}
    assert patched["tags"] == ["a", "b"]
    assert patched["expires_at"] == LATER
    assert patched["version"] == before["version"] + 1
    assert patched["updated_at"] > before["updated_at"]
    assert toy.encoded == encoded
    after = await show(client, "a")
    assert after == {**patched, "text": "cat"}
    untouched = ("id", "title", "created_at", "chunks", "mime_type", "language", "status")
    assert {key: after[key] for key in untouched} == {key: before[key] for key in untouched}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metadata": {"b": 2}}, {"metadata": {"a": 1, "b": 2}}),
        ({"metadata": {"a": None}}, {"metadata": {}}),
        ({"metadata": None}, {"metadata": {}}),
        ({"tags": []}, {"tags": []}),
        ({"tags": None}, {"tags": []}),
        ({"tags": ["y"]}, {"tags": ["y"]}),
        ({"expires_at": None}, {"expires_at": None}),
        ({"expires_at": "2101-01-01T01:00:00+01:00"}, {"expires_at": "2101-01-01T00:00:00Z"}),
    ],
)
async def test_a_patch_changes_what_it_names_alone(
    client: Client, change: dict[str, Any], expected: dict[str, Any]
) -> None:
    given = {"metadata": {"a": 1}, "tags": ["x"], "expires_at": LATER}
    await client.store(id="a", text="cat", **given)
    (await patch(client, "a", change)).ok()
    shown = await show(client, "a")
    assert {key: shown[key] for key in given} == {**given, **expected}
    assert shown["version"] == 2


@pytest.mark.parametrize(
    "change",
    [{}, {"metadata": {}}, {"metadata": {"a": 1}}, {"metadata": {"no": None}}, {"tags": ["x"]}],
)
async def test_a_patch_that_changes_nothing_is_no_new_version(client: Client, change: Any) -> None:
    await client.store(id="a", text="cat", metadata={"a": 1}, tags=["x"])
    before = await show(client, "a")
    (await patch(client, "a", change)).ok()
    assert await show(client, "a") == before


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"text": "dog"}, 400, "unknown_field", "text"),
        ({"metadata": []}, 400, "invalid_value", "metadata"),
        ({"metadata": {"big": "x" * 70_000}}, 413, "too_large", "metadata"),
        ({"metadata": {"more": "x" * 40_000}}, 413, "too_large", "metadata"),
        ({"metadata": {"in": {"a": {"b": {"c": 1}}}}}, None, None, None),
        ({"tags": "x"}, 400, "invalid_value", "tags"),
        ({"tags": [""]}, 400, "invalid_value", "tags[0]"),
        ({"tags": ["x"] * 65}, 413, "too_large", "tags"),
        ({"expires_at": "2026-01-31T12:00:00"}, 400, "invalid_value", "expires_at"),
        ({"expires_at": 5}, 400, "invalid_value", "expires_at"),
        ([], 400, "invalid_value", None),
    ],
)
async def test_a_patch_keeps_to_the_limits_also_after_merging(
    client: Client, change: Any, status: int | None, code: str, param: str | None
) -> None:
    await client.store(id="a", text="cat", metadata={"some": "x" * 30_000})
    before = await show(client, "a")
    answer = await patch(client, "a", change)
    if status is None:
        answer.ok()
        return
    assert answer.refused(status, code)["param"] == param
    assert await show(client, "a") == before


async def test_a_patch_that_nests_too_deep_is_refused(client: Client) -> None:
    deep: Any = 1
    for _ in range(17):
        deep = {"in": deep}
    await client.store(id="a", text="cat")
    (await patch(client, "a", {"metadata": deep})).refused(413, "too_large")
    (await patch(client, "a", {"metadata": deep["in"]})).ok()


async def test_a_patch_goes_by_if_match(client: Client) -> None:
    await client.store(id="a", text="cat")
    stale = await patch(client, "a", {"tags": ["x"]}, headers={"If-Match": "7"})
    assert stale.refused(409, "conflict")["param"] == "If-Match"
    (await patch(client, "a", {"tags": ["x"]}, headers={"If-Match": '"1"'})).ok()
    assert (await show(client, "a"))["version"] == 2


async def test_a_patch_of_what_is_not_there_is_not_found(client: Client) -> None:
    (await patch(client, "none", {"tags": []})).refused(404, "not_found")
    path = "/v1/collections/none/documents/a"
    (await client.patch(path, {"tags": []})).refused(404, "not_found")


async def test_many_patches_at_once_are_all_kept(client: Client) -> None:
    await client.store(id="a", text="cat")
    await asyncio.gather(
        *(patch(client, "a", {"metadata": {f"k{number}": number}}) for number in range(20))
    )
    shown = await show(client, "a")
    assert shown["metadata"] == {f"k{number}": number for number in range(20)}
    assert shown["version"] == 21


async def test_a_patch_comes_after_what_was_accepted_before_and_yields_to_what_came_after(
    running: Running,
) -> None:
    client, toy = running.client, await toy_of(running)
    await client.store(id="a", text="cat", metadata={"from": "first"})
    toy.gate.clear()
    await store_later(client, id="a", text="dog", metadata={"from": "second"})
    patching = asyncio.create_task(patch(client, "a", {"tags": ["patched"]}))
    await asyncio.sleep(0.3)
    assert not patching.done()
    toy.gate.set()
    patched = (await patching).ok()
    assert (patched["metadata"], patched["tags"]) == ({"from": "second"}, ["patched"])
    assert patched["version"] == 3
    await client.store(id="a", text="fish")
    shown = await show(client, "a")
    assert (shown["metadata"], shown["tags"], shown["version"]) == ({}, [], 4)


async def test_a_document_that_is_stored_for_the_first_time_is_patched_after(
    running: Running,
) -> None:
    client, toy = running.client, await toy_of(running)
    toy.gate.clear()
    await store_later(client, id="a", text="dog")
    assert (await show(client, "a"))["status"] == "queued"
    patching = asyncio.create_task(patch(client, "a", {"tags": ["patched"]}))
    await asyncio.sleep(0.2)
    toy.gate.set()
    patched = (await patching).ok()
    assert (patched["tags"], patched["version"], patched["status"]) == (["patched"], 2, "stored")


async def test_a_patch_of_a_document_that_never_was_stored_says_so(client: Client) -> None:
    assert await end_of(client, await store_later(client, id="a", text="nan")) == "failed"
    refusal = (await patch(client, "a", {"tags": ["x"]})).refused(409, "conflict")
    assert "not stored" in refusal["message"]


# --- DELETE by filter ----------------------------------------------------------------------


async def test_deleting_by_filter_deletes_what_matches_and_says_how_many(running: Running) -> None:
    client = running.client
    await fill(client, *({"id": f"d{n}", "metadata": {"n": n}} for n in range(10)))
    body = {"filter": {"field": "n", "gte": 7}}
    assert (await client.post(DELETE, body)).ok() == {"deleted": 3}
    assert await ids_of(client) == [f"d{n}" for n in range(7)]
    assert (await client.post(DELETE, body)).ok() == {"deleted": 0}
    connection = await asyncpg.connect(running.dsn)
    counts = "SELECT (SELECT count(*) FROM c_1.chunks_1), (SELECT count(*) FROM c_1.vectors_1)"
    assert tuple(await connection.fetchrow(counts)) == (7, 7)
    await connection.close()


async def test_a_dry_run_counts_and_deletes_nothing(client: Client) -> None:
    await fill(client, {"id": "a", "tags": ["x"]}, {"id": "b", "tags": ["x", "y"]}, {"id": "c"})
    body = {"filter": {"field": "tags", "any": ["x"]}}
    assert (await client.post(DELETE, {**body, "dry_run": True})).ok() == {"deleted": 2}
    assert await ids_of(client) == ["a", "b", "c"]
    assert (await client.post(DELETE, {**body, "dry_run": False})).ok() == {"deleted": 2}
    assert await ids_of(client) == ["c"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "filter"),
        ({"dry_run": False}, "missing_field", "filter"),
        ({"filter": {}}, "missing_field", "filter"),
        ({"filter": None}, "invalid_value", "filter"),
        ({"filter": []}, "invalid_value", "filter"),
        ({"filter": "all"}, "invalid_value", "filter"),
        ({"filter": {"field": "a", "equals": 1}}, "unknown_field", "filter.equals"),
        ({"filter": {"field": "a", "eq": 1}, "dryrun": True}, "unknown_field", "dryrun"),
        ({"filter": {"field": "a", "eq": 1}, "dry_run": "no"}, "invalid_value", "dry_run"),
    ],
)
async def test_nothing_is_deleted_by_accident(
    client: Client, body: Any, code: str, param: str
) -> None:
    await fill(client, {"id": "a", "metadata": {"a": 1}})
    assert (await client.post(DELETE, body)).refused(400, code)["param"] == param
    assert await ids_of(client) == ["a"]


async def test_a_large_deletion_goes_in_batches_and_counts_truly(running: Running) -> None:
    client = running.client
    collection = await asyncpg.connect(running.dsn)
    await collection.execute(
        "INSERT INTO c_1.documents (external_id, version, content_hash, title, text, metadata,"
        " tags, created_at, updated_at) SELECT 'd' || n, 1, '', '', 'x',"
        " jsonb_build_object('n', n), '{}', now(), now() FROM generate_series(1, 2600) n"
    )
    await collection.close()
    await client.store(id="other", text="cat")
    body = {"filter": {"field": "n", "gt": 100}}
    assert (await client.post(DELETE, {**body, "dry_run": True})).ok() == {"deleted": 2500}
    assert (await client.post(DELETE, body)).ok() == {"deleted": 2500}
    assert (await client.get("/v1/collections/default")).ok()["documents"] == 101


async def test_what_waits_for_a_deleted_document_goes_with_it(running: Running) -> None:
    client, toy = running.client, await toy_of(running)
    await client.store(id="a", text="cat", metadata={"n": 1})
    toy.gate.clear()
    again = await store_later(client, id="a", text="dog", metadata={"n": 1})
    new = await store_later(client, id="b", text="dog", metadata={"n": 1})
    body = {"filter": {"field": "n", "eq": 1}}
    assert (await client.post(DELETE, body)).ok() == {"deleted": 2}
    toy.gate.set()
    assert {await end_of(client, again), await end_of(client, new)} == {"completed"}
    assert await ids_of(client) == []
    assert await client.found("dog") == []


async def test_a_document_that_will_not_match_once_what_waits_is_stored_stays(
    running: Running,
) -> None:
    client, toy = running.client, await toy_of(running)
    await client.store(id="a", text="cat", metadata={"year": 2020}, tags=["old"])
    await client.store(id="b", text="cat", metadata={"year": 2020}, tags=["old"])
    toy.gate.clear()
    job = await store_later(client, id="a", text="dog", metadata={"year": 2025})
    body = {"filter": {"and": [{"field": "year", "lt": 2025}, {"field": "tags", "any": ["old"]}]}}
    assert (await client.post(DELETE, body)).ok() == {"deleted": 1}
    toy.gate.set()
    assert await end_of(client, job) == "completed"
    shown = await show(client, "a")
    assert (shown["text"], shown["version"]) == ("dog", 2)
    assert await ids_of(client) == ["a"]


async def test_a_document_that_is_changed_while_it_is_waited_for_is_looked_at_again(
    running: Running,
) -> None:
    client = running.client
    await fill(client, *({"id": f"d{n}", "metadata": {"n": 1}} for n in range(3)))
    connection = await asyncpg.connect(running.dsn)
    async with connection.transaction():
        await connection.execute(
            "UPDATE c_1.documents SET metadata = '{\"n\": 2}', version = 2 WHERE external_id = 'd1'"
        )
        body = {"filter": {"field": "n", "eq": 1}}
        deleting = asyncio.create_task(client.post(DELETE, body))
        await asyncio.sleep(0.3)
        assert not deleting.done()
    assert (await deleting).ok() == {"deleted": 2}
    assert await ids_of(client) == ["d1"]
    await connection.close()


async def test_what_comes_while_a_deletion_runs_stays(running: Running) -> None:
    client = running.client
    await fill(client, {"id": "first", "metadata": {"n": 1}})
    connection = await asyncpg.connect(running.dsn)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM c_1.documents FOR UPDATE")
        body = {"filter": {"field": "n", "eq": 1}}
        deleting = asyncio.create_task(client.post(DELETE, body))
        await asyncio.sleep(0.3)
        await fill(client, {"id": "second", "metadata": {"n": 1}})
        assert not deleting.done()
    assert (await deleting).ok() == {"deleted": 1}
    assert await ids_of(client) == ["second"]
    await connection.close()


async def test_two_deletions_of_the_same_count_each_document_once(client: Client) -> None:
    await fill(client, *({"id": f"d{n}", "metadata": {"n": 1}} for n in range(50)))
    body = {"filter": {"field": "n", "eq": 1}}
    answers = await asyncio.gather(*(client.post(DELETE, body) for _ in range(4)))
    assert sum(answer.ok()["deleted"] for answer in answers) == 50


async def test_deletions_patches_and_replacements_never_wait_for_each_other_in_circles(
    running: Running,
) -> None:
    client, ends = running.client, time.monotonic() + 3
    statuses: Counter[int] = Counter()

    async def write(number: int) -> None:
        for round_ in itertools.count():
            if time.monotonic() > ends:
                return
            batch = [
                {"id": f"d{(number * 7 + round_ + n * 11) % 40}", "text": f"cat {number} {round_}"}
                for n in range(12)
            ]
            wait = ("true", "false")[round_ % 2]
            answers = [await client.post(f"{DOCUMENTS}?wait={wait}", {"documents": batch})]
            if round_ % 3 == number % 3:
                body = {"filter": {"field": "id", "in": [f"d{n}" for n in range(number, 40, 3)]}}
                answers.append(await client.post(DELETE, body))
            change = {"metadata": {"n": round_}, "expires_at": LATER}
            answers.append(await patch(client, f"d{round_ % 40}", change))
            statuses.update(answer.status for answer in answers)

    await asyncio.gather(*(write(number) for number in range(6)))
    assert set(statuses) <= {200, 202, 404, 409}, statuses
    assert statuses[200] > 20
    connection = await asyncpg.connect(running.dsn)
    await asyncio.sleep(1.1)  # Postgres gathers its statistics once a second
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(deadlocks) == 0
    await connection.close()


# --- GET -----------------------------------------------------------------------------------


async def test_a_list_is_filtered_and_paged(client: Client) -> None:
    await fill(client, *({"id": f"d{n}", "metadata": {"even": n % 2 == 0}} for n in range(9)))
    even = {"field": "even", "eq": True}
    assert await ids_of(client, even) == [f"d{n}" for n in range(0, 9, 2)]
    assert await ids_of(client, {"not": even}) == [f"d{n}" for n in range(1, 9, 2)]
    assert await ids_of(client, {"field": "id", "in": ["d3", "d8"]}) == ["d3", "d8"]
    page = (await client.get(f"{DOCUMENTS}?filter={quote(orjson.dumps(even))}")).ok()
    assert [document["chunks"] for document in page["documents"]] == [1] * 5


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        ("", "invalid_value", "filter"),
        ("{", "invalid_value", "filter"),
        ("5", "invalid_value", "filter"),
        ("{}", "missing_field", "filter"),
        ('{"field": "a", "equals": 1}', "unknown_field", "filter.equals"),
        ('{"field": "a", "eq": "\\u0000"}', "invalid_value", "filter.eq"),
    ],
)
async def test_a_wrong_filter_of_a_list_is_refused(
    shared_client: Client, text: str, code: str, param: str
) -> None:
    answer = await shared_client.get(f"{DOCUMENTS}?filter={quote(text)}")
    assert answer.refused(400, code)["param"] == param


async def test_a_list_tells_of_status_error_and_expiry(client: Client) -> None:
    await client.store(id="a", text="cat", expires_at=LATER)
    assert await end_of(client, await store_later(client, id="b", text="nan")) == "failed"
    listed = (await client.get(DOCUMENTS)).ok()["documents"]
    assert [document["status"] for document in listed] == ["stored", "failed"]
    assert [document["version"] for document in listed] == [1, 0]
    assert [document["expires_at"] for document in listed] == [LATER, None]
    assert listed[0]["error"] is None
    assert listed[1]["error"]["message"]
    assert datetime.fromisoformat(listed[0]["created_at"])


async def test_a_list_neither_loses_nor_repeats_what_is_there_while_others_write(
    client: Client,
) -> None:
    steady = {f"s{n}" for n in range(60)}
    await fill(client, *({"id": id_} for id_ in sorted(steady)))
    await fill(client, *({"id": f"gone{n}"} for n in range(20)))
    ends = asyncio.Event()

    async def write(number: int) -> None:
        for round_ in itertools.count():
            if ends.is_set():
                return
            await client.store(id=f"s{(number * 17 + round_) % 60}", text=f"dog {round_}")
            await client.store(id=f"new{number}-{round_}", text="fish")
            await client.delete(f"{DOCUMENTS}/gone{(number + round_ * 3) % 20}")

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(write(number))
        for _ in range(5):
            seen = await ids_of(client)
            assert len(seen) == len(set(seen))
            assert steady <= set(seen)
        ends.set()
