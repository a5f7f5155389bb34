import logging
from pathlib import Path

import pytest
from servers import Serve
from toys import ToyLoader
from wire import Client

import memoryd
from memoryd import errors
from memoryd.api.errors import FAULTS, fault_of
from memoryd.app import check_exposure, open_memory
from memoryd.config import Settings
from memoryd.storage.keys import Scope

PUBLIC = ["/", "/health", "/health/ready"]
PRIVATE = ["/v1/limits", "/v1/collections", "/v1/collections/default/documents", "/nothing"]


@pytest.mark.parametrize("path", [*PUBLIC, *PRIVATE])
async def test_every_answer_carries_a_request_id(shared_client: Client, path: str) -> None:
    first, second = await shared_client.get(path), await shared_client.get(path)
    assert first.headers["X-Request-Id"]
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    given = await shared_client.get(path, headers={"X-Request-Id": "mine-1"})
    assert given.headers["X-Request-Id"] == "mine-1"


@pytest.mark.parametrize("given", ["x" * 5000, "a b", "é", "\t"])
async def test_a_strange_request_id_does_no_harm(shared_client: Client, given: str) -> None:
    answer = await shared_client.get("/health", headers={"X-Request-Id": given})
    assert answer.status == 200
    assert 0 < len(answer.headers["X-Request-Id"]) <= 128


async def test_a_server_with_a_key_lets_only_its_holders_pass(serve: Serve) -> None:
    async with serve(api_key="s3cret", headers=None) as running:
        client = running.client
        for path in PUBLIC:
            assert (await client.get(path)).status == 200
        for path in PRIVATE:
            answer = await client.get(path)
            answer.refused(401, "unauthorized")
            assert "Authorization" in answer.json["error"]["message"]
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        embed = await client.post("/api/embed", {"model": "toy", "input": "cat"})
        assert embed.status == 401
        assert isinstance(embed.json["error"], str)
        assert embed.headers["WWW-Authenticate"] == "Bearer"
        (await client.post("/v1/embeddings", {})).refused(401, "unauthorized")
        for name, value in (
            ("Authorization", "Bearer s3cret"),
            ("Authorization", "bearer  s3cret "),
            ("X-Api-Key", "s3cret"),
            ("api-key", "s3cret"),
        ):
            assert (await client.get("/v1/limits", headers={name: value})).status == 200
        for name, value in (
            ("Authorization", "Bearer wrong"),
            ("Authorization", "Bearer "),
            ("Authorization", "Basic s3cret"),
            ("Authorization", "s3cret"),
            ("X-Api-Key", ""),
            ("X-Api-Key", "s3cre"),
            ("X-Api-Key", "schlüssel"),
        ):
            (await client.get("/v1/limits", headers={name: value})).refused(401, "unauthorized")


EXPOSED = "0.0.0.0"  # noqa: S104 - meant


def test_beyond_this_machine_a_key_or_the_users_word_is_needed() -> None:
    with pytest.raises(errors.SetupError, match="--allow-no-key"):
        check_exposure(Settings(host=EXPOSED))
    check_exposure(Settings(host=EXPOSED, allow_no_key=True))
    check_exposure(Settings(host=EXPOSED), has_keys=True)
    check_exposure(Settings(host=EXPOSED, api_key="k"))


async def test_stored_keys_count_when_memoryd_starts_beyond_this_machine(
    dsn: str, models_dir: Path
) -> None:
    given = {"models_dir": models_dir, "model": "toy", "database_url": dsn}
    local, exposed = Settings(**given), Settings(**given, host=EXPOSED)
    with pytest.raises(errors.SetupError, match="MEMORYD_API_KEY"):
        async with open_memory(exposed, ToyLoader(models_dir)):
            pass
    async with open_memory(local, ToyLoader(models_dir)) as (memory, _):
        await memory.keys.create(name="first", scopes=["admin"])
    async with open_memory(exposed, ToyLoader(models_dir)):
        pass


@pytest.mark.parametrize(
    ("scopes", "api_key", "is_told"),
    [
        ([], None, False),
        (["read"], "s3cret", False),
        (["read"], None, True),
        (["read", "admin"], None, False),
    ],
)
async def test_keys_that_nobody_could_revoke_are_told_when_memoryd_starts(
    dsn: str,
    models_dir: Path,
    caplog: pytest.LogCaptureFixture,
    scopes: list[Scope],
    api_key: str | None,
    is_told: bool,
) -> None:
    given = {"models_dir": models_dir, "model": "toy", "database_url": dsn}
    async with open_memory(Settings(**given, api_key="s3cret"), ToyLoader(models_dir)) as opened:
        for scope in scopes:
            await opened[0].keys.create(name=scope, scopes=[scope])
    async with open_memory(Settings(**given, api_key=api_key), ToyLoader(models_dir)):
        pass
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == is_told
    if is_told:
        message = warnings[0].getMessage()
        assert "MEMORYD_API_KEY" in message
        assert "--scope admin" in message


async def test_a_server_without_a_key_takes_whatever_clients_send(shared_client: Client) -> None:
    for value in ("Bearer ", "Bearer ollama", "x"):
        answer = await shared_client.get("/v1/limits", headers={"Authorization": value})
        assert answer.status == 200


async def test_the_log_has_no_text_of_users(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "memoryd"):
        await client.store(id="a", text="secretword cat", title="secretword")
        await client.found("secretword")
        (await client.post("/v1/embeddings", {"model": "toy", "input": "secretword"})).ok()
        (await client.get("/v1/collections/default/search?q=secretword")).ok()
        (await client.post("/v1/collections/default/search", {"query": "secretword", "x": 1}))
    assert caplog.records
    assert "secretword" not in caplog.text


async def test_health_and_limits_tell_what_they_should(client: Client) -> None:
    health = (await client.get("/health")).ok()
    assert health == {"status": "ok", "version": memoryd.__version__}
    ready = (await client.get("/health/ready")).ok()
    assert ready == {"status": "ok", "checks": {"database": "ok", "model": "ok"}}
    limits = (await client.get("/v1/limits")).ok()
    assert limits["body_bytes"] == 64 << 20
    assert limits["text_chars"] == 5_000_000
    assert limits["documents_per_batch"] == 1_000
    assert limits["embedding_inputs"] == 2_048
    assert limits["waiting_requests"] == 512
    root = await client.get("/")
    assert (root.status, root.data) == (200, b"Ollama is running")
    assert (await client.ask("HEAD", "/")).status == 200


def subclasses(kind: type[errors.MemorydError]) -> list[type[errors.MemorydError]]:
    # The command line has one of its own, for what a server answers.
    below = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return below + [deeper for child in below for deeper in subclasses(child)]


@pytest.mark.parametrize("kind", subclasses(errors.MemorydError))
def test_every_error_is_mapped_and_none_to_the_catch_all(
    kind: type[errors.MemorydError],
) -> None:
    fault = fault_of(kind("x"))
    assert 400 <= fault.status < 600
    assert fault != FAULTS[errors.MemorydError]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    told = errors.__doc__ or ""
    for kind in subclasses(errors.MemorydError):
        assert f"─ {kind.__name__} " in told
