"""A server without a key is for this machine alone: no page of another site may use it."""

from typing import Any

import pytest
from servers import Serve
from wire import Answer, Client

DOCUMENTS = "/v1/collections/default/documents"
VECTOR_ROUTES = ["/v1/embeddings", "/api/embed"]
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/v1/limits", None),
    ("GET", "/v1/collections", None),
    ("GET", f"{DOCUMENTS}/forged", None),
    ("GET", "/v1/collections/default/search?q=cat", None),
    ("POST", DOCUMENTS, b'{"id": "forged", "text": "cat"}'),
    ("POST", "/v1/collections/default/search", b'{"query": "cat"}'),
    ("PATCH", "/v1/collections/default", b'{"metadata": {"forged": true}}'),
    ("DELETE", f"{DOCUMENTS}/kept", None),
    ("POST", "/v1/embeddings", b'{"model": "toy", "input": "cat"}'),
    ("POST", "/api/embed", b'{"model": "toy", "input": "cat"}'),
    ("GET", "/nothing", None),
]


def check_refused(path: str, answer: Answer) -> None:
    assert answer.status == 403, (path, answer.status, answer.data[:200])
    if path.startswith("/api/"):
        assert isinstance(answer.json["error"], str)
    else:
        answer.refused(403)


def port_of(client: Client) -> str:
    return client.url.rpartition(":")[2]


def hosts_from_outside(port: str) -> list[str]:
    names = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.7"]
    return [*names, *(f"{name}:{port}" for name in names), f"evil.example@localhost:{port}"]


async def test_a_foreign_host_is_403_at_every_route_and_changes_nothing(client: Client) -> None:
    await client.store(id="kept", text="cat")
    for host in hosts_from_outside(port_of(client))[:2]:
        for method, path, data in ROUTES:
            answer = await client.ask(method, path, data=data, headers={"Host": host})
            check_refused(path, answer)
    await check_untouched(client)


async def check_untouched(client: Client) -> None:
    """Check that nothing of ROUTES was done."""
    page = (await client.get(DOCUMENTS)).ok()
    assert [document["id"] for document in page["documents"]] == ["kept"]
    assert (await client.get("/v1/collections/default")).ok()["metadata"] == {}


async def test_no_name_that_looks_like_this_machine_passes(shared_client: Client) -> None:
    for host in hosts_from_outside(port_of(shared_client)):
        answer = await shared_client.get("/v1/collections", headers={"Host": host})
        assert answer.status in (400, 403), host
        assert answer.json["error"]["message"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://evil.example:8765",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example/localhost",
        "http://localhost@evil.example",
        "null",
    ],
)
async def test_a_foreign_origin_is_403_for_reading_and_writing(
    shared_client: Client, origin: str
) -> None:
    headers = {"Origin": origin}
    for method, path, data in ROUTES:
        answer = await shared_client.ask(method, path, data=data, headers=headers)
        check_refused(path, answer)
    assert (await shared_client.get(f"{DOCUMENTS}/forged")).status == 404


async def test_names_of_this_machine_pass(shared_client: Client) -> None:
    port = port_of(shared_client)
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        headers = {"Host": host}
        (await shared_client.get("/v1/collections", headers=headers)).ok()
        for path in VECTOR_ROUTES:
            body = {"model": "toy", "input": "cat"}
            (await shared_client.post(path, body, headers=headers)).ok()


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000", "http://localhost"],
)
async def test_pages_of_this_machine_pass(shared_client: Client, origin: str) -> None:
    headers = {"Origin": origin}
    (await shared_client.get("/v1/collections", headers=headers)).ok()
    search = {"query": "cat"}
    (await shared_client.post("/v1/collections/default/search", search, headers=headers)).ok()
    for path in VECTOR_ROUTES:
        body = {"model": "toy", "input": "cat"}
        (await shared_client.post(path, body, headers=headers)).ok()


async def test_a_foreign_host_does_not_become_local_by_its_origin(shared_client: Client) -> None:
    headers = {"Host": "evil.example", "Origin": "http://localhost:3000"}
    (await shared_client.get("/v1/collections", headers=headers)).refused(403)
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    (await shared_client.get("/v1/collections", headers=headers)).refused(403)


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_health_is_told_to_any_host(shared_client: Client, path: str) -> None:
    (await shared_client.get(path, headers={"Host": "evil.example"})).ok()
    (await shared_client.get(path, headers={"Host": "memoryd.internal:80"})).ok()


async def test_the_refusal_says_what_to_do(shared_client: Client) -> None:
    headers = {"Host": "memoryd.internal"}
    error = (await shared_client.get("/v1/collections", headers=headers)).refused(403)
    assert "memoryd.internal" in error["message"] or "Host" in error["message"]


async def test_a_server_with_a_key_is_known_by_any_name(serve: Serve) -> None:
    async with serve(api_key="s3cret") as running:
        client = running.client
        for host in ("evil.example", "memoryd.internal:8765"):
            headers = {"Host": host, "Authorization": "Bearer s3cret"}
            (await client.get("/v1/collections", headers=headers)).ok()
            body = {"model": "toy", "input": "cat"}
            for path in VECTOR_ROUTES:
                (await client.post(path, body, headers=headers)).ok()
            answer = await client.get("/v1/collections", headers={"Host": host})
            answer.refused(401, "unauthorized")
