"""What the server and a parser process say to each other over a pipe: JSON, then the file.

The process says that it is ready. Then a request is two lengths, a JSON object and the bytes of
the file, and its answer a length and a JSON object.
"""

import struct
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from memoryd.documents.outline import Section
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.errors import InvalidInputError, MemorydError, TooLargeError

REQUEST_HEAD = struct.Struct(">II")
ANSWER_HEAD = struct.Struct(">I")
READY = b"\n"

_KINDS: dict[str, type[MemorydError]] = {
    "too large": TooLargeError,
    "invalid": InvalidInputError,
}


@dataclass(frozen=True)
class Request:
    """Ask for a file to be parsed."""

    name: str
    mime_type: str | None
    cpu_s: int
    limits: ParsingLimits


def write_request(request: Request, data: bytes) -> bytes:
    """Return what goes before the file's bytes."""
    head = orjson.dumps(asdict(request))
    return REQUEST_HEAD.pack(len(head), len(data)) + head


def read_request(head: bytes) -> Request:
    """Return the request from its JSON."""
    told = orjson.loads(head)
    return Request(**{**told, "limits": ParsingLimits(**told["limits"])})


def write_answer(answer: Parsed | MemorydError) -> bytes:
    """Return the frame of what a file says, or of why it can't be read."""
    if isinstance(answer, MemorydError):
        kind = next(kind for kind, error in _KINDS.items() if isinstance(answer, error))
        body = orjson.dumps({"error": kind, "message": answer.message})
    else:
        body = orjson.dumps(asdict(answer))
    return ANSWER_HEAD.pack(len(body)) + body


def read_answer(body: bytes) -> Parsed:
    """Return what a file says, or raise why it can't be read."""
    told: dict[str, Any] = orjson.loads(body)
    if "error" in told:
        raise _KINDS[told["error"]](told["message"])
    sections = [
        Section(**{**section, "headings": tuple(section["headings"])})
        for section in told.pop("sections")
    ]
    return Parsed(**told, sections=sections)
