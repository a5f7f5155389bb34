"""Which web pages may use memoryd: without a key, none of another site unless the user says so."""

from typing import Any

import pytest
from aiohttp import web
from servers import Serve
from wire import Answer, Client

from memoryd.api.cors import Origins
from memoryd.api.route import Route
from memoryd.config import load_settings
from memoryd.errors import SetupError

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


LOCAL = ["http://localhost", "https://localhost:8443", "http://127.0.0.1:3000", "http://[::1]:5173"]
APPS = ["app://obsidian.md", "file://", "tauri://localhost", "vscode-webview://1a2b3c"]
FOREIGN = [
    *("https://evil.example", "null", "", "localhost", "http://", "https://localhost.evil.example"),
    *("chrome-extension://abc", "http://localhost@evil.example", "http://0.0.0.0:3000", "app:x"),
    *("http://192.168.0.7:3000", "chrome-extension://localhost", "ftp://127.0.0.1"),
]


@pytest.mark.parametrize("origin", [*LOCAL, *APPS])
def test_pages_of_this_machine_and_apps_are_allowed(origin: str) -> None:
    assert Origins().allow(origin)


@pytest.mark.parametrize("origin", FOREIGN)
def test_other_pages_are_not(origin: str) -> None:
    assert not Origins().allow(origin)
    assert not Origins(["https://app.example"]).allow(origin)


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("https://app.example", "https://app.example", "http://app.example"),
        ("https://app.example", "https://APP.example", "https://app.example:8443"),
        ("https://app.example", "https://app.example", "https://app.example.evil.example"),
        ("https://app.example", "https://app.example", "https://appxexample"),
        ("http://10.0.0.7:*", "http://10.0.0.7:3000", "http://10.0.0.70:3000"),
        ("http://10.0.0.7:*", "http://10.0.0.7", "http://10.0.0.7:80.evil.example"),
        ("https://*.example", "https://a.b.example", "https://example"),
        ("https://*.example", "https://a.example", "https://evil.test/.example"),
        ("https://*.example", "https://a.example", "https://evil.test:1.example"),
        ("moz-extension://*", "moz-extension://1a-2b", "chrome-extension://1a-2b"),
    ],
)
def test_an_origin_of_the_settings_allows_what_it_says(
    pattern: str, allowed: str, refused: str
) -> None:
    origins = Origins([pattern])
    assert origins.allow(allowed)
    assert not origins.allow(refused)


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_star_allows_all(origin: str) -> None:
    assert Origins(["*"]).allow(origin)


