"""What is noted of each request, for its answer's headers, the log and the metrics."""

import hashlib
import secrets
from dataclasses import dataclass

from aiohttp import web


@dataclass
class Notes:
    """Hold what is known of a request while it is served; never texts."""

    id: str
    tokens: int = 0
    """That the model saw."""
    truncated: int = 0
    """Inputs that were cut."""
    user: str = ""
    """A hash of who the client says it asks for."""
    key: str = ""
    """The id of the API key that was sent, where it is one."""


NOTES = web.RequestKey("notes", Notes)

_USER_HASH_BYTES = 8
# Names and addresses are easy to guess, so a plain hash of them could be turned back. The secret is
# of this process alone: there is none to keep, and a log that leaves the machine tells nobody.
_USER_HASH_KEY = secrets.token_bytes(32)


def hash_user(text: str) -> str:
    """Return 16 hex digits that stand for a user in this process's log (keyed BLAKE2b)."""
    data = text.encode("utf-8", "replace")
    return hashlib.blake2b(data, key=_USER_HASH_KEY, digest_size=_USER_HASH_BYTES).hexdigest()
