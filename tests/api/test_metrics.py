"""/metrics: what is counted, how things stand, and what never becomes a label."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import Databases, Running, Serve
from toys import MAX_TOKENS, TOY_BYTES, ToyBackend
from wire import Client

import memoryd
from memoryd.app import listen_metrics

LONG = "cat " * MAX_TOKENS

Labels = str | int


async def scrape(client: Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await client.get("/metrics")
    assert answer.status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.data.decode())
        for sample in family.samples
    }


async def read(client: Client, name: str, **labels: Labels) -> float:
    """Return the value of a series, 0 where it is not there."""
    wanted = frozenset((key, str(value)) for key, value in labels.items())
    return (await scrape(client)).get((f"memoryd_{name}", wanted), 0.0)


async def until_more(client: Client, than: float, name: str, **labels: Labels) -> None:
    async with asyncio.timeout(5):
        while await read(client, name, **labels) <= than:  # noqa: ASYNC110 # a server tells nobody
            await asyncio.sleep(0.01)


async def embed(client: Client, *texts: str, model: str = "toy") -> int:
    return (await client.post("/v1/embeddings", {"model": model, "input": texts})).status


async def toy_of(running: Running) -> ToyBackend:
    """Return the toy that the server's lanes encode with, which has a gate."""
    model = await running.memory.engine.model("toy")
    backend: ToyBackend = model._backend  # type: ignore[assignment] # the toy's
    return backend


async def test_documents_are_counted_by_what_became_of_them(client: Client) -> None:
    assert await read(client, "documents_total", status="replaced") == 0
    await client.store(id="a", text="cat")
    await client.store(id="a", text="cat")
    await client.store(id="a", text="cat", tags=["pet"])
    await client.store(id="a", text="dog")
    path = "/v1/collections/default/documents"
    documents = [{"id": "bad", "text": "nan"}, {"id": "a", "text": "x", "on_conflict": "skip"}]
    (await client.post(path, {"documents": documents})).ok()
    for status in ("stored", "unchanged", "updated", "replaced", "failed", "skipped"):
        assert await read(client, "documents_total", status=status) == 1, status


async def test_jobs_that_have_not_ended_are_shown_with_what_waits(
    running: Running, databases: Databases
) -> None:
    backend = await toy_of(running)
    backend.gate.clear()
    path = "/v1/collections/default/documents?wait=false"
    documents = [{"id": f"d{number}", "text": f"cat {number}"} for number in range(3)]
    (await running.client.post(path, {"documents": documents})).ok(202)
    await until_more(running.client, 0, "jobs", type="ingest", status="running")
    assert await read(running.client, "jobs", type="ingest", status="running") == 1
    assert await read(running.client, "documents_waiting") == 3
    backend.gate.set()
    async with asyncio.timeout(10):
        while await read(running.client, "documents_waiting") > 0:  # noqa: ASYNC110 # nothing tells
            await asyncio.sleep(0.05)
    assert await read(running.client, "jobs", type="ingest", status="running") == 0
    name = running.dsn.rpartition("@/")[2].partition("?")[0]
    await databases.run(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    await databases.run(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - own name
    )
    names = {name for name, _ in await asyncio.wait_for(scrape(running.client), 5)}
    assert "memoryd_documents_waiting" not in names
    assert "memoryd_documents_total" in names


async def test_they_are_in_prometheus_text_format_with_help(shared_client: Client) -> None:
    answer = await shared_client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.data.decode()))
    assert all(family.documentation.endswith(".") for family in families)
    own = {family.name for family in families if family.name.startswith("memoryd_")}
    assert len(own) >= 15
    version = {"version": memoryd.__version__}
    assert await read(shared_client, "build_info", **version) == 1


async def test_requests_are_counted_by_pattern_method_and_status(client: Client) -> None:
    await client.store(id="a", text="cat")
    for name in ("a", "b", "c"):
        await client.get(f"/v1/collections/default/documents/{name}")
    pattern = {"route": "/v1/collections/{collection}/documents/{id}", "method": "GET"}
    assert await read(client, "http_requests_total", **pattern, status=200) == 1
    assert await read(client, "http_requests_total", **pattern, status=404) == 2
    assert await read(client, "http_request_duration_seconds_count", **pattern) == 3
    assert 0 < await read(client, "http_request_duration_seconds_sum", **pattern) < 3
    assert await read(client, "http_request_duration_seconds_bucket", **pattern, le="+Inf") == 3


