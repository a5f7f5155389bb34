"""Another model for a collection, while clients search it and write to it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from model_servers import serve_tiny
from polling import until
from servers import Running, Serve
from toys import JUDGE, TOY, ToyBackend, ToyShelf, toy_vector
from wire import Client

from memoryd.embeddings.engine import Engine
from memoryd.embeddings.types import ModelSpec

OTHER = "other"
COLLECTION = "/v1/collections/default"
MODEL = f"{COLLECTION}/model"
ROLLBACK, PREVIOUS = f"{MODEL}/rollback", f"{MODEL}/previous"
DOCUMENTS = f"{COLLECTION}/documents"
OTHER_TOKENS = 40
OF_GENERATION = ("chunks", "vectors", "lexical", "terms", "term_changes")


@dataclass(frozen=True)
class Shelf:
    """Hold a server with two toys that embed and one that doesn't."""

    running: Running
    toys: ToyShelf

    @property
    def client(self) -> Client:
        """The server's client."""
        return self.running.client

    @property
    def other(self) -> ToyBackend:
        """The other toy as it is loaded."""
        return self.toys.open_backends(OTHER)[-1]

    async def post(self, path: str = MODEL, **body: Any) -> Any:
        """Begin to change the model and return the job."""
        answer = await self.client.post(path, {"model": OTHER, **body})
        return answer.ok(202)["job"]

    async def change(self, **body: Any) -> Any:
        """Change the model and return the job, which must succeed."""
        job = await self.ended(await self.post(**body))
        assert job["status"] == "completed", job
        return job

    async def ended(self, job: dict[str, Any]) -> Any:
        """Return a job once it has ended."""
        async with asyncio.timeout(30):
            while True:
                now = (await self.client.get(f"/v1/jobs/{job['id']}")).ok()
                if now["finished_at"]:
                    return now
                await asyncio.sleep(0.01)

    async def describe(self) -> Any:
        """Return the collection."""
        return (await self.client.get(COLLECTION)).ok()

    async def generations(self) -> list[int]:
        """Return the numbers of the generations that have tables, which must be all of theirs."""
        connection = await asyncpg.connect(self.running.dsn)
        try:
            rows = await connection.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'c_1'"
                " AND tablename ~ '_[0-9]+$' ORDER BY 1"
            )
        finally:
            await connection.close()
        tables = {row["tablename"] for row in rows}
        numbers = sorted({int(table.rpartition("_")[2]) for table in tables})
        assert tables == {f"{kind}_{number}" for kind in OF_GENERATION for number in numbers}
        return numbers

    @asynccontextmanager
    async def held(self, path: str = MODEL, **body: Any) -> AsyncIterator[Any]:
        """Begin to change the model, and let nothing be embedded by the other until the end."""
        async with self.running.memory.engine.using(OTHER):
            self.other.gate.clear()
            try:
                before = len(self.other.batches)
                job = await self.post(path, **body)
                await until(lambda: len(self.other.batches) > before)
                yield job
            finally:
                self.other.gate.set()


@asynccontextmanager
async def shelf_of_toys(serve: Serve, **settings: Any) -> AsyncIterator[Shelf]:
    toys = ToyShelf(TOY, OTHER, JUDGE)
    toys.poolings[JUDGE] = "rank"
    toys.specs[OTHER] = ModelSpec(
        OTHER, query_prefix="{instruction} ", instruction="find", max_tokens=OTHER_TOKENS
    )
    async with Engine(toys) as engine, serve(engine, **settings) as running:
        yield Shelf(running, toys)


@pytest_asyncio.fixture
async def shelf(serve: Serve) -> AsyncIterator[Shelf]:
    async with shelf_of_toys(serve) as shelf:
        yield shelf


@pytest_asyncio.fixture
async def filled(shelf: Shelf) -> Shelf:
    """Give the server with a few documents in it."""
    await fill(shelf.client)
    return shelf


