import asyncio

import pytest
from servers import Running
from toys import DIMENSIONS, toy_vector
from wire import Client

SEARCH = "/v1/collections/default/search"
PLACE = {"id", "index", "start_char", "end_char", "token_count", "page", "headings"}
CHUNK = PLACE | {"text", "score", "cosine", "bm25"}


async def store(client: Client, **texts: str) -> None:
    documents = [{"id": id_, "text": text} for id_, text in texts.items()]
    answer = await client.post("/v1/collections/default/documents", {"documents": documents})
    assert {outcome["status"] for outcome in answer.ok()["documents"]} == {"stored"}


async def test_the_answer_has_everything_that_it_says_it_has(client: Client) -> None:
    await client.store(id="a", title="cat", text="dog", metadata={"k": 1}, tags=["t"])
    answer = await client.search("cat")
    assert set(answer) == {"results", "score_type", "model", "plan", "took_ms", "next_offset"}
    assert answer["score_type"] == "rrf"
    assert answer["model"] == "toy"
    assert answer["plan"] == {"dense": "exact", "lexical": "bm25"}
    assert answer["took_ms"] > 0
    assert answer["next_offset"] is None
    [result] = answer["results"]
    assert set(result) == {"document", "score", "chunks"}
    assert result["document"] == {"id": "a", "title": "cat", "metadata": {"k": 1}, "tags": ["t"]}
    [chunk] = result["chunks"]
    assert set(chunk) == CHUNK
    assert (chunk["text"], chunk["start_char"], chunk["end_char"]) == ("dog", 0, 3)
    assert (chunk["page"], chunk["headings"]) == (None, [])
    assert chunk["cosine"] == pytest.approx(0.5**0.5, abs=1e-3)
    assert chunk["bm25"] > 0
    assert result["score"] == chunk["score"] == pytest.approx(2 / 11)


