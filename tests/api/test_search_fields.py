"""Every field of a search, by what is other when it is ignored."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, get_args

import numpy as np
import pytest
import pytest_asyncio
from pydantic import BaseModel
from servers import Running, Serve
from toys import JUDGE, TOY, ToyShelf, toy_vector
from wire import Client

from memoryd.api.search_bodies import SearchBody, SearchQuery
from memoryd.embeddings.engine import Engine
from memoryd.embeddings.types import ModelSpec

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "cat", "text": "cat", "metadata": {"year": 2020}, "tags": ["pet"]},
    {"id": "catdog", "text": "cat dog", "metadata": {"year": 2022}},
    {"id": "cats", "text": "cat cat cat horse horse horse horse", "metadata": {"year": 2023}},
    {"id": "dog", "text": "dog dog", "metadata": {"year": 2024}},
    {"id": "fruit", "title": "apple", "text": "A pear. A plum! A cherry?"},
    {
        "id": "long",
        "chunks": [{"text": "bird"}, {"text": "bird fish"}, {"text": "fish"}, {"text": "red"}],
    },
]

Answer = dict[str, Any]


def ids(answer: Answer) -> list[str]:
    return [result["document"]["id"] for result in answer["results"]]


def first(answer: Answer) -> str:
    return ids(answer)[0]


def chunks(answer: Answer) -> list[Answer]:
    return [chunk for result in answer["results"] for chunk in result["chunks"]]


def indexes(answer: Answer) -> list[int]:
    return [chunk["index"] for chunk in chunks(answer)]


def best_score(answer: Answer) -> Any:
    return pytest.approx(answer["results"][0]["score"])


def has(field: str) -> Callable[[Answer], bool]:
    return lambda answer: all(field in chunk for chunk in chunks(answer))


def numbers(text: str) -> list[float]:
    vector: list[float] = toy_vector(text).tolist()
    return vector


@pytest_asyncio.fixture(scope="module")
async def library(serve: Serve) -> AsyncIterator[Running]:
    shelf = ToyShelf(TOY, JUDGE)
    shelf.poolings[JUDGE] = "rank"
    shelf.specs[TOY] = ModelSpec(TOY, query_prefix="{instruction} ")
    async with Engine(shelf) as engine, serve(engine) as running:
        for document in DOCUMENTS:
            await running.client.store(**document)
        yield running


@pytest.fixture
def client(library: Running) -> Client:
    return library.client


async def chunk_id(client: Client, document: str, index: int) -> str:
    page = (await client.get(f"/v1/collections/default/documents/{document}/chunks")).ok()
    id_: str = page["chunks"][index]["id"]
    return id_


# A field; what is searched without it, and with it; what is looked at, and what it is in each.
PROOFS: list[tuple[str, Answer, Answer, Callable[[Answer], Any], Any, Any]] = [
    ("query", {}, {"query": "pear"}, first, "cat", "fruit"),
    ("query", {"limit": 2}, {"query": ["pear", "fish"]}, lambda a: set(ids(a)),
     {"cat", "catdog"}, {"fruit", "long"}),
    ("query.vector", {}, {"query": {"vector": numbers("pear")}}, first, "cat", "fruit"),
    ("query.document", {}, {"query": {"document": "cat"}}, first, "cat", "catdog"),
    ("mode", {}, {"mode": "dense"}, lambda a: a["score_type"], "rrf", "cosine"),
    ("mode", {}, {"mode": "lexical"}, lambda a: a["score_type"], "rrf", "bm25"),
    ("limit", {}, {"limit": 2}, lambda a: len(ids(a)), 6, 2),
    ("offset", {}, {"offset": 1}, first, "cat", "catdog"),
    ("filter", {}, {"filter": {"field": "year", "gte": 2023}}, lambda a: set(ids(a)),
     {document["id"] for document in DOCUMENTS}, {"cats", "dog"}),
    ("score_threshold", {}, {"score_threshold": 0.7}, ids,
     ["cat", "catdog", "cats", "dog", "fruit", "long"], ["cat", "catdog"]),
    ("fusion.method", {}, {"fusion": {"method": "relative"}}, lambda a: a["score_type"],
     "rrf", "relative"),
    ("fusion.k", {}, {"fusion": {"k": 1}}, best_score, 2 / 11, 1.0),
    ("fusion.weights.dense", {}, {"fusion": {"weights": {"dense": 2}}}, best_score, 2 / 11, 3 / 11),
    ("fusion.weights.lexical", {}, {"fusion": {"weights": {"lexical": 3}}}, best_score,
     2 / 11, 4 / 11),
    ("rerank.model", {}, {"rerank": {"model": JUDGE}}, lambda a: (a["score_type"], ids(a)[:2]),
     ("rrf", ["cat", "catdog"]), ("rerank", ["cats", "cat"])),
    ("rerank.candidates", {"limit": 2, "rerank": {"model": JUDGE}},
     {"rerank": {"model": JUDGE, "candidates": 2}}, first, "cats", "cat"),
    ("mmr.diversity", {"mode": "dense", "limit": 2, "mmr": {"diversity": 0}},
     {"mmr": {"diversity": 1}}, lambda a: ids(a)[1] == "catdog", True, False),
    ("mmr.candidates", {"mode": "dense", "limit": 2, "mmr": {"diversity": 1}},
     {"mmr": {"diversity": 1, "candidates": 2}}, lambda a: ids(a)[1] == "catdog", False, True),
    ("boost", {"query": "cat dog"},
     {"boost": [{"filter": {"field": "year", "eq": 2024}, "weight": 10}]}, first, "catdog", "dog"),
    ("group_by", {"limit": 100}, {"group_by": None}, lambda a: len(ids(a)), 6, 9),
    ("group_size", {"query": "bird", "limit": 1}, {"group_size": 1}, indexes, [0, 1, 2], [0]),
    ("group_size", {"query": "bird", "limit": 1}, {"group_size": 100}, indexes,
     [0, 1, 2], [0, 1, 2, 3]),
    ("instruction", {"mode": "dense"}, {"instruction": "pear pear pear"}, first, "cat", "fruit"),
    ("with.text", {}, {"with": {"text": False}}, has("text"), True, False),
    ("with.metadata", {}, {"with": {"metadata": False}}, lambda a: set(a["results"][0]["document"]),
     {"id", "title", "metadata", "tags"}, {"id", "title"}),
    ("with.vector", {}, {"with": {"vector": True}}, lambda a: chunks(a)[0].get("vector"), None,
     pytest.approx(numbers("cat"), abs=1e-3)),
    ("with.highlight", {}, {"with": {"highlight": True}}, has("highlights"), False, True),
    ("with.context", {}, {"with": {"context": 1}}, has("before"), False, True),
    ("explain", {}, {"explain": True}, has("explain"), False, True),
    ("explain", {}, {"explain": True}, lambda a: "timings_ms" in a, False, True),
]  # fmt: skip

# Proved by tests of their own.
APART = {"query.chunk", "params.exact", "params.ef_search"}


@pytest.mark.parametrize(
    ("field", "without", "asked", "look", "before", "after"),
    PROOFS,
    ids=[f"{at}-{proof[0]}" for at, proof in enumerate(PROOFS)],
)
async def test_a_field_does_what_it_says(
    client: Client,
    field: str,
    without: Answer,
    asked: Answer,
    look: Callable[[Answer], Any],
    before: Any,
    after: Any,
) -> None:
    query = without.get("query", "cat")
    without = {key: value for key, value in without.items() if key != "query"}
    assert look(await client.search(query, **without)) == before
    changed = {"query": query, **without, **asked}
    assert look(await client.search(changed.pop("query"), **changed)) == after


def fields_of(kind: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the paths of all fields that hold no others; of a query, those of its kinds."""
    for name, field in kind.model_fields.items():
        here = path + (field.alias or name)
        inner = [each for each in models_in(field.annotation) if issubclass(each, BaseModel)]
        for each in inner:
            yield from fields_of(each, f"{here}.")
        if not inner or name == "query":
            yield here


