"""Every bad value of a search, by its status, its code, and the field that it names."""

from typing import Any

import pytest
from toys import DIMENSIONS
from wire import Client

SEARCH = "/v1/collections/default/search"
BATCH = f"{SEARCH}/batch"
SEVERAL = "/v1/search"
VECTOR = [1.0] + [0.0] * (DIMENSIONS - 1)
OF_VECTOR = {"query": {"vector": VECTOR}}
YEAR = {"field": "year", "gte": 2023}

INVALID, MISSING, UNKNOWN = "invalid_value", "missing_field", "unknown_field"
TOO_LARGE, NOT_FOUND = "too_large", "not_found"

# What is added to {"query": "cat"}, or takes the place of the query; then status, param and code.
REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    # query
    ({"query": ""}, 400, "query", INVALID),
    ({"query": " \n\t\u3000"}, 400, "query", INVALID),
    ({"query": None}, 400, "query", INVALID),
    ({"query": 5}, 400, "query", INVALID),
    ({"query": True}, 400, "query", INVALID),
    ({"query": []}, 400, "query", INVALID),
    ({"query": ["cat", ""]}, 400, "query[1]", INVALID),
    ({"query": ["cat", " "]}, 400, "query[1]", INVALID),
    ({"query": ["cat", 5]}, 400, "query[1]", INVALID),
    ({"query": ["cat", {"vector": VECTOR}]}, 400, "query[1]", INVALID),
    ({"query": ["cat"] * 17}, 413, "query", TOO_LARGE),
    ({"query": {}}, 400, "query.vector", MISSING),
    ({"query": {"vektor": VECTOR}}, 400, "query.vector", MISSING),
    ({"query": {"vector": []}}, 400, "query.vector", INVALID),
    ({"query": {"vector": "x"}}, 400, "query.vector", INVALID),
    ({"query": {"vector": None}}, 400, "query.vector", INVALID),
    ({"query": {"vector": VECTOR[1:]}}, 400, "query.vector", INVALID),
    ({"query": {"vector": [*VECTOR, 0.0]}}, 400, "query.vector", INVALID),
    ({"query": {"vector": [0.0] * DIMENSIONS}}, 400, "query.vector", INVALID),
    ({"query": {"vector": [*VECTOR[1:], None]}}, 400, "query.vector[15]", INVALID),
    ({"query": {"vector": [*VECTOR[1:], "1"]}}, 400, "query.vector[15]", INVALID),
    ({"query": {"vector": [*VECTOR[1:], True]}}, 400, "query.vector[15]", INVALID),
    ({"query": {"vector": VECTOR, "x": 1}}, 400, "query.x", UNKNOWN),
    ({"query": {"vector": [1.0] * 16_001}}, 413, "query.vector", TOO_LARGE),
    ({"query": {"document": ""}}, 400, "query.document", INVALID),
    ({"query": {"document": None}}, 400, "query.document", INVALID),
    ({"query": {"document": 5}}, 400, "query.document", INVALID),
    ({"query": {"document": ".."}}, 400, "query.document", INVALID),
    ({"query": {"document": "x" * 513}}, 413, "query.document", TOO_LARGE),
    ({"query": {"document": "nobody"}}, 404, "query.document", NOT_FOUND),
    ({"query": {"document": "a", "vector": VECTOR}}, 400, "query.vector", UNKNOWN),
    ({"query": {"document": "a", "chunk": "c1"}}, 400, "query.chunk", UNKNOWN),
    ({"query": {"chunk": ""}}, 400, "query.chunk", INVALID),
    ({"query": {"chunk": 1}}, 400, "query.chunk", INVALID),
    ({"query": {"chunk": "c999999999"}}, 404, "query.chunk", NOT_FOUND),
    ({"query": {"chunk": "c" + "9" * 40}}, 404, "query.chunk", NOT_FOUND),
    ({"query": {"chunk": "nobody"}}, 404, "query.chunk", NOT_FOUND),
    # mode
    ({"mode": "magic"}, 400, "mode", INVALID),
    ({"mode": "Dense"}, 400, "mode", INVALID),
    ({"mode": None}, 400, "mode", INVALID),
    ({**OF_VECTOR, "mode": "lexical"}, 400, "mode", INVALID),
    ({"query": {"document": "a"}, "mode": "lexical"}, 400, "mode", INVALID),
    ({"query": {"chunk": "c1"}, "mode": "lexical"}, 400, "mode", INVALID),
    # limit and offset
    ({"limit": 0}, 400, "limit", INVALID),
    ({"limit": 1001}, 400, "limit", INVALID),
    ({"limit": "x"}, 400, "limit", INVALID),
    ({"limit": 1.5}, 400, "limit", INVALID),
    ({"limit": True}, 400, "limit", INVALID),
    ({"limit": None}, 400, "limit", INVALID),
    ({"offset": -1}, 400, "offset", INVALID),
    ({"offset": "1"}, 400, "offset", INVALID),
    ({"offset": None}, 400, "offset", INVALID),
    ({"offset": 9_991}, 413, "offset", TOO_LARGE),
    ({"offset": 2**63 - 1}, 413, "offset", TOO_LARGE),
    # filter
    ({"filter": {}}, 400, "filter", MISSING),
    ({"filter": "year"}, 400, "filter", INVALID),
    ({"filter": []}, 400, "filter", INVALID),
    ({"filter": {"field": "year"}}, 400, "filter", MISSING),
    ({"filter": {"gte": 1}}, 400, "filter.field", MISSING),
    ({"filter": {"field": "year", "near": 1}}, 400, "filter.near", UNKNOWN),
    ({"filter": {"field": "year", "gte": True}}, 400, "filter.gte", INVALID),
    ({"filter": {"field": "a..b", "eq": 1}}, 400, "filter.field", INVALID),
    ({"filter": {"and": []}}, 400, "filter.and", INVALID),
    ({"filter": {"and": [YEAR, {"field": "x", "gte": []}]}}, 400, "filter.and[1].gte", INVALID),
    ({"filter": {"not": {"or": [{"field": "x", "in": 1}]}}}, 400, "filter.not.or[0].in", INVALID),
    ({"filter": {"field": "year", "in": [0] * 10_001}}, 413, "filter.in", TOO_LARGE),
    # score_threshold
    ({"score_threshold": 1.5}, 400, "score_threshold", INVALID),
    ({"score_threshold": -1.01}, 400, "score_threshold", INVALID),
    ({"score_threshold": 1.5, "mode": "dense"}, 400, "score_threshold", INVALID),
    ({"score_threshold": "0.5"}, 400, "score_threshold", INVALID),
    ({"score_threshold": True}, 400, "score_threshold", INVALID),
    # fusion
    ({"fusion": "rrf"}, 400, "fusion", INVALID),
    ({"fusion": None}, 400, "fusion", INVALID),
    ({"fusion": {"method": "max"}}, 400, "fusion.method", INVALID),
    ({"fusion": {"k": 0}}, 400, "fusion.k", INVALID),
    ({"fusion": {"k": -1}}, 400, "fusion.k", INVALID),
    ({"fusion": {"k": 0.0009}}, 400, "fusion.k", INVALID),
    ({"fusion": {"k": 10_001}}, 400, "fusion.k", INVALID),
    ({"fusion": {"k": "60"}}, 400, "fusion.k", INVALID),
    ({"fusion": {"method": "relative", "k": 60}}, 400, "fusion.k", INVALID),
    ({"fusion": {"weights": {"dense": -1}}}, 400, "fusion.weights.dense", INVALID),
    ({"fusion": {"weights": {"dense": 1e308}}}, 400, "fusion.weights.dense", INVALID),
    ({"fusion": {"weights": {"lexical": 1e6 + 1}}}, 400, "fusion.weights.lexical", INVALID),
    ({"fusion": {"weights": {"lexical": "1"}}}, 400, "fusion.weights.lexical", INVALID),
    ({"fusion": {"weights": {"dense": 0, "lexical": 0}}}, 400, "fusion.weights", INVALID),
    ({"fusion": {"weights": {"sparse": 1}}}, 400, "fusion.weights.sparse", UNKNOWN),
    ({"fusion": {"rrf_k": 60}}, 400, "fusion.rrf_k", UNKNOWN),
    # rerank
    ({"rerank": "judge"}, 400, "rerank", INVALID),
    ({"rerank": {"model": ""}}, 400, "rerank.model", INVALID),
    ({"rerank": {"model": 5}}, 400, "rerank.model", INVALID),
    ({"rerank": {"model": "judge", "candidates": 0}}, 400, "rerank.candidates", INVALID),
    ({"rerank": {"model": "judge", "candidates": 1001}}, 400, "rerank.candidates", INVALID),
    ({"rerank": {"model": "judge", "candidates": 9}}, 400, "rerank.candidates", INVALID),
    ({"rerank": {"model": "judge"}, "offset": 41}, 400, "rerank.candidates", INVALID),
    ({"rerank": {"model": "judge", "top_n": 9}}, 400, "rerank.top_n", UNKNOWN),
    ({"rerank": {"model": "nobody"}}, 404, "rerank.model", "model_not_found"),
    ({**OF_VECTOR, "rerank": {"model": "judge"}}, 400, "rerank", INVALID),
    # mmr
    ({"mmr": 0.5}, 400, "mmr", INVALID),
    ({"mmr": {"diversity": -0.1}}, 400, "mmr.diversity", INVALID),
    ({"mmr": {"diversity": 1.1}}, 400, "mmr.diversity", INVALID),
    ({"mmr": {"diversity": "0.3"}}, 400, "mmr.diversity", INVALID),
    ({"mmr": {"candidates": 0}}, 400, "mmr.candidates", INVALID),
    ({"mmr": {"candidates": 1001}}, 400, "mmr.candidates", INVALID),
    ({"mmr": {"candidates": 5}}, 400, "mmr.candidates", INVALID),
    ({"mmr": {}, "limit": 101}, 400, "mmr.candidates", INVALID),
    ({"mmr": {"lambda": 1}}, 400, "mmr.lambda", UNKNOWN),
    # boost
    ({"boost": {}}, 400, "boost", INVALID),
    ({"boost": ["x"]}, 400, "boost[0]", INVALID),
    ({"boost": [{"filter": YEAR}]}, 400, "boost[0].weight", MISSING),
    ({"boost": [{"filter": YEAR, "weight": 11}]}, 400, "boost[0].weight", INVALID),
    ({"boost": [{"filter": YEAR, "weight": 1, "x": 1}]}, 400, "boost[0].x", UNKNOWN),
    ({"boost": [{"filter": {}, "weight": 1}]}, 400, "boost[0].filter", MISSING),
    ({"boost": [{"field": "x", "decay": "exp", "weight": 1}]}, 400, "boost[0].scale", MISSING),
    ({"boost": [{"filter": YEAR, "weight": 1}] * 17}, 413, "boost", TOO_LARGE),
    # groups
    ({"group_by": "tag"}, 400, "group_by", INVALID),
    ({"group_size": 0}, 400, "group_size", INVALID),
    ({"group_size": 101}, 400, "group_size", INVALID),
    ({"group_size": None}, 400, "group_size", INVALID),
    ({"group_by": None, "group_size": 3}, 400, "group_size", INVALID),
    # instruction
    ({"instruction": ""}, 400, "instruction", INVALID),
    ({"instruction": 5}, 400, "instruction", INVALID),
    ({"instruction": "bird"}, 400, "instruction", INVALID),  # the model takes none
    ({**OF_VECTOR, "instruction": "bird"}, 400, "instruction", INVALID),
    # with
    ({"with": None}, 400, "with", INVALID),
    ({"with": ["text"]}, 400, "with", INVALID),
    ({"with": {"txt": True}}, 400, "with.txt", UNKNOWN),
    ({"with": {"text": 1}}, 400, "with.text", INVALID),
    ({"with": {"metadata": "no"}}, 400, "with.metadata", INVALID),
    ({"with": {"vector": None}}, 400, "with.vector", INVALID),
    ({"with": {"highlight": {}}}, 400, "with.highlight", INVALID),
    ({"with": {"context": -1}}, 400, "with.context", INVALID),
    ({"with": {"context": 11}}, 400, "with.context", INVALID),
    ({"with": {"context": True}}, 400, "with.context", INVALID),
    ({"with_": {}}, 400, "with_", UNKNOWN),
    # params
    ({"params": 5}, 400, "params", INVALID),
    ({"params": {"exact": 1}}, 400, "params.exact", INVALID),
    ({"params": {"ef_search": 0}}, 400, "params.ef_search", INVALID),
    ({"params": {"ef_search": 1001}}, 400, "params.ef_search", INVALID),
    ({"params": {"ef": 1}}, 400, "params.ef", UNKNOWN),
    # others
    ({"explain": 1}, 400, "explain", INVALID),
    ({"limti": 5}, 400, "limti", UNKNOWN),
]  # fmt: skip