async def fill(client: Client) -> None:
    for word in ("cat", "dog", "fish", "bird"):
        await client.store(id=word, title=word, text=f"{word} {word} red")


# --- What is asked for ------------------------------------------------------------------------


async def test_another_model_takes_the_place_of_the_first(filled: Shelf) -> None:
    before = await filled.describe()
    job = await filled.change()
    assert job["type"] == "reembed"
    assert job["collection"] == "default"
    assert job["progress"] == {"done": 4, "total": 4, "unit": "documents"}
    assert job["counts"] == {"stored": 4, "failed": 0}
    after = await filled.describe()
    assert (before["model"], after["model"]) == (TOY, OTHER)
    assert after["previous"]["model"] == TOY
    assert after["building"] is None
    assert after["updated_at"] > before["updated_at"]
    assert (after["documents"], after["chunks"]) == (4, 4)
    assert (await filled.client.search("dog"))["model"] == OTHER
    assert await filled.client.found("dog", limit=1) == ["dog"]
    assert filled.other.encoded >= 4


async def test_what_is_not_asked_for_stays_as_it_is(filled: Shelf) -> None:
    chunking = {"max_tokens": 34, "overlap_tokens": 5, "format": "code"}
    await filled.change(model=TOY, precision="full", dimensions=8, chunking=chunking)
    await filled.client.delete(PREVIOUS)
    await filled.change(model=TOY, precision="half")
    described = await filled.describe()
    assert (described["dimensions"], described["chunking"]) == (8, chunking)
    await filled.client.delete(PREVIOUS)
    await filled.change(model=TOY, dimensions=9)
    described = await filled.describe()
    assert (described["precision"], described["chunking"]) == ("half", chunking)


async def test_what_belongs_to_a_model_leaves_with_it(filled: Shelf) -> None:
    await filled.change(dimensions=8, instruction="red")
    await filled.client.delete(PREVIOUS)
    await filled.change(model=TOY)
    described = await filled.describe()
    assert described["dimensions"] == 16
    assert described["instruction"] is None


async def test_null_asks_for_the_models_own(filled: Shelf) -> None:
    await filled.change(dimensions=8, instruction="red")
    await filled.client.delete(PREVIOUS)
    await filled.change(dimensions=None, instruction=None)
    described = await filled.describe()
    assert described["dimensions"] == 16
    assert described["instruction"] is None


async def test_dimensions_shorten_the_vectors(filled: Shelf) -> None:
    await filled.change(dimensions=8)
    [result] = (await filled.client.search("dog", limit=1, **{"with": {"vector": True}}))["results"]
    assert len(result["chunks"][0]["vector"]) == 8
    assert (await filled.describe())["dimensions"] == 8


async def test_precision_full_keeps_what_half_would_round(filled: Shelf) -> None:
    async def stored() -> list[float]:
        answer = await filled.client.search("dog", limit=1, **{"with": {"vector": True}})
        vector: list[float] = answer["results"][0]["chunks"][0]["vector"]
        return vector

    exact = toy_vector("dog dog dog red").tolist()
    assert await stored() != exact
    await filled.change(model=TOY, precision="full")
    assert await stored() == pytest.approx(exact, abs=1e-7)
    assert (await filled.describe())["precision"] == "full"


async def test_chunking_cuts_anew(shelf: Shelf) -> None:
    text = "\n\n".join(f"cat dog {word} red blue" for word in ("fish", "bird", "horse") * 6)
    await shelf.client.store(id="long", text=text)

    async def chunks() -> list[dict[str, Any]]:
        answer = (await shelf.client.get(f"{DOCUMENTS}/long/chunks")).ok()
        found: list[dict[str, Any]] = answer["chunks"]
        return found

    assert len(await chunks()) == 2  # the toy takes 64 tokens
    await shelf.change(chunking={"max_tokens": 32, "overlap_tokens": 0})
    small = await chunks()
    assert max(chunk["token_count"] for chunk in small) <= 32
    assert len(small) > 2
    assert all(a["end_char"] <= b["start_char"] for a, b in itertools.pairwise(small))
    await shelf.client.delete(PREVIOUS)
    await shelf.change(chunking={"max_tokens": 32, "overlap_tokens": 12})
    lapping = await chunks()
    assert any(a["end_char"] > b["start_char"] for a, b in itertools.pairwise(lapping))


