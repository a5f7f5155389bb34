"""`memoryd jobs …`, `memoryd documents …` and `memoryd collections …` as a shell runs them."""

import asyncio
from typing import Any

import orjson
import pytest
from servers import Running, Serve
from shell import Said, run
from toys import ToyBackend, ToyShelf

from memoryd.embeddings.engine import Engine

JOBS_COLUMNS = "id\ttype\tcollection\tstatus\tstage\tdone\tfailed\tcreated"


async def toy_of(running: Running) -> ToyBackend:
    model = await running.memory.engine.model("toy")
    backend: ToyBackend = model._backend  # type: ignore[assignment] # the toy's
    return backend


async def ask(running: Running, *arguments: str) -> Said:
    return await run(*arguments, "--url", running.client.url)


async def enqueue(running: Running, *texts: str, collection: str = "default") -> str:
    documents = [{"id": f"d{at}", "text": text} for at, text in enumerate(texts)]
    path = f"/v1/collections/{collection}/documents?wait=false"
    answer = await running.client.post(path, {"documents": documents})
    id_: str = answer.ok(202)["job"]["id"]
    return id_


# --- Jobs ----------------------------------------------------------------------------------------


async def test_jobs_are_listed_by_status_and_collection(running: Running) -> None:
    (await running.client.post("/v1/collections", {"name": "notes"})).ok(201)
    good = await enqueue(running, "cat", "dog")
    bad = await enqueue(running, "nan", collection="notes")
    for id_ in (good, bad):
        await ask(running, "jobs", "show", id_, "--follow")
    head, *lines = (await ask(running, "jobs", "list")).out.splitlines()
    assert head == JOBS_COLUMNS
    assert [line.split("\t")[:7] for line in lines] == [
        [bad, "ingest", "notes", "failed", "-", "1/1 documents", "1"],
        [good, "ingest", "default", "completed", "-", "2/2 documents", "0"],
    ]

    async def ids(*options: str) -> list[str]:
        said = await ask(running, "jobs", "list", "--json", *options)
        return [job["id"] for job in said.json["jobs"]]

    assert await ids("--status", "failed") == [bad]
    assert await ids("--collection", "default") == [good]
    assert await ids("--limit", "1") == [bad]
    said = await ask(running, "jobs", "list", "--status", "done")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("memoryd: status: ")


async def test_a_job_is_shown_with_what_failed(running: Running) -> None:
    id_ = await enqueue(running, "cat", "nan")
    said = await ask(running, "jobs", "show", id_, "--follow")
    assert said.status == 1
    assert said.out.startswith(f"{id_}: ingest of default, completed\n2 of 2 documents done: ")
    assert "1 failed" in said.out
    assert said.err == "d1: the model gave no finite vector for input 0\n"
    as_json = await ask(running, "jobs", "show", id_, "--json")
    assert as_json.json == (await running.client.get(f"/v1/jobs/{id_}")).ok()
    assert (await ask(running, "jobs", "show", "j99")).err == "memoryd: there is no job 'j99'\n"


async def test_a_job_is_followed_line_by_line(running: Running) -> None:
    backend = await toy_of(running)
    backend.gate.clear()
    id_ = await enqueue(running, *(f"cat {number}" for number in range(100)))
    following = asyncio.create_task(ask(running, "jobs", "show", id_, "--follow", "--json"))
    await asyncio.sleep(2)
    backend.delay_s = 0.2
    backend.gate.set()
    said = await following
    assert said.status == 0
    jobs = [orjson.loads(line) for line in said.out.splitlines()]
    assert len(jobs) > 1
    assert (jobs[0]["progress"]["done"], jobs[-1]["status"]) == (0, "completed")


