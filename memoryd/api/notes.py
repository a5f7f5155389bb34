"""What is noted of each request, for its answer's headers, the log and the metrics."""

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


NOTES = web.RequestKey("notes", Notes)
