"""Filters that mean harm, and filters that mean nothing: the server answers 200 or 4xx, and right.

What it answers is compared with what plain Python finds among the same documents.
"""

import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from filter_oracle import HOSTILE, LISTS, ORDERS, OWN, Doc, escaped, holds, some_docs, some_filter
from filter_table import Table
from servers import Serve
from wire import Client

from memoryd.documents.filters import parse_filter
from memoryd.errors import InvalidInputError
from memoryd.storage.collections import find_collection
from memoryd.storage.filters import compile_filter

DEFAULT = "/v1/collections/default"
OPERATORS = [*ORDERS, *LISTS, "eq", "ne", "exists", "prefix", "contains"]
LONGEST_URL = 8_000
NO_FILTERS: list[Any] = [None, True, -1, 10**300, "", [], {}, [[]], {"": {}}, "x" * 5_000]


@dataclass(frozen=True)
class Place:
    """Be a server, and the documents that it has."""

    client: Client
    docs: list[Doc]


@pytest_asyncio.fixture(scope="module")
async def place(serve: Serve) -> AsyncIterator[Place]:
    rng = random.Random(0)  # noqa: S311 # it makes documents, not secrets
    hostile = [
        Doc(f"h{n}", {text: text, "v": {text: [text]}}, text, (text,))
        for n, text in enumerate(HOSTILE)
    ]
    docs = [*some_docs(rng, 60), *hostile]
    async with serve() as running:
        database = running.memory.database
        await Table(database, await find_collection(database, "default")).add(docs)
        yield Place(running.client, docs)


def some_text(rng: random.Random) -> str:
    return "".join(rng.choices(HOSTILE, k=rng.choice([1, 1, 1, 2, 5])))


def hostile_condition(rng: random.Random) -> dict[str, Any]:
    texts = [some_text(rng) for _ in range(3)]
    path = rng.choice([escaped(*texts[:1]), escaped("v", texts[0]), texts[0], *OWN])
    operator = rng.choice(OPERATORS)
    operand: Any = texts if operator in LISTS else rng.choice(texts)
    return {"field": path, operator: operand}


def spoilt(rng: random.Random, value: Any) -> Any:
    """Return a filter in which something is something else."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return rng.choice([*NO_FILTERS, some_text(rng), hostile_condition(rng)])
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [*value[:at], spoilt(rng, value[at]), *value[at + 1 :]]
    key = rng.choice(list(value))
    if rng.random() < 0.2:
        return {**value, rng.choice([*OPERATORS, "and", "or", "not", some_text(rng)]): value[key]}
    return {**value, key: spoilt(rng, value[key])}


async def ask(place: Place, asked: Any) -> bool:
    """Tell whether the server takes a filter, having seen that it says of it what is right."""
    text = json.dumps(asked)
    answer = await place.client.ask("POST", f"{DEFAULT}/count", data=f'{{"filter": {text}}}')
    if asked is None:
        assert answer.ok() == {"count": len(place.docs)}
        return False
    url = f"{DEFAULT}/documents?limit=1000&filter={quote(text)}"
    listing = await place.client.get(url) if len(url) < LONGEST_URL else None
    if answer.status != 200:
        assert answer.status in (400, 413), (answer.status, text)
        assert listing is None or listing.refused(answer.status) == answer.refused(answer.status)
        return False
    kept = [doc.id for doc in place.docs if holds(doc, asked)]
    assert answer.json == {"count": len(kept)}, text
    if listing is not None:
        assert [document["id"] for document in listing.ok()["documents"]] == kept
    return True


async def test_hostile_fields_and_values_are_taken_as_they_are(place: Place) -> None:
    rng = random.Random(1)  # noqa: S311 # it makes filters, not secrets
    taken = [await ask(place, hostile_condition(rng)) for _ in range(400)]
    assert 100 < sum(taken) < 400


async def test_filters_of_all_kinds_keep_what_plain_python_keeps(place: Place) -> None:
    rng = random.Random(2)  # noqa: S311 # it makes filters, not secrets
    assert all([await ask(place, some_filter(rng)) for _ in range(150)])


async def test_what_is_no_filter_is_refused(place: Place) -> None:
    rng = random.Random(3)  # noqa: S311 # it makes filters, not secrets
    taken = [await ask(place, spoilt(rng, some_filter(rng))) for _ in range(300)]
    assert 30 < sum(taken) < 270


@pytest.mark.parametrize("seed", range(3))
def test_no_text_of_a_filter_is_in_its_sql(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 # it makes filters, not secrets
    compiled = 0
    for _ in range(2_000):
        asked = marked(spoilt(rng, some_filter(rng)) if rng.random() < 0.3 else some_filter(rng))
        arguments: list[Any] = []
        try:
            wanted = parse_filter(asked)
        except InvalidInputError:
            continue
        sql = compile_filter(wanted, arguments)
        assert MARK not in sql
        assert set(sql) <= set(map(chr, range(32, 127)))
        compiled += MARK in repr(arguments)
    assert compiled > 1_000


MARK = "zq"


def marked(value: Any) -> Any:
    """Return a filter in which all text has a mark that SQL has not."""
    if isinstance(value, str):
        return value if value in OWN or value.endswith("+00:00") else f"{MARK}{value}{MARK}"
    if isinstance(value, list):
        return [marked(each) for each in value]
    if isinstance(value, dict):
        return {key: marked(each) for key, each in value.items()}
    return value
