"""Files of a form become documents; whatever a file is, the others are stored."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

import orjson
import psutil
import pytest
from aiohttp import FormData
from file_samples import (
    make_docx,
    make_eml,
    make_encrypted_pdf,
    make_epub,
    make_pdf,
    make_pptx,
    make_xlsx,
    make_zip,
    make_zip_bomb,
)
from job_ends import end_of
from polling import until
from servers import Running, Serve
from wire import Answer, Client

DEFAULT = "/v1/collections/default"

Upload = tuple[str, bytes] | tuple[str, bytes, str]


def form_of(files: Sequence[Upload], fields: dict[str, Any] | None = None) -> FormData:
    form = FormData(quote_fields=False)
    for name, values in (fields or {}).items():
        for value in values if isinstance(values, list) else [values]:
            form.add_field(name, value)
    for name, data, *content_type in files:
        kind = content_type[0] if content_type else None
        form.add_field("file", data, filename=name, content_type=kind)
    return form


async def upload(
    client: Client,
    files: Sequence[Upload],
    query: str = "?wait=true",
    collection: str = "default",
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Answer:
    path = f"/v1/collections/{collection}/documents{query}"
    return await client.ask("POST", path, data=form_of(files, fields), headers=headers)


async def shown(client: Client, id_: str, collection: str = "default") -> Any:
    path = f"/v1/collections/{collection}/documents/{quote(id_, safe='')}"
    return (await client.get(path)).ok()


async def chunks_of(client: Client, id_: str, collection: str = "default") -> Any:
    path = f"/v1/collections/{collection}/documents/{quote(id_, safe='')}/chunks?limit=1000"
    return (await client.get(path)).ok()["chunks"]


async def test_files_are_accepted_at_once_and_a_job_stores_them(client: Client) -> None:
    files = [("a.txt", b"cat"), ("sub/b.md", b"# Dogs\n\ndog")]
    answer = (await upload(client, files, "")).ok(202)
    assert [(each["id"], each["status"]) for each in answer["documents"]] == [
        *(("a.txt", "queued"), ("sub/b.md", "queued"))
    ]
    job = await end_of(client, answer["job"]["id"])
    assert job["counts"] == {"stored": 2, "failed": 0, "total": 2}
    assert await client.found("dog", limit=1) == ["sub/b.md"]


async def test_a_file_again_is_unchanged_and_another_of_its_name_replaces_it(
    client: Client,
) -> None:
    for data, status in ((b"cat", "stored"), (b"cat", "unchanged"), (b"dog", "replaced")):
        [outcome] = (await upload(client, [("a.txt", data)])).ok()["documents"]
        assert outcome["status"] == status
    assert (await shown(client, "a.txt"))["text"] == "dog"
    [outcome] = (await upload(client, [("a.txt", b"dog")], tags="x")).ok()["documents"]
    assert (outcome["status"], outcome["embedded"]) == ("updated", 0)


FIELDS: list[tuple[str, Any, Any]] = [
    ("id", "other", "other"),
    ("title", "Of cats", "Of cats"),
    ("mime_type", "text/markdown", "text/markdown"),
    ("language", "german", "german"),
    ("metadata", '{"a": {"b": [1, "x"]}}', {"a": {"b": [1, "x"]}}),
    ("tags", '["x", "y"]', ["x", "y"]),
    ("tags", ["x", "y"], ["x", "y"]),
    ("tags", "x", ["x"]),
    ("expires_at", "2199-01-01T00:00:00Z", "2199-01-01T00:00:00Z"),
]


@pytest.mark.parametrize(("name", "value", "expected"), FIELDS)
async def test_each_field_is_that_of_the_document(
    client: Client, name: str, value: Any, expected: Any
) -> None:
    await upload(client, [("plain", b"fish")])
    assert (await shown(client, "plain"))[name] != expected
    (await upload(client, [("a", b"cat")], **{name: value})).ok()
    id_ = expected if name == "id" else "a"
    assert (await shown(client, id_))[name] == expected


async def test_what_is_done_on_conflict_is_a_field_too(client: Client) -> None:
    await upload(client, [("a", b"cat")])
    for value, status in (("skip", "skipped"), ("error", "failed"), ("replace", "replaced")):
        [outcome] = (await upload(client, [("a", b"dog")], on_conflict=value)).ok()["documents"]
        assert outcome["status"] == status


async def test_fields_are_for_all_files_and_empty_ones_count_as_absent(client: Client) -> None:
    files = [("a", b"cat"), ("b", b"dog")]
    empty = dict.fromkeys(("id", "title", "language", "expires_at", "mime_type"), "")
    (await upload(client, files, metadata='{"k": 1}', tags=["x", ""], **empty)).ok()
    for name, _ in files:
        document = await shown(client, name)
        assert (document["metadata"], document["tags"]) == ({"k": 1}, ["x"])


async def test_fields_can_come_after_the_files_and_as_files(client: Client) -> None:
    form = form_of([("a", b"cat")])
    form.add_field("metadata", b'{"k": 1}', filename="meta.json", content_type="application/json")
    form.add_field("title", "T")
    answer = await client.ask("POST", f"{DEFAULT}/documents?wait=true", data=form)
    assert [each["id"] for each in answer.ok()["documents"]] == ["a"]
    document = await shown(client, "a")
    assert (document["metadata"], document["title"]) == ({"k": 1}, "T")


async def test_the_type_that_a_part_tells_is_what_the_file_is_taken_for(client: Client) -> None:
    files = [
        ("a", b"# Cats\n\ncat", "text/markdown; charset=utf-8"),
        ("b", b"# Cats\n\ncat", "application/octet-stream"),
    ]
    (await upload(client, files)).ok()
    assert (await shown(client, "a"))["mime_type"] == "text/markdown"
    assert (await shown(client, "b"))["mime_type"] == "text/plain"


@pytest.mark.parametrize("name", ["ü.txt", "日本.md", "a b.txt", "a;b.txt", "dir/sub/a.txt", "%41"])
async def test_the_name_of_a_file_is_its_documents_id(client: Client, name: str) -> None:
    [outcome] = (await upload(client, [(name, b"cat")])).ok()["documents"]
    assert (outcome["id"], outcome["status"]) == (name, "stored")
    assert (await shown(client, name))["text"] == "cat"


SAMPLES: list[tuple[str, bytes, str, str, str]] = [
    ("a.txt", "Grüße. The cat sat.".encode(), "text/plain", "", "The cat sat."),
    ("a.md", b"# Birds\n\nThe cat sat.", "text/markdown", "Birds", "The cat sat."),
    ("a.html", b"<title>T</title><h1>H</h1><p>The cat sat.", "text/html", "T", "The cat sat."),
    ("a.json", b'{"who": "The cat sat."}', "application/json", "", "The cat sat."),
    ("a.jsonl", b'{"t": "The cat"}\n{"t": "sat."}\n', "application/x-ndjson", "", "The cat"),
    ("a.csv", b"Name,Act\ncat,sat\ndog,ran\n", "text/csv", "", "cat"),
    ("a.pdf", make_pdf([["The cat sat."] * 20, ["Second page."] * 20], title="Of cats"),
     "application/pdf", "Of cats", "Second page."),
    ("a.docx", make_docx(),
     "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
     "Field guide", "Robins sing."),
    ("a.pptx", make_pptx(),
     "application/vnd.openxmlformats-officedocument.presentationml.presentation",
     "Plan", "Compare"),
    ("a.xlsx", make_xlsx(),
     "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "Register", "Ann"),
    ("a.epub", make_epub(), "application/epub+zip", "Two chapters", "The sun rose."),
    ("a.eml", make_eml(), "message/rfc822", "Grüße aus Köln", "Plain body."),
]  # fmt: skip
PAGES = {"a.pdf": {1, 2}, "a.pptx": {1}}
HEADINGS = {
    "a.md": ["Birds"],
    "a.html": ["H"],
    "a.docx": ["Birds", "Owls"],
    "a.pptx": ["Plan"],
    "a.xlsx": ["People"],
    "a.epub": ["Dawn"],
}


@pytest.mark.parametrize(
    ("name", "data", "mime_type", "title", "part"), SAMPLES, ids=[each[0] for each in SAMPLES]
)
async def test_each_type_of_file_is_read_with_its_places(
    real_client: Client, name: str, data: bytes, mime_type: str, title: str, part: str
) -> None:
    small = {"name": "small", "chunking": {"max_tokens": 32, "overlap_tokens": 0}}
    await real_client.post("/v1/collections", small)  # it may be there already
    outcomes = (await upload(real_client, [(name, data)], collection="small")).ok()["documents"]
    [outcome] = outcomes
    assert (outcome["id"], outcome["status"], outcome["error"]) == (name, "stored", None)
    document = await shown(real_client, name, "small")
    assert (document["mime_type"], document["title"]) == (mime_type, title)
    assert part in document["text"]
    chunks = await chunks_of(real_client, name, "small")
    assert len(chunks) == outcome["chunks"] > 0
    for chunk in chunks:
        assert document["text"][chunk["start_char"] : chunk["end_char"]] == chunk["text"]
    assert {chunk["page"] for chunk in chunks} >= PAGES.get(name, {None})
    assert any(chunk["headings"] == HEADINGS.get(name, []) for chunk in chunks)


HOPELESS: list[tuple[str, bytes, str]] = [
    ("encrypted.pdf", make_encrypted_pdf(), "encrypted"),
    ("empty.txt", b"", "empty"),
    ("blank.txt", b" \n ", "empty"),
    ("image.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
    ("unknown.bin", bytes(range(256)) * 10, ""),
    ("broken.docx", make_docx()[:2000], ""),
    ("broken.pdf", b"%PDF-1.7\nnothing", ""),
    ("archive.zip", make_zip({"a.txt": "cat"}), "zip"),
    ("bomb.docx", make_zip_bomb(), ""),
]


async def test_files_that_cant_be_read_fail_by_their_reason_and_alone(client: Client) -> None:
    files: list[Upload] = [("good.txt", b"cat"), *((name, data) for name, data, _ in HOPELESS)]
    outcomes = (await upload(client, files)).ok()["documents"]
    assert [each["id"] for each in outcomes] == [file[0] for file in files]
    assert [each["status"] for each in outcomes] == ["stored", *["failed"] * len(HOPELESS)]
    for outcome, (_, _, reason) in zip(outcomes[1:], HOPELESS, strict=True):
        assert outcome["error"]["code"] in ("invalid_value", "too_large"), outcome
        assert reason in outcome["error"]["message"]
    assert await client.found("cat") == ["good.txt"]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"titel": "x"}, "titel", "unknown_field"),
        ({"text": "x"}, "text", "unknown_field"),
        ({"file": "x"}, "file", "invalid_value"),
        ({"metadata": "{"}, "metadata", "invalid_value"),
        ({"metadata": "[]"}, "metadata", "invalid_value"),
        ({"metadata": '{"a": "\\u0000"}'}, "a", "invalid_value"),
        ({"metadata": ["{}", "{}"]}, "metadata", "invalid_value"),
        ({"title": ["a", "b"]}, "title", "invalid_value"),
        ({"title": "a\0b"}, "title", "invalid_value"),
        ({"title": "x" * 10_001}, "title", "too_large"),
        ({"title": "x" * 600_000}, "title", "too_large"),
        ({"tags": "[1]"}, "tags[0]", "invalid_value"),
        ({"tags": "[x"}, "tags", "invalid_value"),
        ({"tags": ["x" * 129]}, "tags[0]", "too_large"),
        ({"tags": ["x"] * 65}, "tags", "too_large"),
        ({"language": "Deutsch"}, "language", "invalid_value"),
        ({"expires_at": "tomorrow"}, "expires_at", "invalid_value"),
        ({"on_conflict": "merge"}, "on_conflict", "invalid_value"),
        ({"mime_type": "x" * 257}, "mime_type", "too_large"),
        ({"id": "a\nb"}, "id", "invalid_value"),
        ({"id": ".."}, "id", "invalid_value"),
        ({"id": "x" * 513}, "id", "too_large"),
    ],
)
async def test_a_wrong_field_is_refused_by_its_name(
    shared_client: Client, fields: dict[str, Any], param: str, code: str
) -> None:
    status = 413 if code == "too_large" else 400
    error = (await upload(shared_client, [("wrong.txt", b"cat")], **fields)).refused(status, code)
    assert error["param"] == param
    (await shared_client.get(f"{DEFAULT}/documents/wrong.txt")).refused(404)


async def test_id_and_version_go_with_one_file(client: Client) -> None:
    files = [("a", b"cat"), ("b", b"dog")]
    assert (await upload(client, files, id="x")).refused(400)["param"] == "id"
    headers = {"If-Match": "1"}
    assert (await upload(client, files, headers=headers)).refused(400)["param"] == "If-Match"
    assert await client.found("cat") == []
    (await upload(client, files[:1])).ok()
    [outcome] = (await upload(client, [("a", b"fish")], headers=headers)).ok()["documents"]
    assert (outcome["status"], outcome["version"]) == ("replaced", 2)
    [outcome] = (await upload(client, [("a", b"bird")], headers=headers)).ok()["documents"]
    assert outcome["error"]["code"] == "conflict"


def part(disposition: str, data: bytes = b"cat", *headers: str) -> bytes:
    lines = [f"Content-Disposition: {disposition}", *headers]
    return b"--x\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + data + b"\r\n"


FILE = part('form-data; name="file"; filename="raw.txt"')
END = b"--x--\r\n"
BAD_FORMS = [
    (b"", "x"),
    (END, "x"),
    (FILE, "x"),
    (FILE[:-10], "x"),
    (FILE.replace(b"--x", b"--y") + END, "x"),
    (FILE + END, ""),
    (FILE + END, "y" * 80),
    (b"--x\r\n\r\ncat\r\n" + END, "x"),
    (part('attachment; filename="a"') + END, "x"),
    (part('form-data; name="title"') + END, "x"),
    (part('form-data; name="file"; filename="a"', b"Y2F0",
          "Content-Transfer-Encoding: base64") + END, "x"),
    (part('form-data; name="f"', b"--z\r\n\r\n", "Content-Type: multipart/mixed; boundary=z")
     + END, "x"),
    (part('form-data; name="title"', b"\xff") + FILE + END, "x"),
    (b"--x\r\n" + b"A: b\r\n" * 300 + b"\r\n" + END, "x"),
    (b"--x\r\nA: " + b"b" * 100_000 + b"\r\n\r\n" + END, "x"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["", ".", "..", "a\x7fb", "\x85", "x" * 513])
async def test_a_file_whose_name_is_no_id_fails_alone(shared_client: Client, name: str) -> None:
    told = f"filename*=UTF-8''{quote(name)}" if name else 'filename=""'
    named = part(f'form-data; name="file"; {told}')
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    path = f"{DEFAULT}/documents?wait=true"
    data = part('form-data; name="file"; filename="good.txt"') + named + END
    answer = await shared_client.ask("POST", path, data=data, headers=headers)
    outcomes = answer.ok()["documents"]
    assert outcomes[0]["status"] in ("stored", "unchanged")
    assert outcomes[1]["status"] == "failed"
    assert outcomes[1]["error"]["param"] == "files[1].filename"


@pytest.mark.parametrize(("data", "boundary"), BAD_FORMS, ids=range(len(BAD_FORMS)))
async def test_what_is_no_form_is_the_clients_error(
    shared_client: Client, data: bytes, boundary: str
) -> None:
    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}".removesuffix("; boundary=")
    }
    answer = await shared_client.ask("POST", f"{DEFAULT}/documents", data=data, headers=headers)
    answer.refused(400)
    (await shared_client.get(f"{DEFAULT}/documents/raw.txt")).refused(404)


@pytest.mark.parametrize("tail", [b"", b"\r\n", b"an epilogue\r\nof lines\r\n"])
async def test_a_form_as_others_write_it_is_read(client: Client, tail: bytes) -> None:
    names = part("form-data; name=upload; filename*=UTF-8''%C3%BC.txt")
    data = b"a preamble\r\n" + names + FILE + END + tail
    headers = {"Content-Type": 'multipart/form-data; boundary="x"'}
    answer = await client.ask("POST", f"{DEFAULT}/documents?wait=true",
                              data=data, headers=headers)  # fmt: skip
    assert [each["id"] for each in answer.ok()["documents"]] == ["ü.txt", "raw.txt"]


async def test_the_limits_of_files_are_kept(serve: Serve) -> None:
    async with serve(max_body_bytes=100_000, max_documents=3) as running:
        client = running.client
        files: list[Upload] = [(f"f{number}", b"cat") for number in range(4)]
        error = (await upload(client, files)).refused(413, "too_large")
        assert "max_documents = 3" in error["message"]
        error = (await upload(client, [("a", b"x"), ("b", b"x" * 100_001)])).refused(413)
        assert error["param"] == "files[1]"
        assert "max_body_bytes = 100000" in error["message"]
        assert await client.found("cat") == []
        (await upload(client, [("a", b"cat " * 25_000)])).ok()


async def test_a_form_larger_than_a_body_is_taken_on_file_by_file(serve: Serve) -> None:
    async with serve(max_body_bytes=100_000) as running:
        client = running.client
        files: list[Upload] = [(f"f{number}", b"cat " * 10_000) for number in range(8)]
        outcomes = (await upload(client, files, tags="x")).ok()["documents"]
        assert [each["status"] for each in outcomes] == ["stored"] * 8
        assert (await shown(client, "f7"))["tags"] == ["x"]
        late = form_of([(f"g{number}", b"cat " * 10_000) for number in range(8)])
        late.add_field("title", "T")
        error = (await client.ask("POST", f"{DEFAULT}/documents", data=late)).refused(400)
        assert error["param"] == "title"
        assert "before the files" in error["message"]


async def test_the_files_of_one_form_take_no_more_memory_than_a_body(serve: Serve) -> None:
    async with serve(max_body_bytes=4 << 20) as running:

        async def pieces() -> AsyncIterator[bytes]:
            for number in range(100):
                name = f'form-data; name="file"; filename="f{number}"'
                yield part(name, b"%c" % (number + 20) + b"\0" * (2 << 20))
            yield END

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        path = f"{DEFAULT}/documents"
        before = psutil.Process().memory_info().rss
        answer = await running.client.ask("POST", path, data=pieces(), headers=headers)
        assert psutil.Process().memory_info().rss - before < 100 << 20
        (await running.client.delete(f"/v1/jobs/{answer.ok(202)['job']['id']}")).ok()


async def test_one_name_twice_ends_as_the_last(client: Client) -> None:
    outcomes = (await upload(client, [("a", b"cat"), ("a", b"dog")])).ok()["documents"]
    assert [each["status"] for each in outcomes] == ["stored", "replaced"]
    assert (await shown(client, "a"))["text"] == "dog"


async def test_what_a_client_uploads_counts_as_held(running: Running) -> None:
    held, go_on = running.memory, asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield FILE
        await go_on.wait()
        yield END

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    sending = asyncio.create_task(
        running.client.ask("POST", f"{DEFAULT}/documents", data=pieces(), headers=headers)
    )
    await until(lambda: bool(held._held_requests))
    assert held._held_bytes == held.settings.max_body_bytes
    go_on.set()
    (await sending).ok(202)
    assert (held._held_requests, held._held_bytes) == (0, 0)


async def test_the_openapi_document_tells_of_files_and_lines(shared_client: Client) -> None:
    page = orjson.loads((await shared_client.get("/openapi.json")).data)
    operation = page["paths"]["/v1/collections/{collection}/documents"]["post"]
    content = operation["requestBody"]["content"]
    assert list(content) == ["application/json", "application/x-ndjson", "multipart/form-data"]
    reference = content["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]
    fields = page["components"]["schemas"][reference]["properties"]
    assert set(fields) == {name for name, _, _ in FIELDS} | {"on_conflict", "file"}
    named = {parameter["name"] for parameter in operation["parameters"]}
    assert {"wait", "wait_s", "If-Match", "Idempotency-Key"} <= named