async def test_what_clients_make_up_is_no_label(client: Client) -> None:
    for path in ("/madeup", "/v1/madeup?x=madeup", "/v1/collections/madeup", "/madeup/%0A"):
        await client.get(path)
    await client.ask("PROPFIND", "/v1/collections")
    await client.ask("PROPFIND", "/madeup")
    assert await embed(client, "cat", model="madeup") == 404
    await client.post("/v1/collections", {"name": "madeup"})
    await client.post("/v1/collections/madeup/documents", {"id": "madeup", "text": "madeup"})
    text = (await client.get("/metrics")).data.decode()
    assert "madeup" not in text
    assert "PROPFIND" not in text
    unmatched = {"route": "unmatched", "method": "unmatched"}
    assert await read(client, "http_requests_total", **unmatched, status=404) == 1
    assert await read(client, "http_requests_total", **unmatched, status=405) == 1
    nowhere = {"route": "unmatched", "method": "GET", "status": 404}
    assert await read(client, "http_requests_total", **nowhere) == 3


async def test_tokens_batches_and_tokenizing_are_counted(client: Client) -> None:
    toy = {"model": "toy"}
    before = await read(client, "tokenize_seconds_count", **toy)
    await embed(client, *["cat dog"] * 20)
    assert await read(client, "tokenize_seconds_count", **toy) == before + 20
    bulk = {"model": "toy", "queue": "bulk"}
    assert await read(client, "tokens_total", **bulk) == 20 * 4
    assert await read(client, "batch_inputs_sum", **bulk) == 20
    assert await read(client, "batch_tokens_sum", **bulk) == 20 * 4
    batches = await read(client, "encode_seconds_count", **bulk)
    assert 1 <= batches <= 20
    assert await read(client, "batch_inputs_count", **bulk) == batches
    assert await read(client, "encode_seconds_sum", **bulk) > 0
    assert await read(client, "queue_wait_seconds_count", **bulk) == 1


async def test_a_search_is_counted_in_the_queue_of_queries(client: Client) -> None:
    await client.search("cat")
    query = {"model": "toy", "queue": "query"}
    assert await read(client, "tokens_total", **query) == 3
    assert await read(client, "queue_wait_seconds_count", **query) == 1
    assert await read(client, "queue_wait_seconds_sum", **query) > 0


async def test_an_input_that_gets_a_lane_of_its_own_is_counted(client: Client) -> None:
    body = {"model": "toy", "content": "cat dog"}
    assert (await client.post("/embedding", body)).status == 200
    body = {"inputs": "cat dog"}
    answer = await client.post("/embed_all", body)
    assert answer.status == 200
    dedicated = {"model": "toy", "queue": "dedicated"}
    assert await read(client, "batch_inputs_sum", **dedicated) == 1
    assert await read(client, "tokens_total", **dedicated) == 4
    assert await read(client, "encode_seconds_count", **dedicated) == 1
    assert await read(client, "queue_wait_seconds_count", **dedicated) == 1


async def test_who_waits_for_a_lane_of_its_own_is_told_and_for_how_long(running: Running) -> None:
    client, toy = running.client, await toy_of(running)
    toy.gate.clear()
    asked = [
        asyncio.create_task(client.post("/embed_all", {"inputs": ["cat dog"] * 2}))
        for _ in range(3)
    ]
    dedicated = {"model": "toy", "queue": "dedicated"}
    await until_more(client, 1, "queue_requests", **dedicated)
    assert await read(client, "queue_tokens", **dedicated) == 2 * 2 * 4
    asked[2].cancel()
    async with asyncio.timeout(5):
        while await read(client, "queue_requests", **dedicated) != 1:  # noqa: ASYNC110 # as above
            await asyncio.sleep(0.01)
    toy.gate.set()
    answers = await asyncio.gather(*asked[:2])
    assert [answer.status for answer in answers] == [200, 200]
    assert await read(client, "queue_requests", **dedicated) == 0
    assert await read(client, "queue_wait_seconds_count", **dedicated) == 2
    assert await read(client, "queue_wait_seconds_sum", **dedicated) > 0.01


async def test_inputs_that_were_cut_are_counted(client: Client) -> None:
    await embed(client, LONG, "cat", LONG)
    assert await read(client, "truncated_inputs_total", model="toy") == 2
    await client.search(LONG)
    assert await read(client, "truncated_inputs_total", model="toy") == 3
    assert await embed(client, "cat") == 200
    assert await read(client, "truncated_inputs_total", model="toy") == 3


async def test_the_queue_tells_how_long_it_is(running: Running) -> None:
    client, toy = running.client, await toy_of(running)
    toy.gate.clear()
    asked = [asyncio.create_task(embed(client, *["cat"] * 64)) for _ in range(20)]
    queue = {"model": "toy", "queue": "bulk"}
    await until_more(client, 9, "queue_requests", **queue)
    tokens = await read(client, "queue_tokens", **queue)
    assert tokens > 10 * 64
    toy.gate.set()
    assert await asyncio.gather(*asked) == [200] * 20
    assert await read(client, "queue_requests", **queue) == 0
    assert await read(client, "queue_tokens", **queue) == 0
    assert await read(client, "queue_wait_seconds_count", **queue) >= 19


