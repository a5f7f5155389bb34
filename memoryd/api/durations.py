"""Durations as Go writes them (time.ParseDuration), which Ollama's clients send."""

import re

from memoryd.errors import InvalidInputError

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_NUMBER = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
_UNIT = re.compile(r"[^0-9.]*")
_KINDS = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
# The longest that Go's type holds; a number beyond it means for ever.
_MOST_S = 292 * 365 * 86_400


def parse_keep_alive(value: object) -> float | None:
    """Return the seconds that `value` means, -1 for ever, None where it is None.

    A number is seconds; a text needs units ("1h30m"), but for "0". Any negative means for ever.
    Raises InvalidInputError with Ollama's words.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        kind = _KINDS.get(type(value), type(value).__name__)
        raise _invalid(f"Unsupported type: '{kind}'")
    seconds = _parse_duration(value) if isinstance(value, str) else value
    return float(seconds) if 0 <= seconds <= _MOST_S else -1.0


def _parse_duration(text: str) -> float:
    sign, rest = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    if rest == "0":
        return 0.0
    seconds, position = 0.0, 0
    while position < len(rest) or not rest:
        number = _NUMBER.match(rest, position)
        if not number:
            raise _invalid(f'time: invalid duration "{text}"')
        unit = _UNIT.match(rest, number.end())
        name = unit.group() if unit else ""
        if not name:
            raise _invalid(f'time: missing unit in duration "{text}"')
        if name not in _SECONDS:
            raise _invalid(f'time: unknown unit "{name}" in duration "{text}"')
        seconds += float(number.group()) * _SECONDS[name]
        position = number.end() + len(name)
    if seconds > _MOST_S:
        raise _invalid(f'time: invalid duration "{text}"')
    return -seconds if sign == "-" else seconds


def _invalid(message: str) -> InvalidInputError:
    return InvalidInputError(message, "keep_alive")
