import asyncio
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from servers import Running
from toys import DIMENSIONS
from wire import Client

FIELDS = {
    *("name", "model", "dimensions", "precision", "chunking", "language", "metadata", "aliases"),
    *("documents", "chunks", "bytes", "created_at", "updated_at", "instruction", "index", "jobs"),
    *("building", "previous"),
}


async def create(client: Client, name: str, **options: Any) -> Any:
    return (await client.post("/v1/collections", {"name": name, **options})).ok(201)


async def test_default_is_there_from_the_start_and_tells_what_it_is(client: Client) -> None:
    default = (await client.get("/v1/collections/default")).ok()
    assert set(default) == FIELDS
    assert default["name"] == "default"
    assert (default["model"], default["dimensions"]) == ("toy", DIMENSIONS)
    assert default["precision"] == "half"
    assert default["chunking"] == {"max_tokens": 64, "overlap_tokens": 32, "format": "auto"}
    assert (default["documents"], default["chunks"], default["aliases"]) == (0, 0, [])
    assert default["index"] == {
        "dense": {
            "type": "exact",
            "status": "ready",
            "m": None,
            "ef_construction": None,
            "progress": None,
        },
        "lexical": {"type": "bm25", "status": "ready"},
        "fields": {},
    }
    assert default["jobs"] == {"queued": 0, "running": 0}
    assert (default["instruction"], default["building"], default["previous"]) == (None,) * 3
    created = datetime.fromisoformat(default["created_at"])
    assert created.utcoffset() == timedelta(0)


async def test_a_collection_is_made_as_asked_and_shown_the_same(client: Client) -> None:
    made = await create(
        client,
        "kb.v1-2_x",
        model="TOY",
        dimensions=8,
        precision="full",
        chunking={"max_tokens": 40, "overlap_tokens": 10, "format": "markdown"},
        language="german",
        metadata={"owner": {"team": "sec"}},
    )
    assert set(made) == FIELDS
    assert made["model"] == "toy"
    assert made["dimensions"] == 8
    assert made["precision"] == "full"
    assert made["chunking"] == {"max_tokens": 40, "overlap_tokens": 10, "format": "markdown"}
    assert made["language"] == "german"
    assert made["metadata"] == {"owner": {"team": "sec"}}
    assert (await client.get("/v1/collections/kb.v1-2_x")).ok() == made


async def test_counts_follow_what_is_stored_and_deleted(client: Client) -> None:
    await client.store(id="a", text="cat")
    await client.store(id="b", text=". ".join(["cat dog fish"] * 40))
    shown = (await client.get("/v1/collections/default")).ok()
    assert shown["documents"] == 2
    assert shown["chunks"] > 2
    assert shown["bytes"] > 0
    (await client.delete("/v1/collections/default/documents/b")).ok()
    shown = (await client.get("/v1/collections/default")).ok()
    assert (shown["documents"], shown["chunks"]) == (1, 1)


@pytest.mark.parametrize(("format_", "headings"), [("markdown", ["Cats"]), ("text", [])])
async def test_texts_are_read_in_the_format_of_the_collection(
    client: Client, format_: str, headings: list[str]
) -> None:
    await create(client, "kb", chunking={"max_tokens": 64, "format": format_})
    await client.store("kb", id="a", text="# Cats\n\nThe cat met the dog.")
    [chunk] = (await client.get("/v1/collections/kb/documents/a/chunks")).ok()["chunks"]
    assert chunk["headings"] == headings


