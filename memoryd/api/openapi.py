"""The OpenAPI document: every route, made of the types that validate and that are answered.

spec.openapis.org/oas/v3.1.1; the schemas are pydantic's, in JSON Schema 2020-12.
"""

import asyncio
import inspect
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias

import orjson
from aiohttp import web
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from memoryd import __version__
from memoryd.api.errors import ErrorAnswer, OllamaErrorAnswer, TeiErrorAnswer
from memoryd.api.route import Dialect, Route

Json: TypeAlias = dict[str, Any]
Mode: TypeAlias = Literal["validation", "serialization"]

_DESCRIPTION = """A memory service for RAG applications: post documents, find them by meaning.
And the embedding routes of Ollama, OpenAI, llama.cpp, text-embeddings-inference, LocalAI and Aleph
Alpha, as their clients know them. Every route of GET answers HEAD too. A peer's route reads its
body as JSON whatever its Content-Type says, ignores fields that it doesn't know, and takes null for
an absent field."""
_SCHEMA_OF_NAME = "#/components/schemas/{model}"
_ERRORS = {
    Dialect.OPENAI: ErrorAnswer,
    Dialect.OLLAMA: OllamaErrorAnswer,
    Dialect.TEI: TeiErrorAnswer,
}
_MEANINGS = {
    400: "Something in the request can't be used; the message says what.",
    401: "An API key is needed.",
    403: "The key doesn't allow this, or a web page of another origin asks.",
    404: "There is nothing of that name.",
    409: "A name is taken, a version doesn't match, or a thing is in use.",
    413: "A limit is passed, which the message names.",
    422: "Something in the request can't be used; the message says what.",
    424: "This model gives no such answer.",
    429: "Too many requests wait.",
    501: "This model gives no such answer, or its file can't be used.",
    503: "Not now: memoryd or its database starts, stops or is too busy.",
    507: "The disk of the database is full.",
}
_HEADERS: Json = {
    "X-Request-Id": {
        "description": "Under which the request stands in the log; the client's, if it sends one.",
        "schema": {"type": "string"},
        "required": True,
    },
    "X-Truncated-Inputs": {
        "description": "How many inputs were longer than the model takes, and were cut.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Warning": {
        "description": "Tells where a model wasn't trained for the asked dimensions.",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "Tells that the answer is that to an earlier request of the same key.",
        "schema": {"const": "true"},
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "x-should-retry": {
        "description": "Tells OpenAI's clients that trying again doesn't help.",
        "schema": {"const": "false"},
    },
}
_TAGS = {
    "collections": "Collections",
    "generations": "Collections",
    "documents": "Documents",
    "transfer": "Documents",
    "stored_documents": "Documents",
    "job_events": "Jobs",
    "jobs": "Jobs",
    "search": "Search",
    "facets": "Search",
    "health": "Operating",
    "metrics": "Operating",
    "openapi": "Operating",
    "docs": "Operating",
    "keys": "Operating",
    "ollama": "Ollama",
    "ollama_loading": "Ollama",
    "ollama_models": "Ollama",
    "ollama_pull": "Ollama",
    "openai": "OpenAI",
    "openai_models": "OpenAI",
    "vector_stores": "OpenAI",
    "llamacpp": "llama.cpp",
    "tei": "text-embeddings-inference",
    "localai": "LocalAI",
    "aleph_alpha": "Aleph Alpha",
    "dispatch": "Several dialects",
}
_JSON = "application/json"
_PACKAGE = __name__.rpartition(".")[0] + "."
_VARIABLES = re.compile(r"\{(\w+)\}")


class _SchemaWriter(GenerateJsonSchema):
    """Write no titles, which repeat the names, and no null or "" for a field that is simply absent.

    Types of one name are told apart by their modules.
    """

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name.removeprefix(_PACKAGE)).replace("__", ".")

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - asked per field
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Json:
        written = super().default_schema(schema)
        default = written.get("default", ...)
        if default is None or (default == "" and "pattern" in written):
            del written["default"]
        return written


class Document:
    """Be the OpenAPI document of some routes, made once, when it is first asked for."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """Take the routes in the order of the document."""
        self._routes = routes

    @cached_property
    def json(self) -> bytes:
        """The document as it is sent."""
        return orjson.dumps(build_document(self._routes))


DOCUMENT = web.AppKey("document", Document)


async def show(request: web.Request) -> web.Response:
    """Answer this document."""
    document = request.app[DOCUMENT]
    body = await asyncio.to_thread(lambda: document.json)  # the first takes a fifth of a second
    return web.Response(body=body, content_type="application/json")


def build_document(routes: Sequence[Route]) -> Json:
    """Return the OpenAPI document of `routes`."""
    schemas, definitions = _schemas(routes)
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "memoryd",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(map(_tag, routes))],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": _error_answers(routes, schemas),
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _schemas(routes: Sequence[Route]) -> tuple[Json, Json]:
    """Return the schema of each type of a body or an answer by its key, and what they refer to."""
    read = [route.body for route in routes]
    read += [kind for route in routes for _content_type, kind in route.other_bodies]
    written = [*_ERRORS.values(), *(route.answer for route in routes)]
    written += [kind for route in routes for _status, kind in route.other_answers]
    modes: dict[Mode, list[Any]] = {"validation": read, "serialization": written}
    inputs: dict[str, tuple[str, Mode, TypeAdapter[Any]]] = {
        _key(kind): (_key(kind), mode, TypeAdapter(kind))
        for mode, kinds in modes.items()
        for kind in kinds
    }
    schemas, rest = TypeAdapter.json_schemas(
        inputs.values(), ref_template=_SCHEMA_OF_NAME, schema_generator=_SchemaWriter
    )
    return {key: schema for (key, _mode), schema in schemas.items()}, rest.get("$defs", {})


def _key(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{kind}"


def _operation(route: Route, schemas: Json) -> Json:
    summary, _, description = (inspect.getdoc(route.handler) or "").partition("\n\n")
    operation: Json = {
        "operationId": _operation_id(route),
        "tags": [_tag(route)],
        "summary": summary.replace("\n", " ").rstrip("."),
        "parameters": [*_variables(route), *_query(route), *_headers(route)],
        "responses": _answers(route, schemas),
        "security": [{"bearer": []}, {"api_key": []}, {}] if route.scope else [],
    }
    if description:
        operation["description"] = description
    if route.scope:
        operation["x-scope"] = route.scope
    bodies = [*([(_JSON, route.body)] if route.body is not None else []), *route.other_bodies]
    if bodies:
        content = {name: {"schema": schemas[_key(kind)]} for name, kind in bodies}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", route.pattern)
    return "-".join([route.method.lower(), *words])


def _tag(route: Route) -> str:
    return _TAGS[route.handler.__module__.rpartition(".")[2]]


def _variables(route: Route) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _VARIABLES.findall(route.pattern)
    ]


def _query(route: Route) -> list[Json]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema(schema_generator=_SchemaWriter)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", []),
            "schema": of_parameter,
        }
        for name, of_parameter in schema.get("properties", {}).items()
    ]


def _headers(route: Route) -> list[Json]:
    return [
        {"name": name, "in": "header", "schema": {"type": "string"}}
        for name in route.request_headers
    ]


def _answers(route: Route, schemas: Json) -> Json:
    """Return the answers of a route by their statuses, those that are errors in its dialect."""
    answers: dict[int, Json] = {
        status: {"$ref": f"#/components/responses/{_error_name(route, status)}"}
        for status in _error_statuses(route)
    }
    for status, kind in route.other_answers:
        answers[status] = _answer(status, schemas[_key(kind)])
    if route.status < 400:
        answers[route.status] = _success(route, schemas)
    return {str(status): answers[status] for status in sorted(answers)}


def _success(route: Route, schemas: Json) -> Json:
    if route.answer is not None:
        answer = _answer(route.status, schemas[_key(route.answer)], route.content_type)
    elif route.content_type == _JSON:
        answer = _answer(route.status, None)  # it has no body
    else:
        answer = _answer(route.status, {"type": "string"}, route.content_type)
    for content_type in route.other_content_types:
        answer["content"][content_type] = answer["content"][route.content_type]
    if route.uses_model:
        answer["headers"] |= _header("X-Truncated-Inputs") | _header("Warning")
    if "Idempotency-Key" in route.request_headers:
        answer["headers"] |= _header("Idempotency-Replayed")
    return answer


def _error_answers(routes: Sequence[Route], schemas: Json) -> Json:
    """Return each answer that tells an error, once for each dialect that tells it."""
    answers = {}
    for route in routes:
        shapes = [schemas[_key(_ERRORS[dialect])] for dialect in _dialects(route)]
        schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
        for status in _error_statuses(route):
            answers[_error_name(route, status)] = _answer(status, schema)
    return dict(sorted(answers.items()))


def _error_name(route: Route, status: int) -> str:
    return "-".join([*(dialect.value for dialect in _dialects(route)), str(status)])


def _dialects(route: Route) -> list[Dialect]:
    return [dialect for dialect in (route.dialect, route.other_dialect) if dialect]


def _answer(status: int, schema: Json | None, content_type: str = _JSON) -> Json:
    headers = _header("X-Request-Id")
    if status in (429, 503):
        headers |= _header("Retry-After")
    if status == 501:
        headers |= _header("x-should-retry")
    answer = {"description": _MEANINGS.get(status, "Done."), "headers": headers}
    return answer if schema is None else answer | {"content": {content_type: {"schema": schema}}}


def _header(name: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"}}


def _error_statuses(route: Route) -> set[int]:
    """Return the statuses of the errors that a route of its kind can answer with."""
    statuses = {*route.errors, route.status} if route.status >= 400 else set(route.errors)
    if route.scope:
        statuses |= {401, 403, 503}
    if route.scope and route.dialect is not Dialect.OLLAMA:  # which says 503 of overload too
        statuses |= {429}
    if route.query or route.request_headers or "{" in route.path:
        statuses |= {400}
    if "{" in route.path:
        statuses |= {404}
    if route.body is not None or route.other_bodies:
        statuses |= {400, 404, 413, 501}
    if route.body is not None and Dialect.TEI in (route.dialect, route.other_dialect):
        statuses |= {422, 424}
    if route.scope in ("write", "admin"):
        statuses |= {409, 507}
    return statuses