async def test_a_format_of_chunks_is_taken_over(shelf: Shelf) -> None:
    body = "cat dog " * 10
    await shelf.client.store(
        id="md", text=f"# Fish\n\n{body}\n\n# Bird\n\n{body}\n\n# Red\n\n{body}"
    )

    async def headings() -> set[str]:
        answer = (await shelf.client.get(f"{DOCUMENTS}/md/chunks")).ok()
        return {heading for chunk in answer["chunks"] for heading in chunk["headings"]}

    await shelf.change(chunking={"format": "text", "max_tokens": 32, "overlap_tokens": 0})
    assert await headings() == set()
    await shelf.client.delete(PREVIOUS)
    await shelf.change(chunking={"format": "markdown", "max_tokens": 32, "overlap_tokens": 0})
    assert await headings() == {"Fish", "Bird", "Red"}


async def test_an_instruction_goes_with_queries_that_have_none(filled: Shelf) -> None:
    await filled.change(instruction="fish fish fish")
    assert await filled.client.found("dog", mode="dense", limit=1) == ["fish"]
    found = await filled.client.found("dog", mode="dense", limit=1, instruction="dog")
    assert found == ["dog"]
    assert (await filled.describe())["instruction"] == "fish fish fish"


async def test_larger_chunks_than_a_model_takes_become_smaller(filled: Shelf) -> None:
    assert (await filled.describe())["chunking"]["max_tokens"] == 64
    await filled.change()
    assert (await filled.describe())["chunking"] == {
        "max_tokens": OTHER_TOKENS,
        "overlap_tokens": OTHER_TOKENS // 2,
        "format": "auto",
    }


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "model"),
        ({"model": None}, 400, "model"),
        ({"model": 3}, 400, "model"),
        ({"model": "nobody"}, 404, "model"),
        ({"model": JUDGE}, 400, "model"),
        ({"model": OTHER, "dimensions": 17}, 400, "dimensions"),
        ({"model": OTHER, "dimensions": 0}, 400, "dimensions"),
        ({"model": OTHER, "precision": "double"}, 400, "precision"),
        ({"model": OTHER, "chunking": {"max_tokens": 41}}, 400, "chunking.max_tokens"),
        (
            {"model": OTHER, "chunking": {"max_tokens": 32, "overlap_tokens": 17}},
            400,
            "chunking.overlap_tokens",
        ),
        ({"model": OTHER, "chunking": {"format": "pdf"}}, 400, "chunking.format"),
        ({"model": TOY, "instruction": "find"}, 400, "instruction"),
        ({"model": OTHER, "instruction": " "}, 400, "instruction"),
        ({"model": OTHER, "wait": True}, 400, "wait"),
    ],
)
async def test_what_a_model_cannot_do_is_refused(
    filled: Shelf, body: dict[str, Any], status: int, param: str
) -> None:
    error = (await filled.client.post(MODEL, body)).refused(status)
    assert error["param"] == param
    assert (await filled.describe())["building"] is None


async def test_a_change_that_changes_nothing_is_refused(filled: Shelf) -> None:
    (await filled.client.post(MODEL, {"model": TOY})).refused(409, "conflict")
    (await filled.client.post(MODEL, {"model": TOY, "precision": "half"})).refused(409)
    (await filled.client.post(MODEL, {"model": TOY, "precision": "full"})).ok(202)


