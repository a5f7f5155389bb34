"""API keys are revoked, as long as somebody can make others."""

import asyncio

import pytest
from key_requests import bearing, first_key, listed, make, revoke
from servers import Running, Serve
from wire import Client

from memoryd.memory import keys as memory_keys

OWN = "s3cret"


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
