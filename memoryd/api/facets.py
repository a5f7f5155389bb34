"""Routes that count documents, and the values of their fields."""

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from memoryd.api import limits
from memoryd.api.bodies import Body, parse, read_json
from memoryd.api.collections import find
from memoryd.api.errors import json_response
from memoryd.api.filters import FilterObject, read_filter
from memoryd.api.state import MEMORY
from memoryd.documents.filters import MetadataField, OwnField, parse_field
from memoryd.errors import InvalidInputError
from memoryd.storage import facets as storage

_WHICH = "Of documents; those that wait to be stored don't count. Null: all."


class CountBody(Body):
    """Which documents to count."""

    filter: FilterObject | None = Field(None, description=_WHICH)


class FacetsBody(Body):
    """Which values to count."""

    field: str = Field(description="A path of metadata, or `tags`.")
    limit: int = Field(10, ge=1, le=limits.FACETS)
    filter: FilterObject | None = Field(None, description=_WHICH)


class CountAnswer(TypedDict):
    """How many documents there are."""

    count: int


class FacetAnswer(TypedDict):
    """A value of a field, and in how many documents it is."""

    value: str | int | float | bool | None
    count: int


class FacetsAnswer(TypedDict):
    """The most frequent values of a field."""

    facets: list[FacetAnswer]


async def count(request: web.Request) -> web.Response:
    """Count the documents that a filter matches."""
    collection = await find(request)
    body = parse(CountBody, await read_json(request))
    wanted = read_filter(body.filter)
    counted = await storage.count_stored(request.app[MEMORY].database, collection, wanted)
    answer: CountAnswer = {"count": counted}
    return json_response(answer)


async def show_facets(request: web.Request) -> web.Response:
    """Count the documents of each value of a field, the most frequent values first."""
    collection = await find(request)
    body = parse(FacetsBody, await read_json(request))
    found = await storage.count_values(
        request.app[MEMORY].database,
        collection,
        _read_field(body.field),
        limit=body.limit,
        wanted=read_filter(body.filter),
    )
    answer: FacetsAnswer = {
        "facets": [{"value": facet.value, "count": facet.count} for facet in found]
    }
    return json_response(answer)


def _read_field(path: str) -> MetadataField | None:
    """Return the field of metadata, None for tags."""
    field = parse_field(path, "field")
    if field == OwnField("tags"):
        return None
    if isinstance(field, OwnField):
        raise InvalidInputError(
            f"field: must be tags or a path of metadata, such as metadata.{path}", "field"
        )
    return field