async def test_one_change_is_under_way_at_a_time(filled: Shelf) -> None:
    async with filled.held() as job:
        error = (await filled.client.post(MODEL, {"model": TOY, "dimensions": 3})).refused(409)
        assert "wait for its job" in error["message"]
        (await filled.client.post(ROLLBACK, None)).refused(409)
        (await filled.client.delete(PREVIOUS)).refused(409)
        described = await filled.describe()
        assert described["building"]["model"] == OTHER
        assert described["jobs"] == {"queued": 0, "running": 1}
    assert (await filled.ended(job))["status"] == "completed"


async def test_a_previous_model_is_dropped_before_another_comes(filled: Shelf) -> None:
    await filled.change()
    error = (await filled.client.post(MODEL, {"model": TOY})).refused(409, "conflict")
    assert "DELETE" in error["message"]
    deleted = (await filled.client.delete(PREVIOUS)).ok()["deleted"]
    assert deleted["model"] == TOY
    assert (await filled.describe())["previous"] is None
    assert await filled.generations() == [2]
    (await filled.client.delete(PREVIOUS)).refused(409, "conflict")
    (await filled.client.post(ROLLBACK, None)).refused(409, "conflict")
    await filled.change(model=TOY)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", ""), ("POST", "/rollback"), ("DELETE", "/previous")]
)
async def test_unknown_collections_have_no_models(shelf: Shelf, method: str, path: str) -> None:
    answer = await shelf.client.ask(
        method, f"/v1/collections/nobody/model{path}", json={"model": OTHER}
    )
    answer.refused(404, "not_found")


# --- While it goes on -----------------------------------------------------------------------


async def test_searches_find_and_writes_are_kept_whatever_happens(filled: Shelf) -> None:
    written: list[str] = []
    searches = 0
    is_over = asyncio.Event()

    async def search_all_the_time() -> None:
        nonlocal searches
        while not is_over.is_set():
            assert (await filled.client.found("cat", limit=1)) == ["cat"]
            searches += 1

    async def write_all_the_time() -> None:
        while not is_over.is_set():
            id_ = f"w{len(written) % 7}"
            outcome = await filled.client.store(id=id_, text=f"pear plum {len(written)}")
            assert outcome["status"] in ("stored", "replaced"), outcome
            written.append(id_)

    async def change_all_the_time() -> None:
        for turn in range(4):
            await filled.change(model=OTHER)
            for _ in range(3):
                (await filled.client.post(ROLLBACK, None)).ok()
            (await filled.client.delete(PREVIOUS)).ok()
            await filled.change(model=TOY, dimensions=16 - turn, precision="full")
            (await filled.client.delete(PREVIOUS)).ok()
        is_over.set()

    async with asyncio.TaskGroup() as group:
        for work in (search_all_the_time, search_all_the_time, write_all_the_time):
            group.create_task(work())
        group.create_task(change_all_the_time())
    assert searches > 50
    assert len(written) > 20
    found = await filled.client.found("pear plum", limit=7, score_threshold=0.5)
    assert sorted(found) == sorted(set(written))


async def test_what_is_written_meanwhile_is_found_by_the_new_model(filled: Shelf) -> None:
    async with filled.held() as job:
        writing = asyncio.create_task(filled.client.store(id="new", text="lemon"))
        replacing = asyncio.create_task(filled.client.store(id="cat", text="plum"))
        deleted = await filled.client.delete(f"{DOCUMENTS}/dog")
        deleted.ok()
        assert await filled.client.found("fish", limit=1) == ["fish"]
    assert (await writing)["status"] == "stored"
    assert (await replacing)["status"] == "replaced"
    assert (await filled.ended(job))["status"] == "completed"
    assert (await filled.describe())["model"] == OTHER
    assert await filled.client.found("lemon", limit=1) == ["new"]
    assert await filled.client.found("plum", limit=1) == ["cat"]
    assert "dog" not in await filled.client.found("dog", limit=10)