@pytest.mark.parametrize(
    "given",
    [
        *("app.example", "https://app.example/", "https://a.example/x", "null", "https://a b"),
        *("https://", "https://:443", "https://a.example[::1]"),
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(given: str) -> None:
    with pytest.raises(SetupError, match=r"MEMORYD_CORS_ORIGINS: .*is not an origin"):
        load_settings(environment={"MEMORYD_CORS_ORIGINS": f"https://b.example,{given}"})


def preflight(origin: str, headers: str = "") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
    }


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed", DOCUMENTS, "/nothing"])
async def test_a_preflight_needs_no_key(serve: Serve, path: str) -> None:
    async with serve(api_key="s3cret", cors_origins="https://app.example") as running:
        for origin in ("https://app.example", "http://localhost:3000"):
            answer = await running.client.ask("OPTIONS", path, headers=preflight(origin))
            assert (answer.status, answer.data) == (204, b"")
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            methods = answer.headers["Access-Control-Allow-Methods"].split(", ")
            assert {"GET", "POST", "PATCH", "DELETE"} <= set(methods)
            assert int(answer.headers["Access-Control-Max-Age"]) > 0
            assert "Origin" in answer.headers["Vary"]


SENT = [
    *("authorization", "x-api-key", "api-key", "content-type", "idempotency-key", "if-match"),
    *("x-request-id", "x-stainless-os", "x-stainless-retry-count", "x-stainless-new-one"),
]


async def test_pages_may_send_the_headers_that_clients_send_and_no_other(
    shared_client: Client,
) -> None:
    asked = ",".join([*SENT, "cookie", "x-evil", "x-stainless-", "x-stainless-\u00e9"])
    answer = await shared_client.ask(
        "OPTIONS", "/v1/embeddings", headers=preflight("http://localhost", asked.title())
    )
    allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert sorted(allowed) == sorted(SENT)


async def test_a_foreign_pages_preflight_is_refused(serve: Serve) -> None:
    for settings, status in (({}, 403), ({"api_key": "s3cret"}, 401)):
        async with serve(**settings) as running:
            headers = preflight("https://evil.example", "authorization")
            answer = await running.client.ask("OPTIONS", "/v1/embeddings", headers=headers)
            answer.refused(status)
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


async def test_options_without_a_preflights_headers_is_no_preflight(shared_client: Client) -> None:
    answer = await shared_client.ask(
        "OPTIONS", "/v1/embeddings", headers={"Origin": "http://localhost"}
    )
    answer.refused(405)


async def test_an_allowed_page_reads_answers_and_errors(serve: Serve) -> None:
    async with serve(api_key="s3cret") as running:
        headers = {"Origin": "http://localhost:3000"}
        key = {"Authorization": "Bearer s3cret"}
        for path, sent, status in (
            ("/v1/collections", headers | key, 200),
            ("/v1/collections", headers, 401),
            ("/nothing", headers | key, 404),
            ("/health", headers, 200),
        ):
            answer = await running.client.get(path, headers=sent)
            assert answer.status == status
            assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"X-Request-Id", "X-Truncated-Inputs", "Warning", "Retry-After"} == set(exposed)
            assert "Origin" in answer.headers["Vary"]


async def test_a_foreign_page_reads_nothing_though_it_has_a_key(serve: Serve) -> None:
    async with serve(api_key="s3cret") as running:
        headers = {"Origin": "https://evil.example", "Authorization": "Bearer s3cret"}
        answer = await running.client.get("/v1/collections", headers=headers)
        assert answer.status == 200  # who has the key needs no browser
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.headers["Vary"]  # so that no cache gives it to another page


async def test_an_origin_of_the_settings_may_use_a_server_without_a_key(serve: Serve) -> None:
    async with serve(cors_origins="https://app.example,https://b.example") as running:
        for origin in ("https://app.example", "https://b.example"):
            answer = await running.client.get("/v1/collections", headers={"Origin": origin})
            assert answer.ok()
            assert answer.headers["Access-Control-Allow-Origin"] == origin
        headers = {"Origin": "https://c.example"}
        (await running.client.get("/v1/collections", headers=headers)).refused(403)
        headers = {"Origin": "https://app.example", "Host": "evil.example"}
        (await running.client.get("/v1/collections", headers=headers)).refused(403)


async def test_who_lets_all_in_is_known_by_any_name_but_to_no_foreign_page(serve: Serve) -> None:
    async with serve(host="0.0.0.0", allow_no_key=True) as running:  # noqa: S104 - meant
        url = running.client.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - meant
        async with Client(url) as client:
            for host in ("memoryd:8765", "nas.local", "10.0.0.7"):
                (await client.get("/v1/collections", headers={"Host": host})).ok()
            for origin in ("https://evil.example", "http://nas.local"):
                headers = {"Host": "nas.local", "Origin": origin}
                (await client.get("/v1/collections", headers=headers)).refused(403)


async def test_answers_that_come_in_pieces_carry_the_headers_too(
    serve: Serve,
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{}")
        return response

    async with serve(routes=[Route("GET", "/piecemeal", stream)]) as running:
        headers = {"Origin": "http://localhost", "X-Request-Id": "mine-2"}
        answer = await running.client.get("/piecemeal", headers=headers)
        assert answer.headers["X-Request-Id"] == "mine-2"
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost"
