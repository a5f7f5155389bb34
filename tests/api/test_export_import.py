import base64
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest
from servers import Running
from toys import DIMENSIONS, toy_vector
from transfers import LONG, base64_of, export, fill, import_, lines, parsed, path, rows_of, send
from wire import Client

from memoryd.documents.records import Record
from memoryd.documents.types import Chunk, Draft


async def test_an_export_describes_itself_and_each_document(client: Client) -> None:
    await fill(client)
    header, *documents, end = parsed(await export(client))
    collection = (await client.get("/v1/collections/default")).ok()
    assert header == {
        "memoryd": "export",
        "format": 1,
        "collection": "default",
        "model": "toy",
        "dimensions": DIMENSIONS,
        "precision": "half",
        "chunking": collection["chunking"],
        "language": "english",
        "metadata": {},
    }
    assert end == {"end": True, "documents": 3}
    full, plain, own = documents
    shown = (await client.get(path("documents/full"))).ok()
    for name in ("title", "text", "mime_type", "language", "metadata", "tags", "created_at"):
        assert full[name] == shown[name], name
    assert full["expires_at"] == "2998-12-31T22:00:00Z"
    chunks = (await client.get(path("documents/full/chunks?limit=1000"))).ok()["chunks"]
    places = ("text", "start_char", "end_char", "token_count", "page", "headings")
    assert [[each[name] for name in places] for each in full["chunks"]] == [
        [each[name] for name in places] for each in chunks
    ]
    vector = np.frombuffer(base64.b64decode(plain["chunks"][0]["vector"]), "<f4")
    assert np.array_equal(vector, toy_vector("A red apple.").astype(np.float16))
    assert "text" not in own
    assert [each["text"] for each in own["chunks"]] == ["a cat", "a dog"]


async def test_an_export_without_vectors_has_none(client: Client) -> None:
    await fill(client)
    for query in ("export", "export?vectors=false"):
        answer = await client.get(path(query))
        [_, full, _, _, _] = parsed(answer.data)
        assert full["chunks"]
        assert not [each for each in full["chunks"] if "vector" in each]


async def test_an_empty_collection_is_exported_and_imported(client: Client) -> None:
    data = await export(client)
    assert len(parsed(data)) == 2
    assert (await send(client, data)).ok() == {
        "documents": 0,
        "counts": {},
        "failures": [],
        "job": None,
    }


@pytest.mark.parametrize("precision", ["half", "full"])
async def test_an_import_brings_all_back_to_the_last_bit(running: Running, precision: str) -> None:
    client = running.client
    for name in ("a", "b"):
        body = {
            "name": name,
            "precision": precision,
            "chunking": {"max_tokens": 40, "overlap_tokens": 5},
        }
        (await client.post("/v1/collections", body)).ok(201)
    await fill(client, "a")
    data = await export(client, "a")
    told = (await send(client, data, "b")).ok()
    assert told == {"documents": 3, "counts": {"stored": 3}, "failures": [], "job": None}
    before, after = await rows_of(running, 2), await rows_of(running, 3)
    assert len(before) > 5
    assert after == before
    assert parsed(await export(client, "b"))[1:] == parsed(data)[1:]
    assert await client.found("apple", "b", limit=1) == ["plain"]


async def test_what_was_imported_is_unchanged_when_it_comes_again(client: Client) -> None:
    await fill(client)
    (await client.post("/v1/collections", {"name": "b"})).ok(201)
    data = await export(client)
    assert (await send(client, data)).ok()["counts"] == {"unchanged": 3}
    assert (await send(client, data, "b")).ok()["counts"] == {"stored": 3}
    assert (await send(client, data, "b")).ok()["counts"] == {"unchanged": 3}
    again = await client.store("b", id="plain", text="A red apple.")
    assert again["status"] == "unchanged"
    own = {"chunks": [{"text": "a cat"}, {"text": "a dog"}]}
    own["chunks"][1]["vector"] = (np.arange(DIMENSIONS) / 7 + 0.1).tolist()  # type: ignore[assignment] # a list
    assert (await client.store("b", id="own", title="T", **own))["status"] == "unchanged"


async def test_a_file_that_was_exported_is_known_again(running: Running) -> None:
    client = running.client
    (await client.post("/v1/collections", {"name": "b"})).ok(201)

    async def upload(collection: str) -> str:
        form = aiohttp.FormData()
        page = f"<title>Page</title><h1>Cats</h1><p>{LONG}</p><h2>Dogs</h2><p>A dog.</p>"
        form.add_field("file", page.encode(), filename="page.html", content_type="text/html")
        answer = await client.ask("POST", path("documents?wait=true", collection), data=form)
        [outcome] = answer.ok()["documents"]
        return str(outcome["status"])

    assert await upload("default") == "stored"
    assert (await send(client, await export(client), "b")).ok()["counts"] == {"stored": 1}
    before, after = await rows_of(running, 1), await rows_of(running, 2)
    assert before[0]["sections"]
    assert after == before
    assert await upload("b") == "unchanged"