async def test_what_is_written_after_the_switch_is_found_after_a_rollback(filled: Shelf) -> None:
    await filled.change(dimensions=12)
    await filled.client.store(id="new", text="pear")
    await filled.client.store(id="cat", text="plum")
    (await filled.client.delete(f"{DOCUMENTS}/dog")).ok()
    rolled = (await filled.client.post(ROLLBACK, None)).ok()
    assert (rolled["model"], rolled["previous"]["model"]) == (TOY, OTHER)
    assert await filled.client.found("pear", limit=1) == ["new"]
    assert await filled.client.found("plum", limit=1) == ["cat"]
    assert "dog" not in await filled.client.found("dog", limit=10)
    forward = (await filled.client.post(ROLLBACK, None)).ok()
    assert (forward["model"], forward["previous"]["model"]) == (OTHER, TOY)
    assert await filled.client.found("pear", limit=1) == ["new"]


async def test_attributes_changed_meanwhile_leave_no_document_out(filled: Shelf) -> None:
    async with filled.held() as job:
        outcome = await filled.client.store(
            id="cat", title="cat", text="cat cat red", metadata={"new": True}
        )
        assert outcome["status"] == "updated"
    assert (await filled.ended(job))["result"]["documents"] == 4
    assert await filled.client.found("cat", limit=1) == ["cat"]


async def test_a_stream_that_began_before_ends_after_the_old_model_is_dropped(
    filled: Shelf,
) -> None:
    is_changed = asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        yield b'{"id": "first", "text": "pear"}\n'
        await is_changed.wait()
        for number in range(1500):
            yield b'{"id": "n%d", "text": "plum"}\n' % number

    async def post() -> Any:
        headers = {"Content-Type": "application/x-ndjson"}
        answer = await filled.client.ask(
            "POST", f"{DOCUMENTS}?wait=true", data=lines(), headers=headers
        )
        return answer.json

    posting = asyncio.create_task(post())
    await asyncio.sleep(0.2)
    await filled.change()
    (await filled.client.delete(PREVIOUS)).ok()
    is_changed.set()
    answer = await posting
    job = await filled.ended(answer["job"]) if answer["job"] else None
    assert job is None or job["counts"]["failed"] == 0
    assert "error" not in answer, answer
    assert (await filled.describe())["chunks"] == 1505


# --- Cancelling, failing, deleting ----------------------------------------------------------


async def test_a_cancelled_change_leaves_nothing(filled: Shelf) -> None:
    async with filled.held() as job:
        cancelled = (await filled.client.delete(f"/v1/jobs/{job['id']}")).ok()
        assert cancelled["status"] == "cancelled"
        assert await filled.generations() == [1]
        assert (await filled.describe())["building"] is None
    await filled.client.store(id="new", text="pear")
    assert (await filled.describe())["model"] == TOY
    await filled.change()
    # Numbers are not given away again: a writer may still know the one that is gone.
    assert await filled.generations() == [1, 3]
    (await filled.client.delete(f"/v1/jobs/{job['id']}")).refused(409)
    assert (await filled.describe())["model"] == OTHER


async def test_deleting_the_collection_ends_the_change(shelf: Shelf) -> None:
    (await shelf.client.post("/v1/collections", {"name": "kb"})).ok(201)
    await shelf.client.store("kb", id="a", text="cat")
    async with shelf.held("/v1/collections/kb/model") as job:
        (await shelf.client.delete("/v1/collections/kb")).ok()
    ended = await shelf.ended(job)
    assert (ended["status"], ended["collection"]) == ("cancelled", None)
    await shelf.client.store(id="b", text="dog")
    assert await shelf.client.found("dog") == ["b"]


async def test_a_document_that_the_new_model_cannot_embed_is_reported(filled: Shelf) -> None:
    title = "cat " * (OTHER_TOKENS - 10)
    await filled.client.store(id="titled", title=title, text="lemon")
    job = await filled.change()
    assert job["counts"] == {"stored": 4, "failed": 1}
    [failed] = job["result"]["failed"]
    assert failed["id"] == "titled"
    assert "title" in failed["message"]
    assert "titled" not in await filled.client.found("lemon")
    (await filled.client.post(ROLLBACK, None)).ok()
    assert await filled.client.found("lemon", limit=1) == ["titled"]


