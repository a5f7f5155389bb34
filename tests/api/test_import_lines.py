from typing import Any

import asyncpg
import numpy as np
import orjson
import pytest
from servers import Running
from toys import DIMENSIONS
from transfers import base64_of, export, import_, lines, parsed, path, rows_of, send, unit
from wire import Client


async def test_a_text_with_its_vector_is_stored_as_one_chunk(running: Running) -> None:
    client = running.client
    document = {"id": "a", "text": "Some words.", "vector": [3.0 * each for each in unit(2)]}
    told = (await send(client, lines(document))).ok()
    assert told == {"documents": 1, "counts": {"stored": 1}, "failures": [], "job": None}
    [row] = await rows_of(running, 1)
    assert (row["start_char"], row["end_char"], row["chunk"]) == (0, 11, "Some words.")
    assert orjson.loads(row["embedding"]) == unit(2)
    assert (await send(client, lines(document))).ok()["counts"] == {"unchanged": 1}
    other = {**document, "vector": base64_of(unit(3))}
    assert (await send(client, lines(other))).ok()["counts"] == {"replaced": 1}
    [row] = await rows_of(running, 1)
    assert orjson.loads(row["embedding"]) == unit(3)
    assert (await client.store(id="a", text="Some words."))["status"] == "replaced"


async def test_what_is_imported_as_it_would_be_posted_is_the_same(client: Client) -> None:
    vector = (np.arange(DIMENSIONS) * 0.3 - 1).tolist()
    document = {"title": "T", "chunks": [{"text": "a b", "vector": vector}], "tags": ["t"]}
    stored = await client.store(**document)
    assert (await send(client, lines(document))).ok()["counts"] == {"unchanged": 1}
    named = {**document, "id": "a"}
    assert (await send(client, lines(named))).ok()["counts"] == {"stored": 1}
    assert (await client.store(**named))["status"] == "unchanged"
    rows = parsed(await export(client))[1:-1]
    assert [row["id"] for row in rows] == [stored["id"], "a"]
    for row in rows:
        del row["chunks"][0]["token_count"]  # which an import doesn't count
    assert rows[0]["chunks"] == rows[1]["chunks"]


EVERY_FIELD = {
    "id": "all",
    "title": "Title",
    "text": "One cat. Two dogs.",
    "mime_type": "text/x-special",
    "language": "german",
    "metadata": {"year": 2025},
    "tags": ["t"],
    "expires_at": "2999-01-01T00:00:00Z",
    "created_at": "2001-02-03T04:05:06Z",
    "sections": [{"start_char": 0, "end_char": 8, "headings": ["H", "I"], "page": 3}],
    "chunks": [
        {
            "text": "One cat.",
            "start_char": 0,
            "end_char": 8,
            "token_count": 7,
            "page": 3,
            "headings": ["H", "I"],
            "vector": base64_of(unit(4)),
        },
        {"start_char": 9, "end_char": 18, "vector": base64_of(unit(5))},
    ],
}


@pytest.mark.parametrize("vectors", [True, False])
async def test_no_field_of_a_line_is_lost(running: Running, vectors: bool) -> None:
    document = EVERY_FIELD if vectors else {k: v for k, v in EVERY_FIELD.items() if k != "chunks"}
    told = await import_(running.client, lines(document))
    assert told["counts"] == {"stored" if vectors else "queued": 1}
    _, stored, _ = parsed(await export(running.client))
    for name, value in document.items():
        if name != "chunks":
            assert stored[name] == value, name
    if not vectors:
        return
    first, second = stored["chunks"]
    given = EVERY_FIELD["chunks"][0]  # type: ignore[index] # a list
    assert {name: first[name] for name in given} == given
    assert (second["text"], second["vector"]) == ("Two dogs.", base64_of(unit(5)))
    [row, _] = await rows_of(running, 1)
    assert orjson.loads(row["sections"]) == EVERY_FIELD["sections"]


async def test_an_expired_document_goes_when_its_time_has_come(running: Running) -> None:
    line = {"id": "a", "text": "x", "vector": unit(1), "expires_at": "2030-01-01T00:00:00Z"}
    await import_(running.client, lines(line))
    connection = await asyncpg.connect(running.dsn)
    known = await connection.fetchval("SELECT next_expiry FROM memoryd.collections")
    await connection.close()
    assert known is not None
    assert known.year == 2030


