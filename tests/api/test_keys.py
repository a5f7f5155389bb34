"""API keys over HTTP: made, listed, and refused where they make no sense."""

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from key_requests import bearing, first_key, listed, make, revoke
from servers import Running, Serve
from wire import Client

KEY = re.compile(r"mk_(k[0-9]+)_([0-9a-f]{48})")
FIELDS = {"id", "name", "scopes", "collections", "created_at", "last_used_at", "expires_at"}
OWN = "s3cret"


async def test_a_key_is_shown_once_and_only_its_hash_is_stored(running: Running) -> None:
    made = await make(running.client, scopes=["admin"])
    assert set(made) == {*FIELDS, "key"}
    found = KEY.fullmatch(made["key"])
    assert found is not None
    assert found[1] == made["id"]
    [key] = await listed(running.client, made["key"])
    assert set(key) == FIELDS
    connection = await asyncpg.connect(running.dsn)
    row = await connection.fetchrow("SELECT * FROM memoryd.api_keys")
    await connection.close()
    assert row is not None
    assert row["secret_hash"] == hashlib.sha256(found[2].encode()).digest()
    assert found[2] not in str(list(row.values()))


async def test_no_two_keys_are_alike(client: Client) -> None:
    admin = await first_key(client)
    keys = {(await make(client, admin))["key"][-48:] for _ in range(5)}
    assert len(keys | {admin[-48:]}) == 6


async def test_what_a_key_was_made_with_is_listed(client: Client) -> None:
    admin = await first_key(client)
    await make(
        client,
        admin,
        name="Wiki, für alle",
        scopes=["write", "read"],
        collections=["default"],
        expires_at="2999-01-31T12:00:00+02:00",
    )
    first, second = await listed(client, admin)
    assert first["scopes"] == ["admin"]
    assert first["collections"] is None
    assert first["expires_at"] is None
    assert second["name"] == "Wiki, für alle"
    assert second["scopes"] == ["read", "write"]
    assert second["collections"] == ["default"]
    assert second["expires_at"] == "2999-01-31T10:00:00Z"
    assert second["last_used_at"] is None
    assert datetime.fromisoformat(second["created_at"]) <= datetime.now(UTC)
    assert second["id"] != first["id"]


async def test_scopes_that_are_not_given_are_read_alone(client: Client) -> None:
    assert (await make(client, await first_key(client)))["scopes"] == ["read"]


async def test_keys_come_in_pages_in_the_order_in_which_they_were_made(client: Client) -> None:
    admin = await first_key(client)
    for number in range(4):
        await make(client, admin, name=f"n{number}")
    names: list[str] = []
    query = "?limit=2"
    while query:
        page = (await client.get(f"/v1/keys{query}", headers=bearing(admin))).ok()
        assert len(page["keys"]) <= 2
        names += [key["name"] for key in page["keys"]]
        query = f"?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert names == ["test", "n0", "n1", "n2", "n3"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "name"),
        ({"name": None}, 400, "name"),
        ({"name": 5}, 400, "name"),
        ({"name": ""}, 400, "name"),
        ({"name": " \u3000"}, 400, "name"),
        ({"name": "a\nb"}, 400, "name"),
        ({"name": "a\x1b[2J"}, 400, "name"),
        ({"name": "a\u202eb"}, 400, "name"),
        ({"name": "a\0b"}, 400, "name"),
        ({"name": "x" * 129}, 413, "name"),
        ({"name": "x" * 10_000_000}, 413, "name"),
        ({"name": "a", "scopes": []}, 400, "scopes"),
        ({"name": "a", "scopes": None}, 400, "scopes"),
        ({"name": "a", "scopes": "admin"}, 400, "scopes"),
        ({"name": "a", "scopes": ["root"]}, 400, "scopes[0]"),
        ({"name": "a", "scopes": ["read", "Write"]}, 400, "scopes[1]"),
        ({"name": "a", "scopes": ["read", "read"]}, 400, "scopes"),
        ({"name": "a", "collections": []}, 400, "collections"),
        ({"name": "a", "collections": "default"}, 400, "collections"),
        ({"name": "a", "collections": ["no/name"]}, 400, "collections[0]"),
        ({"name": "a", "collections": ["missing"]}, 404, "collection"),
        ({"name": "a", "collections": ["default"] * 257}, 413, "collections"),
        ({"name": "a", "collections": ["default"], "scopes": ["admin"]}, 400, "collections"),
        ({"name": "a", "expires_at": "2001-01-01T00:00:00Z"}, 400, "expires_at"),
        ({"name": "a", "expires_at": "2999-01-01"}, 400, "expires_at"),
        ({"name": "a", "expires_at": "2999-01-01T00:00:00"}, 400, "expires_at"),
        ({"name": "a", "expires_at": "9999-12-31T23:59:59-12:00"}, 400, "expires_at"),
        ({"name": "a", "expires_at": 32503680000}, 400, "expires_at"),
        ({"name": "a", "expires": "2999-01-01T00:00:00Z"}, 400, "expires"),
        ({"name": "a", "id": "k1"}, 400, "id"),
        ({"name": "a", "key": "mine"}, 400, "key"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused_by_the_name_of_its_fault(
    serve: Serve, body: dict[str, Any], status: int, param: str
) -> None:
    async with serve(api_key=OWN) as running:
        answer = await running.client.post("/v1/keys", body, headers=bearing(OWN))
        assert answer.refused(status)["param"] == param
        assert await listed(running.client, OWN) == []


async def test_a_name_may_be_as_long_as_the_limits_tell(client: Client) -> None:
    most = (await client.get("/v1/limits")).ok()
    made = await make(client, scopes=["admin"], name="x" * most["key_name_chars"])
    await make(client, made["key"], collections=["default"] * most["key_collections"])


@pytest.mark.parametrize(
    "body", [{"scopes": ["read"]}, {"scopes": ["admin"], "expires_at": "2999-01-01T00:00:00Z"}]
)
async def test_the_first_key_must_be_a_lasting_admins(client: Client, body: Any) -> None:
    error = (await client.post("/v1/keys", {"name": "a", **body})).refused(400, "invalid_value")
    assert "admin" in error["message"]
    (await client.get("/v1/collections")).ok()  # none was made, so none is wanted
    await first_key(client)


async def test_beside_the_key_of_the_settings_any_may_come_first(serve: Serve) -> None:
    async with serve(api_key=OWN) as running:
        made = await make(running.client, OWN)
        assert (await revoke(running.client, OWN, made["id"])).ok() == {"deleted": made["id"]}


async def test_when_a_key_was_last_used_is_told(client: Client) -> None:
    admin = await first_key(client)
    made = await make(client, admin)
    before = datetime.now(UTC) - timedelta(seconds=1)
    wrong = made["key"][:-48] + "0" * 48
    (await client.get("/v1/limits", headers=bearing(wrong))).refused(401)
    assert (await listed(client, admin))[1]["last_used_at"] is None
    (await client.get("/v1/limits", headers=bearing(made["key"]))).ok()
    used = None
    async with asyncio.timeout(5):
        while not used:  # it is written after the answer
            used = (await listed(client, admin))[1]["last_used_at"]
    assert before < datetime.fromisoformat(used) < datetime.now(UTC) + timedelta(seconds=1)
