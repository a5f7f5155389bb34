"""Many at once: who waits for whom, who is turned away, and what is left when some go away."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from polling import until
from servers import Running, Serve
from toys import ToyBackend, ToyLoader
from wire import Answer, Client

from memoryd.embeddings.engine import Engine

COLLECTION = "/v1/collections/default"
DOCUMENTS = f"{COLLECTION}/documents"


async def toy_of(running: Running) -> ToyBackend:
    """Return the toy that the server's lanes encode with, which has a gate."""
    model = await running.memory.engine.model("toy")
    backend: ToyBackend = model._backend  # type: ignore[assignment] # the toy's
    return backend


async def count_documents(client: Client, collection: str = COLLECTION) -> int:
    count: int = (await client.get(collection)).ok()["documents"]
    return count


async def count_chunks(client: Client) -> int:
    """Return how many chunks can be found: documents count from when they are accepted."""
    count: int = (await client.get(COLLECTION)).ok()["chunks"]
    return count


# Writers of one document


async def test_deleting_gives_up_the_replacement_that_was_accepted_before(
    running: Running,
) -> None:
    client, toy = running.client, await toy_of(running)
    await client.store(id="a", text="cat")
    toy.gate.clear()
    before = toy.encoded
    replacing = asyncio.create_task(client.post(DOCUMENTS, {"id": "a", "text": "dog"}))
    await until(lambda: toy.encoded > before)
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["text"] == "cat"
    assert (await client.delete(f"{DOCUMENTS}/a")).ok() == {"deleted": 1}
    (await client.get(f"{DOCUMENTS}/a")).refused(404)
    toy.gate.set()
    (await replacing).refused(409, "conflict")
    (await client.get(f"{DOCUMENTS}/a")).refused(404)
    assert await client.found("dog") == []


async def test_deleting_a_document_that_is_about_to_be_there_deletes_it(running: Running) -> None:
    client, toy = running.client, await toy_of(running)
    toy.gate.clear()
    storing = asyncio.create_task(client.post(DOCUMENTS, {"id": "a", "text": "dog"}))
    await until(lambda: toy.encoded > 0)
    (await client.delete(f"{DOCUMENTS}/a")).ok()
    toy.gate.set()
    (await storing).refused(409, "conflict")
    assert await count_documents(client) == 0
    assert (await client.get("/v1/collections/default")).ok()["chunks"] == 0


async def test_deleting_another_document_waits_for_nobody(running: Running) -> None:
    client, toy = running.client, await toy_of(running)
    await client.store(id="a", text="cat")
    await client.store(id="b", text="cat")
    toy.gate.clear()
    replacing = asyncio.create_task(client.store(id="a", text="dog"))
    (await asyncio.wait_for(client.delete(f"{DOCUMENTS}/b"), 5)).ok()
    assert not replacing.done()
    toy.gate.set()
    assert (await replacing)["status"] == "replaced"


# Fairness and admission


async def test_a_small_document_does_not_wait_for_another_clients_batch(running: Running) -> None:
    toy = await toy_of(running)
    toy.delay_s = 0.02
    text = "cat dog fish bird horse " * 30
    batch = [{"id": f"bulk{number}", "text": f"{number} {text}"} for number in range(300)]
    async with Client(running.client.url) as other:
        posting = asyncio.create_task(running.client.post(DOCUMENTS, {"documents": batch}))
        await until(lambda: toy.encoded > 20)
        before = await count_chunks(other)
        assert (await other.store(id="small", text="cat"))["status"] == "stored"
        meanwhile = await count_chunks(other) - before
        assert not posting.done()
        toy.delay_s = 0
        outcomes = (await posting).ok()["documents"]
        assert meanwhile < await count_chunks(other) / 2
    assert {outcome["status"] for outcome in outcomes} == {"stored"}
    assert await count_documents(running.client) == 301


async def test_two_batches_share_the_engine(running: Running) -> None:
    toy = await toy_of(running)
    toy.delay_s = 0.01
    text = "cat dog fish bird horse " * 8

    def batch(name: str, count: int) -> dict[str, Any]:
        documents = [{"id": f"{name}{n}", "text": f"{n} {text}"} for n in range(count)]
        return {"documents": documents}

    async with Client(running.client.url) as other:
        long = asyncio.create_task(running.client.post(DOCUMENTS, batch("long", 400)))
        await until(lambda: toy.encoded > 20)
        (await other.post(DOCUMENTS, batch("short", 30))).ok()
        assert not long.done()
        assert await count_chunks(other) < 300
        toy.delay_s = 0
        (await long).ok()