@pytest.mark.parametrize(
    ("on_line", "in_query", "status", "text"),
    [
        (None, "", "replaced", "new"),
        ("skip", "", "skipped", "old"),
        ("error", "", "failed", "old"),
        (None, "?on_conflict=skip", "skipped", "old"),
        (None, "?on_conflict=error", "failed", "old"),
        ("replace", "?on_conflict=skip", "replaced", "new"),
    ],
)
@pytest.mark.parametrize("vector", [unit(1), None])
async def test_a_conflict_is_settled_as_the_line_or_the_query_says(
    client: Client, on_line: str | None, in_query: str, status: str, text: str, vector: Any
) -> None:
    await client.store(id="a", text="old")
    line: dict[str, Any] = {"id": "a", "text": "new"}
    if vector:
        line["vector"] = vector
    if on_line:
        line["on_conflict"] = on_line
    told = await import_(client, lines(line), query=in_query)
    if status == "replaced" and not vector:
        status = "queued"
    assert told["counts"] == {status: 1}
    assert (await client.get(path("documents/a"))).ok()["text"] == text
    if status == "failed":
        [failure] = told["failures"]
        assert (failure["line"], failure["id"], failure["error"]["code"]) == (1, "a", "conflict")


async def test_other_attributes_of_the_same_content_are_updated(running: Running) -> None:
    client, line = running.client, {"id": "a", "text": "x", "vector": unit(1)}
    await import_(client, lines(line))
    before = await rows_of(running, 1)
    told = await import_(client, lines({**line, "tags": ["t"], "metadata": {"a": 1}}))
    assert told["counts"] == {"updated": 1}
    shown = (await client.get(path("documents/a"))).ok()
    assert (shown["tags"], shown["metadata"], shown["version"]) == (["t"], {"a": 1}, 2)
    after = await rows_of(running, 1)
    assert [row["hash"] for row in after] == [row["hash"] for row in before]


async def test_unchanged_chunks_of_a_replaced_document_keep_their_ids(client: Client) -> None:
    def document(second: str) -> dict[str, Any]:
        chunks = [{"text": "first", "vector": unit(1)}, {"text": second, "vector": unit(2)}]
        return {"id": "a", "chunks": chunks}

    await import_(client, lines(document("second")))
    before = (await client.get(path("documents/a/chunks"))).ok()["chunks"]
    assert (await import_(client, lines(document("other"))))["counts"] == {"replaced": 1}
    after = (await client.get(path("documents/a/chunks"))).ok()["chunks"]
    assert [each["text"] for each in after] == ["first", "other"]
    assert after[0]["id"] == before[0]["id"]
    assert after[1]["id"] != before[1]["id"]


async def test_of_lines_with_one_id_the_last_counts(client: Client) -> None:
    texts = ["one", "two", "three"]
    documents = [{"id": "a", "text": text, "vector": unit(1)} for text in texts]
    assert (await import_(client, lines(*documents)))["counts"] == {"stored": 1, "replaced": 2}
    assert (await client.get(path("documents/a"))).ok()["text"] == "three"


async def test_lines_with_and_without_vectors_go_together(client: Client) -> None:
    told = await import_(
        client, lines({"id": "a", "text": "A cat.", "vector": unit(1)}, {"text": "A dog."})
    )
    assert told["documents"] == 2
    assert told["counts"] == {"stored": 1, "queued": 1}
    assert told["job"]["progress"]["total"] == 1
    listed = (await client.get(path("documents"))).ok()["documents"]
    assert [each["status"] for each in listed] == ["stored", "stored"]


