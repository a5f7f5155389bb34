"""API keys for some collections alone."""

from typing import Any

import pytest
from key_requests import bearing, first_key, listed, make, path_of
from wire import Client

from memoryd.api.routes import ROUTES


async def kept_apart(client: Client) -> tuple[str, str]:
    """Make two collections; return an admin's key, and one for `mine` alone."""
    admin = await first_key(client)
    for name in ("mine", "other"):
        (await client.post("/v1/collections", {"name": name}, headers=bearing(admin))).ok(201)
    (
        await client.post("/v1/collections/mine/aliases", {"alias": "live"}, headers=bearing(admin))
    ).ok()
    made = await make(client, admin, scopes=["read", "write"], collections=["live"])
    assert made["collections"] == ["mine"]
    return admin, made["key"]


async def test_a_key_for_one_collection_opens_it_by_all_its_names_and_no_other(
    client: Client,
) -> None:
    _, key = await kept_apart(client)
    document, search = {"id": "a", "text": "cat"}, {"query": "cat"}
    for name, status in (("mine", 200), ("live", 200), ("other", 403), ("default", 403)):
        path = f"/v1/collections/{name}"
        for ask in (
            client.get(path, headers=bearing(key)),
            client.post(f"{path}/documents", document, headers=bearing(key)),
            client.post(f"{path}/search", search, headers=bearing(key)),
            client.get(f"{path}/documents", headers=bearing(key)),
        ):
            assert (await ask).status == status, name


async def test_every_route_of_a_collection_is_closed_to_keys_for_others(client: Client) -> None:
    _, key = await kept_apart(client)
    closed = [route for route in ROUTES if "{collection}" in route.pattern]
    assert len(closed) > 8
    bodies = {"aliases": {"alias": "x"}, "documents": {"text": "cat"}, "search": {"query": "cat"}}
    for route in closed:
        for name in ("other", "missing"):
            path = path_of(route, collection=name)
            body = bodies.get(path.rpartition("/")[2], {})
            query = "?q=cat" if (route.method, path[-6:]) == ("GET", "search") else ""
            answer = await client.ask(route.method, path + query, json=body, headers=bearing(key))
            answer.refused(403, "forbidden")


async def test_who_may_see_some_collections_can_not_ask_which_others_there_are(
    client: Client,
) -> None:
    _, key = await kept_apart(client)
    there = (await client.get("/v1/collections/other", headers=bearing(key))).refused(403)
    missing = (await client.get("/v1/collections/missing", headers=bearing(key))).refused(403)
    assert there == missing


async def test_a_list_shows_the_collections_of_the_key_alone(client: Client) -> None:
    admin, key = await kept_apart(client)
    for headers, names in (
        (bearing(key), ["mine"]),
        (bearing(admin), ["default", "mine", "other"]),
    ):
        page = (await client.get("/v1/collections", headers=headers)).ok()
        assert [collection["name"] for collection in page["collections"]] == names
    page = (await client.get("/v1/collections?limit=1", headers=bearing(key))).ok()
    assert page["next_cursor"] is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/collections", {"name": "new"}),
        ("PATCH", "/v1/collections/mine", {"name": "new"}),
        ("POST", "/v1/collections/mine/aliases", {"alias": "new"}),
        ("DELETE", "/v1/collections/mine", None),
    ],
)
async def test_a_key_for_one_collection_makes_names_and_deletes_none(
    client: Client, method: str, path: str, body: Any
) -> None:
    admin, key = await kept_apart(client)
    (await client.ask(method, path, json=body, headers=bearing(key))).refused(403, "forbidden")
    page = (await client.get("/v1/collections", headers=bearing(admin))).ok()
    described = {item["name"]: item["aliases"] for item in page["collections"]}
    assert described == {"default": [], "mine": ["live"], "other": []}


async def test_a_key_for_one_collection_may_describe_it(client: Client) -> None:
    _, key = await kept_apart(client)
    body = {"metadata": {"team": "sec"}}
    answer = await client.ask("PATCH", "/v1/collections/mine", json=body, headers=bearing(key))
    assert answer.ok()["metadata"] == {"team": "sec"}


async def test_a_key_goes_with_its_collection_and_not_with_a_name(client: Client) -> None:
    admin, key = await kept_apart(client)
    rename = {"name": "renamed"}
    path = "/v1/collections/mine"
    (await client.ask("PATCH", path, json=rename, headers=bearing(admin))).ok()
    (await client.post("/v1/collections", {"name": "mine"}, headers=bearing(admin))).ok(201)
    (await client.get("/v1/collections/renamed", headers=bearing(key))).ok()
    (await client.get("/v1/collections/mine", headers=bearing(key))).refused(403)
    assert (await listed(client, admin))[1]["collections"] == ["renamed"]
    (await client.ask("DELETE", "/v1/collections/renamed", headers=bearing(admin))).ok()
    assert (await listed(client, admin))[1]["collections"] == []
    (await client.post("/v1/collections", {"name": "renamed"}, headers=bearing(admin))).ok(201)
    (await client.get("/v1/collections/renamed", headers=bearing(key))).refused(403)
    page = (await client.get("/v1/collections", headers=bearing(key))).ok()
    assert page["collections"] == []