async def crowd(client: Client, count: int, same_id: bool) -> list[asyncio.Task[Answer]]:
    """Start POSTs of one document each, and wait until the first is answered."""
    tasks = []
    for number in range(count):
        id_ = "same" if same_id else f"d{number}"
        document = {"id": id_, "text": f"cat {'dog ' * number}"}
        tasks.append(asyncio.create_task(client.post(DOCUMENTS, document)))
    await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.3)
    return tasks


@pytest.mark.parametrize("same_id", [False, True])
async def test_more_requests_than_may_wait_are_told_to_come_back(
    serve: Serve, models_dir: Path, same_id: bool
) -> None:
    # The engine itself would take them all.
    async with (
        Engine(ToyLoader(models_dir)) as engine,
        serve(engine, max_waiting_requests=2) as running,
    ):
        toy = await toy_of(running)
        toy.gate.clear()
        tasks = await crowd(running.client, 90, same_id)
        refused = [task.result() for task in tasks if task.done()]
        held = [task for task in tasks if not task.done()]
        toy.gate.set()
        answers = [await task for task in held]
        assert len(refused) >= 20
        assert held
        for answer in refused:
            answer.refused(429, "rate_limited")
            assert int(answer.headers["Retry-After"]) >= 1
        outcomes = [answer.ok()["documents"][0] for answer in answers]
        assert {outcome["status"] for outcome in outcomes} <= {"stored", "replaced"}
        assert await count_documents(running.client) == (1 if same_id else len(held))
        assert (await running.client.store(id="after", text="fish"))["status"] == "stored"


async def test_a_crowd_of_batches_is_turned_away_whole(serve: Serve, models_dir: Path) -> None:
    async with (
        Engine(ToyLoader(models_dir)) as engine,
        serve(engine, max_waiting_requests=2) as running,
    ):
        client, toy = running.client, await toy_of(running)
        toy.gate.clear()
        tasks = []
        for name in range(12):
            documents = [{"id": f"{name}-{n}", "text": f"cat {n}"} for n in range(60)]
            tasks.append(asyncio.create_task(client.post(DOCUMENTS, {"documents": documents})))
        await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.3)
        refused = [task.result() for task in tasks if task.done()]
        held = [task for task in tasks if not task.done()]
        assert (await client.get("/v1/collections")).status == 200
        toy.gate.set()
        answers = [await task for task in held]
        assert refused
        assert held
        for answer in refused:
            answer.refused(429, "rate_limited")
            assert int(answer.headers["Retry-After"]) >= 1
        for answer in answers:
            assert {one["status"] for one in answer.ok()["documents"]} == {"stored"}
        assert await count_documents(client) == 60 * len(held)


# What Postgres alone knows to be wrong


TRIGGER = """
CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.external_id = 'bad' THEN RAISE EXCEPTION 'the users own rule, word%', 'zebra'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON {schema}.documents
FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()
"""
CHECK = "ALTER TABLE {schema}.documents ADD CONSTRAINT zebra CHECK (external_id <> 'bad')"


