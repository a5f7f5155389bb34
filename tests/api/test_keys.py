"""API keys: made and revoked over HTTP, and what each lets its holder do."""

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from servers import Running, Serve
from wire import Client

from memoryd.api.route import Route
from memoryd.api.routes import ROUTES
from memoryd.app import listen
from memoryd.memory import keys as memory_keys
from memoryd.memory import lookups

KEY = re.compile(r"mk_(k[0-9]+)_([0-9a-f]{48})")
FIELDS = {"id", "name", "scopes", "collections", "created_at", "last_used_at", "expires_at"}
OWN = "s3cret"


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def make(client: Client, key: str = "", status: int = 201, **body: Any) -> Any:
    given = {"name": "test", **body}
    answer = await client.post("/v1/keys", given, headers=bearing(key) if key else {})
    return answer.ok(status)


async def first_key(client: Client) -> str:
    """Return the key of the first admin: from then on the server wants one."""
    key: str = (await make(client, scopes=["admin"]))["key"]
    return key


async def revoke(client: Client, key: str, id_: str) -> Any:
    return await client.ask("DELETE", f"/v1/keys/{id_}", headers=bearing(key))


async def listed(client: Client, key: str) -> list[Any]:
    keys: list[Any] = (await client.get("/v1/keys", headers=bearing(key))).ok()["keys"]
    return keys


def path_of(route: Route, **given: str) -> str:
    """Return a path that the route serves."""
    values = {"collection": "default", "uuid": str(uuid.UUID(int=1)), **given}
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "x"), route.pattern)


