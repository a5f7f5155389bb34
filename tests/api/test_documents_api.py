# ruff: noqa: RUF001 # the letters of other scripts are meant
import asyncio
import random
from datetime import datetime
from typing import Any
from urllib.parse import quote

import asyncpg
import orjson
import pytest
from servers import Running
from wire import Client

DOCUMENTS = "/v1/collections/default/documents"
OUTCOME = {"id", "status", "version", "chunks", "embedded", "error"}
DOCUMENT = {
    *("id", "status", "version", "title", "mime_type", "language", "metadata", "tags", "chunks"),
    *("created_at", "updated_at", "expires_at", "error", "text"),
}
CHUNK = {"id", "index", "start_char", "end_char", "token_count", "page", "headings", "text"}
LONG = ". ".join(f"Cat number {number} met the dog" for number in range(60))


async def chunks_of(client: Client, id_: str, collection: str = "default") -> list[dict[str, Any]]:
    path = f"/v1/collections/{collection}/documents/{id_}/chunks?limit=1000"
    page = (await client.get(path)).ok()
    assert page["next_cursor"] is None
    chunks: list[dict[str, Any]] = page["chunks"]
    return chunks


async def test_a_document_is_stored_and_shown_whole(client: Client) -> None:
    document = {
        "id": "handbook/auth.md",
        "title": "Auth",
        "text": "The cat rotates keys.",
        "mime_type": "text/markdown",
        "language": "english",
        "metadata": {"team": "sec", "year": 2025, "nested": {"list": [1, 2.5, None, True]}},
        "tags": ["auth", "keys"],
    }
    answer = (await client.post(DOCUMENTS, document)).ok()
    assert answer["job"] is None
    [outcome] = answer["documents"]
    assert outcome == {
        "id": "handbook/auth.md",
        "status": "stored",
        "version": 1,
        "chunks": 1,
        "embedded": 1,
        "error": None,
    }
    shown = (await client.get(f"{DOCUMENTS}/handbook%2Fauth.md")).ok()
    assert set(shown) == DOCUMENT
    assert {key: shown[key] for key in document} == document
    assert (shown["version"], shown["chunks"]) == (1, 1)
    assert shown["created_at"] == shown["updated_at"]
    assert datetime.fromisoformat(shown["created_at"]).tzinfo


async def test_the_same_again_is_unchanged_and_embeds_nothing(running: Running) -> None:
    client, document = running.client, {"id": "a", "title": "T", "text": LONG, "tags": ["x"]}
    stored = await client.store(**document)
    model = await running.memory.engine.model("toy")
    seen = model._backend.encoded  # type: ignore[attr-defined] # the toy's
    again = await client.store(**document)
    assert again == {**stored, "status": "unchanged", "embedded": 0}
    assert model._backend.encoded == seen  # type: ignore[attr-defined] # the toy's


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"a": 2}},
        {"tags": ["y"]},
        {"mime_type": "text/plain"},
        {"language": "german"},
    ],
)
async def test_other_attributes_alone_are_updated_and_embed_nothing(
    client: Client, change: dict[str, Any]
) -> None:
    document = {"id": "a", "text": "cat", "metadata": {"a": 1}, "tags": ["x"]}
    await client.store(**document)
    ids = [chunk["id"] for chunk in await chunks_of(client, "a")]
    outcome = await client.store(**{**document, **change})
    assert (outcome["status"], outcome["version"], outcome["embedded"]) == ("updated", 2, 0)
    shown = (await client.get(f"{DOCUMENTS}/a")).ok()
    assert {key: shown[key] for key in change} == change
    assert [chunk["id"] for chunk in await chunks_of(client, "a")] == ids


async def test_an_absent_field_returns_to_its_default(client: Client) -> None:
    await client.store(id="a", text="cat", title="T", metadata={"a": 1}, tags=["x"])
    assert (await client.store(id="a", text="cat", title="T"))["status"] == "updated"
    shown = (await client.get(f"{DOCUMENTS}/a")).ok()
    assert (shown["metadata"], shown["tags"]) == ({}, [])
    assert (await client.store(id="a", text="cat"))["status"] == "replaced"


async def test_a_changed_end_embeds_the_last_chunks_and_keeps_the_others_ids(
    client: Client,
) -> None:
    stored = await client.store(id="a", text=LONG)
    before = await chunks_of(client, "a")
    replaced = await client.store(id="a", text=LONG + ". And a fish.")
    assert (replaced["status"], replaced["version"]) == ("replaced", 2)
    assert 0 < replaced["embedded"] <= 2 < stored["chunks"]
    after = await chunks_of(client, "a")
    kept = [chunk["id"] for chunk in after][: len(after) - replaced["embedded"]]
    assert kept == [chunk["id"] for chunk in before][: len(kept)]
    assert [chunk["index"] for chunk in after] == list(range(len(after)))
    assert "fish" in after[-1]["text"]


