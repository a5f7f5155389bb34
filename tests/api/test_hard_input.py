"""What is within JSON and HTTP, and still hard to take: deep, huge, junk in disguise."""

import base64
import gzip
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_asyncio
from wire import Client

COLLECTION = "/v1/collections/default"
DOCUMENTS = f"{COLLECTION}/documents"


@pytest_asyncio.fixture(autouse=True)
async def server_goes_on(shared_client: Client) -> AsyncIterator[None]:
    """Check after each test that the server answers."""
    yield
    (await shared_client.get("/health/ready")).ok()


def deep(depth: int, end: bytes = b"1", kind: str = "object") -> bytes:
    """Return a JSON object, `depth` deep; orjson itself writes none so deep."""
    if kind == "object":
        return b'{"k":' * depth + end + b"}" * depth
    return b'{"k":' + b"[" * (depth - 1) + end + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize("kind", ["object", "list"])
@pytest.mark.parametrize("depth", [17, 250, 300, 1_000])
async def test_deep_metadata_is_too_large_and_named(
    shared_client: Client, depth: int, kind: str
) -> None:
    metadata = deep(depth, kind=kind)
    body = b'{"id": "deep", "text": "cat", "metadata": ' + metadata + b"}"
    error = (await shared_client.ask("POST", DOCUMENTS, data=body)).refused(413, "too_large")
    assert error["param"] == "metadata"
    assert "16" in error["message"]
    assert (await shared_client.get(f"{DOCUMENTS}/deep")).status == 404


@pytest.mark.parametrize("depth", [300, 1_000])
async def test_deep_metadata_in_a_batch_fails_alone(client: Client, depth: int) -> None:
    body = (
        b'{"documents": [{"id": "a", "text": "cat"},'
        b'{"id": "deep", "text": "cat", "metadata": ' + deep(depth) + b"},"
        b'{"id": "b", "text": "dog"}]}'
    )
    outcomes = (await client.ask("POST", DOCUMENTS, data=body)).ok()["documents"]
    assert [outcome["status"] for outcome in outcomes] == ["stored", "failed", "stored"]
    assert [outcome["id"] for outcome in outcomes] == ["a", "deep", "b"]
    error = outcomes[1]["error"]
    assert (error["code"], error["param"]) == ("too_large", "documents[1].metadata")
    assert (await client.get(COLLECTION)).ok()["documents"] == 2


@pytest.mark.parametrize("depth", [300, 1_000])
@pytest.mark.parametrize(
    ("method", "path", "start"),
    [("POST", "/v1/collections", b'{"name": "deep", '), ("PATCH", COLLECTION, b"{")],
)
async def test_deep_metadata_of_a_collection_is_too_large(
    shared_client: Client, method: str, path: str, start: bytes, depth: int
) -> None:
    body = start + b'"metadata": ' + deep(depth) + b"}"
    error = (await shared_client.ask(method, path, data=body)).refused(413, "too_large")
    assert error["param"] == "metadata"


@pytest.mark.parametrize("kind", ["object", "list"])
@pytest.mark.parametrize("depth", [200, 900, 1_010])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", DOCUMENTS),
        ("POST", f"{COLLECTION}/search"),
        ("POST", "/v1/collections"),
        ("PATCH", COLLECTION),
    ],
)
async def test_a_nul_is_found_however_deep_it_lies(
    shared_client: Client, method: str, path: str, depth: int, kind: str
) -> None:
    body = b'{"text": "cat", "metadata": ' + deep(depth, rb'"\u0000"', kind) + b"}"
    error = (await shared_client.ask(method, path, data=body)).refused(400, "invalid_value")
    assert "NUL" in error["message"]
    assert len(error["message"]) < 10_000


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed"])
@pytest.mark.parametrize("rest", [b"", b" junk"])
@pytest.mark.parametrize("depth", [300, 900, 1_010])
async def test_a_deep_input_is_refused_by_peers_routes(
    shared_client: Client, path: str, depth: int, rest: bytes
) -> None:
    body = b'{"model": "toy", "input": ' + b"[" * depth + b"]" * depth + b"}" + rest
    assert (await shared_client.ask("POST", path, data=body)).status == 400


def cursor(text: str) -> str:
    return quote(base64.urlsafe_b64encode(text.encode()).decode())