async def test_jobs_under_way_are_counted(running: Running) -> None:
    client = running.client
    toy: Any = (await running.memory.engine.model("toy"))._backend
    toy.gate.clear()
    documents = "/v1/collections/default/documents?wait=false"
    (await client.post(documents, {"id": "a", "text": "cat"})).ok(202)
    shown = (await client.get("/v1/collections/default")).ok()
    assert sum(shown["jobs"].values()) == 1
    assert (shown["documents"], shown["chunks"]) == (1, 0)
    toy.gate.set()
    async with asyncio.timeout(10):
        while any((await client.get("/v1/collections/default")).ok()["jobs"].values()):  # noqa: ASYNC110 - it is asked of a server
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("role", ["building", "previous"])
async def test_another_model_of_a_collection_is_shown_and_in_use(
    running: Running, role: str
) -> None:
    client = running.client
    connection = await asyncpg.connect(running.dsn)
    await connection.execute(
        "INSERT INTO memoryd.generations (collection_id, number, role, model, dimensions,"
        " precision, chunking, instruction) VALUES (1, 2, $1, 'all-minilm', 7, 'full',"
        ' \'{"max_tokens": 99, "overlap_tokens": 9, "format": "text"}\', \'find\')',
        role,
    )
    shown = (await client.get("/v1/collections/default")).ok()
    assert shown["model"] == "toy"
    assert shown[role] == {
        "model": "all-minilm",
        "dimensions": 7,
        "precision": "full",
        "chunking": {"max_tokens": 99, "overlap_tokens": 9, "format": "text"},
        "instruction": "find",
    }
    assert shown["previous" if role == "building" else "building"] is None
    answer = await client.ask("DELETE", "/api/delete", data=b'{"model": "all-minilm"}')
    assert answer.status == 409
    assert "collection works with all-minilm" in answer.json["error"]
    await connection.close()


async def test_a_collection_is_deleted_under_load_and_its_jobs_end(running: Running) -> None:
    client = running.client
    await create(client, "busy")
    documents = "/v1/collections/busy/documents"
    statuses: set[int] = set()

    async def write(number: int, wait: str) -> None:
        for round_ in range(1000):
            batch = [
                {"id": f"d{n}", "text": f"cat {round_}", "expires_at": "2100-01-01T00:00:00Z"}
                for n in range(number % 3, 20, 2)
            ]
            answer = await client.post(f"{documents}?wait={wait}", {"documents": batch})
            statuses.add(answer.status)
            if answer.status == 404:
                return
            assert answer.status in (200, 202), answer

    async def read() -> None:
        while (await client.get("/v1/collections/busy")).status == 200:
            answer = await client.post("/v1/collections/busy/search", {"query": "cat"})
            assert answer.status in (200, 404), answer

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(write(number, "true" if number % 2 else "false"))
        group.create_task(read())
        await asyncio.sleep(1.5)
        assert (await client.delete("/v1/collections/busy")).ok() == {"deleted": "busy"}
    assert statuses == {200, 202, 404}
    connection = await asyncpg.connect(running.dsn)
    unfinished = "SELECT count(*) FROM memoryd.jobs WHERE finished_at IS NULL"
    assert await connection.fetchval(unfinished) == 0
    await asyncio.sleep(1.1)  # Postgres gathers its statistics once a second
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(deadlocks) == 0
    await connection.close()


async def test_a_collection_that_is_read_for_long_is_deleted_after(running: Running) -> None:
    client = running.client
    await create(client, "read")
    connection = await asyncpg.connect(running.dsn)
    async with connection.transaction():
        await connection.execute("LOCK TABLE c_2.documents IN ACCESS SHARE MODE")
        deleting = asyncio.create_task(client.delete("/v1/collections/read"))
        await asyncio.sleep(0.5)
        for _ in range(5):  # others aren't kept waiting by the one that waits
            assert (await client.search("cat", "read"))["results"] == []
        assert not deleting.done()
    (await deleting).ok()
    (await client.get("/v1/collections/read")).refused(404)
    await connection.close()


async def test_two_collections_know_nothing_of_each_other(client: Client) -> None:
    await create(client, "left")
    await create(client, "right")
    await client.store("left", id="a", text="cat")
    await client.store("right", id="a", text="dog")
    assert (await client.search("cat", "left", mode="dense"))["results"][0]["score"] > 0.99
    assert (await client.search("cat", "right", mode="dense"))["results"][0]["score"] < 0.01


async def test_a_name_is_taken_once_even_at_the_same_moment(client: Client) -> None:
    answers = await asyncio.gather(
        *(client.post("/v1/collections", {"name": "same"}) for _ in range(8))
    )
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7
    refusal = next(answer for answer in answers if answer.status == 409)
    assert refusal.refused(409, "conflict")["param"] == "name"


async def test_the_cursor_leads_over_all_collections_once(client: Client) -> None:
    names = [f"c{number:02}" for number in range(7)]
    for name in names:
        await create(client, name)
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        query = f"?limit=3&cursor={cursor}" if cursor else "?limit=3"
        page = (await client.get(f"/v1/collections{query}")).ok()
        assert 0 < len(page["collections"]) <= 3
        seen += [collection["name"] for collection in page["collections"]]
        cursor = page["next_cursor"]
    assert seen == sorted([*names, "default"])


