"""Each limit that /v1/limits tells: what meets it is served, and one more is refused naming it."""

from collections.abc import Callable
from typing import Any

import pytest
from wire import Client

DEFAULT = "/v1/collections/default"
SEARCH = f"{DEFAULT}/search"
DOCUMENTS = f"{DEFAULT}/documents"

Body = Callable[[int], Any]
A_CAT = {"field": "id", "eq": "cat"}

LIMITS: list[tuple[str, str, Body, int, str]] = [
    ("search_limit", SEARCH, lambda n: {"query": "cat", "limit": n}, 400, "limit"),
    (
        "search_offset_plus_limit",
        SEARCH,
        lambda n: {"query": "cat", "limit": 10, "offset": n - 10},
        413,
        "offset",
    ),
    ("search_group_size", SEARCH, lambda n: {"query": "cat", "group_size": n}, 400, "group_size"),
    ("search_queries", SEARCH, lambda n: {"query": ["cat"] * n}, 413, "query"),
    (
        "search_context",
        SEARCH,
        lambda n: {"query": "cat", "with": {"context": n}},
        400,
        "with.context",
    ),
    (
        "search_candidates",
        SEARCH,
        lambda n: {"query": "cat", "mmr": {"candidates": n}},
        400,
        "mmr.candidates",
    ),
    ("search_fusion_k", SEARCH, lambda n: {"query": "cat", "fusion": {"k": n}}, 400, "fusion.k"),
    (
        "search_fusion_weight",
        SEARCH,
        lambda n: {"query": "cat", "fusion": {"weights": {"dense": n}}},
        400,
        "fusion.weights.dense",
    ),
    ("index_m", DEFAULT, lambda n: {"index": {"dense": {"m": n}}}, 400, "index.dense.m"),
    (
        "index_ef_construction",
        DEFAULT,
        lambda n: {"index": {"dense": {"ef_construction": n}}},
        400,
        "index.dense.ef_construction",
    ),
    (
        "index_fields",
        DEFAULT,
        lambda n: {"index": {"fields": {f"f{number}": "number" for number in range(n)}}},
        413,
        "index.fields",
    ),
    (
        "search_ef_search",
        SEARCH,
        lambda n: {"query": "cat", "params": {"ef_search": n}},
        400,
        "params.ef_search",
    ),
    (
        "search_boosts",
        SEARCH,
        lambda n: {"query": "cat", "boost": [{"filter": A_CAT, "weight": 1}] * n},
        413,
        "boost",
    ),
    (
        "searches_per_batch",
        f"{SEARCH}/batch",
        lambda n: {"searches": [{"query": "cat"}] * n},
        413,
        "searches",
    ),
    (
        "search_offset_plus_limit_of_several",
        "/v1/search",
        lambda n: {"collections": ["default"], "query": "cat", "offset": n - 10},
        413,
        "offset",
    ),
    (
        "embedding_inputs",
        "/v1/embeddings",
        lambda n: {"model": "toy", "input": ["cat"] * n},
        413,
        "input",
    ),
    ("metadata_depth", DEFAULT, lambda n: {"metadata": nested(n)}, 413, "metadata"),
    ("metadata_bytes", DEFAULT, lambda n: {"metadata": {"a": "x" * (n - 8)}}, 413, "metadata"),
    (
        "documents_per_batch",
        DOCUMENTS,
        lambda n: {"documents": [{"id": "limits", "text": "cat"}] * n},
        413,
        "documents",
    ),
]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(("name", "path", "body", "status", "param"), LIMITS)
async def test_a_limit_can_be_met_and_not_passed(
    client: Client, name: str, path: str, body: Body, status: int, param: str
) -> None:
    most = (await client.get("/v1/limits")).ok()[name]
    send = client.patch if path == DEFAULT else client.post
    (await send(path, body(most))).ok()
    error = (await send(path, body(most + 1))).refused(status)
    assert error["param"] == param
    assert str(most) in error["message"]


async def test_as_many_collections_as_the_limit_are_searched_together(client: Client) -> None:
    most = (await client.get("/v1/limits")).ok()["search_collections"]
    names = [f"c{number}" for number in range(most + 1)]
    for name in names:
        (await client.post("/v1/collections", {"name": name})).ok(201)
    (await client.post("/v1/search", {"collections": names[:most], "query": "cat"})).ok()
    answer = await client.post("/v1/search", {"collections": names, "query": "cat"})
    assert answer.refused(413, "too_large")["param"] == "collections"


@pytest.mark.parametrize("path", ["/v1/collections", DOCUMENTS, "/v1/keys"])
async def test_a_page_has_as_many_entries_as_the_limit_at_most(client: Client, path: str) -> None:
    most = (await client.get("/v1/limits")).ok()["page"]
    (await client.get(f"{path}?limit={most}")).ok()
    for wrong in (0, -1, most + 1):
        assert (await client.get(f"{path}?limit={wrong}")).refused(400)["param"] == "limit"


async def test_a_vector_is_as_wide_as_the_limit_at_most(client: Client) -> None:
    most = (await client.get("/v1/limits")).ok()["vector_dimensions"]
    wide = {"query": {"vector": [1.0] * most}}
    (await client.post(SEARCH, wide)).refused(400, "invalid_value")  # not of this collection
    wide["query"]["vector"].append(1.0)
    (await client.post(SEARCH, wide)).refused(413, "too_large")


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", DOCUMENTS, SEARCH, "/v1/collections", "/v1/keys", "/api/embed"]
)
async def test_a_body_over_the_limit_is_413_in_every_dialect(
    shared_client: Client, path: str
) -> None:
    most = (await shared_client.get("/v1/limits")).ok()["body_bytes"]
    answer = await shared_client.ask("POST", path, data=b" " * (most + 1))
    assert answer.status == 413
    error = answer.json["error"]
    assert f"max_body_bytes = {most}" in (error if isinstance(error, str) else error["message"])