async def test_paragraphs_in_another_order_embed_nothing_and_move_their_spans(
    client: Client,
) -> None:
    limits = {"max_tokens": 64, "overlap_tokens": 0}
    (await client.post("/v1/collections", {"name": "apart", "chunking": limits})).ok(201)
    paragraphs = [f"{word} " * 50 for word in ("cat", "dog", "fish")]
    stored = await client.store("apart", id="a", text="\n\n".join(paragraphs))
    before = await chunks_of(client, "a", "apart")
    text = "\n\n".join(reversed(paragraphs))
    replaced = await client.store("apart", id="a", text=text)
    assert (stored["embedded"], replaced["status"], replaced["embedded"]) == (3, "replaced", 0)
    after = await chunks_of(client, "a", "apart")
    assert [chunk["id"] for chunk in after] == [chunk["id"] for chunk in reversed(before)]
    for chunk in after:
        assert text[chunk["start_char"] : chunk["end_char"]] == chunk["text"]
    found = await client.search("fish", "apart", mode="dense", group_by=None)
    results = found["results"]
    assert results[0]["chunks"][0]["index"] == 0
    assert results[0]["score"] > 0.99


async def test_equal_chunks_of_one_document_are_each_kept_once(client: Client) -> None:
    text = "\n\n".join(["cat dog fish bird horse apple pear plum cherry lemon " * 5] * 4)
    stored = await client.store(id="a", text=text)
    replaced = await client.store(id="a", text=text + "\n\nred")
    chunks = await chunks_of(client, "a")
    assert len({chunk["id"] for chunk in chunks}) == len(chunks) == replaced["chunks"]
    assert replaced["embedded"] < stored["chunks"]


async def test_a_new_title_is_new_content_and_is_found(client: Client) -> None:
    await client.store(id="a", title="cat", text="horse")
    outcome = await client.store(id="a", title="dog", text="horse")
    assert (outcome["status"], outcome["embedded"]) == ("replaced", 1)
    [result] = (await client.search("dog horse", mode="dense"))["results"]
    assert result["score"] > 0.999


async def test_skip_and_error_leave_what_is_there(client: Client) -> None:
    await client.store(id="a", text="cat")
    skipped = await client.store(id="a", text="dog", on_conflict="skip")
    assert (skipped["status"], skipped["version"], skipped["chunks"]) == ("skipped", 1, 1)
    answer = await client.post(DOCUMENTS, {"id": "a", "text": "dog", "on_conflict": "error"})
    assert answer.refused(409, "conflict")["param"] == "id"
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["text"] == "cat"
    assert (await client.store(id="b", text="x", on_conflict="error"))["status"] == "stored"


async def test_an_absent_id_is_made_of_the_content(client: Client) -> None:
    first = await client.store(text="cat", metadata={"a": 1, "b": 2})
    again = await client.store(text="cat", metadata={"b": 2, "a": 1})
    assert (again["id"], again["status"]) == (first["id"], "unchanged")
    others = [
        await client.store(text="cat"),
        await client.store(text="cat", title="T", metadata={"a": 1, "b": 2}),
        await client.store(text="Tcat", metadata={"a": 1, "b": 2}),
    ]
    assert len({first["id"], *(other["id"] for other in others)}) == 4
    assert (await client.get(f"{DOCUMENTS}/{first['id']}")).ok()["text"] == "cat"


async def test_a_batch_answers_in_order_and_one_bad_document_fails_alone(client: Client) -> None:
    batch = [
        {"id": "a", "text": "cat"},
        {"id": "b", "text": "  "},
        {"id": "c", "text": "dog", "titel": "x"},
        {"id": "d", "text": "nan"},
        5,
        {"id": "e", "text": "x" * 5_000_001},
        {"id": "f", "text": "fish"},
    ]
    outcomes = (await client.post(DOCUMENTS, {"documents": batch})).ok()["documents"]
    assert [outcome["id"] for outcome in outcomes] == ["a", "b", "c", "d", None, "e", "f"]
    expected = ["stored", *["failed"] * 5, "stored"]
    assert [outcome["status"] for outcome in outcomes] == expected
    assert all(set(outcome) == OUTCOME for outcome in outcomes)
    errors = [outcome["error"] for outcome in outcomes[1:6]]
    assert [error["param"] for error in errors] == [
        *("documents[1].text", "documents[2].titel", None, "documents[4]", "documents[5].text")
    ]
    assert [error["code"] for error in errors] == [
        *("invalid_value", "unknown_field", "invalid_value", "invalid_value", "too_large")
    ]
    assert sorted(await client.found("cat")) == ["a", "f"]


