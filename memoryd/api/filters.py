"""Filters of documents in bodies and in query strings."""

from typing import Annotated, Any

import orjson
from pydantic import WithJsonSchema

from memoryd.documents.filters import Filter, parse_filter
from memoryd.errors import InvalidInputError

# Checked by `parse_filter`, which names the place of what is wrong.
FilterObject = Annotated[Any, WithJsonSchema({"type": "object"})]


def read_filter(value: Any, at: str = "filter") -> Filter | None:
    """Return the filter that a JSON value says, None for null; raise what `parse_filter` raises."""
    return None if value is None else parse_filter(value, at=at)


def load_filter(text: str | None) -> Any:
    """Return the JSON value that stands in a query string, None where none does.

    Raises InvalidInputError for what is no JSON.
    """
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"filter: is not JSON: {error}", "filter") from error
