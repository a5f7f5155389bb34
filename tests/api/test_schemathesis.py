"""Requests that are made from /openapi.json: every answer is as it says there."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from model_servers import put_tiny
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from servers import Running, Serve

from memoryd.api import openapi
from memoryd.api.routes import ROUTES
from memoryd.embeddings.engine import Engine
from memoryd.memory.models import ModelLoader

KEY = "s3cret"
EXAMPLES = 12
# They fetch models, or delete what the others need.
LEFT_OUT = {
    ("POST", "/api/pull"),
    ("DELETE", "/api/delete"),
    ("POST", "/models/apply"),
    ("POST", "/models/delete/{name}"),
    ("DELETE", "/v1/collections/{collection}"),
    ("DELETE", "/v1/collections/{collection}/documents/{id}"),
    # Its body is lines or Parquet, which are not made here; wrong lines are told in a 200.
    ("POST", "/v1/collections/{collection}/import"),
}
CHECKS = (
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
# Whose routes refuse all that they don't document; the peers' ignore fields they don't know.
OWN = {"Collections", "Documents", "Search", "Operating"}
DELIBERATE = {501, 503}
MODEL, RERANKER = "bert", "bert-rank"
# Names of things that are there, so that not all is answered with 404.
KNOWN = {"collection": "default", "id": "known", "model": MODEL}
NEEDED = {
    "/api/copy": {"source": MODEL, "destination": "copy"},
    "/embeddings": {"input": "why is the sky blue"},
    "/v1/collections/{collection}/aliases": {"alias": "another"},
}
# Optional fields of which few values are right, so that not all is answered with 400.
CHOOSY = (
    *("dimensions", "encoding_format", "instruction", "keep_alive", "options", "prompt_name"),
    *("language", "chunking", "ranking_options", "representation", "compress_to_size"),
)

SCHEMA = schemathesis.openapi.from_dict(orjson.loads(openapi.Document(ROUTES).json))
SCHEMA.config.generation.update(allow_x00=False)  # NUL is refused, which JSON Schema can't say
SCHEMA.config.checks.negative_data_rejection.expected_statuses = ["400", "404", "413"]
# Of several paths that are served alike, the first stands for all.
DISTINCT = {
    (route.method, route.handler, route.dialect): (route.method, route.pattern)
    for route in reversed(ROUTES)
}
OPERATIONS = [
    operation
    for result in SCHEMA.get_all_operations()
    if ((operation := result.ok()).method.upper(), operation.path)
    in set(DISTINCT.values()) - LEFT_OUT
]
# What is wrong can be made only where something is said.
ASKED = [(operation, GenerationMode.POSITIVE) for operation in OPERATIONS] + [
    (operation, GenerationMode.NEGATIVE)
    for operation in OPERATIONS
    if operation.body or operation.query
]


@pytest_asyncio.fixture(scope="module")
async def fuzzed(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Give a server on which nothing else relies, with models and a document in it."""
    models_dir = tmp_path_factory.mktemp("models")
    for kind in (MODEL, RERANKER):
        put_tiny(kind, models_dir / f"{kind}.gguf")
    loader = ModelLoader(models_dir, default_model=MODEL, is_measuring=False)
    chosen = {"model": MODEL, "models_dir": models_dir, "measure_models": False, "api_key": KEY}
    async with (
        Engine(loader) as engine,
        serve(engine, headers={"X-Api-Key": KEY}, **chosen) as running,
    ):
        await running.client.store(id="known", text="why is the sky blue")
        yield running


def say_what_is_known(case: schemathesis.Case) -> None:
    """Let `case` be about what is there, as far as it names anything."""
    for name in set(case.path_parameters or ()) & set(KNOWN):
        case.path_parameters[name] = KNOWN[name]
    if not isinstance(case.body, dict):
        return
    for name in CHOOSY:
        case.body.pop(name, None)
    is_own = "collections" in case.path or "keys" in case.path
    known = {} if is_own else {"model": RERANKER if "rerank" in case.path else MODEL}
    case.body |= known | NEEDED.get(case.path, {})


def checks_of(case: schemathesis.Case, is_known: bool) -> list[Any]:
    """Return what an answer is checked by: to a wrong request of memoryd's own, also its status."""
    is_as_made = not is_known
    is_own = bool(OWN & set(case.operation.tags or ()))
    return [*CHECKS, negative_data_rejection] if is_own and is_as_made else [*CHECKS]


@pytest.mark.parametrize(
    ("operation", "mode"), ASKED, ids=[f"{each.label} {mode.value}" for each, mode in ASKED]
)
async def test_answers_are_as_documented(
    fuzzed: Running, operation: Any, mode: GenerationMode
) -> None:
    cases = operation.as_strategy(generation_mode=mode)
    url = fuzzed.client.url
    answers = operation.definition.raw["responses"]
    told = {name for answer in answers.values() for name in answer.get("headers", ())}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, is_known=st.booleans())
    def check(case: schemathesis.Case, is_known: bool) -> None:
        if is_known:
            say_what_is_known(case)
        response = case.call(base_url=url, headers={"X-Api-Key": KEY})
        assert response.status_code < 500 or response.status_code in DELIBERATE
        assert {"X-Truncated-Inputs", "Warning"} & set(response.headers) <= told
        case.validate_response(response, checks=checks_of(case, is_known))

    await asyncio.to_thread(check)