async def test_one_document_that_the_model_fails_on_is_the_clients_error(client: Client) -> None:
    (await client.post(DOCUMENTS, {"id": "a", "text": "nan"})).refused(400)
    (await client.get(f"{DOCUMENTS}/a")).refused(404, "not_found")


async def test_one_id_twice_in_a_batch_ends_as_the_last(client: Client) -> None:
    batch = [{"id": "a", "text": word} for word in ("cat", "dog", "fish")]
    outcomes = (await client.post(DOCUMENTS, {"documents": batch})).ok()["documents"]
    assert [outcome["status"] for outcome in outcomes] == ["stored", "replaced", "replaced"]
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["text"] == "fish"


async def test_the_order_of_acceptance_decides(client: Client) -> None:
    slow = asyncio.create_task(client.store(id="a", text="dog " * 20_000))
    while not slow.done():
        await asyncio.sleep(0.02)
        await client.store(id="a", text="cat")
    await client.store(id="a", text="cat")
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["text"] == "cat"
    assert len(await chunks_of(client, "a")) == 1


async def test_many_writers_of_one_document_leave_one_whole_version(running: Running) -> None:
    client = running.client
    texts = [f"{word} " * 100 for word in ("cat", "dog", "fish", "bird")] * 5
    await asyncio.gather(*(client.store(id="a", text=text) for text in texts))
    shown = (await client.get(f"{DOCUMENTS}/a")).ok()
    chunks = await chunks_of(client, "a")
    assert len(chunks) == shown["chunks"]
    assert {chunk["text"].split()[0] for chunk in chunks} == {shown["text"].split()[0]}
    connection = await asyncpg.connect(running.dsn)
    counts = "SELECT (SELECT count(*) FROM c_1.chunks_1), (SELECT count(*) FROM c_1.vectors_1)"
    assert tuple(await connection.fetchrow(counts)) == (len(chunks), len(chunks))
    await connection.close()


async def test_a_search_sees_the_old_or_the_new_and_never_half(client: Client) -> None:
    texts = [f"{word} " * 120 for word in ("cat", "dog")]
    await client.store(id="a", text=texts[0])
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(replace_often(client, texts))
        while not writing.done():
            [result] = (await client.search("cat dog", group_size=100))["results"]
            assert len({chunk["text"].split()[0] for chunk in result["chunks"]}) == 1
            assert [chunk["index"] for chunk in result["chunks"]] == list(
                range(len(result["chunks"]))
            )


async def replace_often(client: Client, texts: list[str]) -> None:
    for number in range(40):
        await client.store(id="a", text=texts[number % 2] + str(number))


async def test_deleting_takes_the_document_its_chunks_and_vectors(running: Running) -> None:
    client = running.client
    await client.store(id="a", text=LONG)
    await client.store(id="b", text="cat")
    assert (await client.delete(f"{DOCUMENTS}/a")).ok() == {"deleted": 1}
    (await client.delete(f"{DOCUMENTS}/a")).refused(404, "not_found")
    (await client.get(f"{DOCUMENTS}/a/chunks")).refused(404, "not_found")
    assert await client.found("cat") == ["b"]
    connection = await asyncpg.connect(running.dsn)
    counts = "SELECT (SELECT count(*) FROM c_1.chunks_1), (SELECT count(*) FROM c_1.vectors_1)"
    assert tuple(await connection.fetchrow(counts)) == (1, 1)
    await connection.close()


async def test_the_cursor_leads_over_all_documents_once(client: Client) -> None:
    ids = [f"d{number}" for number in range(25)]
    random.Random(1).shuffle(ids)  # noqa: S311 - the same order in every run
    batch = [{"id": id_, "text": "cat"} for id_ in ids]
    (await client.post(DOCUMENTS, {"documents": batch})).ok()
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await client.get(f"{DOCUMENTS}?limit=10{cursor and '&cursor='}{cursor}")).ok()
        assert set(page) == {"documents", "next_cursor"}
        assert all(set(document) == DOCUMENT - {"text"} for document in page["documents"])
        seen += [document["id"] for document in page["documents"]]
        if len(seen) == 10:  # what is deleted or comes meanwhile repeats and hides nothing else
            (await client.delete(f"{DOCUMENTS}/{seen[-1]}")).ok()
        cursor = page["next_cursor"]
    assert sorted(seen) == sorted(ids)


async def test_the_cursor_leads_over_all_chunks_once(client: Client) -> None:
    stored = await client.store(id="a", text=LONG)
    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        path = f"{DOCUMENTS}/a/chunks?limit=2{cursor and '&cursor='}{cursor}"
        page = (await client.get(path)).ok()
        seen += [chunk["index"] for chunk in page["chunks"]]
        cursor = page["next_cursor"]
    assert seen == list(range(stored["chunks"]))
    assert stored["chunks"] > 4


