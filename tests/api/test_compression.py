"""Answers are compressed on request: for peers elsewhere, and never vectors."""

import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Callable

import orjson
import psutil
import pytest
import pytest_asyncio
from aiohttp.web import ContentCoding
from servers import Running, Serve
from wire import Answer, Client

from memoryd.api.compression import choose_coding

GZIP, DEFLATE = ContentCoding.gzip, ContentCoding.deflate


def outer_address() -> str | None:
    """Return an address of this machine that isn't loopback, if it has one."""
    addresses = [
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == socket.AF_INET
    ]
    return next((address for address in addresses if not address.startswith("127.")), None)


@pytest_asyncio.fixture
async def elsewhere(serve: Serve) -> AsyncIterator[Running]:
    """Give a server whose clients' addresses aren't loopback."""
    address = outer_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    async with serve(host=address, allow_no_key=True) as running:
        yield running


async def ask(url: str, path: str, accepted: str | None, method: str = "GET") -> Answer:
    headers = {} if accepted is None else {"Accept-Encoding": accepted}
    async with Client(
        url, auto_decompress=False, skip_auto_headers=["Accept-Encoding"], headers=headers
    ) as client:
        return await client.ask(method, path)


@pytest.mark.parametrize(
    ("accepted", "coding", "decompress"),
    [
        ("gzip", "gzip", gzip.decompress),
        ("gzip, deflate, br", "gzip", gzip.decompress),
        ("deflate", "deflate", zlib.decompress),
        ("br, GZIP;q=0.5", "gzip", gzip.decompress),
    ],
)
async def test_a_long_answer_is_compressed_as_asked(
    elsewhere: Running, accepted: str, coding: str, decompress: Callable[[bytes], bytes]
) -> None:
    answer = await ask(elsewhere.client.url, "/openapi.json", accepted)
    plain = await ask(elsewhere.client.url, "/openapi.json", None)
    assert answer.headers["Content-Encoding"] == coding
    assert "Accept-Encoding" in answer.headers.getall("Vary")
    assert decompress(answer.data) == plain.data
    assert len(answer.data) < len(plain.data) / 4


@pytest.mark.parametrize("accepted", [None, "", "br", "identity", "gzip;q=0", "gzip;q=0, *;q=0"])
async def test_who_does_not_ask_gets_it_plain(elsewhere: Running, accepted: str | None) -> None:
    answer = await ask(elsewhere.client.url, "/openapi.json", accepted)
    assert "Content-Encoding" not in answer.headers
    assert "Accept-Encoding" in answer.headers.getall("Vary")
    assert orjson.loads(answer.data)["openapi"]


async def test_a_short_answer_is_not_compressed(elsewhere: Running) -> None:
    answer = await ask(elsewhere.client.url, "/health", "gzip")
    assert "Content-Encoding" not in answer.headers
    assert "Accept-Encoding" not in answer.headers.getall("Vary", [])


async def test_a_search_is_compressed_and_vectors_are_not(elsewhere: Running) -> None:
    client = elsewhere.client
    await client.store(id="a", text="cat " * 2000)
    async with Client(
        client.url, auto_decompress=False, headers={"Accept-Encoding": "gzip"}
    ) as asking:
        found = await asking.post("/v1/collections/default/search", {"query": "cat"})
        assert found.headers["Content-Encoding"] == "gzip"
        texts = ["cat"] * 50
        bodies = {
            "/v1/embeddings": {"model": "toy", "input": texts},
            "/api/embed": {"model": "toy", "input": texts},
            "/embed": {"inputs": texts},
            "/embed_all": {"inputs": texts},
            "/embeddings": {"model": "toy", "input": texts},
            "/embedding": {"content": texts},
            "/v1/engines/toy/embeddings": {"input": texts},
            "/semantic_embed": {
                "model": "toy",
                "prompt": "cat " * 400,
                "representation": "symmetric",
            },
        }
        for path, body in bodies.items():
            answer = await asking.post(path, body)
            assert "Content-Encoding" not in answer.headers, path
            answer.ok()


async def test_a_peer_on_this_machine_gets_it_plain(shared_client: Client) -> None:
    answer = await ask(shared_client.url, "/openapi.json", "gzip")
    assert "Content-Encoding" not in answer.headers
    assert orjson.loads(answer.data)["openapi"]


async def test_head_is_answered_without_a_body(elsewhere: Running) -> None:
    answer = await ask(elsewhere.client.url, "/openapi.json", "gzip", method="HEAD")
    assert answer.status == 200
    assert answer.data == b""


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", None),
        ("gzip", GZIP),
        ("deflate", DEFLATE),
        ("deflate, gzip", GZIP),
        ("gzip;q=0.1, deflate;q=0.2", DEFLATE),
        ("gzip; q=0.5 , deflate;q=0.2", GZIP),
        ("*", GZIP),
        ("gzip;q=0, *", DEFLATE),
        ("*;q=0", None),
        ("gzip;q=0", None),
        ("identity", None),
        ("br, zstd", None),
        ("gzip;q=x", None),
        ("gzip;q=nan", None),
        (";;,,=,;q=", None),
    ],
)
def test_the_coding_is_that_which_the_client_likes_best(
    accepted: str, chosen: ContentCoding | None
) -> None:
    assert choose_coding(accepted) == chosen
