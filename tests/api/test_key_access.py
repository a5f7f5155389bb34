"""Which requests want an API key, and which a key lets pass."""

from typing import Any

import pytest
from key_requests import bearing, first_key, make, path_of, revoke
from servers import Serve
from wire import Client

from memoryd.api.routes import ROUTES


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


async def test_an_exposed_server_is_closed_where_the_last_key_was_revoked_elsewhere(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(host="0.0.0.0") as running:  # noqa: S104 - meant
        (await running.client.get("/v1/limits")).refused(401)
        (await running.client.get("/health")).ok()
