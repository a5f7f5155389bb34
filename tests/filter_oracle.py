"""What filters keep, by plain Python, and documents and filters made at random to compare by.

Nothing here is memoryd's: a filter is the JSON that a client sends.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

EPOCH = datetime(2025, 1, 31, 12, tzinfo=UTC)
MISSING = object()
ORDERS = ["gt", "gte", "lt", "lte"]
LISTS = ["in", "nin", "any", "all", "none"]


@dataclass(frozen=True)
class Doc:
    """Be what a filter sees of a document."""

    id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    tags: tuple[str, ...] = ()
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH


def of(operator: str, operand: Any, path: str = "x") -> dict[str, Any]:
    """Return a condition."""
    return {"field": path, operator: operand}


# Text that means something to whoever might take it for more than text.
# fmt: off
HOSTILE = [
    *["'", '"', "''", "\\", "\\'", "\\\\", "$1", "$2::text", "%", "_", "%s", "%(x)s", "{0}", "{x}"],
    *["' OR true --", "'); DROP TABLE c_1.documents; --", "/*", "*/", ";", "--", "$$", "$a$"],
    *["E'\\x41'", "\x01", "\x7f", "\n", "\r\n", "\t", " ", "  ", "a b", "\u2028", "\ufeff"],
    *["\uffff", "é", "e\u0301", "ß", "İ", "数据", "😀", "👩\u200d👧", "\U0010ffff", "null", "true"],
    *["{a,b}", "{}", "[]", '"a"', "$.x", "$.**", "@", "?", "?|", "::jsonb", "documents.metadata"],
    *["__proto__", "metadata", "field", "eq", "and", "0", "-1", "1", "NaN", "last", "a.b", "a."],
    *[".", "..", "\\."],
]
# fmt: on


def escaped(*keys: str) -> str:
    """Return the path of keys of the metadata."""
    return "metadata." + ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in keys)


KEYS = ["a", "b", "a.b", "tags", "title", "0", '"', "$1", "é\\", " "]
PATHS = [escaped(*keys) for keys in [(key,) for key in KEYS] + [("a", "b"), ("b", "a", "0")]]
SCALARS: list[Any] = [
    *[None, True, False, 0, 1, -1, 1.0, 1.5, 0.1, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63],
    *[float(2**63), 2**64 - 1, -(2**63), 1e300, -1e300, 5e-324, 0.30000000000000004, 0.3, 1e22],
    *["", "a", "A", "b", "ab", "a%", "%", "_", "1", "true", "null", "Z", "ä", "z", "é", "e\u0301"],
    *["😀", "\uffff", "a\\", "'", '"', "[]"],
    # An index has the beginnings of strings alone.
    *["a" * 256, "a" * 256 + "b", "a" * 257, "a" * 255 + "😀", "😀" * 300, "😀" * 299 + "a"],
]
ASKED = [*SCALARS, 10**22, -(10**300), "nowhere"]
OWN = ("id", "title", "tags", "created_at", "updated_at")
OWN_TEXTS = ["", "a", "B", "ab", "ä", "%", "😀"]
TIMES = [EPOCH + timedelta(seconds=number / 2) for number in range(5)]
PADDING = [f"nowhere {number}" for number in range(100)]


def some_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if kind < 0.55 or depth > 2:
        return rng.choice(SCALARS)
    if kind < 0.8:
        return [some_value(rng, depth + 2) for _ in range(rng.randrange(4))]
    return some_object(rng, depth + 1)


def some_object(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    keys = rng.sample(KEYS, rng.randrange(1, len(KEYS)))
    return {key: some_value(rng, depth) for key in keys}


def some_docs(rng: random.Random, count: int) -> list[Doc]:
    """Return documents of all kinds, whose ids end in their numbers."""
    return [
        Doc(
            f"{rng.choice(OWN_TEXTS)}/{number}",
            some_object(rng),
            rng.choice(OWN_TEXTS),
            tuple(rng.sample(OWN_TEXTS, rng.randrange(4))),
            rng.choice(TIMES),
            rng.choice(TIMES),
        )
        for number in range(count)
    ]


def some_list(rng: random.Random, values: Sequence[Any]) -> list[Any]:
    few = rng.choices(values, k=rng.choice([0, 1, 1, 2, 2, 5]))
    return few + PADDING if rng.random() < 0.2 else few


def some_condition(rng: random.Random) -> dict[str, Any]:
    kind = rng.random()
    if kind < 0.08:
        operator = rng.choice(["any", "all", "none"])
        return of(operator, some_list(rng, OWN_TEXTS), "tags")
    if kind < 0.16:
        times = [time.isoformat() for time in TIMES]
        operator = rng.choice([*ORDERS, "eq", "ne", "in"])
        operand: Any = rng.choice(times) if operator != "in" else rng.sample(times, 2)
        return of(operator, operand, rng.choice(["created_at", "updated_at"]))
    if kind < 0.24:
        operator = rng.choice([*ORDERS, "eq", "ne", "in", "nin", "prefix", "contains"])
        listed = operator in LISTS
        operand = some_list(rng, OWN_TEXTS) if listed else rng.choice(OWN_TEXTS)
        return of(operator, operand, "title")
    return {**some_question(rng), **some_question(rng), "field": rng.choice(PATHS)}


def some_question(rng: random.Random) -> dict[str, Any]:
    operator = rng.choice([*ORDERS, *LISTS, "eq", "ne", "exists", "prefix", "contains"])
    if operator in LISTS:
        return {operator: some_list(rng, ASKED)}
    if operator == "exists":
        return {operator: rng.random() < 0.5}
    if operator in ORDERS:
        return {operator: rng.choice([v for v in ASKED if type(v) in (str, int, float)])}
    if operator in ("prefix", "contains"):
        return {operator: rng.choice([v for v in ASKED if isinstance(v, str)])}
    return {operator: rng.choice(ASKED)}


def some_filter(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """Return a filter that some of those documents may pass; its times are RFC 3339."""
    if depth > 2 or rng.random() < 0.5:
        return some_condition(rng)
    if rng.random() < 0.3:
        return {"not": some_filter(rng, depth + 1)}
    parts = [some_filter(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
    return {rng.choice(["and", "or"]): parts}


def holds(doc: Doc, asked: dict[str, Any]) -> bool:
    """Tell whether a filter keeps a document."""
    said = [answer(key, field_of(doc, asked), asked[key]) for key in asked if key in ANSWERED]
    if "and" in asked:
        said.append(all(holds(doc, part) for part in asked["and"]))
    if "or" in asked:
        said.append(any(holds(doc, part) for part in asked["or"]))
    if "not" in asked:
        said.append(not holds(doc, asked["not"]))
    return all(said)


ANSWERED = {*ORDERS, *LISTS, "eq", "ne", "exists", "prefix", "contains"}


def field_of(doc: Doc, asked: dict[str, Any]) -> Any:
    path = asked["field"]
    if path in OWN:
        own = getattr(doc, path)
        return list(own) if path == "tags" else own.isoformat() if path.endswith("_at") else own
    value: Any = doc.metadata
    for key in keys_of(path.removeprefix("metadata.")):
        value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
    return value


def keys_of(path: str) -> list[str]:
    keys, characters = [""], iter(path)
    for character in characters:
        if character == ".":
            keys.append("")
        else:
            keys[-1] += next(characters) if character == "\\" else character
    return keys


def comparable(value: Any) -> tuple[str, Any]:
    """Return what two values that are equal have in common, and no others."""
    if type(value) in (int, float):
        has_64_bits = type(value) is int and -(2**63) <= value < 2**64
        return "number", Decimal(str(value if has_64_bits else float(value)))
    return type(value).__name__, value


def answer(operator: str, value: Any, operand: Any) -> bool:
    match operator:
        case "ne" | "nin" | "none":
            return not answer({"ne": "eq", "nin": "in", "none": "any"}[operator], value, operand)
        case "exists":
            return (value is not MISSING) is operand
        case "eq" | "in":
            operands = operand if operator == "in" else [operand]
            return comparable(value) in map(comparable, operands)
        case "any" | "all":
            elements = value if isinstance(value, list) else [value]
            found = [comparable(part) in map(comparable, elements) for part in operand]
            return any(found) if operator == "any" else value is not MISSING and all(found)
        case "prefix":
            return isinstance(value, str) and value.startswith(operand)
        case "contains":
            return isinstance(value, str) and operand in value
    (kind, left), (other, right) = comparable(value), comparable(operand)
    if kind != other or kind not in ("number", "str"):
        return False
    return bool(
        {"gt": left > right, "gte": left >= right, "lt": left < right}.get(operator, left <= right)
    )