def models_in(annotation: Any) -> Iterator[type]:
    """Yield the models that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def test_every_field_is_proved() -> None:
    assert {proof[0] for proof in PROOFS} | APART == set(fields_of(SearchBody))


# --- Those that need more ------------------------------------------------------------------------


async def test_a_stored_chunk_finds_what_is_like_it_and_not_itself(client: Client) -> None:
    query = {"chunk": await chunk_id(client, "long", 1)}
    answer = await client.search(query, group_by=None, limit=3)
    assert answer["score_type"] == "cosine"
    assert ids(answer)[:2] == ["long", "long"]
    assert sorted(indexes(answer)[:2]) == [0, 2]
    every = await client.search(query, group_by=None, limit=100)
    assert query["chunk"] not in [chunk["id"] for chunk in chunks(every)]
    grouped = await client.search(query, group_size=100)
    assert query["chunk"] not in [chunk["id"] for chunk in chunks(grouped)]
    assert {0, 2, 3} == set(indexes(grouped)[:3])


async def test_a_stored_document_finds_what_is_like_it_and_not_itself(client: Client) -> None:
    answer = await client.search({"document": "long"}, limit=100, mode="hybrid")
    assert "long" not in ids(answer)
    assert len(ids(answer)) == len(DOCUMENTS) - 1
    middle = sum(toy_vector(text) for text in ("bird", "bird fish", "fish", "red"))
    middle /= np.linalg.norm(middle)
    for chunk in chunks(answer):
        assert chunk["cosine"] == pytest.approx(middle @ toy_vector(chunk["text"]), abs=0.05)


def test_params_say_how_thoroughly_vectors_are_searched() -> None:
    plain = SearchBody(query="cat").to_query().dense
    assert (plain.exact, plain.ef_search) == (False, None)
    body = SearchBody.model_validate({"query": "cat", "params": {"exact": True, "ef_search": 77}})
    asked = body.to_query().dense
    assert (asked.exact, asked.ef_search) == (True, 77)


@pytest.mark.parametrize("of", ["text", "vector", "document"])
async def test_hybrid_search_without_words_is_dense(client: Client, of: str) -> None:
    query = {"text": "!?", "vector": {"vector": numbers("cat")}, "document": {"document": "cat"}}[
        of
    ]
    answer = await client.search(query)
    assert len(ids(answer)) >= len(DOCUMENTS) - 1
    assert not any("bm25" in chunk for chunk in chunks(answer))
    if of != "text":
        assert answer["score_type"] == "cosine"
        assert answer["plan"] == {"dense": "exact", "lexical": None}
        dense = await client.search(query, mode="dense")
        assert {**dense, "took_ms": 0} == {**answer, "took_ms": 0}


async def test_words_that_are_stop_words_find_nothing_by_themselves(client: Client) -> None:
    answer = await client.search("the of and", mode="lexical")
    assert (answer["results"], answer["next_offset"]) == ([], None)
    assert answer["plan"] == {"dense": None, "lexical": "bm25"}
    assert answer["score_type"] == "bm25"
    hybrid = await client.search("the of and")
    assert len(ids(hybrid)) == len(DOCUMENTS)
    assert hybrid["score_type"] == "rrf"


async def test_every_chunk_has_its_cosine_and_bm25_in_every_mode(client: Client) -> None:
    seen: list[Any] = []
    for mode in ("hybrid", "dense", "lexical"):
        found = chunks(await client.search("cat", mode=mode))
        words = {each["id"]: (each["cosine"], each.get("bm25")) for each in found}
        seen.append({id_: pair for id_, pair in words.items() if pair[1] is not None})
        for each in found:
            assert each["cosine"] == pytest.approx(
                toy_vector("cat") @ toy_vector(each["text"]), abs=0.4
            )
            assert ("bm25" in each) == ("cat" in each["text"].split())
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 3


async def test_the_score_is_what_score_type_says(client: Client) -> None:
    dense = await client.search("cat", mode="dense")
    assert all(chunk["score"] == chunk["cosine"] for chunk in chunks(dense))
    lexical = await client.search("cat", mode="lexical")
    assert all(chunk["score"] == chunk["bm25"] for chunk in chunks(lexical))
    for answer in (dense, lexical):
        for result in answer["results"]:
            assert result["score"] == max(chunk["score"] for chunk in result["chunks"])


async def test_an_explanation_has_the_rank_in_each_ranking(client: Client) -> None:
    answer = await client.search("cat", group_by=None, explain=True, limit=100)
    assert set(answer["timings_ms"]) >= {"embed", "dense", "lexical", "fusion", "fetch"}
    assert all(part >= 0 for part in answer["timings_ms"].values())
    assert all(part <= answer["took_ms"] for part in answer["timings_ms"].values())
    ranks = [chunk["explain"] for chunk in chunks(answer)]
    assert sorted(rank["dense"]["rank"] for rank in ranks) == list(range(1, 10))
    assert sorted(rank["lexical"]["rank"] for rank in ranks if "lexical" in rank) == [1, 2, 3]
    for result in answer["results"]:
        [chunk] = result["chunks"]
        parts = [1 / (10 + rank["rank"]) for rank in chunk["explain"].values()]
        assert chunk["score"] == pytest.approx(sum(parts))
    by_words = await client.search("cat", mode="lexical", explain=True)
    assert all(set(chunk["explain"]) == {"lexical"} for chunk in chunks(by_words))
    assert "embed" in by_words["timings_ms"]
    assert "dense" not in by_words["timings_ms"]


async def test_reranking_is_explained(client: Client) -> None:
    answer = await client.search("cat", rerank={"model": JUDGE}, explain=True, limit=2)
    assert "rerank" in answer["timings_ms"]
    best, second = answer["results"]
    [chunk] = best["chunks"]
    assert chunk["explain"]["rerank"] == {"rank": 1, "score": 3.0}
    assert best["score"] == chunk["score"] == 3.0
    assert second["chunks"][0]["explain"]["rerank"]["rank"] == 2
    assert {"dense", "lexical"} <= set(chunk["explain"])


async def test_a_threshold_after_reranking_is_one_of_its_scores(client: Client) -> None:
    options = {"rerank": {"model": JUDGE}, "score_threshold": 2.5}
    answer = await client.search("cat", **options)
    assert ids(answer) == ["cats"]
    assert answer["next_offset"] is None


async def test_a_threshold_of_lexical_search_is_one_of_bm25(client: Client) -> None:
    every = await client.search("cat", mode="lexical")
    scores = [result["score"] for result in every["results"]]
    kept = await client.search("cat", mode="lexical", score_threshold=scores[0])
    assert ids(kept) == ids(every)[:1]
    assert ids(await client.search("cat", mode="lexical", score_threshold=100)) == []


async def test_context_is_what_stands_before_and_after(client: Client) -> None:
    query = {"query": "fish", "mode": "dense", "group_by": None, "limit": 1}
    for count, before, after in ((1, [1], [3]), (2, [0, 1], [3]), (10, [0, 1], [3])):
        answer = await client.search(**query, **{"with": {"context": count}})
        [chunk] = chunks(answer)
        assert chunk["index"] == 2
        assert [each["index"] for each in chunk["before"]] == before
        assert [each["index"] for each in chunk["after"]] == after
        assert chunk["after"][0]["text"] == "red"
        assert set(chunk["after"][0]) == {
            *("id", "index", "start_char", "end_char", "token_count", "page", "headings", "text")
        }
    answer = await client.search(**query, **{"with": {"context": 1, "text": False}})
    [chunk] = chunks(answer)
    assert not any("text" in each for each in (chunk, *chunk["before"], *chunk["after"]))


async def test_highlights_are_the_sentences_that_say_most(client: Client) -> None:
    for mode in ("hybrid", "dense", "lexical"):
        answer = await client.search("plum", mode=mode, limit=1, **{"with": {"highlight": True}})
        [chunk] = chunks(answer)
        [span] = chunk["highlights"]
        assert chunk["text"][span["start"] : span["end"]] == "A plum!"
    vector = {"vector": numbers("cherry")}
    [chunk] = chunks(await client.search(vector, limit=1, **{"with": {"highlight": True}}))
    [span] = chunk["highlights"]
    assert chunk["text"][span["start"] : span["end"]] == "A cherry?"


async def test_what_results_carry_is_only_what_was_asked_for(client: Client) -> None:
    nothing = {"text": False, "metadata": False}
    answer = await client.search("cat", limit=1, **{"with": nothing})
    assert set(answer) == {"results", "score_type", "model", "plan", "took_ms", "next_offset"}
    [result] = answer["results"]
    assert set(result) == {"document", "score", "chunks"}
    assert set(result["document"]) == {"id", "title"}
    assert set(result["chunks"][0]) == {
        *("id", "index", "start_char", "end_char", "token_count", "page", "headings"),
        *("score", "cosine", "bm25"),
    }


async def test_null_is_as_good_as_absent_where_it_says_nothing(client: Client) -> None:
    names = ("filter", "score_threshold", "rerank", "mmr", "boost", "instruction")
    nulls = dict.fromkeys(names)
    assert ids(await client.search("cat", **nulls)) == ids(await client.search("cat"))
    assert ids(await client.search("cat", boost=[])) == ids(await client.search("cat"))
    params = {"exact": False, "ef_search": None}
    assert ids(await client.search("cat", params=params)) == ids(await client.search("cat"))


async def test_several_queries_are_fused(client: Client) -> None:
    answer = await client.search(["cat", "dog"], mode="lexical", limit=1)
    assert first(answer) == "catdog"
    assert answer["score_type"] == "rrf"
    same = await client.search(["cat", "cat"], mode="dense")
    assert ids(same) == ids(await client.search("cat", mode="dense"))
    by_score = await client.search(
        ["cat", "dog"], mode="dense", fusion={"method": "relative"}, limit=100
    )
    assert by_score["score_type"] == "relative"


async def test_a_weight_of_nothing_leaves_an_arm_out(client: Client) -> None:
    for weights, mode in (({"dense": 0}, "lexical"), ({"lexical": 0}, "dense")):
        weighted = await client.search("cat", fusion={"weights": weights}, limit=100)
        alone = await client.search("cat", mode=mode, limit=100)
        assert ids(weighted) == ids(alone)
    queries = ["cat", "dog"]
    unweighted = await client.search(queries, mode="dense")
    weighted = await client.search(queries, mode="dense", fusion={"weights": {"dense": 0}})
    assert ids(weighted) == ids(unweighted)


# --- The query string ----------------------------------------------------------------------------

SEARCH = "/v1/collections/default/search"


@pytest.mark.parametrize(
    ("parameter", "body"),
    [
        ("q=pear", {"query": "pear"}),
        ("q=cat&limit=2", {"limit": 2}),
        ("q=cat&offset=1", {"offset": 1}),
        ("q=cat&mode=dense", {"mode": "dense"}),
        ("q=cat&mode=lexical", {"mode": "lexical"}),
        ("q=cat&score_threshold=0.7", {"score_threshold": 0.7}),
        ("q=cat&score_threshold=-1e0", {"score_threshold": -1}),
        ("q=cat&filter=%7B%22field%22:%22year%22,%22gte%22:2023%7D",
         {"filter": {"field": "year", "gte": 2023}}),
    ],
)  # fmt: skip
async def test_the_query_string_asks_what_the_body_does(
    client: Client, parameter: str, body: Answer
) -> None:
    by_string = (await client.get(f"{SEARCH}?{parameter}")).ok()
    by_body = await client.search(**{"query": "cat", **body})
    plain = await client.search("cat")
    assert {**by_string, "took_ms": 0} == {**by_body, "took_ms": 0}
    if "-1e0" not in parameter:
        assert {**by_string, "took_ms": 0} != {**plain, "took_ms": 0}


def test_every_parameter_is_proved() -> None:
    names = {"q", "limit", "offset", "mode", "filter", "score_threshold"}
    assert set(SearchQuery.model_fields) == names