async def test_the_order_is_that_of_the_cosines(client: Client) -> None:
    texts = {
        "a": "cat",
        "b": "cat dog",
        "c": "cat dog fish",
        "d": "cat dog fish bird",
        "e": "horse",
    }
    await store(client, **texts)
    results = (await client.search("cat", mode="dense"))["results"]
    assert [result["document"]["id"] for result in results] == ["a", "b", "c", "d", "e"]
    for result in results:
        expected = toy_vector("cat") @ toy_vector(texts[result["document"]["id"]])
        assert result["score"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("precision", ["half", "full"])
@pytest.mark.parametrize("dimensions", [DIMENSIONS, 5])
async def test_every_precision_and_width_finds_the_same(
    client: Client, precision: str, dimensions: int
) -> None:
    body = {"name": "other", "precision": precision, "dimensions": dimensions}
    (await client.post("/v1/collections", body)).ok(201)
    for text in ("cat", "cat dog", "dog fish"):
        await client.store("other", id=text, text=text)
    assert await client.found("cat", "other") == ["cat", "cat dog", "dog fish"]
    found = await client.search({"vector": [0, 1] + [0] * (dimensions - 2)}, "other", limit=1)
    assert found["results"][0]["document"]["id"] == "cat"


async def test_next_offset_leads_over_all_results_once(client: Client) -> None:
    await store(client, **{f"d{number:02}": "cat " + "dog " * number for number in range(23)})
    whole = await client.found("cat", limit=100)
    assert len(whole) == 23
    seen: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = await client.search("cat", limit=5, offset=offset)
        seen += [result["document"]["id"] for result in page["results"]]
        offset = page["next_offset"]
    assert seen == whole
    assert await client.found("cat", offset=23) == []
    assert (await client.search("cat", limit=23))["next_offset"] is None


async def test_equal_scores_keep_one_order_over_pages(client: Client) -> None:
    await store(client, **{f"d{number}": "cat" for number in range(30)})
    whole = await client.found("cat", limit=30)
    pages = [await client.found("cat", limit=7, offset=offset) for offset in range(0, 30, 7)]
    assert [id_ for page in pages for id_ in page] == whole
    assert len(set(whole)) == 30


async def test_a_document_comes_once_however_many_of_its_chunks_are_near(client: Client) -> None:
    await store(client, long="\n\n".join(["cat " * 50] * 30), short="cat dog", far="horse")
    assert await client.found("cat", limit=3) == ["long", "short", "far"]
    assert await client.found("cat", limit=1, offset=1) == ["short"]


async def test_group_size_bounds_the_chunks_of_a_document_best_first(client: Client) -> None:
    words = ("dog ", "cat dog ", "cat ")
    await store(client, a="\n\n".join(word * (50 // len(word.split())) for word in words))
    for size in (1, 2, 3):
        [result] = (await client.search("cat", mode="dense", group_size=size))["results"]
        scores = [chunk["score"] for chunk in result["chunks"]]
        assert len(scores) == size
        assert scores == sorted(scores, reverse=True)
        assert result["score"] == scores[0] > 0.99


async def test_without_grouping_each_chunk_is_a_result_of_its_own(client: Client) -> None:
    await store(client, a="\n\n".join(["cat " * 50] * 4), b="cat dog")
    answer = await client.search("cat", group_by=None, limit=100)
    assert all(len(result["chunks"]) == 1 for result in answer["results"])
    ids = [result["document"]["id"] for result in answer["results"]]
    assert ids.count("a") >= 4
    assert ids[-1] == "b"
    page = await client.search("cat", group_by=None, limit=2)
    assert page["next_offset"] == 2


@pytest.mark.parametrize("group_by", ["document", None])
async def test_the_threshold_keeps_out_what_is_farther(
    client: Client, group_by: str | None
) -> None:
    await store(client, a="cat", b="cat dog", c="horse", d="cat " * 50 + "\n\n" + "horse " * 50)
    options = {"group_by": group_by, "group_size": 10} if group_by else {"group_by": None}
    answer = await client.search("cat", score_threshold=0.9, **options)
    chunks = [chunk for result in answer["results"] for chunk in result["chunks"]]
    assert {result["document"]["id"] for result in answer["results"]} == {"a", "d"}
    assert all(chunk["cosine"] >= 0.9 for chunk in chunks)
    assert answer["next_offset"] is None
    assert await client.found("cat", score_threshold=-1) == await client.found("cat")


async def test_with_says_what_results_carry(client: Client) -> None:
    await client.store(id="a", text="cat", metadata={"k": 1})
    wanted = {"text": False, "metadata": False, "vector": True}
    [result] = (await client.search("cat", **{"with": wanted}))["results"]
    assert set(result["document"]) == {"id", "title"}
    [chunk] = result["chunks"]
    assert set(chunk) == CHUNK - {"text"} | {"vector"}
    assert chunk["vector"] == pytest.approx(toy_vector("cat").tolist(), abs=1e-3)


async def test_a_vector_can_be_the_query(client: Client) -> None:
    await store(client, a="cat", b="dog")
    found = await client.search({"vector": (5 * toy_vector("dog")).tolist()})
    assert [result["document"]["id"] for result in found["results"]] == ["b", "a"]
    assert found["results"][0]["score"] == pytest.approx(1, abs=1e-3)


async def test_the_query_string_searches_too(client: Client) -> None:
    await store(client, a="cat", b="dog", c="cat dog")
    answer = (await client.get(f"{SEARCH}?q=cat%20dog&limit=1&offset=1&mode=dense")).ok()
    assert len(answer["results"]) == 1
    assert answer["next_offset"] == 2
    assert (await client.get(f"{SEARCH}?q=cat+dog")).ok()["results"][0]["document"]["id"] == "c"


async def test_an_empty_collection_finds_nothing(client: Client) -> None:
    assert await client.found("cat") == []
    assert await client.found("cat", group_by=None) == []


async def test_a_long_query_is_cut_and_not_refused(client: Client) -> None:
    await store(client, a="cat", b="dog")
    assert await client.found("cat " * 10_000, limit=1) == ["a"]


async def test_what_is_stored_is_found_at_once(client: Client) -> None:
    for number in range(20):
        await client.store(id=f"d{number}", text="cat " + "dog " * number)
        assert f"d{number}" in await client.found("cat dog", limit=100)


async def test_searches_go_on_while_documents_come_and_go(running: Running) -> None:
    client = running.client
    await store(client, stays="cat")

    async def come_and_go(number: int) -> None:
        for _ in range(10):
            await client.store(id=f"d{number}", text="cat " * 200)
            (await client.delete(f"/v1/collections/default/documents/d{number}")).ok()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(come_and_go(number)) for number in range(4)]
        while not all(task.done() for task in tasks):
            results = (await client.search("cat", limit=50))["results"]
            assert "stays" in [result["document"]["id"] for result in results]
            assert all(result["chunks"] for result in results)


async def test_the_real_model_finds_by_meaning(real_client: Client) -> None:
    (await real_client.post("/v1/collections", {"name": "meaning"})).ok(201)
    texts = {
        "keys": "API credentials should be replaced every ninety days.",
        "soup": "Simmer the leeks and potatoes until they are tender.",
        "stars": "A nebula is a cloud of gas and dust in space.",
    }
    for id_, text in texts.items():
        await real_client.store("meaning", id=id_, text=text)
    assert (await real_client.found("How do I rotate secrets?", "meaning"))[0] == "keys"
    assert (await real_client.found("a recipe for dinner", "meaning"))[0] == "soup"
    assert (await real_client.found("astronomy", "meaning"))[0] == "stars"


async def test_a_numeral_beyond_json_is_refused_in_a_vector(shared_client: Client) -> None:
    for number in (b"NaN", b"Infinity", b"1e999"):
        vector = b", ".join([number] * DIMENSIONS)
        body = b'{"query": {"vector": [' + vector + b"]}}"
        (await shared_client.ask("POST", SEARCH, data=body)).refused(400)
