"""Searches for the same thing: a second one needs no embedding, nor do those beside the first."""

import asyncio
from typing import Any

import pytest
from polling import until
from prometheus_client.parser import text_string_to_metric_families
from servers import Running, Serve
from toys import ToyBackend
from wire import Client

COLLECTION = "/v1/collections/default"
SEARCH = f"{COLLECTION}/search"


async def toy_of(running: Running) -> ToyBackend:
    """Return the toy that the server's lanes encode with, which has a gate."""
    model = await running.memory.engine.model("toy")
    backend: ToyBackend = model._backend  # type: ignore[assignment] # the toy's
    return backend


async def read_metrics(client: Client) -> dict[str, float]:
    """Return what tells of the cache: `hit`, `miss`, `entries`, `bytes`."""
    text = (await client.get("/metrics")).data.decode()
    return {
        sample.labels.get("result")
        or sample.name.removeprefix("memoryd_query_cache_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("memoryd_query_cache_")
    }


@pytest.mark.parametrize(
    ("mode", "query", "embeddings"),
    [
        ("dense", "cat", 1),
        ("hybrid", "cat", 1),
        ("hybrid", ["cat", "dog", "cat"], 2),
    ],
)
async def test_what_is_searched_again_is_not_embedded_again(
    running: Running, mode: str, query: Any, embeddings: int
) -> None:
    backend = await toy_of(running)
    await running.client.store(id="a", text="cat dog")
    before = backend.encoded
    for _ in range(3):
        assert await running.client.found(query, mode=mode) == ["a"]
    assert backend.encoded == before + embeddings


async def test_a_query_is_kept_for_all_collections_of_its_model(running: Running) -> None:
    backend, client = await toy_of(running), running.client
    body = {"name": "narrow", "dimensions": 4, "model": "toy"}
    (await client.post("/v1/collections", body)).ok(201)
    await client.store("narrow", id="b", text="cat")
    await client.store(id="a", text="cat")
    before = backend.encoded
    for collection, id_ in (("default", "a"), ("narrow", "b"), ("default", "a")):
        [result] = (await client.search("cat", collection))["results"]
        assert result["document"]["id"] == id_
        assert result["chunks"][0]["cosine"] == pytest.approx(1, abs=1e-3)
    assert backend.encoded == before + 1


async def test_the_same_search_at_once_is_embedded_once_whoever_leaves(running: Running) -> None:
    backend, client = await toy_of(running), running.client
    await client.store(id="a", text="cat")
    before = backend.encoded
    backend.gate.clear()
    searching = [asyncio.create_task(client.post(SEARCH, {"query": "cat"})) for _ in range(8)]
    await until(lambda: backend.encoded > before)
    metrics = running.memory.engine.metrics.registry
    name, labels = "memoryd_query_cache_lookups_total", {"result": "miss"}
    await until(lambda: metrics.get_sample_value(name, labels) == 8)
    for task in searching[:4]:  # the first of them, too, that the others wait for
        task.cancel()
    await asyncio.wait(searching[:4])
    backend.gate.set()
    for answer in await asyncio.gather(*searching[4:]):
        assert [each["document"]["id"] for each in answer.ok()["results"]] == ["a"]
    assert backend.encoded == before + 1


async def test_lookups_and_what_is_kept_are_shown(running: Running) -> None:
    client = running.client
    await client.store(id="a", text="cat")
    assert await read_metrics(client) == {"hit": 0, "miss": 0, "entries": 0, "bytes": 0}
    for query in ("cat", "dog", "cat"):
        await client.search(query)
    shown = await read_metrics(client)
    assert (shown["hit"], shown["miss"], shown["entries"]) == (1, 2, 2)
    assert 1_000 < shown["bytes"] < 2_000


@pytest.mark.parametrize(("room_bytes", "embeddings"), [(0, 4), (14_000, 2), (1 << 20, 2)])
async def test_the_setting_bounds_what_is_kept(
    serve: Serve, room_bytes: int, embeddings: int
) -> None:
    async with serve(query_cache_bytes=room_bytes) as running:
        backend = await toy_of(running)
        await running.client.store(id="a", text="cat")
        before = backend.encoded
        for query in ("cat", "dog", "cat", "dog"):
            await running.client.search(query)
        assert backend.encoded == before + embeddings
        assert (await read_metrics(running.client))["bytes"] <= room_bytes
