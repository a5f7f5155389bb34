"""Routes of API keys."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field
from typing_extensions import TypedDict

from memoryd.api import limits
from memoryd.api.bodies import Body, parse, read_json
from memoryd.api.errors import json_response
from memoryd.api.fields import CollectionName, Cursor, Time, write_time
from memoryd.api.paging import PageQuery
from memoryd.api.queries import read_query
from memoryd.api.state import MEMORY
from memoryd.storage.keys import ApiKey, Scope

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


def _check_name(value: str) -> str:
    if not (value.strip() and value.isprintable()):
        raise ValueError("must have a character that can be seen, and none that moves a cursor")
    return value


def _refuse_twice(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) < len(scopes):
        raise ValueError("the same scope stands there twice")
    return scopes


def _check_time(value: Any) -> Any:
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("must be a time of RFC 3339 with its offset, such as 2030-01-31T00:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("must be in the years 1 to 9999") from error


ExpiresAt = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_check_time), AfterValidator(_in_utc)
]


class KeyBody(Body):
    """A key to make."""

    name: Annotated[
        str, Field(min_length=1, max_length=limits.KEY_NAME_CHARS), AfterValidator(_check_name)
    ]
    scopes: Annotated[list[Scope], AfterValidator(_refuse_twice)] = Field(
        ["read"], min_length=1, fail_fast=True, json_schema_extra={"uniqueItems": True}
    )
    collections: list[CollectionName] | None = Field(
        None,
        min_length=1,
        max_length=limits.KEY_COLLECTIONS,
        description="Names or aliases of the only collections that it opens; null: all.",
    )
    expires_at: ExpiresAt | None = None


class KeyAnswer(TypedDict):
    """A key, without what its holder sends."""

    id: str
    name: str
    scopes: list[Scope]
    collections: list[str] | None
    created_at: Time
    last_used_at: Time | None
    """To ten minutes."""
    expires_at: Time | None


class KeyCreatedAnswer(KeyAnswer):
    """A key, with what its holder sends: it is told here and never again."""

    key: str


class KeysAnswer(TypedDict):
    """A page of keys."""

    keys: list[KeyAnswer]
    next_cursor: Cursor


class KeyRevokedAnswer(TypedDict):
    """The id of the key that is no more."""

    deleted: str


async def create(request: web.Request) -> web.Response:
    """Make an API key; the first one must have the scope admin."""
    body = parse(KeyBody, await read_json(request))
    key, sent = await request.app[MEMORY].keys.create(
        name=body.name,
        scopes=body.scopes,
        collections=body.collections,
        expires_at=body.expires_at,
    )
    answer: KeyCreatedAnswer = {**_answer(key), "key": sent}
    return json_response(answer, status=201)


async def list_(request: web.Request) -> web.Response:
    """List the API keys in the order in which they were made."""
    query = read_query(request, PageQuery)
    after, limit = query.after_number(0), query.limit_and_one
    found = await request.app[MEMORY].keys.list_page(after=after, limit=limit)
    page, cursor = query.cut(found, lambda key: key.number)
    answer: KeysAnswer = {"keys": list(map(_answer, page)), "next_cursor": cursor}
    return json_response(answer)


async def revoke(request: web.Request) -> web.Response:
    """Revoke an API key; other memoryds on this database learn of it within seconds."""
    id_ = request.match_info["id"]
    await request.app[MEMORY].keys.revoke(id_)
    answer: KeyRevokedAnswer = {"deleted": id_}
    return json_response(answer)


def _answer(key: ApiKey) -> KeyAnswer:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "collections": key.collections,
        "created_at": write_time(key.created_at),
        "last_used_at": write_time(key.last_used_at) if key.last_used_at else None,
        "expires_at": write_time(key.expires_at) if key.expires_at else None,
    }
