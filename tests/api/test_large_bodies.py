"""Bodies as large as they may be: they are read, or refused, while others are served."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import orjson
import pytest
from servers import Running, Serve
from toys import CAT_ID
from wire import Answer, Client

from memoryd.api import limits

LARGEST_BYTES = 64 << 20
LONGEST_STALL_S = 1.0
_PIECE_BYTES = 1 << 18
IDS = [
    ("/v1/embeddings", b'{"model": "toy", "input": [%s]}'),
    ("/embedding", b'{"content": [%s]}'),
    ("/embedding", b'{"input": [[%s]]}'),
    ("/embed", b'{"inputs": [%s]}'),
    ("/embed_all", b'{"inputs": [[%s]]}'),
    ("/api/embed", b'{"model": "toy", "input": [%s]}'),
    ("/tokenize", b'{"content": [%s]}'),
    ("/tokenize", b'{"inputs": [%s]}'),
    ("/detokenize", b'{"tokens": [%s]}'),
    ("/detokenize", b'{"token_ids": [%s]}'),
    ("/decode", b'{"ids": [%s]}'),
    ("/rerank", b'{"query": "cat", "documents": [%s]}'),
    ("/rerank", b'{"query": "cat", "texts": [%s]}'),
    ("/similarity", b'{"inputs": {"source_sentence": "cat", "sentences": [%s]}}'),
    (
        "/semantic_embed",
        b'{"representation": "query", "prompt": [{"type": "token_ids", "data": [%s]}]}',
    ),
    ("/batch_semantic_embed", b'{"representation": "query", "prompts": [%s]}'),
    ("/v1/collections/default/search", b'{"query": [%s]}'),
    ("/v1/keys", b'{"name": "x", "scopes": [%s]}'),
]
T = TypeVar("T")


async def longest_stall(work: Awaitable[T]) -> tuple[float, T]:
    """Return for how many seconds the loop stood still while `work` was done, and its result."""
    stalls = [0.0]

    async def tick() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            stalls.append(time.perf_counter() - started)

    ticking = asyncio.create_task(tick())
    try:
        result = await work
        await asyncio.sleep(0.01)
        return max(stalls), result
    finally:
        ticking.cancel()


async def send(client: Client, path: str, body: bytes) -> Answer:
    """Post a body piece by piece, so that sending doesn't hold the loop either."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), _PIECE_BYTES):
            yield body[start : start + _PIECE_BYTES]

    return await client.ask("POST", path, data=pieces())


def numbers(count: int) -> bytes:
    return b"%d," % CAT_ID * (count - 1) + b"%d" % CAT_ID


@pytest.mark.parametrize(("path", "body"), IDS)
async def test_more_values_than_are_read_are_refused_while_others_are_served(
    kinds: Running, path: str, body: bytes
) -> None:
    whole = body % numbers((LARGEST_BYTES - len(body)) // 3)
    stall_s, answer = await longest_stall(send(kinds.client, path, whole))
    assert answer.status == 413
    assert f"more than {limits.JSON_VALUES} values" in answer.data.decode()
    assert stall_s < LONGEST_STALL_S


@pytest.mark.parametrize(("path", "body"), IDS)
async def test_as_many_values_as_are_read_keep_no_one_waiting(
    kinds: Running, path: str, body: bytes
) -> None:
    most = body % numbers(limits.JSON_VALUES - 10)
    stall_s, answer = await longest_stall(send(kinds.client, path, most))
    assert "more than 1048576 values" not in answer.data.decode()
    assert answer.status in (200, 400, 413, 422), answer.data[:200]  # some take no numbers
    assert stall_s < LONGEST_STALL_S


@pytest.mark.parametrize("text", [",[{", '\\"[,', "\\\\", '\\\\\\",', "\u00e9,["])
async def test_what_stands_in_a_text_is_no_value(kinds: Running, text: str) -> None:
    texts = [text * (limits.JSON_VALUES // 2), '"', "cat"]
    answer = await send(kinds.client, "/embed", orjson.dumps({"inputs": texts}))
    assert len(answer.ok()) == 3
    assert answer.headers["X-Truncated-Inputs"] == "1"


@pytest.mark.parametrize("part", [b"5,", b"[],", b"{},", b'"",', b"[5],", b'{"a":5},'])
async def test_values_of_each_kind_count(kinds: Running, part: bytes) -> None:
    body = b'{"model": "toy", "input": [' + part * limits.JSON_VALUES + b"5]}"
    for path in ("/api/embed", "/v1/collections/default/search"):
        answer = await send(kinds.client, path, body)
        assert answer.status == 413, answer.data[:200]


async def test_a_nul_far_down_in_a_wide_list_is_found_soon(kinds: Running) -> None:
    wide = b"[]," * 300_000 + rb'"\u0000"'
    body = b'{"text": "cat", "metadata": ' + b'{"k":' * 900 + b"[" + wide + b"]" + b"}" * 901
    path = "/v1/collections/default/documents"
    stall_s, answer = await longest_stall(send(kinds.client, path, body))
    param = answer.refused(400, "invalid_value")["param"]
    assert param == "metadata" + ".k" * 900 + "[300000]"
    assert stall_s < LONGEST_STALL_S


@pytest.mark.parametrize(
    "path", ["/v1/collections/default/search", "/v1/collections/default/documents"]
)
async def test_of_many_unknown_fields_the_first_is_told_soon(kinds: Running, path: str) -> None:
    fields = {"query": "cat", "text": "cat"} | {f"f{number}": 1 for number in range(400_000)}
    stall_s, answer = await longest_stall(send(kinds.client, path, orjson.dumps(fields)))
    assert answer.refused(400, "unknown_field")["param"] in ("text", "query")
    assert stall_s < LONGEST_STALL_S


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/detokenize", {"tokens": [CAT_ID] * (1 << 18 | 1)}, "tokens"),
        ("/detokenize", {"token_ids": [CAT_ID] * (1 << 18 | 1)}, "token_ids"),
        ("/decode", {"ids": [[CAT_ID] * (1 << 17), [CAT_ID] * (1 << 17 | 1)]}, "ids"),
    ],
)
async def test_more_tokens_than_are_spelled_are_refused(
    kinds: Running, path: str, body: dict[str, object], param: str
) -> None:
    answer = await send(kinds.client, path, orjson.dumps(body))
    assert answer.status == 413, answer.data[:200]
    assert f"{param} has more than 262144 tokens" in answer.data.decode()


async def test_others_are_served_while_the_document_of_the_routes_is_made(serve: Serve) -> None:
    async with serve() as running:
        started = time.perf_counter()
        stall_s, answer = await longest_stall(running.client.get("/openapi.json"))
        taken_s = time.perf_counter() - started
        assert answer.ok()["openapi"] == "3.1.1"
        assert stall_s < 0.7 * taken_s