async def test_an_import_without_vectors_embeds_anew(running: Running) -> None:
    client = running.client
    (await client.post("/v1/collections", {"name": "b"})).ok(201)
    await fill(client)
    data = await export(client, vectors="false")
    told = await import_(client, data, "b")
    assert told["counts"] == {"queued": 3}
    assert told["job"]["type"] == "ingest"
    # Documents that wait have another order.
    before, after = [
        sorted(await rows_of(running, number), key=lambda row: str(row["has_own_chunks"]))
        for number in (1, 2)
    ]
    assert [row["external_id"] for row in before[-2:]] == ["own", "own"]
    assert after[:-2] == before[:-2]
    # The vector that its user brought is lost.
    assert after[-2]["embedding"] == before[-2]["embedding"]
    assert after[-1]["embedding"] != before[-1]["embedding"]
    assert (await send(client, data)).ok()["counts"] == {"unchanged": 3}


async def test_an_export_that_was_cut_off_is_noticed(client: Client) -> None:
    await client.store(id="a", text="A cat.")
    await client.store(id="b", text="A dog.")
    whole = (await export(client)).splitlines(keepends=True)
    for kept, words in ((3, "cut off"), (2, "cut off")):
        told = (await send(client, b"".join(whole[:kept]))).ok()
        [failure] = told["failures"]
        assert failure["line"] == kept
        assert words in failure["error"]["message"]
        assert told["counts"] == {"unchanged": kept - 1}
    told = (await send(client, whole[0] + whole[1] + whole[3])).ok()
    assert "2 documents, and 1 came" in told["failures"][0]["error"]["message"]
    two = (await send(client, b"".join(whole) * 2)).ok()
    assert (two["counts"], two["failures"]) == ({"unchanged": 4}, [])
    unfinished = (await send(client, whole[0] + b"".join(whole))).ok()
    assert len(unfinished["failures"]) == 1


async def test_an_export_of_another_format_is_refused(client: Client) -> None:
    header, *_ = parsed(await export(client))
    for change in ({"format": 2}, {"memoryd": "backup"}, {"model": 1}, {"dimensions": "x"}):
        (await send(client, lines({**header, **change}))).refused(400, "invalid_value")


@pytest.mark.parametrize("change", [{"model": "other"}, {"dimensions": DIMENSIONS + 1}])
async def test_vectors_of_another_model_are_not_taken(client: Client, change: Any) -> None:
    await fill(client)
    header, *rest = parsed(await export(client))
    (await client.post("/v1/collections", {"name": "b"})).ok(201)
    told = await import_(client, lines({**header, **change}, *rest), "b")
    assert told["counts"] == {"queued": 3}
    made = parsed(await export(client, "b"))[1:-1]
    vector = made[2]["chunks"][0]["vector"] if made[2]["id"] == "plain" else None
    assert {each["id"] for each in made} == {"full", "own", "plain"}
    assert vector == rest[1]["chunks"][0]["vector"]


async def test_an_edited_record_is_embedded_anew(running: Running) -> None:
    client = running.client
    await client.store(id="a", text="A cat.")
    header, record, end = parsed(await export(client))
    edited = {**record, "title": "Dog"}
    assert (await import_(client, lines(header, edited, end)))["counts"] == {"queued": 1}
    [row] = await rows_of(running, 1)
    assert row["title"] == "Dog"
    with_title = toy_vector("Dog A cat.").astype(np.float16).astype(float)
    assert np.allclose(orjson.loads(row["embedding"]), with_title, atol=1e-3)
    # Its attributes are not what the vectors are of.
    record = parsed(await export(client))[1]
    tagged = {**record, "tags": ["new"]}
    assert (await import_(client, lines(header, tagged, end)))["counts"] == {"updated": 1}


async def test_a_hash_that_lies_is_not_believed(client: Client) -> None:
    await client.store(id="a", text="A cat.")
    await client.store(id="b", text="A dog.")
    header, a, b, end = parsed(await export(client))
    forged = {**b, "content_hash": a["content_hash"], "id": "a"}
    assert (await import_(client, lines(header, forged, b, end)))["counts"] == {
        "queued": 1,
        "unchanged": 1,
    }
    assert (await client.get(path("documents/a"))).ok()["text"] == "A dog."


async def test_a_sealed_vector_without_direction_is_refused(client: Client) -> None:
    zero = np.full((1, DIMENSIONS), 1e-30, np.float32)
    chunk = Chunk(0, "x", b"\1" * 16, 0, 1)
    record = Record(Draft("x", id="a"), b"\2" * 16, (chunk,), zero)
    line = {
        "id": "a",
        "text": "x",
        "content_hash": record.content_hash.hex(),
        "seal": record.seal.hex(),
        "chunks": [
            {"start_char": 0, "end_char": 1, "hash": chunk.hash.hex(), "vector": base64_of(zero)}
        ],
    }
    told = (await send(client, lines(line))).ok()
    assert "half" in told["failures"][0]["error"]["message"]