async def add_rule(dsn: str, rule: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        number = await connection.fetchval(
            "SELECT id FROM memoryd.collections WHERE name = 'default'"
        )
        await connection.execute(rule.format(schema=f"c_{number}"))
    finally:
        await connection.close()


@pytest.mark.parametrize("rule", [TRIGGER, CHECK], ids=["trigger", "check"])
async def test_what_postgres_refuses_of_a_batch_fails_alone(running: Running, rule: str) -> None:
    client = running.client
    await add_rule(running.dsn, rule)
    ids = [*(f"d{number}" for number in range(20)), "bad", *(f"e{number}" for number in range(20))]
    documents = [{"id": id_, "text": f"cat {id_}"} for id_ in ids]
    answer = await client.post(DOCUMENTS, {"documents": documents})
    outcomes = {outcome["id"]: outcome for outcome in answer.ok()["documents"]}
    assert list(outcomes) == ids
    bad = outcomes.pop("bad")
    assert (bad["status"], bad["version"]) == ("failed", None)
    assert (bad["error"]["type"], bad["error"]["code"]) == ("api_error", "internal_error")
    assert "zebra" not in bad["error"]["message"]
    assert {outcome["status"] for outcome in outcomes.values()} == {"stored"}
    assert await count_documents(client) == 40
    assert (await client.get(f"{DOCUMENTS}/bad")).status == 404
    single = await client.post(DOCUMENTS, {"id": "bad", "text": "cat"})
    error = single.refused(500, "internal_error")
    assert "zebra" not in error["message"]
    assert single.headers["X-Request-Id"] in error["message"]
    (await client.get("/health/ready")).ok()


# Collections that go away


async def insist(work: Callable[[], Any], seen: list[Answer]) -> None:
    """Ask until the collection is gone, noting all answers."""
    for _ in range(400):
        answer = await work()
        seen.append(answer)
        if answer.status == 404:
            return


async def test_collections_are_deleted_under_searches_and_writes(serve: Serve) -> None:
    count = 5
    async with serve(database_connections=8) as running, asyncio.timeout(20):
        client = running.client
        seen: list[Answer] = []
        deleted: list[Answer] = []

        def writer(path: str, number: int) -> Callable[[], Any]:
            turn = iter(range(10_000))

            def write() -> Any:
                now = next(turn)
                documents = [
                    {"id": f"d{n}", "text": f"cat {'dog ' * now}"} for n in range(number, 6)
                ]
                return client.post(f"{path}/documents", {"documents": documents})

            return write

        async def remove(path: str) -> None:
            await asyncio.sleep(0.25)
            answers = [client.delete(path), client.delete(path)]
            deleted.extend(await asyncio.gather(*answers))

        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                name = f"gone{number}"
                path = f"/v1/collections/{name}"
                (await client.post("/v1/collections", {"name": name})).ok(201)
                work: list[Callable[[], Any]] = [
                    writer(path, 0),
                    writer(path, 3),
                    lambda path=path: client.post(f"{path}/search", {"query": "cat"}),
                    lambda path=path: client.get(f"{path}/documents"),
                    lambda path=path: client.get(path),
                    lambda path=path: client.post(
                        f"{path}/search",
                        {"query": "dog", "group_by": None, "with": {"vector": True}},
                    ),
                ]
                for one in work:
                    group.create_task(insist(one, seen))
                group.create_task(remove(path))
        assert time.monotonic() - started < 15
        statuses = {answer.status for answer in seen + deleted}
        assert statuses <= {200, 404, 503}, statuses
        assert {200, 404} <= statuses
        assert (
            sorted(answer.status for answer in deleted if answer.status != 503).count(200) == count
        )
        for answer in seen:
            if answer.status == 200:
                documents = answer.json.get("documents")
                for outcome in documents if isinstance(documents, list) else []:
                    if outcome.get("error"):
                        assert outcome["error"]["code"] in ("not_found", "overloaded"), outcome
        page = (await client.get("/v1/collections")).ok()["collections"]
        assert [collection["name"] for collection in page] == ["default"]


async def test_deleting_one_document_while_its_collection_goes_is_404_at_worst(
    running: Running,
) -> None:
    client = running.client
    for number in range(5):
        name = f"gone{number}"
        (await client.post("/v1/collections", {"name": name})).ok(201)
        documents = [{"id": f"d{n}", "text": f"cat {n}"} for n in range(10)]
        (await client.post(f"/v1/collections/{name}/documents", {"documents": documents})).ok()
        path = f"/v1/collections/{name}"
        deletions = [client.delete(f"{path}/documents/d{n}") for n in range(10)]
        answers = await asyncio.gather(*deletions[:5], client.delete(path), *deletions[5:])
        assert {answer.status for answer in answers} <= {200, 404, 503}


async def test_the_list_of_collections_is_told_while_they_go(running: Running) -> None:
    client = running.client
    names = [f"gone{number:02}" for number in range(16)]
    for name in names:
        (await client.post("/v1/collections", {"name": name})).ok(201)
    seen: list[Answer] = []
    is_over = False

    async def list_again() -> None:
        while not is_over:
            seen.append(await client.get("/v1/collections"))

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(list_again())
        for name in names:
            (await client.delete(f"/v1/collections/{name}")).ok()
        is_over = True
    assert {answer.status for answer in seen} == {200}
    for answer in seen:
        listed = [collection["name"] for collection in answer.json["collections"]]
        assert listed[0] == "default"
        assert listed == sorted(listed)


async def test_patches_of_different_fields_at_once_all_hold(client: Client) -> None:
    (await client.post("/v1/collections", {"name": "start"})).ok(201)
    (await client.post("/v1/collections/start/aliases", {"alias": "fixed"})).ok()
    languages = ["german", "french"]
    for number in range(15):
        wanted: dict[str, Any] = {
            "metadata": {"round": number},
            "name": f"name{number}",
            "language": languages[number % 2],
        }
        answers = await asyncio.gather(
            *(
                client.patch("/v1/collections/fixed", {field: value})
                for field, value in wanted.items()
            )
        )
        assert {answer.status for answer in answers} == {200}
        shown = (await client.get("/v1/collections/fixed")).ok()
        assert {field: shown[field] for field in wanted} == wanted


# Clients that go away


async def test_a_client_that_leaves_embed_frees_its_place(running: Running) -> None:
    toy = await toy_of(running)
    toy.delay_s = 0.02
    count = 2000
    body = {"model": "toy", "input": ["cat dog fish bird horse " * 12] * count}
    async with Client(running.client.url) as leaving:
        asking = asyncio.create_task(leaving.post("/api/embed", body))
        await until(lambda: toy.encoded > 20)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    settled = -1
    async with asyncio.timeout(10):
        while toy.encoded != settled:
            settled = toy.encoded
            await asyncio.sleep(0.25)
    assert settled < count / 2
    answer = await running.client.post("/api/embed", {"model": "toy", "input": ["cat"] * 20})
    assert len(answer.ok()["embeddings"]) == 20


BIG = {"model": "toy", "input": ["cat dog " * 20] * 600}


async def test_clients_that_leave_the_queue_make_room_in_it(serve: Serve) -> None:
    async with serve(max_waiting_requests=2) as running:
        toy = await toy_of(running)
        toy.gate.clear()
        async with Client(running.client.url) as leaving:
            asking: list[asyncio.Task[Answer]] = []
            async with asyncio.timeout(5):
                while not any(task.done() for task in asking):
                    asking.append(asyncio.create_task(leaving.post("/api/embed", BIG)))
                    await asyncio.sleep(0.1)
            for task in asking:
                task.cancel()
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert [one.status for one in answers if isinstance(one, Answer)] == [503]
        await asyncio.sleep(0.2)
        staying = asyncio.create_task(running.client.post("/api/embed", BIG))
        await asyncio.sleep(0.1)
        toy.gate.set()
        assert len((await staying).ok()["embeddings"]) == 600


async def test_big_requests_at_once_are_counted_before_they_are_tokenized(serve: Serve) -> None:
    async with serve(max_waiting_requests=2) as running:
        toy = await toy_of(running)
        toy.gate.clear()
        asking = [asyncio.create_task(running.client.post("/api/embed", BIG)) for _ in range(12)]
        await asyncio.wait(asking, timeout=0.7)
        toy.gate.set()
        statuses = [(await task).status for task in asking]
        assert statuses.count(503) >= 6
        assert statuses.count(200) >= 2


@pytest.mark.parametrize("count", [1, 100])
async def test_documents_of_a_client_that_leaves_are_stored_nevertheless(
    running: Running, count: int
) -> None:
    toy = await toy_of(running)
    toy.gate.clear()
    documents = [{"id": f"d{number}", "text": f"cat {number}"} for number in range(count)]
    body = {"documents": documents} if count > 1 else documents[0]
    async with Client(running.client.url) as leaving:
        posting = asyncio.create_task(leaving.post(DOCUMENTS, body))
        await until(lambda: toy.encoded > 0)
        posting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await posting
    await asyncio.sleep(0.2)
    toy.gate.set()
    async with asyncio.timeout(5):
        while await count_documents(running.client) < count:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.02)
    again = (await running.client.post(DOCUMENTS, body)).ok()["documents"]
    assert {outcome["status"] for outcome in again} == {"unchanged"}


async def test_a_client_that_leaves_in_its_body_stores_nothing(running: Running) -> None:
    async def half() -> Any:
        yield b'{"documents": [{"id": "a", "text": "cat"}, '
        raise aiohttp.ClientConnectionError("leaves")

    async with Client(running.client.url) as leaving:
        with pytest.raises(aiohttp.ClientError):
            await leaving.ask("POST", DOCUMENTS, data=half())
    await asyncio.sleep(0.1)
    assert await count_documents(running.client) == 0
    (await running.client.get("/health/ready")).ok()
