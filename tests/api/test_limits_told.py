"""/v1/limits tells what is enforced: read from the bodies' own definitions, and tried."""

from typing import Any

import pytest
from servers import Serve
from wire import Client

from memoryd.api import collections, document_bodies, search_bodies
from memoryd.api.bodies import Body

DOCUMENTS = "/v1/collections/default/documents"
# Fields that are told by what they hold: an id, or the weight of a ranking.
HELD = {"document": "id", "chunk": "id", "dense": "weight", "lexical": "weight"}


def enforced() -> list[tuple[str, int]]:
    """Return the name and the bound of every field of a body that has an upper bound."""
    found = []
    modules = (collections, document_bodies, search_bodies)
    kinds = [kind for module in modules for kind in vars(module).values()]
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Body)):
            continue
        for name, field in kind.model_fields.items():
            for bound in field.metadata:
                most = getattr(bound, "max_length", None) or getattr(bound, "le", None)
                if isinstance(most, int) and most > 1:
                    found.append((HELD.get(name, name.rstrip("_")), most))
    return sorted(set(found))


def test_there_are_bounds_to_look_for() -> None:
    names = {name for name, _ in enforced()}
    assert {"title", "tags", "vector", "group_size", "limit", "searches", "collections"} <= names


@pytest.mark.parametrize(("name", "most"), enforced())
async def test_every_bound_of_a_body_is_told(shared_client: Client, name: str, most: int) -> None:
    limits: dict[str, Any] = (await shared_client.get("/v1/limits")).ok()
    matching = {key: value for key, value in limits.items() if name in key}
    assert most in matching.values(), (name, most, limits)


async def test_every_limit_that_is_a_setting_is_told(serve: Serve) -> None:
    given = {
        "max_body_bytes": 1_234_567,
        "max_text_chars": 12_345,
        "max_documents": 123,
        "max_inputs": 321,
        "max_waiting_requests": 77,
    }
    async with serve(**given) as running:
        most = {name for name in type(running.memory.settings).model_fields if "max_" in name}
        assert set(given) == most
        limits = (await running.client.get("/v1/limits")).ok()
        assert set(given.values()) <= set(limits.values())


@pytest.mark.parametrize(
    ("name", "key", "document"),
    [
        ("title", "title_chars", lambda n: {"text": "cat", "title": "x " * (n // 2)}),
        ("id", "id_chars", lambda n: {"text": "cat", "id": "x" * n}),
        ("tags", "tags", lambda n: {"text": "cat", "tags": ["x"] * n}),
        ("tags[0]", "tag_chars", lambda n: {"text": "cat", "tags": ["x" * n]}),
        ("text", "text_chars", lambda n: {"text": "x" * n}),
        ("mime_type", "mime_type_chars", lambda n: {"text": "cat", "mime_type": "x" * n}),
        ("chunks", "chunks", lambda n: {"chunks": [{"text": "cat"}] * n}),
    ],
)
async def test_one_more_than_is_told_is_too_large(
    shared_client: Client, name: str, key: str, document: Any
) -> None:
    limit = (await shared_client.get("/v1/limits")).ok()[key]
    error = (await shared_client.post(DOCUMENTS, document(limit + 2))).refused(413, "too_large")
    assert error["param"] == name
