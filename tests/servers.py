"""What the fixtures hand out: databases to make, servers to ask."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg
from wire import Client

from memoryd.memory.state import Memory
from memoryd.postgres.server import Server

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Databases:
    """Make databases, empty or with memoryd's schema in them."""

    server: Server

    def dsn(self, name: str, role: str = "memoryd") -> str:
        """Return the address of a database."""
        address = self.server.dsn.replace("@/memoryd?", f"@/{name}?")
        return address.replace("//memoryd@", f"//{role}@")

    async def run(self, sql: str, database: str = "memoryd", role: str = "memoryd") -> None:
        """Run statements in a database."""
        connection = await asyncpg.connect(self.dsn(database, role))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    @asynccontextmanager
    async def make(self, template: str = "migrated") -> AsyncIterator[str]:
        """Yield the name of a new database, copied from another."""
        name = f"test_{next(_numbers)}"
        await self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            await self._drop(name)

    async def _drop(self, name: str) -> None:
        while True:
            try:
                return await self.run(f"DROP DATABASE {name} WITH (FORCE)")
            except asyncpg.InsufficientPrivilegeError:
                await asyncio.sleep(0.1)  # an autovacuum worker is in it, which is a superuser's


@dataclass(frozen=True)
class Running:
    """Hold a server that listens, a client of it, and what the server works with."""

    client: Client
    memory: Memory
    dsn: str


Serve = Callable[..., AbstractAsyncContextManager[Running]]