async def test_a_cursor_of_a_huge_number_is_empty_or_refused(client: Client) -> None:
    await client.store(id="a", text="cat")
    numbers = ["2147483647", "2147483648", "99999999999", "9" * 17, "9223372036854775807", "9" * 40]
    for number in (*numbers, "-2147483649", "-99999999999", "-" + "9" * 17):
        for path, name in ((f"{DOCUMENTS}/a/chunks", "chunks"), (DOCUMENTS, "documents")):
            answer = await client.get(f"{path}?cursor={cursor(number)}")
            if answer.status == 200:
                assert len(answer.json[name]) == (1 if number.startswith("-") else 0)
                assert answer.json["next_cursor"] is None
            else:
                assert answer.refused(400, "invalid_value")["param"] == "cursor"


JUNK = [b"junk that is no gzip", b"\x1f\x8b\x08\x00junk"]
GZIPPED = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("junk", JUNK, ids=["text", "header"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", DOCUMENTS),
        ("POST", f"{COLLECTION}/search"),
        ("POST", "/v1/collections"),
        ("PATCH", COLLECTION),
        ("POST", "/v1/embeddings"),
        ("POST", "/api/embed"),
    ],
)
async def test_junk_that_claims_to_be_compressed_is_400_in_the_dialects_shape(
    shared_client: Client, method: str, path: str, junk: bytes, encoding: str
) -> None:
    headers = {"Content-Encoding": encoding}
    answer = await shared_client.ask(method, path, data=junk, headers=headers)
    if path == "/api/embed":
        assert answer.status == 400
        assert isinstance(answer.json["error"], str)
    else:
        answer.refused(400)


async def test_what_is_truly_compressed_is_read(client: Client) -> None:
    body = gzip.compress(orjson.dumps({"id": "a", "text": "cat"}))
    answer = await client.ask("POST", DOCUMENTS, data=body, headers=GZIPPED)
    assert answer.ok()["documents"][0]["status"] == "stored"


async def test_the_limit_of_a_body_counts_what_was_unpacked(shared_client: Client) -> None:
    body = gzip.compress(b'{"text": "' + b"cat " * 4_000_000 + b'"}')
    assert len(body) < 100_000
    answer = await shared_client.ask("POST", DOCUMENTS, data=body, headers=GZIPPED)
    answer.refused(413, "too_large")


IDS = [
    *("a{b}", "{}", "{id}", "{", "}", "}{", "{a:b}", "{{}}"),
    *("%", "100%", "%41", "%2F", "%7B", "%%", "a%zz", "%00"),
    *("a b", " a", "a ", " ", "a+b"),
    *("a/b", "/", "//", "/a", "a/", "a/../b", "../a", "./a", "a/chunks", "a/."),
    *("?", "a?b=c", "#", "a#b", "a&b", "a;b", "a:b", "a@b", "a,b", "a=b", "a\\b", "[a]", '"', "'"),
    *(
        "Grüße",
        "日本語",
        "🐈",
        "e\u0301",
        "\u202e",
        "\u00a0",
        "~",
        "...",
        "*",
        "|",
        "<a>",
        "^",
        "`",
    ),
]


@pytest.fixture
def ids() -> list[str]:
    return IDS


@pytest.mark.parametrize("safe", ["", "{}-._~!$&'()*+,;=:@"], ids=["all", "least"])
async def test_every_character_of_an_id_works_in_a_path(
    client: Client, ids: list[str], safe: str
) -> None:
    documents = [{"id": id_, "text": f"cat {number}"} for number, id_ in enumerate(ids)]
    outcomes = (await client.post(DOCUMENTS, {"documents": documents})).ok()["documents"]
    assert {outcome["status"] for outcome in outcomes} == {"stored"}
    wrong: dict[str, Any] = {}
    for number, id_ in enumerate(ids):
        path = f"{DOCUMENTS}/{quote(id_, safe=safe)}"
        shown, chunks = await client.get(path), await client.get(f"{path}/chunks")
        deleted, after = await client.delete(path), await client.get(path)
        statuses = (shown.status, chunks.status, deleted.status, after.status)
        if statuses != (200, 200, 200, 404) or shown.json["text"] != f"cat {number}":
            wrong[id_] = statuses
    assert wrong == {}
    assert (await client.get(COLLECTION)).ok()["documents"] == 0
