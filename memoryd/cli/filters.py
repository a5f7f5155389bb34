"""Filters as people type them: `team=sec`, `year>=2023`, or JSON."""

import re
from collections.abc import Sequence
from typing import Any

import orjson

from memoryd.errors import InvalidInputError

FILTER_HELP = (
    "Only documents for which this holds: 'team=sec' (is it, or has it in its list), "
    "'team!=sec', 'year>=2023' (or >, <, <=) of metadata, of id, title, tags, created_at or "
    "updated_at; or a filter as JSON. Numbers, true, false and null are what they are in JSON, "
    "'\"2023\"' is a string. It can be given several times: then all must hold."
)

_SHORT = re.compile(r"\s*([^=!<>]*[^=!<>\s])\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_OPERATORS = {"=": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_LIST_OPERATORS = {"=": "any", "!=": "none"}
# The document's own, whose values are strings always; of these, tags alone are a list.
_TEXTS = {"id", "title", "created_at", "updated_at"}
_TAGS = "tags"


def read_filters(given: Sequence[str]) -> Any:
    """Return the filter of the API that says all of `given`, None where nothing is.

    Raises InvalidInputError for what is neither JSON nor a condition.
    """
    filters = [_read(text) for text in given]
    if len(filters) > 1:
        return {"and": filters}
    return filters[0] if filters else None


def _read(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InvalidInputError(f"--filter: {text} is not JSON: {error}") from error
    short = _SHORT.fullmatch(text)
    if short is None:
        raise InvalidInputError(
            f"--filter: {text!r} must be like 'team=sec', 'team!=sec', 'year>=2023', or JSON such "
            'as {"field": "team", "in": ["sec", "ops"]}'
        )
    return _condition(*short.groups())


def _condition(field: str, sign: str, text: str) -> Any:
    value = _value(field, text)
    if field not in _TEXTS and sign in _LIST_OPERATORS:
        return {"field": field, _LIST_OPERATORS[sign]: [value]}  # of no list: as eq and ne
    return {"field": field, _OPERATORS[sign]: value}


def _value(field: str, text: str) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if isinstance(value, str):
        return value
    is_text = field in _TEXTS or field == _TAGS or isinstance(value, dict | list)
    return text if is_text else value