async def test_the_model_that_is_searched_decides_what_can_be_stored(filled: Shelf) -> None:
    title = "cat " * (OTHER_TOKENS - 10)
    async with filled.held() as job:
        outcome = await filled.client.store(id="titled", title=title, text="lemon")
        assert outcome["status"] == "stored"
        assert await filled.client.found("lemon", limit=1) == ["titled"]
    assert [each["id"] for each in (await filled.ended(job))["result"]["failed"]] == ["titled"]


async def test_a_change_that_embeds_nothing_fails_and_can_be_tried_again(shelf: Shelf) -> None:
    title = "cat " * (OTHER_TOKENS - 10)
    await shelf.client.store(id="titled", title=title, text="lemon")
    job = await shelf.ended(await shelf.post(precision="full"))
    assert job["status"] == "failed"
    assert "no document" in job["last_error"]["message"]
    assert await shelf.generations() == [1]
    await shelf.client.store(id="titled", title="cat", text="lemon")
    retried = (await shelf.client.post(f"/v1/jobs/{job['id']}/retry", None)).ok(202)
    assert retried["id"] == job["id"]
    assert (await shelf.ended(retried))["status"] == "completed"
    described = await shelf.describe()
    assert (described["model"], described["precision"]) == (OTHER, "full")
    assert await shelf.client.found("lemon") == ["titled"]


async def test_chunks_that_the_previous_model_has_alone_are_not_dropped(filled: Shelf) -> None:
    long = "cat " * (OTHER_TOKENS + 5)
    await filled.client.store(id="own", chunks=[{"text": long}])
    job = await filled.change()
    assert [each["id"] for each in job["result"]["failed"]] == ["own"]
    error = (await filled.client.delete(PREVIOUS)).refused(409, "conflict")
    assert "'own'" in error["message"]
    (await filled.client.delete(f"{DOCUMENTS}/own")).ok()
    (await filled.client.delete(PREVIOUS)).ok()


# --- What is made of it ---------------------------------------------------------------------


async def test_chunks_of_clients_are_embedded_as_they_are(filled: Shelf) -> None:
    await filled.client.store(id="own", chunks=[{"text": "pear"}, {"text": "plum"}])
    await filled.change(chunking={"max_tokens": 32, "overlap_tokens": 3})
    answer = (await filled.client.get(f"{DOCUMENTS}/own/chunks")).ok()
    assert [chunk["text"] for chunk in answer["chunks"]] == ["pear", "plum"]
    assert await filled.client.found("plum", limit=1) == ["own"]


async def test_vectors_of_clients_stay_with_their_model_alone(filled: Shelf) -> None:
    vector = toy_vector("pear").tolist()
    await filled.client.store(id="own", chunks=[{"text": "plum", "vector": vector}])
    assert await filled.client.found("pear", limit=1) == ["own"]
    await filled.change(model=TOY, precision="full")
    assert await filled.client.found("pear", limit=1) == ["own"]
    await filled.client.delete(PREVIOUS)
    await filled.change(model=OTHER)
    assert await filled.client.found("plum", limit=1) == ["own"]


async def test_vectors_of_the_same_model_are_not_made_again(serve: Serve) -> None:
    async with shelf_of_toys(serve, query_cache_bytes=0) as shelf:
        await fill(shelf.client)
        [toy] = shelf.toys.open_backends(TOY)
        before = toy.encoded
        job = await shelf.change(model=TOY, chunking={"max_tokens": 50, "overlap_tokens": 0})
        # The queries of the comparison: one each way for each document.
        assert toy.encoded - before == 2 * job["result"]["queries"] == 8
        await shelf.client.delete(PREVIOUS)
        before = toy.encoded
        await shelf.change(model=TOY, precision="full")
        assert toy.encoded - before == 4 + 8


