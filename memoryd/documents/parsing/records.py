"""JSON, JSON Lines and CSV → text in which each record can be understood without the others."""

import csv
from collections.abc import Iterator
from io import StringIO
from typing import Any

import orjson

from memoryd.documents.parsing.builder import TextBuilder
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.tables import write_records
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.errors import InvalidInputError

_SAMPLE_CHARS = 16 << 10
_DELIMITERS = ",;\t|"
_TITLE_KEYS = ("title", "name")


def parse_json(source: Source, limits: ParsingLimits) -> Parsed:
    """Return a line for each value with its path, and a paragraph for each record.

    Raises InvalidInputError where it isn't JSON, with the place.
    """
    try:
        value = orjson.loads(source.text)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"the file is no JSON: {error}") from error
    builder = TextBuilder(limits.text_chars)
    for record in value if isinstance(value, list) else [value]:
        builder.add("\n".join(_write(record, "")), _gap(record))
    return builder.build(_title(value), source.mime_type)


def parse_json_lines(source: Source, limits: ParsingLimits) -> Parsed:
    """Return a paragraph for each line. Raises InvalidInputError, naming a line that's no JSON."""
    builder = TextBuilder(limits.text_chars)
    for number, line in enumerate(source.text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidInputError(f"line {number} of the file is no JSON: {error}") from error
        builder.add("\n".join(_write(record, "")), _gap(record))
    return builder.build("", source.mime_type)


def parse_csv(source: Source, limits: ParsingLimits) -> Parsed:
    """Return a line for each row, with the names of the columns where the file has them."""
    builder = TextBuilder(limits.text_chars)
    csv.field_size_limit(limits.text_chars)
    rows = csv.reader(StringIO(source.text, newline=""), _dialect(source))
    try:
        for line in write_records(rows):
            builder.add(line, "\n")
    except csv.Error as error:
        raise InvalidInputError(f"line {rows.line_num} of the file is no CSV: {error}") from error
    return builder.build("", source.mime_type)


def _dialect(source: Source) -> type[csv.Dialect]:
    if source.mime_type == "text/tab-separated-values":
        return csv.excel_tab
    try:
        return csv.Sniffer().sniff(source.text[:_SAMPLE_CHARS], _DELIMITERS)
    except csv.Error:  # one column
        return csv.excel


def _write(value: Any, path: str) -> Iterator[str]:
    """Yield `path: value` for each value, the short lists in one line."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _write(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for item in value:
            yield from _write(item, path)
    elif value not in (None, "", []):
        text = ", ".join(map(_scalar, value)) if isinstance(value, list) else _scalar(value)
        yield f"{path}: {text}" if path else text


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _gap(record: Any) -> str:
    return "\n\n" if isinstance(record, dict | list) else "\n"


def _title(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    titles = (value[key] for key in _TITLE_KEYS if isinstance(value.get(key), str))
    return next(titles, "")
