"""/openapi.json: every route, as it is."""

import re
from typing import Any

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from servers import Serve
from wire import Client

import memoryd
from memoryd.api import openapi, stored_documents
from memoryd.api.route import Dialect, Route
from memoryd.api.routes import ROUTES

PAGE: dict[str, Any] = orjson.loads(openapi.Document(ROUTES).json)
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in PAGE["paths"].items()
    for method, operation in methods.items()
}
ROUTE_IDS = [f"{route.method} {route.pattern}" for route in ROUTES]


def operation_of(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = OPERATIONS[route.method, route.pattern]
    return operation


def resolve(part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference into the document."""
    found: Any = part
    while "$ref" in found:
        found = PAGE
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return found


async def test_the_server_answers_the_document_of_its_version(shared_client: Client) -> None:
    document = (await shared_client.get("/openapi.json")).ok()
    assert document == PAGE
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == memoryd.__version__


async def test_it_is_also_where_tei_has_it(shared_client: Client) -> None:
    answer = await shared_client.get("/api-doc/openapi.json?x=ignored")
    assert answer.ok() == (await shared_client.get("/openapi.json")).ok()


def test_it_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(PAGE).validate()


def test_it_is_the_same_each_time() -> None:
    assert openapi.Document(ROUTES).json == openapi.Document(ROUTES).json


def test_it_has_every_route_and_no_other() -> None:
    assert set(OPERATIONS) == {(route.method, route.pattern) for route in ROUTES}
    assert len(OPERATIONS) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
def test_a_route_tells_what_it_answers(route: Route) -> None:
    content = operation_of(route)["responses"][str(route.status)].get("content")
    if content is None:  # an answer without a body, or none but errors
        assert route.answer is None
        return
    assert list(content) == [route.content_type, *route.other_content_types]
    assert (route.answer is None) == (route.content_type != "application/json")


def test_operations_have_ids_of_their_own() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
def test_an_operation_has_a_summary_and_a_tag(route: Route) -> None:
    operation = operation_of(route)
    assert re.match(r"[A-Z][a-z]", operation["summary"]), "a sentence, not a path"
    assert operation["tags"][0] in [tag["name"] for tag in PAGE["tags"]]


def test_variables_of_a_path_are_parameters() -> None:
    operation = OPERATIONS["GET", "/v1/collections/{collection}/documents/{id}/chunks"]
    found = [(each["name"], each["in"], each.get("required")) for each in operation["parameters"]]
    assert found == [
        ("collection", "path", True),
        ("id", "path", True),
        ("cursor", "query", False),
        ("limit", "query", False),
    ]
    limit = operation["parameters"][3]["schema"]
    assert (limit["type"], limit["default"], limit["maximum"]) == ("integer", 100, 1000)


def test_a_parameter_without_a_default_is_required() -> None:
    [q] = [
        each
        for each in OPERATIONS["GET", "/v1/collections/{collection}/search"]["parameters"]
        if each["name"] == "q"
    ]
    assert q["required"]


def test_a_header_that_a_route_reads_is_a_parameter() -> None:
    for method in ("GET", "DELETE"):
        operation = OPERATIONS[method, "/v1/collections/{collection}/documents/{id}"]
        headers = [each["name"] for each in operation["parameters"] if each["in"] == "header"]
        assert headers == (["If-Match"] if method == "DELETE" else [])


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
def test_a_body_is_that_which_validates(route: Route) -> None:
    operation = operation_of(route)
    assert ("requestBody" in operation) == (route.body is not None or bool(route.other_bodies))
    if route.body is not None:
        assert operation["requestBody"]["content"]["application/json"]["schema"]


def test_limits_of_a_field_are_told() -> None:
    fields = PAGE["components"]["schemas"]["DocumentBody"]["properties"]
    assert fields["title"]["maxLength"] == 10_000
    assert fields["tags"]["maxItems"] == 64
    assert PAGE["components"]["schemas"]["DocumentBody"]["additionalProperties"] is False


SHAPES = {
    Dialect.OPENAI: "ErrorAnswer",
    Dialect.OLLAMA: "OllamaErrorAnswer",
    Dialect.TEI: "TeiErrorAnswer",
}


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
def test_errors_have_the_shape_of_the_dialect(route: Route) -> None:
    shapes = [SHAPES[each] for each in (route.dialect, route.other_dialect) if each]
    for status, answer in operation_of(route)["responses"].items():
        if int(status) < 400 or int(status) in dict(route.other_answers):
            continue
        schema = resolve(answer)["content"]["application/json"]["schema"]
        found = [each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema])]
        assert found == shapes


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
def test_a_key_is_wanted_where_the_route_has_a_scope(route: Route) -> None:
    operation = operation_of(route)
    schemes = {name for way in operation["security"] for name in way}
    assert schemes == ({"bearer", "api_key"} if route.scope else set())
    assert operation.get("x-scope") == route.scope
    assert ("401" in operation["responses"]) == (route.scope is not None)


def test_headers_of_answers_are_told() -> None:
    answers = OPERATIONS["POST", "/v1/embeddings"]["responses"]
    assert set(answers["200"]["headers"]) == {"X-Request-Id", "X-Truncated-Inputs", "Warning"}
    assert set(resolve(answers["429"])["headers"]) == {"X-Request-Id", "Retry-After"}
    assert set(resolve(answers["503"])["headers"]) == {"X-Request-Id", "Retry-After"}
    assert set(resolve(answers["501"])["headers"]) == {"X-Request-Id", "x-should-retry"}
    assert set(resolve(answers["404"])["headers"]) == {"X-Request-Id"}


def test_no_operation_promises_a_500() -> None:
    assert all("500" not in operation["responses"] for operation in OPERATIONS.values())


def test_types_of_one_name_are_told_apart_by_their_module() -> None:
    names = set(PAGE["components"]["schemas"])
    assert {"search_bodies.SearchBody", "vector_stores.SearchBody"} <= names
    assert not [name for name in names if "__" in name]


async def test_it_wants_a_key_where_all_do(serve: Serve) -> None:
    async with serve(api_key="s3cret") as running:
        (await running.client.get("/openapi.json")).refused(401)


def test_a_route_for_writers_may_conflict_and_fill_the_disk() -> None:
    route = Route("PUT", "/x", stored_documents.delete, scope="write", content_type="text/plain")
    operation = openapi.build_document([route])["paths"]["/x"]["put"]
    assert operation["summary"] == "Delete a document"
    assert set(operation["responses"]) == {"200", "401", "403", "409", "429", "503", "507"}