WRONG = [
    (b"{", "invalid_value", None, "JSON"),
    (b"[1]", "invalid_value", None, ""),
    (b'{"id": "a"}', "missing_field", "text", "chunks"),
    (b'{"id": "a", "text": "x", "texts": 1}', "unknown_field", "texts", ""),
    (b'{"id": "a", "text": " "}', "invalid_value", "text", "empty"),
    (b'{"id": "a", "text": "x\\u0000"}', "invalid_value", "text", "NUL"),
    (b'{"id": "a", "text": "x", "tags": [1]}', "invalid_value", "tags[0]", ""),
    (b'{"id": "a", "text": "x", "chunks": []}', "invalid_value", "chunks", ""),
    (b'{"id": "a", "text": "x", "created_at": "now"}', "invalid_value", "created_at", ""),
    (b'{"id": "a", "text": "x", "sections": [{}]}', "missing_field", "sections[0].start_char", ""),
    (b'{"id": "a", "text": "x", "content_hash": "xy"}', "invalid_value", "content_hash", ""),
    (b'{"id": "a", "text": "x", "seal": "xy"}', "invalid_value", "seal", ""),
    (b'{"id": "a", "text": "x", "vector": [1]}', "invalid_value", "vector", "1 numbers"),
    (b'{"id": "a", "text": "x", "vector": "?"}', "invalid_value", "vector", "base64"),
    (b'{"id": "a", "text": "x", "vector": {}}', "invalid_value", "vector", "numbers"),
    (b'{"id": "a", "vector": [1]}', "missing_field", "text", ""),
]
WRONG_CHUNKS: list[tuple[Any, str, str, str]] = [
    ({"text": "One"}, "missing_field", "chunks[0].start_char", "beside a text"),
    ({"start_char": 0}, "missing_field", "chunks[0].end_char", ""),
    ({"start_char": 0, "end_char": 99}, "invalid_value", "chunks[0]", "text[0:99]"),
    ({"start_char": 3, "end_char": 4}, "invalid_value", "chunks[0]", "blank"),
    ({"start_char": 0, "end_char": 3, "text": "on"}, "invalid_value", "chunks[0]", ""),
    ({"start_char": 0, "end_char": 3}, "missing_field", "chunks[0].vector", "cuts"),
    ({"start_char": -1, "end_char": 3}, "invalid_value", "chunks[0].start_char", ""),
    ({"start_char": 0, "end_char": 3, "page": 0}, "invalid_value", "chunks[0].page", ""),
    ({"start_char": 0, "end_char": 3, "x": 0}, "unknown_field", "chunks[0].x", ""),
    ({"start_char": 0, "end_char": 3, "hash": "x"}, "invalid_value", "chunks[0].hash", ""),
    (
        {"start_char": 0, "end_char": 3, "vector": base64_of([np.nan] * DIMENSIONS)},
        *("invalid_value", "chunks[0].vector", "NaN"),
    ),
    (
        {"start_char": 0, "end_char": 3, "vector": base64_of([np.inf] * DIMENSIONS)},
        *("invalid_value", "chunks[0].vector", "infinity"),
    ),
    (
        {"start_char": 0, "end_char": 3, "vector": [0] * DIMENSIONS},
        *("invalid_value", "chunks[0].vector", "zero"),
    ),
]
WRONG += [
    (orjson.dumps({"id": "a", "text": "One dog", "chunks": [chunk]}), code, param, words)
    for chunk, code, param, words in WRONG_CHUNKS
]
WRONG += [
    (orjson.dumps({"id": "a", "chunks": [chunk]}), code, param, words)
    for chunk, code, param, words in (
        ({"vector": unit(1)}, "missing_field", "chunks[0].text", ""),
        ({"text": " "}, "missing_field", "chunks[0].text", "blank"),
        ({"text": "a", "start_char": 0}, "invalid_value", "chunks[0]", "place"),
    )
]


@pytest.mark.parametrize(("line", "code", "param", "words"), WRONG)
async def test_a_wrong_line_fails_alone_and_says_why(
    shared_client: Client, line: bytes, code: str, param: str | None, words: str
) -> None:
    (await shared_client.post("/v1/collections", {"name": "wrong"})).ok(201)
    good = lines({"id": "good", "text": "x", "vector": unit(1)})
    answer = await send(shared_client, good + b"\n" + line + b"\n" + good, "wrong")
    (await shared_client.delete("/v1/collections/wrong")).ok()
    told = answer.ok()
    assert told["documents"] == 3
    assert told["counts"] == {"stored": 1, "failed": 1, "unchanged": 1}
    [failure] = told["failures"]
    assert failure["line"] == 3
    assert (failure["error"]["code"], failure["error"]["param"]) == (code, param)
    assert words in failure["error"]["message"]
    if b'"id"' in line and b"\\u0000" not in line:
        assert failure["id"] == "a"


async def test_a_line_over_a_limit_fails_alone(shared_client: Client) -> None:
    (await shared_client.post("/v1/collections", {"name": "wrong"})).ok(201)
    long = [{"id": "a", "text": "x" * 10_001}, {"id": "b", "text": "x" * (1 << 20)}]
    chunked = {"id": "c", "chunks": [{"text": "x" * 6_000}] * 2}
    good = {"id": "good", "text": "x", "vector": unit(1)}
    answer = await send(shared_client, lines(*long, chunked, good), "wrong")
    (await shared_client.delete("/v1/collections/wrong")).ok()
    told = answer.ok()
    assert told["counts"] == {"stored": 1, "failed": 3}
    codes = [failure["error"]["code"] for failure in told["failures"]]
    assert codes == ["too_large"] * 3
    words = ("max_text_chars", "max_body_bytes", "max_text_chars")
    for failure, word in zip(told["failures"], words, strict=True):
        assert word in failure["error"]["message"]


async def test_an_empty_body_is_refused(shared_client: Client) -> None:
    for body in (b"", b"\n \n"):
        (await send(shared_client, body)).refused(400, "invalid_value")
    answer = await send(shared_client, b"{}", query="?on_conflict=never")
    assert answer.refused(400)["param"] == "on_conflict"
    assert (await send(shared_client, b"{}", "nowhere")).refused(404)
    assert (await shared_client.get(path("export?vectors=1"))).refused(400)
