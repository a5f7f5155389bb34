"""A server that has the windows, and who asks it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.child import Child
from benchmarks.server import Running
from benchmarks.window_filters import TagFilter
from benchmarks.windows import Windows

LIMIT = 10
"""How many results every search is for."""
_BRIEF = {"with": {"text": False, "metadata": False}}


@dataclass(frozen=True)
class Scene:
    """Hold what searches are measured with."""

    server: Running
    collection: str
    clients: Child
    """Runs benchmarks.clients."""
    windows: Windows
    filters: Sequence[TagFilter]

    @property
    def path(self) -> str:
        """Where searches are posted."""
        return f"/v1/collections/{self.collection}/search"

    def time_each(self, bodies: Iterable[dict[str, Any]], clients: int = 1) -> list[float]:
        """Return the seconds of each search, from `clients` that each wait for their answer."""
        return list(self.time_all(bodies, clients)["each_s"])

    def time_all(self, bodies: Iterable[dict[str, Any]], clients: int) -> dict[str, Any]:
        """Return the seconds of each search, and those of all of them."""
        answer: dict[str, Any] = self.clients.call(
            "time_each",
            url=self.server.url,
            path=self.path,
            bodies=[json.dumps(body) for body in bodies],
            clients=clients,
        )
        return answer

    async def find(self, claim: int, **fields: object) -> tuple[list[int], str]:
        """Return the rows that are nearest to a claim, and the plan by which they were found."""
        vector = self.windows.claim_vectors[claim].tolist()
        body = {"query": {"vector": vector}, "mode": "dense", "limit": LIMIT, **_BRIEF, **fields}
        answer = await self.server.request("POST", self.path, body)
        rows = [int(result["document"]["id"]) for result in answer["results"]]
        return rows, answer["plan"]["dense"]