async def test_what_is_patched_changes_and_the_rest_stays(client: Client) -> None:
    made = await create(client, "old", metadata={"a": 1})
    patched = (await client.patch("/v1/collections/old", {"name": "new"})).ok()
    assert patched["name"] == "new"
    assert patched["metadata"] == {"a": 1}
    assert patched["created_at"] == made["created_at"]
    assert patched["updated_at"] > made["updated_at"]
    path = "/v1/collections/new"
    patched = (await client.patch(path, {"metadata": {"b": 2}, "language": "french"})).ok()
    assert (patched["metadata"], patched["language"]) == ({"b": 2}, "french")
    shown = (await client.get(path)).ok()
    of_job = {"index", "jobs", "bytes"}  # that writes the words again in the other language
    assert {**shown, **dict.fromkeys(of_job)} == {**patched, **dict.fromkeys(of_job)}
    (await client.get("/v1/collections/old")).refused(404, "not_found")


async def test_a_patch_to_a_taken_name_is_a_conflict(client: Client) -> None:
    await create(client, "one")
    await create(client, "two")
    error = (await client.patch("/v1/collections/one", {"name": "two"})).refused(409, "conflict")
    assert error["param"] == "name"


async def test_an_alias_is_another_name_and_moves_in_one_step(client: Client) -> None:
    await create(client, "blue")
    await create(client, "green")
    await client.store("blue", id="b", text="blue")
    await client.store("green", id="g", text="green")
    for name in ("blue", "green"):
        path = f"/v1/collections/{name}/aliases"
        assert (await client.post(path, {"alias": "live"})).ok()["aliases"] == ["live"]
        assert (await client.get("/v1/collections/live")).ok()["name"] == name
        assert await client.found("red", "live") == [name[0]]
    assert (await client.get("/v1/collections/blue")).ok()["aliases"] == []


async def test_aliases_and_names_share_one_space(client: Client) -> None:
    await create(client, "one")
    await create(client, "two")
    (await client.post("/v1/collections/one/aliases", {"alias": "live"})).ok()
    (await client.post("/v1/collections", {"name": "live"})).refused(409, "conflict")
    (await client.patch("/v1/collections/two", {"name": "live"})).refused(409, "conflict")
    answer = await client.post("/v1/collections/one/aliases", {"alias": "two"})
    assert answer.refused(409, "conflict")["param"] == "alias"


async def test_a_name_and_an_alias_taken_at_the_same_moment_never_collide(client: Client) -> None:
    for number in range(12):
        name = f"n{number}"
        await asyncio.gather(
            client.post("/v1/collections", {"name": name}),
            client.post("/v1/collections/default/aliases", {"alias": name}),
        )
    listed = (await client.get("/v1/collections?limit=1000")).ok()["collections"]
    names = {collection["name"] for collection in listed}
    aliases = {alias for collection in listed for alias in collection["aliases"]}
    assert not names & aliases


async def test_default_keeps_its_name_and_stays(client: Client) -> None:
    (await client.delete("/v1/collections/default")).refused(409, "conflict")
    (await client.patch("/v1/collections/default", {"name": "other"})).refused(409, "conflict")
    (await client.get("/v1/collections/default")).ok()


async def test_default_can_not_be_deleted_by_an_alias(client: Client) -> None:
    (await client.post("/v1/collections/default/aliases", {"alias": "me"})).ok()
    (await client.delete("/v1/collections/me")).refused(409, "conflict")