def as_id(value: Any) -> str | None:
    return str(value)[:60] if isinstance(value, dict) else None


@pytest.mark.parametrize(("fields", "status", "param", "code"), REFUSED, ids=as_id)
async def test_a_wrong_search_is_refused_by_the_name_of_its_fault(
    shared_client: Client, fields: dict[str, Any], status: int, param: str, code: str
) -> None:
    error = (await shared_client.post(SEARCH, {"query": "cat", **fields})).refused(status, code)
    assert error["param"] == param
    if code != "model_not_found":
        assert param.partition(".")[0].partition("[")[0] in error["message"]


@pytest.mark.parametrize(("fields", "status", "param", "code"), REFUSED, ids=as_id)
async def test_a_wrong_search_of_a_batch_is_refused_with_its_number(
    shared_client: Client, fields: dict[str, Any], status: int, param: str, code: str
) -> None:
    searches = [{"query": "cat"}, {"query": "dog"}, {"query": "cat", **fields}]
    answer = await shared_client.post(BATCH, {"searches": searches})
    error = answer.refused(status, code)
    assert error["param"] == f"searches[2].{param}"
    assert "searches[2]" in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "query", MISSING),
        ([], 400, None, INVALID),
        ("cat", 400, None, INVALID),
        (None, 400, None, INVALID),
    ],
)
async def test_what_is_no_search_is_refused(
    shared_client: Client, body: Any, status: int, param: str | None, code: str
) -> None:
    assert (await shared_client.post(SEARCH, body)).refused(status, code)["param"] == param


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "searches", MISSING),
        ({"searches": []}, 400, "searches", INVALID),
        ({"searches": {}}, 400, "searches", INVALID),
        ({"searches": None}, 400, "searches", INVALID),
        ({"searches": ["cat"]}, 400, "searches[0]", INVALID),
        ({"searches": [{"query": "cat"}, {}]}, 400, "searches[1].query", MISSING),
        ({"searches": [{"query": "cat"}] * 101}, 413, "searches", TOO_LARGE),
        ({"searches": [{"query": "cat"}], "query": "cat"}, 400, "query", UNKNOWN),
        ({"searches": [{"query": "cat", "collections": ["default"]}]}, 400,
         "searches[0].collections", UNKNOWN),
    ],
)  # fmt: skip
async def test_a_wrong_batch_is_refused_by_the_name_of_its_fault(
    shared_client: Client, body: Any, status: int, param: str, code: str
) -> None:
    assert (await shared_client.post(BATCH, body)).refused(status, code)["param"] == param


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"collections": None}, 400, "collections", INVALID),
        ({"collections": []}, 400, "collections", INVALID),
        ({"collections": "default"}, 400, "collections", INVALID),
        ({"collections": ["default", 5]}, 400, "collections[1]", INVALID),
        ({"collections": ["default", "../x"]}, 400, "collections[1]", INVALID),
        ({"collections": ["default"] * 2}, 400, "collections[1]", INVALID),
        ({"collections": ["default"] * 17}, 413, "collections", TOO_LARGE),
        ({"collections": ["default", "nobody"]}, 404, "collections[1]", NOT_FOUND),
        ({"query": {"document": "a"}}, 400, "query", INVALID),
        ({"query": {"chunk": "c1"}}, 400, "query", INVALID),
        ({"query": {"vector": VECTOR[1:]}}, 400, "query.vector", INVALID),
        ({"offset": 991}, 413, "offset", TOO_LARGE),
        ({"limit": 1001}, 400, "limit", INVALID),
        ({"filter": {"field": "x", "near": 1}}, 400, "filter.near", UNKNOWN),
        ({"colections": []}, 400, "colections", UNKNOWN),
    ],
)
async def test_a_wrong_search_of_several_is_refused_by_the_name_of_its_fault(
    shared_client: Client, fields: Any, status: int, param: str, code: str
) -> None:
    body = {"collections": ["default"], "query": "cat", **fields}
    assert (await shared_client.post(SEVERAL, body)).refused(status, code)["param"] == param


