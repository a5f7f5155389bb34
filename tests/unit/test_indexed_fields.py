"""Declared fields: which paths can be."""

import pytest

from memoryd.documents.indexed_fields import validate_fields
from memoryd.documents.types import FieldType
from memoryd.errors import InvalidInputError, TooLargeError


@pytest.mark.parametrize(
    "paths",
    [
        [],
        ["year", "author.name", r"a\.b", "metadata.id", "metadata.tags"],
        [f"x{n}" for n in range(16)],
        ["x" * 512],
        [".".join("x" * 16)],
    ],
)
def test_paths_of_metadata_can_be_declared(paths: list[str]) -> None:
    fields: dict[str, FieldType] = dict.fromkeys(paths, "number")
    validate_fields(fields)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "keys with dots between"),
        ("a..b", "keys with dots between"),
        ("a\0b", "NUL"),
        ("tags", "'metadata.tags'"),
        ("id", "the document's own"),
        ("title", "the document's own"),
        ("created_at", "the document's own"),
        ("updated_at", "the document's own"),
    ],
)
def test_what_is_no_path_of_metadata_is_refused(path: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        validate_fields({"year": "number", path: "string"})
    assert not isinstance(refused.value, TooLargeError)
    assert refused.value.param == "index.fields"
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("paths", "limit"),
    [([f"x{n}" for n in range(17)], "16"), (["x" * 513], "512"), ([".".join("x" * 17)], "16")],
)
def test_what_is_over_a_limit_names_it(paths: list[str], limit: str) -> None:
    fields: dict[str, FieldType] = dict.fromkeys(paths, "number")
    with pytest.raises(TooLargeError, match=limit):
        validate_fields(fields)
