"""What nobody should send: each is told what is wrong, and the server goes on."""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from wire import Client

from memoryd.api.routes import ROUTES

DOCUMENTS = "/v1/collections/default/documents"


@pytest_asyncio.fixture(autouse=True)
async def server_goes_on(shared_client: Client) -> AsyncIterator[None]:
    """Check after each test that the server answers."""
    yield
    (await shared_client.get("/health/ready")).ok()
    (await shared_client.get("/v1/collections/default/search?q=cat")).ok()


NOT_JSON = [
    b"",
    b"   \n",
    b"{",
    b"nonsense",
    b"{'text': 'x'}",
    b'{"text": "x"',
    b'{"text": "x"} {"text": "y"}',
    b'{"text": "x",}',
    b'{"text": NaN}',
    b'{"text": "\xff\xfe"}',
    b'{"text": "\xc0\xaf"}',
    b'{"text": "\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"text": "x"}',
    '{"text": "x"}'.encode("utf-16"),
    b'{"text": "\\ud800"}',
    b'{"text": "\\udc00\\ud800"}',
    b'{"text": "a\nb"}',
    b'{"text": "\\x41"}',
    b"\x00\x01\x02\x03",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]
OWN_ROUTES = [
    ("POST", "/v1/collections"),
    ("PATCH", "/v1/collections/default"),
    ("POST", "/v1/collections/default/aliases"),
    ("POST", DOCUMENTS),
    ("POST", "/v1/collections/default/search"),
]


@pytest.mark.parametrize(("method", "path"), OWN_ROUTES)
@pytest.mark.parametrize("data", NOT_JSON, ids=range(len(NOT_JSON)))
async def test_what_is_not_json_is_refused(
    shared_client: Client, method: str, path: str, data: bytes
) -> None:
    (await shared_client.ask(method, path, data=data)).refused(400, "invalid_value")


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (rb'{"text": "a\u0000b"}', "text"),
        (rb'{"text": "x", "id": "\u0000"}', "id"),
        (rb'{"text": "x", "title": "\u0000"}', "title"),
        (rb'{"text": "x", "tags": ["a", "\u0000"]}', "tags[1]"),
        (rb'{"text": "x", "metadata": {"a": [{"b": "\u0000"}]}}', "metadata.a[0].b"),
        (rb'{"text": "x", "metadata": {"\u0000": 1}}', "metadata"),
        (rb'{"documents": [{"text": "x"}, {"text": "\u0000"}]}', "documents[1].text"),
        (rb'"\u0000"', None),
    ],
)
async def test_nul_is_refused_where_it_stands(
    shared_client: Client, data: bytes, param: str | None
) -> None:
    error = (await shared_client.ask("POST", DOCUMENTS, data=data)).refused(400, "invalid_value")
    assert error["param"] == param
    assert "NUL" in error["message"]


async def test_a_backslash_before_u0000_is_no_nul(client: Client) -> None:
    data = rb'{"id": "a", "text": "\\u0000"}'
    (await client.ask("POST", DOCUMENTS, data=data)).ok()
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["text"] == r"\u0000"


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return {"k": value}