async def test_sixty_collections_come_and_go_and_leave_nothing_behind(running: Running) -> None:
    client = running.client
    connection = await asyncpg.connect(running.dsn)
    left = "SELECT (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_class)"
    before = await connection.fetchrow(left)
    names = [f"many-{number:02}" for number in range(60)]
    for name in names:
        await create(client, name)
    for name in names[::20]:
        assert (await client.store(name, id="a", text="cat"))["status"] == "stored"
        (await client.post(f"/v1/collections/{name}/aliases", {"alias": f"{name}-live"})).ok()
    listed = (await client.get("/v1/collections?limit=1000")).ok()["collections"]
    assert [collection["name"] for collection in listed] == ["default", *names]
    for name in names:
        assert (await client.delete(f"/v1/collections/{name}")).ok() == {"deleted": name}
    assert await connection.fetchrow(left) == before
    assert await connection.fetchval("SELECT count(*) FROM memoryd.collections") == 1
    assert await connection.fetchval("SELECT count(*) FROM memoryd.aliases") == 0
    await connection.close()


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "name", "missing_field"),
        ({"name": ""}, "name", "invalid_value"),
        ({"name": "-x"}, "name", "invalid_value"),
        ({"name": "a/b"}, "name", "invalid_value"),
        ({"name": "ä"}, "name", "invalid_value"),
        ({"name": "x\n"}, "name", "invalid_value"),
        ({"name": "x" * 64}, "name", "invalid_value"),
        ({"name": 5}, "name", "invalid_value"),
        ({"name": None}, "name", "invalid_value"),
        ({"name": "x", "modle": "toy"}, "modle", "unknown_field"),
        ({"name": "x", "model": 5}, "model", "invalid_value"),
        ({"name": "x", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"name": "x", "dimensions": DIMENSIONS + 1}, "dimensions", "invalid_value"),
        ({"name": "x", "dimensions": 8.5}, "dimensions", "invalid_value"),
        ({"name": "x", "dimensions": True}, "dimensions", "invalid_value"),
        ({"name": "x", "precision": "double"}, "precision", "invalid_value"),
        ({"name": "x", "language": "eng'lish"}, "language", "invalid_value"),
        ({"name": "x", "chunking": {"max_tokens": 31}}, "chunking.max_tokens", "invalid_value"),
        ({"name": "x", "chunking": {"max_tokens": 65}}, "chunking.max_tokens", "invalid_value"),
        (
            {"name": "x", "chunking": {"max_tokens": 32, "overlap_tokens": 17}},
            "chunking.overlap_tokens",
            "invalid_value",
        ),
        ({"name": "x", "chunking": {"size": 1}}, "chunking.size", "unknown_field"),
        ({"name": "x", "chunking": {"format": "pdf"}}, "chunking.format", "invalid_value"),
        ({"name": "x", "metadata": []}, "metadata", "invalid_value"),
        ([], None, "invalid_value"),
        ("x", None, "invalid_value"),
    ],
)
async def test_a_wrong_collection_is_refused_by_the_name_of_its_fault(
    shared_client: Client, body: Any, param: str | None, code: str
) -> None:
    error = (await shared_client.post("/v1/collections", body)).refused(400, code)
    assert error["param"] == param


async def test_a_collection_for_an_unknown_model_is_refused(shared_client: Client) -> None:
    answer = await shared_client.post("/v1/collections", {"name": "x", "model": "gpt-4"})
    error = answer.refused(404, "model_not_found")
    assert error["param"] == "model"
    assert "gpt-4" in error["message"]


@pytest.mark.parametrize("name", ["nothing", "%2e%2e", "a%00b", "%F0%9F%90%88", "x" * 3000, "'"])
async def test_an_unknown_collection_is_404_at_every_route(
    shared_client: Client, name: str
) -> None:
    path = f"/v1/collections/{name}"
    document, query = {"text": "cat"}, {"query": "cat"}
    for answer in (
        await shared_client.get(path),
        await shared_client.patch(path, {}),
        await shared_client.delete(path),
        await shared_client.post(f"{path}/aliases", {"alias": "x"}),
        await shared_client.post(f"{path}/documents", document),
        await shared_client.post(f"{path}/documents", {"documents": [document]}),
        await shared_client.get(f"{path}/documents"),
        await shared_client.get(f"{path}/documents/a"),
        await shared_client.get(f"{path}/documents/a/chunks"),
        await shared_client.patch(f"{path}/documents/a", {}),
        await shared_client.delete(f"{path}/documents/a"),
        await shared_client.post(
            f"{path}/documents/delete", {"filter": {"field": "a", "eq": 1}, "dry_run": True}
        ),
        await shared_client.post(f"{path}/documents/delete", {"filter": {"field": "a", "eq": 1}}),
        await shared_client.post(f"{path}/search", query),
        await shared_client.get(f"{path}/search?q=cat"),
    ):
        answer.refused(404, "not_found")
