"""Each limit that /v1/limits tells: what meets it is served, and one more is refused naming it."""

from collections.abc import Callable
from typing import Any

import pytest
from wire import Client

DEFAULT = "/v1/collections/default"
SEARCH = f"{DEFAULT}/search"
DOCUMENTS = f"{DEFAULT}/documents"

Body = Callable[[int], Any]

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