@pytest.mark.parametrize(
    ("document", "status", "param", "code"),
    [
        (5, 400, None, "invalid_value"),
        (None, 400, None, "invalid_value"),
        ([], 400, None, "invalid_value"),
        ([{"text": "x"}], 400, None, "invalid_value"),
        ("text", 400, None, "invalid_value"),
        ({}, 400, "text", "missing_field"),
        ({"text": None}, 400, "text", "invalid_value"),
        ({"text": ""}, 400, "text", "invalid_value"),
        ({"text": " \n\t\u2028\u3000"}, 400, "text", "invalid_value"),
        ({"text": 5}, 400, "text", "invalid_value"),
        ({"text": ["x"]}, 400, "text", "invalid_value"),
        ({"text": "x" * 10_001}, 413, "text", "too_large"),
        ({"text": "x", "Text": "y"}, 400, "Text", "unknown_field"),
        ({"text": "x", "titel": "y"}, 400, "titel", "unknown_field"),
        ({"text": "x", "": 1}, 400, "", "unknown_field"),
        ({"text": "x", "id": ""}, 400, "id", "invalid_value"),
        ({"text": "x", "id": 5}, 400, "id", "invalid_value"),
        ({"text": "x", "id": "."}, 400, "id", "invalid_value"),
        ({"text": "x", "id": ".."}, 400, "id", "invalid_value"),
        ({"text": "x", "id": "a\nb"}, 400, "id", "invalid_value"),
        ({"text": "x", "id": "\x7f"}, 400, "id", "invalid_value"),
        ({"text": "x", "id": "\x85"}, 400, "id", "invalid_value"),
        ({"text": "x", "id": "y" * 513}, 413, "id", "too_large"),
        ({"text": "x", "title": None}, 400, "title", "invalid_value"),
        ({"text": "x", "metadata": []}, 400, "metadata", "invalid_value"),
        ({"text": "x", "metadata": "a"}, 400, "metadata", "invalid_value"),
        ({"text": "x", "metadata": nested(16)}, 413, "metadata", "too_large"),
        ({"text": "x", "metadata": nested(90)}, 413, "metadata", "too_large"),
        ({"text": "x", "metadata": {"a": "b" * 65_536}}, 413, "metadata", "too_large"),
        ({"text": "x", "tags": "a"}, 400, "tags", "invalid_value"),
        ({"text": "x", "tags": [5]}, 400, "tags[0]", "invalid_value"),
        ({"text": "x", "tags": ["a", ""]}, 400, "tags[1]", "invalid_value"),
        ({"text": "x", "tags": ["a" * 129]}, 413, "tags[0]", "too_large"),
        ({"text": "x", "tags": ["a"] * 65}, 413, "tags", "too_large"),
        ({"text": "x", "on_conflict": "merge"}, 400, "on_conflict", "invalid_value"),
        ({"text": "x", "language": "no'pe"}, 400, "language", "invalid_value"),
        ({"documents": []}, 400, "documents", "invalid_value"),
        ({"documents": {}}, 400, "documents", "invalid_value"),
        ({"documents": None}, 400, "documents", "invalid_value"),
        ({"documents": [{"text": "x"}], "wait": True}, 400, "wait", "unknown_field"),
        ({"documents": [{"text": "x"}] * 1001}, 413, "documents", "too_large"),
    ],
)
async def test_a_wrong_document_is_refused_by_the_name_of_its_fault(
    shared_client: Client, document: Any, status: int, param: str | None, code: str
) -> None:
    error = (await shared_client.post(DOCUMENTS, document)).refused(status, code)
    assert error["param"] == param


async def test_metadata_at_the_limit_is_taken(client: Client) -> None:
    await client.store(id="a", text="cat", metadata=nested(15))
    await client.store(id="b", text="cat", metadata={"a": "b" * 65_000}, tags=["t" * 128] * 64)


async def test_a_text_of_ten_megabytes_is_too_large(client: Client) -> None:
    answer = await client.post(DOCUMENTS, {"id": "a", "text": "word " * 2_000_000})
    error = answer.refused(413, "too_large")
    assert error["param"] == "text"
    assert "5000000" in error["message"]
    assert "max_text_chars" in error["message"]


@pytest.mark.parametrize("path", [DOCUMENTS, "/v1/embeddings"])
async def test_a_body_over_the_limit_is_413_naming_it(shared_client: Client, path: str) -> None:
    answer = await shared_client.ask("POST", path, data=b" " * ((1 << 20) + 1))
    error = answer.refused(413, "too_large")
    assert "1048576" in error["message"]
    assert "max_body_bytes" in error["message"]


async def test_a_body_over_the_limit_is_413_for_ollamas_clients(shared_client: Client) -> None:
    answer = await shared_client.ask("POST", "/api/embed", data=b" " * ((1 << 20) + 1))
    assert answer.status == 413
    assert "max_body_bytes" in answer.json["error"]


async def test_a_body_sent_in_pieces_is_counted_too(shared_client: Client) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    (await shared_client.ask("POST", DOCUMENTS, data=pieces())).refused(413, "too_large")