async def test_overlap_tells_how_far_results_changed(filled: Shelf) -> None:
    for number in range(30):
        words = [("cat", "dog", "fish", "bird")[number % 4], "red", "black"][: 1 + number % 3]
        await filled.client.store(id=f"n{number}", text=" ".join(words) + " lemon" * (number % 5))
    same = await filled.change(model=TOY, precision="full")
    assert same["result"]["overlap_at_10"] > 0.9
    assert same["result"]["queries"] > 10
    assert same["result"]["documents"] == same["result"]["chunks"] == 34
    await filled.client.delete(PREVIOUS)
    blind = await filled.change(model=TOY, dimensions=2)  # it knows a cat, and nothing else
    assert blind["result"]["overlap_at_10"] < 0.6


async def test_an_empty_collection_has_nothing_to_compare(shelf: Shelf) -> None:
    job = await shelf.change()
    assert job["result"] == {
        "overlap_at_10": None,
        "queries": 0,
        "documents": 0,
        "chunks": 0,
        "failed": [],
    }


async def test_a_model_leaves_with_its_last_generation(filled: Shelf) -> None:
    engine = filled.running.memory.engine

    def pinned() -> set[str]:
        return {each.model.spec.name for each in engine.loaded() if each.is_pinned}

    await filled.change()
    assert pinned() == {TOY, OTHER}
    (await filled.client.post(ROLLBACK, None)).ok()
    (await filled.client.delete(PREVIOUS)).ok()
    assert pinned() == {TOY}
    async with filled.held() as job:
        assert pinned() == {TOY, OTHER}
        (await filled.client.delete(f"/v1/jobs/{job['id']}")).ok()
    await until(lambda: pinned() == {TOY})


# --- Other workers ----------------------------------------------------------------------------


async def test_another_process_goes_on_where_the_first_stopped(serve: Serve) -> None:
    async with shelf_of_toys(serve, lease_s=2) as second:
        async with shelf_of_toys(serve, dsn=second.running.dsn) as first:
            await second.running.memory.runner.stop()
            documents = [{"id": f"n{number}", "text": "cat dog"} for number in range(300)]
            (await first.client.post(DOCUMENTS, {"documents": documents})).ok()
            async with first.running.memory.engine.using(OTHER):
                [other] = first.toys.open_backends(OTHER)
                job = await first.post()
                await until(lambda: other.encoded >= 100)
                other.gate.clear()
                progress = (await first.client.get(f"/v1/jobs/{job['id']}")).ok()["progress"]
                assert 0 < progress["done"] < 300
                done = progress["done"]
                stopping = asyncio.create_task(first.running.memory.runner.stop())
                await asyncio.sleep(0.1)
                other.gate.set()
                await stopping
        second.running.memory.runner.start()
        ended = await second.ended(job)
        assert (ended["status"], ended["attempt"]) == ("completed", 2)
        assert ended["result"]["documents"] == 300
        made = second.other.encoded - 1  # the comparison asks for one text, which is kept
        assert made <= 300 - done


async def test_a_models_file_stays_as_long_as_a_generation_needs_it(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve_tiny(serve, tmp_path, "bert", "nomic-bert") as running:
        client = running.client
        shelf = Shelf(running, ToyShelf())
        await client.store(id="a", text="the cat sleeps")
        await client.store(id="b", text="ships at sea")
        await shelf.change(model="nomic-bert")
        await client.delete(PREVIOUS)
        await shelf.change(model="bert")
        assert len(await client.found("cat")) == 2

        async def refusal() -> bytes:
            answer = await client.ask("DELETE", "/api/delete", json={"model": "nomic-bert"})
            assert answer.status == 409
            return answer.data

        assert b"a collection works with nomic-bert" in await refusal()
        (await client.delete(PREVIOUS)).ok()
        assert b"which you can remove yourself" in await refusal()