async def test_several_collections_have_to_be_named(shared_client: Client) -> None:
    error = (await shared_client.post(SEVERAL, {"query": "cat"})).refused(400, MISSING)
    assert error["param"] == "collections"


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("", 400, "q"),
        ("q=", 400, "q"),
        ("q=+", 400, "q"),
        ("q=cat&limit=0", 400, "limit"),
        ("q=cat&limit=x", 400, "limit"),
        ("q=cat&limit=1001", 400, "limit"),
        ("q=cat&offset=-1", 400, "offset"),
        ("q=cat&offset=99999", 400, "offset"),
        ("q=cat&offset=9999", 413, "offset"),
        ("q=cat&mode=magic", 400, "mode"),
        ("q=cat&mode=", 400, "mode"),
        ("q=cat&limt=1", 400, "limt"),
        ("q=cat&rerank=judge", 400, "rerank"),
        ("query=cat", 400, "query"),
        ("q=cat&filter=year", 400, "filter"),
        ("q=cat&filter=", 400, "filter"),
        ("q=cat&filter=%7B%7D", 400, "filter"),
        ("q=cat&filter=%7B%22field%22:%22x%22,%22near%22:1%7D", 400, "filter.near"),
        ("q=cat&score_threshold=", 400, "score_threshold"),
        ("q=cat&score_threshold=x", 400, "score_threshold"),
        ("q=cat&score_threshold=nan", 400, "score_threshold"),
        ("q=cat&score_threshold=inf", 400, "score_threshold"),
        ("q=cat&score_threshold=1e999", 400, "score_threshold"),
        ("q=cat&score_threshold=1_0", 400, "score_threshold"),
        ("q=cat&score_threshold=2", 400, "score_threshold"),
    ],
)
async def test_a_wrong_query_string_is_refused_by_the_name_of_its_fault(
    shared_client: Client, query: str, status: int, param: str
) -> None:
    error = (await shared_client.get(f"{SEARCH}?{query}")).refused(status)
    assert error["param"] == param