async def test_jobs_are_retried_and_cancelled(running: Running) -> None:
    backend = await toy_of(running)
    failed = await enqueue(running, "nan")
    await ask(running, "jobs", "show", failed, "--follow")
    backend.is_cured = True
    assert (await ask(running, "jobs", "retry", failed)).out == f"{failed} is queued again\n"
    assert (await ask(running, "jobs", "show", failed, "--follow")).status == 0
    backend.gate.clear()
    waiting = await enqueue(running, "cat", "dog")
    said = await ask(running, "jobs", "cancel", failed, waiting)
    backend.gate.set()
    assert said.status == 1
    assert said.out == f"{waiting} is cancelled\n"
    assert said.err.startswith(f"memoryd: the job '{failed}' has ended already")
    assert (await ask(running, "jobs", "show", waiting)).status == 1


# --- Documents -----------------------------------------------------------------------------------


async def test_documents_are_listed_and_found_by_a_filter(running: Running) -> None:
    await running.client.store(id="a", title="Pets", text="cat", metadata={"team": "x"})
    await running.client.store(id="b/ü", text="dog", metadata={"team": "y"})
    head, *lines = (await ask(running, "documents", "list")).out.splitlines()
    assert head == "id\tstatus\tversion\tchunks\ttitle\tupdated"
    assert [line.split("\t")[:5] for line in lines] == [
        ["a", "stored", "1", "1", "Pets"],
        ["b/ü", "stored", "1", "1", ""],
    ]
    filter_ = orjson.dumps({"field": "team", "eq": "y"}).decode()
    said = await ask(running, "documents", "list", "--filter", filter_, "--json")
    assert [document["id"] for document in said.json["documents"]] == ["b/ü"]
    said = await ask(running, "documents", "list", "-n", "1", "--json")
    assert [document["id"] for document in said.json["documents"]] == ["a"]
    said = await ask(running, "documents", "list", "--filter", "team=y")
    assert (said.status, said.err.startswith("memoryd: --filter: team=y is not JSON")) == (1, True)


async def test_a_document_is_shown_with_its_text_or_its_chunks(running: Running) -> None:
    await running.client.store(id="b/ü", title="Pets", text="cat " * 300, tags=["x"])
    said = await ask(running, "documents", "show", "b/ü")
    assert said.status == 0
    assert "title: Pets\n" in said.out
    assert 'tags: ["x"]\n' in said.out
    assert said.out.endswith("cat cat \n")
    said = await ask(running, "documents", "show", "b/ü", "--chunks")
    assert said.out.count("\n--- ") > 1
    assert ", characters 0 to " in said.out
    said = await ask(running, "documents", "show", "none")
    assert (said.status, said.err) == (1, "memoryd: there is no document 'none' in 'default'\n")


async def test_documents_are_deleted_by_id(running: Running) -> None:
    for id_ in ("a", "b/ü"):
        await running.client.store(id=id_, text="cat")
    said = await ask(running, "documents", "delete", "none", "b/ü")
    assert (said.status, said.out) == (1, "1 deleted\n")
    assert said.err == "none: there is no document 'none' in 'default'\n"
    said = await ask(running, "documents", "delete", "a", "--json")
    assert (said.status, said.json) == (0, {"deleted": 1, "failures": []})


async def test_documents_are_deleted_by_a_filter_after_a_rehearsal(running: Running) -> None:
    for number in range(3):
        await running.client.store(id=f"a/{number}", text="cat")
    await running.client.store(id="b", text="cat")
    filter_ = ("--filter", '{"field": "id", "prefix": "a/"}')
    said = await ask(running, "documents", "delete", *filter_, "--dry-run")
    assert (said.status, said.out) == (0, "3 would be deleted\n")
    said = await ask(running, "documents", "delete", *filter_, "--json")
    assert (said.status, said.json) == (0, {"deleted": 3})
    listed = await ask(running, "documents", "list", "--json")
    assert [document["id"] for document in listed.json["documents"]] == ["b"]


@pytest.mark.parametrize(
    "arguments", [(), ("a", "--filter", "{}"), ("a", "--dry-run"), ("a", "-c", "none")]
)
async def test_a_wrong_delete_deletes_nothing(running: Running, arguments: tuple[str, ...]) -> None:
    await running.client.store(id="a", text="cat")
    said = await ask(running, "documents", "delete", *arguments)
    assert (said.status, said.out) == (1, "")
    assert (await running.client.get("/v1/collections/default/documents/a")).status == 200


