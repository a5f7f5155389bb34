"""Make, list and revoke API keys over HTTP, and ask with them."""

import re
import uuid
from typing import Any

from wire import Client

from memoryd.api.route import Route


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def make(client: Client, key: str = "", status: int = 201, **body: Any) -> Any:
    given = {"name": "test", **body}
    answer = await client.post("/v1/keys", given, headers=bearing(key) if key else {})
    return answer.ok(status)


async def first_key(client: Client) -> str:
    """Return the key of the first admin: from then on the server wants one."""
    key: str = (await make(client, scopes=["admin"]))["key"]
    return key


async def revoke(client: Client, key: str, id_: str) -> Any:
    return await client.ask("DELETE", f"/v1/keys/{id_}", headers=bearing(key))


async def listed(client: Client, key: str) -> list[Any]:
    keys: list[Any] = (await client.get("/v1/keys", headers=bearing(key))).ok()["keys"]
    return keys


def path_of(route: Route, **given: str) -> str:
    """Return a path that the route serves."""
    values = {"collection": "default", "uuid": str(uuid.UUID(int=1)), **given}
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "x"), route.pattern)
