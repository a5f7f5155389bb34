"""What clients send to be embedded, in all the shapes that peers take, and what they get."""

from typing import Annotated, Any

from pydantic import WithJsonSchema

from memoryd.api.embedding import refuse_images
from memoryd.embeddings.types import Input
from memoryd.errors import EmptyInputError, InvalidInputError, TooLargeError

_TEXT, _ID = {"type": "string"}, {"type": "integer", "minimum": 0}
_IDS = {"type": "array", "items": _ID, "minItems": 1}
TEXT_OR_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
IDS_OR_LISTS = {"anyOf": [_IDS, {"type": "array", "items": _IDS, "minItems": 1}]}
_MIXED = {"type": "array", "items": {"anyOf": [_TEXT, _ID]}, "minItems": 1}
_NUMBERS = {"type": "array", "items": {"type": "number"}}

Inputs = Annotated[
    Any, WithJsonSchema({"anyOf": [_TEXT, _MIXED, {"type": "array", "items": _MIXED}]})
]
"""A text, the ids of one, a mix of both that makes one input, or a list of such."""

TextsOrIds = Annotated[
    Any,
    WithJsonSchema({"anyOf": [_TEXT, _IDS, {"type": "array", "items": {"anyOf": [_TEXT, _IDS]}}]}),
]
"""A text, the ids of one, or a list of such."""

Content = Annotated[Any, WithJsonSchema({"anyOf": [_TEXT, _MIXED]})]
"""A text, or texts and ids that make up one."""

Rows = Annotated[Any, WithJsonSchema({"type": "array", "items": _NUMBERS})]
"""An array of numpy's with two axes."""


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


def is_text_with_ids(value: Any) -> bool:
    """Say whether `value` is texts and ids that make up one text: none at all, too."""
    return isinstance(value, list) and all(_is_text(part) or _is_id(part) for part in value)


def _is_one_input(value: Any) -> bool:
    """Say whether `value` is a text, or a list that has ids in it and so is one input."""
    return _is_text(value) or (is_text_with_ids(value) and not all(map(_is_text, value)))


def are_ids(value: Any) -> bool:
    """Say whether `value` is the ids of at least one token."""
    return isinstance(value, list) and all(map(_is_id, value)) and bool(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