@pytest.mark.parametrize("path", ["/v1/collections", DOCUMENTS, f"{DOCUMENTS}/a/chunks"])
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1.0", "limit"),
        ("limit=", "limit"),
        ("limit=%F0%9F%90%88", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=%FF", "cursor"),
        ("cursor=AA==", "cursor"),
        ("cursor=gICA", "cursor"),
        ("cursor=8J-QiA", "cursor"),
    ],
)
async def test_a_wrong_limit_or_cursor_is_refused(
    client: Client, path: str, query: str, param: str
) -> None:
    await client.store(id="a", text="cat")
    error = (await client.get(f"{path}?{query}")).refused(400, "invalid_value")
    assert error["param"] == param


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/collections"),
        ("PUT", "/v1/collections/default"),
        ("PUT", f"{DOCUMENTS}/a"),
        ("GET", "/v1/collections/default/aliases"),
        ("DELETE", "/v1/collections/default/search"),
        ("GET", "/v1/embeddings"),
        ("PROPFIND", "/v1/collections"),
        ("POST", "/health"),
    ],
)
async def test_a_wrong_method_is_405_in_json(shared_client: Client, method: str, path: str) -> None:
    answer = await shared_client.ask(method, path)
    answer.refused(405)
    assert answer.headers["Allow"]


async def test_a_wrong_method_is_405_in_ollamas_shape(shared_client: Client) -> None:
    answer = await shared_client.get("/api/embed")
    assert answer.status == 405
    assert isinstance(answer.json["error"], str)


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v1",
        "/v1/",
        "/v1/collections/",
        "/v1/collections/default/",
        "/v1/collections/default/nothing",
        "/favicon.ico",
        "//",
        "/%00",
        "/%FF%FE",
        "/" + "a" * 7000,
    ],
)
async def test_an_unknown_path_is_404_in_json(shared_client: Client, path: str) -> None:
    (await shared_client.get(path)).refused(404, "not_found")


@pytest.mark.parametrize("id_", ["%00", "%0A", "%2E", "%FF", "a" * 3000, "%ED%A0%80"])
async def test_an_impossible_id_in_a_path_is_refused(shared_client: Client, id_: str) -> None:
    for answer in (
        await shared_client.get(f"{DOCUMENTS}/{id_}"),
        await shared_client.get(f"{DOCUMENTS}/{id_}/chunks"),
        await shared_client.delete(f"{DOCUMENTS}/{id_}"),
    ):
        assert answer.status in (400, 404)
        answer.refused(answer.status)


JUNK: list[Any] = [
    *(None, True, 0, -1, 2**63 - 1, 1.5e308, "", " ", "cat", "😀", "x" * 600),
    *([], {}, [None], [[]], [""], ["cat", 5], {"": None}, {"vector": "x"}, {"text": "cat"}),
]
FIELDS = [
    *("id", "name", "text", "title", "query", "model", "input", "metadata", "tags", "alias"),
    *("dimensions", "limit", "offset", "with", "group_by", "chunking", "options", "truncate"),
    *("encoding_format", "documents", "on_conflict", "score_threshold", "precision", "vector"),
]


def junk(random_: random.Random) -> Any:
    if random_.random() < 0.1:
        return random_.choice(JUNK)
    fields = random_.sample(FIELDS, random_.randint(1, 6))
    return {field: random_.choice(JUNK) for field in fields}


@pytest.mark.parametrize(
    ("method", "path"),
    sorted({(route.method, route.path) for route in ROUTES}),
)
async def test_junk_never_makes_the_server_fail(client: Client, method: str, path: str) -> None:
    random_ = random.Random(f"{method} {path}")  # noqa: S311 - the same junk in every run
    for _ in range(25):
        names = ["default", "junk", *map(str, JUNK[:6])]
        url = path.replace("{collection}", random_.choice(["default", "default", "x"]))
        url = url.replace("{id}", random_.choice(names) or "_").replace(" ", "%20")
        query = {random_.choice(FIELDS): str(random_.choice(JUNK))[:50] for _ in range(2)}
        answer = await (
            client.ask(method, url, params=query)
            if method in ("GET", "DELETE")
            else client.post(url, junk(random_))
            if method == "POST"
            else client.patch(url, junk(random_))
        )
        assert answer.status < 500, (url, answer.data)
        assert "X-Request-Id" in answer.headers
        if answer.status >= 400:
            assert answer.json["error"]
    (await client.get("/health/ready")).ok()