@pytest.mark.parametrize(
    "fields",
    [
        {"score_threshold": 1.5, "mode": "lexical"},
        {"score_threshold": -1},
        {"score_threshold": 1},
        {"limit": 1000, "offset": 9000},
        {"limit": 1000, "mmr": {"candidates": 1000}},
        {"fusion": {"method": "relative"}},
        {"fusion": {"k": 0.5, "weights": {"dense": 0}}},
        {"fusion": {"k": 0.001, "weights": {"dense": 1e6, "lexical": 1e6}}},
        {"fusion": {"k": 10_000}},
        {"query": ["cat"] * 16},
        {"group_by": None},
        {"with": {"context": 10}},
        {"params": {"ef_search": 1000}},
        {"filter": None, "boost": None},
    ],
    ids=str,
)
async def test_what_is_at_a_limit_is_served(shared_client: Client, fields: Any) -> None:
    (await shared_client.post(SEARCH, {"query": "cat", **fields})).ok()


async def test_a_missing_collection_is_told(shared_client: Client) -> None:
    for path in ("search", "search/batch"):
        body = {"query": "cat"} if path == "search" else {"searches": [{"query": "cat"}]}
        answer = await shared_client.post(f"/v1/collections/nobody/{path}", body)
        assert "nobody" in answer.refused(404, NOT_FOUND)["message"]
