"""What clients send to be embedded, in all the shapes that peers take, and what they get."""

from typing import Annotated, Any, TypeGuard

from pydantic import Field, WithJsonSchema

from memoryd.api.embedding import refuse_images
from memoryd.api.fields import TEXT, TEXTS
from memoryd.embeddings.types import Input
from memoryd.errors import EmptyInputError, InvalidInputError, TooLargeError

_ID = {"type": "integer", "minimum": 0}
_IDS = {"type": "array", "items": _ID, "minItems": 1}
TEXT_OR_TEXTS = {"anyOf": [TEXT, TEXTS]}
IDS_OR_LISTS = {"anyOf": [_IDS, {"type": "array", "items": _IDS, "minItems": 1}]}
_MIXED = {"type": "array", "items": {"anyOf": [TEXT, _ID]}, "minItems": 1}

Inputs = Annotated[
    Any, WithJsonSchema({"anyOf": [TEXT, _MIXED, {"type": "array", "items": _MIXED}]})
]
"""A text, the ids of one, a mix of both that makes one input, or a list of such."""

TextsOrIds = Annotated[
    Any,
    WithJsonSchema({"anyOf": [TEXT, _IDS, {"type": "array", "items": {"anyOf": [TEXT, _IDS]}}]}),
]
"""A text, the ids of one, or a list of such."""

# The first fault is the one that is told, and of millions the list would take seconds.
TextList = Annotated[list[str], Field(fail_fast=True)]
TokenIds = Annotated[list[int], Field(fail_fast=True)]

Content = Annotated[Any, WithJsonSchema({"anyOf": [TEXT, _MIXED]})]
"""A text, or texts and ids that make up one."""


def read_inputs(value: Any, param: str) -> list[Input]:
    """Return the inputs that `value` holds; a list with ids in it is one, with texts among them.

    Raises InvalidInputError naming `param` for another shape, EmptyInputError for an empty list.
    """
    return _read(value, param, _is_one_input(value))


def read_texts_or_ids(value: Any, param: str, most: int) -> list[Input]:
    """Return the inputs that `value` holds; a list of ids alone is one.

    Raises what `read_inputs` raises, and TooLargeError for more than `most`.
    """
    inputs = _read(value, param, isinstance(value, str) or are_ids(value))
    check_count(len(inputs), param, most)
    return inputs


def check_count(count: int, param: str, most: int) -> None:
    """Raise EmptyInputError for no inputs, and TooLargeError for more than `most`."""
    if count == 0:
        raise EmptyInputError(f"{param} must not be empty", param)
    if count > most:
        raise TooLargeError(f"{param} has {count} items, more than max_inputs = {most}", param)


def _read(value: Any, param: str, is_one: bool) -> list[Input]:
    refuse_images(value, param)
    if value == []:
        raise EmptyInputError(f"{param} must not be empty", param)
    inputs = [value] if is_one else value
    if not isinstance(inputs, list):
        raise InvalidInputError(f"{param} must be a text or a list of texts", param)
    for at, item in enumerate(inputs):
        if not _is_one_input(item):
            name = f"{param}[{at}]"
            raise InvalidInputError(f"{name} must be a text or a list of token ids", name)
    return inputs


def are_texts(value: Any) -> TypeGuard[list[str]]:
    """Say whether `value` is a list of texts: none at all, too."""
    return isinstance(value, list) and _kinds(value) <= {str}


def is_text_with_ids(value: Any) -> bool:
    """Say whether `value` is texts and ids that make up one text: none at all, too."""
    return isinstance(value, list) and _kinds(value) <= {str, int}


def are_ids(value: Any) -> TypeGuard[list[int]]:
    """Say whether `value` is the ids of at least one token."""
    return isinstance(value, list) and _kinds(value) == {int}


def _is_one_input(value: Any) -> bool:
    """Say whether `value` is a text, or a list that has ids in it and so is one input."""
    if isinstance(value, str):
        return True
    return isinstance(value, list) and {int} <= _kinds(value) <= {str, int}


def _kinds(values: list[Any]) -> set[type]:
    """Return the types of what was read from JSON, of millions in some 20 ms."""
    return set(map(type, values))