# Accents as one and as two characters, CJK, right to left, emoji of several characters, code.
UNICODE = (
    "\ufeffÉcole \u0065\u0301te\u0301, naïve Straße — “quoted”.\r\n\r\n"
    "日本語のテキストです。これは二番目の文です。\u3000全角スペース。\n"
    "שלום עולם, مرحبا بالعالم!\t👩‍👩‍👧‍👦 and 🇩🇪 and 👍🏽.\n\n"
    "def f(x):\n    return x ** 2  # ∀x∈ℝ\n\n𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \u2028 line\u2029para.\n"
)


@pytest.mark.parametrize("title", ["", "Über Katzen und Hunde 猫"])
async def test_spans_are_those_of_the_text_and_chunks_keep_to_the_limit(
    real_client: Client, title: str
) -> None:
    name = f"unicode{len(title)}"
    limits = {"max_tokens": 64, "overlap_tokens": 16}
    body = {"name": name, "chunking": limits}
    (await real_client.post("/v1/collections", body)).ok(201)
    text = "".join(f"{UNICODE}{number}. " for number in range(60)) + "x" * 3000
    await real_client.store(name, id="a", title=title, text=text)
    shown = (await real_client.get(f"/v1/collections/{name}/documents/a")).ok()
    assert shown["text"] == text
    chunks = await chunks_of(real_client, "a", name)
    assert len(chunks) == shown["chunks"] > 50
    covered = 0
    for index, chunk in enumerate(chunks):
        assert set(chunk) == CHUNK
        assert chunk["index"] == index
        assert text[chunk["start_char"] : chunk["end_char"]] == chunk["text"]
        assert chunk["token_count"] <= 64
        assert not text[covered : chunk["start_char"]].strip()
        covered = max(covered, chunk["end_char"])
    assert not text[covered:].strip()


async def test_token_counts_include_title_and_special_tokens(real_client: Client) -> None:
    await real_client.store(id="counted", title="This is", text="a test")
    [chunk] = await chunks_of(real_client, "counted")
    assert chunk["token_count"] == 6


async def test_a_title_that_leaves_no_room_is_refused(client: Client) -> None:
    answer = await client.post(DOCUMENTS, {"title": "cat " * 50, "text": "dog"})
    error = answer.refused(400, "invalid_value")
    assert error["param"] == "title"
    assert "chunking.max_tokens" in error["message"]


@pytest.mark.parametrize(
    "id_",
    [
        "a/b",
        "a b",
        "ü",
        "%",
        "%2F",
        "a?b#c",
        "🐈",
        "x" * 512,
        " ",
        "...",
        "'; --",
        "\\",
        "a\u2028b",
    ],
)
async def test_any_id_works_percent_encoded(client: Client, id_: str) -> None:
    await client.store(id=id_, text="cat")
    path = f"{DOCUMENTS}/{quote(id_, safe='')}"
    assert (await client.get(path)).ok()["id"] == id_
    [chunk] = (await client.get(f"{path}/chunks")).ok()["chunks"]
    assert chunk["text"] == "cat"
    assert await client.found("cat") == [id_]
    (await client.delete(path)).ok()
    (await client.get(path)).refused(404)


@pytest.mark.parametrize(
    "metadata",
    [
        {"": ""},
        {"k": [None, True, False, 0, -1, 2**53, 1.5, 1e300, "é", {"x": {}}, []]},
        {"big": 2**63 - 1},
        {"small": -0.1, "tiny": 5e-324},
        {"text": 'quote " backslash \\ newline \n tab \t 🐈 \u2028'},
    ],
)
async def test_metadata_comes_back_as_it_was(client: Client, metadata: dict[str, Any]) -> None:
    await client.store(id="a", text="cat", metadata=metadata)
    assert (await client.get(f"{DOCUMENTS}/a")).ok()["metadata"] == metadata
    assert (await client.store(id="a", text="cat", metadata=metadata))["status"] == "unchanged"


async def test_numbers_too_large_for_a_float_are_kept_or_refused(client: Client) -> None:
    for number in ("1e999", "123456789012345678901234567890", "1e-999"):
        body = f'{{"id": "a", "text": "cat", "metadata": {{"n": {number}}}}}'.encode()
        answer = await client.ask("POST", DOCUMENTS, data=body)
        assert answer.status in (200, 400)
        if answer.status == 200:
            shown = (await client.get(f"{DOCUMENTS}/a")).ok()
            assert shown["metadata"] == orjson.loads(body)["metadata"]