# --- Collections ---------------------------------------------------------------------------------


async def test_all_that_is_said_of_a_collection_reaches_the_server(running: Running) -> None:
    said = await ask(
        running,
        *("collections", "create", "kb", "--model", "toy", "--precision", "full"),
        *("--max-tokens", "48", "--overlap-tokens", "8", "--format", "markdown"),
        *("--language", "german", "--metadata", '{"owner": "sec"}', "--json"),
    )
    assert said.status == 0, said.err
    made: Any = said.json
    assert (made["name"], made["model"], made["precision"]) == ("kb", "toy", "full")
    assert made["chunking"] == {"max_tokens": 48, "overlap_tokens": 8, "format": "markdown"}
    assert (made["language"], made["metadata"]) == ("german", {"owner": "sec"})
    said = await ask(running, "collections", "create", "narrow", "--dimensions", "5")
    assert (said.status, "toy, 5 dimensions, half precision" in said.out) == (0, True)


async def test_collections_are_listed_shown_changed_and_deleted(running: Running) -> None:
    await ask(running, "collections", "create", "kb")
    said = await ask(
        running,
        *("collections", "update", "kb", "--name", "wiki", "--language", "german"),
        *("--metadata", '{"a": 1}', "--json"),
    )
    assert (said.json["name"], said.json["language"], said.json["metadata"]) == (
        "wiki",
        "german",
        {"a": 1},
    )
    assert (await ask(running, "collections", "update", "wiki")).status == 1
    said = await ask(running, "collections", "alias", "wiki", "live")
    assert said.out.startswith("wiki (live)\n0 documents, 0 chunks, ")
    shown = await ask(running, "collections", "show", "live", "--json")
    assert shown.json == (await running.client.get("/v1/collections/wiki")).ok()
    head, *lines = (await ask(running, "collections", "list")).out.splitlines()
    assert head == "name\tmodel\tdimensions\tdocuments\tchunks\tMB\taliases"
    assert [line.split("\t")[0] for line in lines] == ["default", "wiki"]
    said = await ask(running, "collections", "delete", "wiki")
    assert (said.status, "--yes" in said.err) == (1, True)
    said = await ask(running, "collections", "delete", "wiki", "--yes")
    assert (said.status, said.out) == (0, "wiki is deleted\n")
    said = await ask(running, "collections", "delete", "default", "--yes")
    assert (said.status, said.out) == (1, "")


async def test_a_collection_gets_another_model_and_goes_back(serve: Serve) -> None:
    async with Engine(ToyShelf("toy", "other")) as engine, serve(engine) as running:
        await running.client.store(id="a", text="cat")
        options = ("--precision", "full", "--max-tokens", "48", "--overlap-tokens", "8")
        change = ("collections", "model", "default", "other", *options, "--format", "text")
        said = await ask(running, *change, "--instruction", "Find pets")
        assert (said.status, said.err) == (1, "memoryd: other takes no instruction\n")
        said = await ask(running, *change, "--dimensions", "6", "--json")
        assert said.status == 0, said.err
        job = said.json["job"]["id"]
        said = await ask(running, "jobs", "show", job, "--follow")
        assert said.status == 0, said
        now = (await ask(running, "collections", "show", "default", "--json")).json
        assert (now["model"], now["dimensions"], now["precision"]) == ("other", 6, "full")
        assert now["chunking"] == {"max_tokens": 48, "overlap_tokens": 8, "format": "text"}
        said = await ask(running, "collections", "rollback", "default", "--json")
        assert said.json["model"] == "toy"
        said = await ask(running, "collections", "drop-previous", "default")
        assert (said.status, said.out) == (0, "the vectors of other are deleted\n")
        said = await ask(running, "collections", "rollback", "default")
        assert (said.status, said.out) == (1, "")
