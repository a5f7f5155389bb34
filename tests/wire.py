"""HTTP as a client sees it: what is asked, and the whole of what comes back."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from multidict import CIMultiDictProxy
from yarl import URL


@dataclass(frozen=True)
class Answer:
    """Hold an answer that has been read."""

    status: int
    headers: CIMultiDictProxy[str]
    data: bytes

    @property
    def json(self) -> Any:
        """The body, which must say that it is JSON."""
        assert self.headers["Content-Type"].startswith("application/json"), self.headers
        return orjson.loads(self.data)

    def ok(self, status: int = 200) -> Any:
        """Return the body of an answer of that status."""
        assert self.status == status, (self.status, self.data[:500])
        return self.json

    def refused(self, status: int, code: str | None = None) -> dict[str, Any]:
        """Return the error object of an answer of that status, which must be complete."""
        assert self.status == status, (self.status, self.data[:500])
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert len(error["message"]) > 10
        assert "X-Request-Id" in self.headers
        if code:
            assert error["code"] == code, error
        return error


class Client:
    """Ask one server, at paths below its URL."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self._session = aiohttp.ClientSession(**options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request; the path is sent as it stands, percent signs and all."""
        url = URL(self.url + path, encoded=True)
        async with self._session.request(method, url, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        """GET the path."""
        return await self.ask("GET", path, **options)

    async def post(self, path: str, value: Any, **options: Any) -> Answer:
        """POST a value as JSON."""
        return await self.ask("POST", path, data=orjson.dumps(value), **options)

    async def patch(self, path: str, value: Any) -> Answer:
        """PATCH with a value as JSON."""
        return await self.ask("PATCH", path, data=orjson.dumps(value))

    async def delete(self, path: str) -> Answer:
        """DELETE the path."""
        return await self.ask("DELETE", path)

    async def store(self, collection: str = "default", **document: Any) -> Any:
        """Store one document and return what became of it."""
        answer = await self.post(f"/v1/collections/{collection}/documents", document)
        [outcome] = answer.ok()["documents"]
        return outcome

    async def search(self, query: Any, collection: str = "default", **options: Any) -> Any:
        """Search and return the answer."""
        body = {"query": query, **options}
        return (await self.post(f"/v1/collections/{collection}/search", body)).ok()

    async def found(self, query: Any, collection: str = "default", **options: Any) -> list[str]:
        """Return the ids of the documents that a search finds, in order."""
        results = (await self.search(query, collection, **options))["results"]
        return [result["document"]["id"] for result in results]