async def test_loaded_models_are_told_with_what_they_hold(client: Client) -> None:
    assert await read(client, "loaded_models") == 1
    assert await read(client, "model_memory_bytes", model="toy") == TOY_BYTES


async def test_the_pool_tells_who_uses_it_and_who_waits(serve: Serve) -> None:
    async with serve(metrics_port=0) as running, listen_metrics(running.memory) as url:
        assert url is not None
        database = running.memory.database
        async with Client(url) as client:
            async with AsyncExitStack() as stack:
                for _ in range(4):
                    await stack.enter_async_context(database.connection())
                waiting = asyncio.create_task(database.ping())
                await until_more(client, 0, "database_waiting")
                assert await read(client, "database_connections", state="used") == 4
                assert await read(client, "database_connections", state="idle") == 0
                assert await read(client, "database_waiting") >= 1  # the worker may wait too
            await waiting
            assert await read(client, "database_waiting") == 0
            assert await read(client, "database_connections", state="used") == 0
            assert await read(client, "database_connections", state="idle") >= 2


async def test_the_process_tells_its_memory(shared_client: Client) -> None:
    found = await scrape(shared_client)
    assert found[("process_resident_memory_bytes", frozenset())] > 10 << 20


async def test_a_client_that_left_is_counted_as_one(running: Running) -> None:
    client, toy = running.client, await toy_of(running)
    toy.gate.clear()
    with pytest.raises(TimeoutError):
        await client.post(
            "/v1/embeddings",
            {"model": "toy", "input": "cat"},
            timeout=aiohttp.ClientTimeout(total=0.1),
        )
    left = {"route": "/v1/embeddings", "method": "POST", "status": 499}
    await until_more(client, 0, "http_requests_total", **left)
    toy.gate.set()


async def test_servers_of_one_process_count_for_themselves(serve: Serve) -> None:
    async with serve() as one, serve() as other:
        await embed(one.client, "cat")
        route = {"route": "/v1/embeddings", "method": "POST", "status": 200}
        assert await read(one.client, "http_requests_total", **route) == 1
        assert await read(other.client, "http_requests_total", **route) == 0


async def test_they_want_a_key_where_all_do(serve: Serve) -> None:
    async with serve(api_key="s3cret") as running:
        (await running.client.get("/metrics")).refused(401)
        answer = await running.client.get("/metrics", headers={"X-Api-Key": "s3cret"})
        assert answer.status == 200


async def test_their_own_port_serves_them_alone_and_without_a_key(serve: Serve) -> None:
    async with serve(api_key="s3cret", metrics_port=0) as running:
        key = {"X-Api-Key": "s3cret"}
        await running.client.post("/v1/embeddings", {"model": "toy", "input": "cat"}, headers=key)
        async with listen_metrics(running.memory) as url:
            assert url is not None
            async with Client(url) as client:
                route = {"route": "/v1/embeddings", "method": "POST", "status": 200}
                assert await read(client, "http_requests_total", **route) == 1
                assert (await client.get("/health")).ok()["status"] == "ok"
                for path in ("/v1/limits", "/", "/docs", "/v1/collections", "/health/ready"):
                    (await client.get(path, headers=key)).refused(404)


async def test_without_a_port_of_their_own_there_is_none(running: Running) -> None:
    async with listen_metrics(running.memory) as url:
        assert url is None


async def test_no_page_reads_them_by_a_name_of_its_own(serve: Serve) -> None:
    async with serve(metrics_port=0) as running, listen_metrics(running.memory) as url:
        assert url is not None
        async with Client(url) as client:
            (await client.get("/metrics", headers={"Host": "evil.example"})).refused(403)


async def test_pages_cannot_read_them_under_another_name_where_there_are_keys(
    serve: Serve,
) -> None:
    async with serve(api_key="s3cret", metrics_port=0) as running:
        async with listen_metrics(running.memory) as url:
            assert url is not None
            async with Client(url) as client:
                for name, value in (("Host", "evil.example"), ("Origin", "http://evil.example")):
                    (await client.get("/metrics", headers={name: value})).refused(403)
                assert (await client.get("/metrics")).status == 200
        behind_a_proxy = await running.client.get("/", headers={"Host": "memory.example"})
        assert behind_a_proxy.status == 200


async def test_an_unknown_parameter_is_refused(shared_client: Client) -> None:
    (await shared_client.get("/metrics?name[]=memoryd_tokens_total")).refused(400, "unknown_field")