def advance(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let what remembers keys, and nothing else, believe that so many seconds have gone by."""
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + seconds)
    monkeypatch.setattr(lookups, "time", later)


@asynccontextmanager
async def another_server(running: Running) -> AsyncIterator[Client]:
    """Serve the same database as another process would: it remembers keys of its own."""
    async with listen(replace(running.memory)) as [url], Client(url) as client:
        yield client


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


async def test_with_the_first_key_every_route_but_the_public_ones_wants_one(
    client: Client,
) -> None:
    (await client.get("/v1/collections")).ok()
    admin = await first_key(client)
    for route in ROUTES:
        answer = await client.ask(route.method, path_of(route), data=b"{}")
        if route.scope is None:
            assert answer.status != 401, route
        else:
            assert answer.status == 401, route
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    (await client.get("/nothing")).refused(401, "unauthorized")
    (await client.get("/v1/collections", headers=bearing(admin))).ok()


async def test_without_keys_again_none_is_wanted(client: Client) -> None:
    admin = await first_key(client)
    (await client.get("/v1/collections")).refused(401)
    (await revoke(client, admin, "k1")).ok()
    (await client.get("/v1/collections")).ok()


@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"Authorization": f"Bearer {key}"},
        lambda key: {"Authorization": f"bearer   {key} "},
        lambda key: {"X-Api-Key": key},
        lambda key: {"api-key": key},
        lambda key: {"Authorization": "Bearer ", "X-Api-Key": key},
    ],
)
async def test_a_key_is_taken_from_every_header_that_clients_use(
    client: Client, headers: Any
) -> None:
    admin = await first_key(client)
    (await client.get("/v1/limits", headers=headers(admin))).ok()


async def test_a_wrong_key_is_401_in_each_dialects_shape(client: Client) -> None:
    admin = await first_key(client)
    id_, secret = admin.rsplit("_", 1)
    for wrong in (
        "",
        "x",
        id_,
        f"{id_}_",
        f"{id_}_{secret[:-1]}",
        f"{id_}_{secret}0",
        f"{id_}_{secret.upper()}x",
        f"{id_}_{'0' * 48}",
        f"mk_k999_{secret}",
        f"mk_k{10**18 - 1}_{secret}",
        f"mk_k{10**30}_{secret}",
        f"{admin} {admin}",
        "mk_k1_" + "é" * 48,
        "x" * 7000,
    ):
        answer = await client.get("/v1/limits", headers=bearing(wrong))
        answer.refused(401, "unauthorized")
        answer = await client.ask("POST", "/api/embed", data=b"{}", headers=bearing(wrong))
        assert answer.status == 401
        assert set(answer.json) == {"error"}
        assert isinstance(answer.json["error"], str)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (["read"], {"read"}),
        (["write"], {"write"}),
        (["read", "write"], {"read", "write"}),
        (["admin"], {"read", "write", "admin"}),
    ],
)
async def test_a_key_opens_the_routes_of_its_scopes_and_no_other(
    client: Client, scopes: list[str], allowed: set[str]
) -> None:
    admin = await first_key(client)
    key = (await make(client, admin, scopes=scopes))["key"]
    for route in ROUTES:
        if route.scope is None or (route.method, route.path) == ("POST", "/v1/keys"):
            continue
        answer = await client.ask(route.method, path_of(route), data=b"{", headers=bearing(key))
        if route.scope in allowed:
            assert answer.status not in (401, 403), (route, answer.data)
        else:
            assert answer.status == 403, (route, answer.data)
            assert route.scope in str(answer.json["error"])


async def test_a_key_ends_when_it_expires(client: Client, running: Running) -> None:
    admin = await first_key(client)
    end = datetime.now(UTC) + timedelta(hours=1)
    made = await make(client, admin, expires_at=end.isoformat())
    (await client.get("/v1/limits", headers=bearing(made["key"]))).ok()
    connection = await asyncpg.connect(running.dsn)
    await connection.execute(
        "UPDATE memoryd.api_keys SET expires_at = now() - interval '1 s' WHERE name = 'test'"
        " AND expires_at IS NOT NULL"
    )
    await connection.close()
    async with another_server(running) as other:  # which has not read it before
        error = (await other.get("/v1/limits", headers=bearing(made["key"]))).refused(401)
        assert "expired" in error["message"]


async def test_a_revoked_key_ends_at_once_here_and_within_seconds_elsewhere(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client
    admin = await first_key(client)
    made = await make(client, admin)
    headers = bearing(made["key"])
    async with another_server(running) as other:
        for server in (client, other):
            (await server.get("/v1/limits", headers=headers)).ok()
        (await revoke(client, admin, made["id"])).ok()
        (await client.get("/v1/limits", headers=headers)).refused(401, "unauthorized")
        advance(monkeypatch, 3)
        (await other.get("/v1/limits", headers=headers)).refused(401, "unauthorized")


async def test_a_revoked_key_ends_at_once_on_every_port_of_a_process(running: Running) -> None:
    admin = await first_key(running.client)
    made = await make(running.client, admin)
    headers = bearing(made["key"])
    async with listen(running.memory) as [url], Client(url) as other_port:
        (await other_port.get("/v1/limits", headers=headers)).ok()
        (await revoke(running.client, admin, made["id"])).ok()
        (await other_port.get("/v1/limits", headers=headers)).refused(401, "unauthorized")


async def test_another_server_wants_a_key_within_seconds_once_there_is_one(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with another_server(running) as other:
        (await other.get("/v1/limits")).ok()
        admin = await first_key(running.client)
        (await other.get("/v1/limits", headers=bearing(admin))).ok()
        advance(monkeypatch, 3)
        (await other.get("/v1/limits")).refused(401)
        (await other.get("/v1/limits", headers=bearing(admin))).ok()


async def test_a_key_is_looked_up_once_in_some_seconds(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    find_key = memory_keys.storage.find_key

    async def count(database: Any, number: int) -> Any:
        asked.append(number)
        return await find_key(database, number)

    monkeypatch.setattr(memory_keys.storage, "find_key", count)
    async with serve() as running:
        client = running.client
        admin = await first_key(client)
        unknown = f"mk_k77_{'0' * 48}"
        for _ in range(5):
            answers = await asyncio.gather(
                *(client.get("/v1/limits", headers=bearing(admin)) for _ in range(5)),
                *(client.get("/v1/limits", headers=bearing(unknown)) for _ in range(5)),
                client.get("/v1/limits", headers=bearing("nonsense")),
            )
            assert [answer.status for answer in answers] == [200] * 5 + [401] * 6
    assert sorted(asked) == [1, 77]


async def test_wrong_keys_take_no_memory_without_end(
    client: Client, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "_MOST_ANSWERS", 10)
    keyring = memory_keys.Keyring(running.memory.settings, running.memory.database)
    admin = await first_key(client)
    for number in range(2, 40):
        with pytest.raises(memory_keys.UnauthorizedError):
            await keyring.grant(f"mk_k{number}_{'0' * 48}")
    assert len(keyring._keys._answers) == 10
    assert (await keyring.grant(admin)).allows("admin")


async def test_the_last_admin_key_stays_while_there_are_others(client: Client) -> None:
    admin = await first_key(client)
    second = await make(client, admin, scopes=["admin"])
    await make(client, admin, scopes=["admin"], expires_at="2999-01-01T00:00:00Z")
    (await revoke(client, admin, second["id"])).ok()
    answer = await revoke(client, admin, "k1")
    assert "last" in answer.refused(409, "conflict")["message"]
    (await client.get("/v1/limits", headers=bearing(admin))).ok()
    (await revoke(client, admin, "k3")).ok()
    (await revoke(client, admin, "k1")).ok()


async def test_of_two_who_revoke_the_last_two_admin_keys_at_once_one_is_refused(
    running: Running,
) -> None:
    keyring = memory_keys.Keyring(running.memory.settings, running.memory.database)
    lasting, _ = await keyring.create(name="first", scopes=["admin"])
    await keyring.create(name="reader", scopes=["read"])
    for _ in range(5):
        second, _ = await keyring.create(name="second", scopes=["admin"])
        ended = await asyncio.gather(
            *(keyring.revoke(key.id) for key in (lasting, second)), return_exceptions=True
        )
        assert [type(result) for result in ended].count(memory_keys.ConflictError) == 1
        lasting = lasting if ended[0] else second


async def test_beside_the_key_of_the_settings_the_last_admin_key_may_go(serve: Serve) -> None:
    async with serve(api_key=OWN) as running:
        made = await make(running.client, OWN, scopes=["admin"])
        await make(running.client, OWN)
        (await revoke(running.client, OWN, made["id"])).ok()


@pytest.mark.parametrize("id_", ["k2", "1", "k", "K1", "k-1", "k1x", "k%00", "%2e", f"k{10**18}"])
async def test_a_key_that_is_not_there_is_404(client: Client, id_: str) -> None:
    admin = await first_key(client)
    (await revoke(client, admin, id_)).refused(404, "not_found")
    assert len(await listed(client, admin)) == 1


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


async def test_a_database_that_hangs_holds_nobody_up_who_is_known(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client
    admin = await first_key(client)
    unknown = (await make(client, admin))["key"]
    (await client.get("/v1/limits", headers=bearing(admin))).ok()
    connection = await asyncpg.connect(running.dsn)
    async with connection.transaction():
        await connection.execute("LOCK TABLE memoryd.api_keys")
        monkeypatch.setattr(lookups, "_PATIENCE_S", 0.2)
        advance(monkeypatch, 3)
        for _ in range(20):
            (await client.get("/v1/limits", headers=bearing(admin))).ok()
        (await client.get("/v1/limits", headers=bearing(unknown))).refused(503, "overloaded")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        assert await connection.fetchval(waiting) <= 3  # one query each, not one per request
    await connection.close()
    (await client.get("/v1/limits", headers=bearing(unknown))).ok()


async def test_what_is_asked_and_written_of_keys_ends_with_memoryd(running: Running) -> None:
    memory = running.memory
    _, known = await memory.keys.create(name="first", scopes=["admin"])
    _, unknown = await memory.keys.create(name="other", scopes=["read"])
    connection = await asyncpg.connect(running.dsn)
    before = asyncio.all_tasks()
    async with connection.transaction():
        await connection.execute("LOCK TABLE memoryd.api_keys IN SHARE ROW EXCLUSIVE MODE")
        await memory.keys.grant(known)  # that it was used is written, when the lock is gone
        await connection.execute("LOCK TABLE memoryd.api_keys")
        asking = asyncio.create_task(memory.keys.grant(unknown))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        async with asyncio.timeout(5):
            while await connection.fetchval(waiting) < 2:  # noqa: ASYNC110 # Postgres tells nobody
                await asyncio.sleep(0.01)
        memory.keys._forget()  # as another key that is made meanwhile does
        async with asyncio.timeout(1):
            await memory.stop()
        with pytest.raises(memory_keys.MemorydError, match="shutting down"):
            await asking
        assert asyncio.all_tasks() == before
    await connection.close()


async def test_a_known_key_works_for_a_while_without_the_database(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client
    admin = await first_key(client)
    unknown = (await make(client, admin))["key"]
    headers = bearing(admin)
    (await client.get("/v1/limits", headers=headers)).ok()
    await running.memory.database._pool.close()
    advance(monkeypatch, 200)
    (await client.get("/v1/limits", headers=headers)).ok()
    answer = await client.get("/v1/limits", headers=bearing(unknown))
    answer.refused(503, "overloaded")
    assert "Retry-After" in answer.headers
    (await client.get("/v1/limits", headers=bearing("wrong"))).refused(401)
    advance(monkeypatch, 400)
    (await client.get("/v1/limits", headers=headers)).refused(503)
    (await client.get("/health")).ok()


async def test_without_keys_and_without_the_database_embeddings_go_on(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await running.client.get("/v1/limits")).ok()
    await running.memory.database._pool.close()
    advance(monkeypatch, 1e6)
    (await running.client.post("/v1/embeddings", {"model": "toy", "input": "cat"})).ok()


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


async def test_an_exposed_server_is_closed_where_the_last_key_was_revoked_elsewhere(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(host="0.0.0.0") as running:  # noqa: S104 - meant
        (await running.client.get("/v1/limits")).refused(401)
        (await running.client.get("/health")).ok()


async def test_the_last_key_of_an_exposed_server_stays(serve: Serve) -> None:
    async with serve() as local:
        admin = await first_key(local.client)
        exposed = local.memory.settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104 - meant
        keyring = memory_keys.Keyring(exposed, local.memory.database)
        with pytest.raises(memory_keys.ConflictError, match="last API key"):
            await keyring.revoke("k1")
        open_to_all = exposed.model_copy(update={"allow_no_key": True})
        await memory_keys.Keyring(open_to_all, local.memory.database).revoke("k1")
        assert admin
