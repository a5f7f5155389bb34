"""The fields of a collection that are declared, so that an index serves comparisons with them."""

from collections.abc import Mapping

from memoryd.documents.filters import MetadataField, parse_field
from memoryd.documents.types import FieldType
from memoryd.errors import InvalidInputError, TooLargeError

MAX_FIELDS = 16
"""Each index is written with each document."""
MAX_PATH_CHARS = 512
"""Keys stand in the definitions of indexes, which Postgres keeps in its catalog."""


def validate_fields(fields: Mapping[str, FieldType], at: str = "index.fields") -> None:
    """Raise InvalidInputError for what is no path of metadata, TooLargeError over a limit.

    `at` is where the fields, by path, stand in the request.
    """
    if len(fields) > MAX_FIELDS:
        raise TooLargeError(f"{at}: {len(fields)} fields are more than {MAX_FIELDS}", at)
    for path in fields:
        _check_path(path, at)


def _check_path(path: str, at: str) -> None:
    if len(path) > MAX_PATH_CHARS:
        raise TooLargeError(f"{at}: a path can have {MAX_PATH_CHARS} characters at most", at)
    if not isinstance(parse_field(path, at), MetadataField):
        raise InvalidInputError(
            f"{at}: {path!r} is the document's own and can't be declared; "
            f"a key of the metadata is 'metadata.{path}'",
            at,
        )
