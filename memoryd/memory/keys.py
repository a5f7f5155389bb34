"""API keys: made, revoked, and known by what a client sends."""

import asyncio
import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from memoryd.config import Settings
from memoryd.documents.types import Collection
from memoryd.errors import (
    ConflictError,
    InvalidInputError,
    MemorydError,
    NotFoundError,
    UnauthorizedError,
)
from memoryd.memory.background import BackgroundTasks
from memoryd.memory.lookups import Lookups
from memoryd.storage import keys as storage
from memoryd.storage.collections import find_collection
from memoryd.storage.database import Connection, Database
from memoryd.storage.keys import ApiKey, Scope

_KEY = re.compile(r"mk_k([0-9]{1,18})_([0-9a-f]{48})")
_ID = re.compile(r"k([0-9]{1,18})")
_SECRET_BYTES = 24

# For so long a key that was known works while the database is away.
_LASTING_S = 300.0
_USE_IS_NOTED_EVERY = timedelta(minutes=10)
_CLOSE_PATIENCE_S = 0.2


@dataclass(frozen=True)
class Grant:
    """Say what the sender of a request may do."""

    scopes: frozenset[Scope]
    collection_numbers: frozenset[int] | None = None
    """None: all collections, and to make, name and delete them."""
    key_id: str = ""
    """Empty where no key of the database was sent."""

    def allows(self, scope: Scope) -> bool:
        """Say whether `scope` is granted; admin is all of them."""
        return scope in self.scopes or "admin" in self.scopes

    def opens(self, collection: Collection) -> bool:
        """Say whether that collection may be used."""
        return self.collection_numbers is None or collection.number in self.collection_numbers


EVERYTHING = Grant(frozenset({"admin"}))


class Keyring:
    """Know the API keys: the one of the settings, and those of the database.

    Without any, whoever reaches memoryd may do everything. As soon as there is one in the database,
    there is also one with the scope admin that never expires, or one in the settings: else nobody
    could make or revoke another.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        """Remember nothing yet."""
        self._settings = settings
        self._database = database
        self._keys = Lookups(partial(storage.find_key, database), _LASTING_S)
        # That there are keys, or none, holds as long as the database is away: nobody changes it.
        self._any = Lookups(lambda _number: self.exist(), math.inf)
        self._writes = BackgroundTasks()

    async def are_wanted(self) -> bool:
        """Say whether requests need a key.

        Where others reach memoryd they do, unless the user said otherwise: also when the last key
        was revoked elsewhere.
        """
        if self._settings.api_key or self._settings.must_have_key:
            return True
        return await self._any.get(0)

    async def exist(self) -> bool:
        """Say whether there are keys in the database now."""
        async with self._database.connection() as connection:
            return await storage.any_key(connection)

    async def lack_admin(self) -> bool:
        """Say whether there are keys and nobody who could make or revoke one.

        So it is once the key of the settings, beside which any key may come first, is taken away.
        """
        if self._settings.api_key:
            return False
        async with self._database.connection() as connection:
            has_admin = await storage.any_lasting_admin(connection)
            return not has_admin and await storage.any_key(connection)

    async def grant(self, given: str) -> Grant:
        """Return what the key that a client sent opens, "" for none.

        Raises UnauthorizedError where none, a wrong, a revoked or an expired one was sent.
        """
        if not given:
            raise UnauthorizedError(
                "an API key is needed: send it as 'Authorization: Bearer <key>' or 'X-Api-Key'"
            )
        if self._is_own(given):
            return EVERYTHING
        key = await self._find(given)
        if key is None:
            raise UnauthorizedError("this API key is wrong or was revoked: ask for another")
        if key.expires_at and key.expires_at <= datetime.now(UTC):
            raise UnauthorizedError(f"the API key {key.id} has expired: ask for another")
        self._note_use(key)
        return Grant(frozenset(key.scopes), key.collection_numbers, key.id)

    def _is_own(self, given: str) -> bool:
        own = self._settings.api_key
        if not own:
            return False
        return hmac.compare_digest(
            given.encode("utf-8", "replace"), own.get_secret_value().encode()
        )

    async def _find(self, given: str) -> ApiKey | None:
        """Return the key; what can't be one costs no query, and what is remembered none either."""
        parts = _KEY.fullmatch(given)
        if parts is None:
            return None
        key = await self._keys.get(int(parts[1]))
        is_right = key is not None and hmac.compare_digest(key.secret_hash, _hash(parts[2]))
        return key if is_right else None

    def _note_use(self, key: ApiKey) -> None:
        now = datetime.now(UTC)
        if key.last_used_at and now - key.last_used_at < _USE_IS_NOTED_EVERY:
            return
        self._keys.change(key.number, replace(key, last_used_at=now))
        self._writes.start(self._write_use(key.number))

    async def _write_use(self, number: int) -> None:
        with suppress(MemorydError):
            await storage.note_use(self._database, number)

    async def create(
        self,
        *,
        name: str,
        scopes: Sequence[Scope],
        collections: Sequence[str] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; return it with what its holder sends, which can't be read again.

        `collections` are names or aliases; the key goes with those collections whatever they are
        called later. None: all. Raises InvalidInputError, NotFoundError for a collection.
        """
        _check(scopes, collections, expires_at)
        numbers = None if collections is None else await self._numbers(collections)
        secret = secrets.token_hex(_SECRET_BYTES)
        async with self._database.transaction() as connection:
            await storage.lock_keys(connection)
            key = await storage.insert_key(
                connection,
                secret_hash=_hash(secret),
                name=name,
                scopes=sorted(set(scopes)),
                collection_numbers=numbers,
                expires_at=expires_at,
            )
            await self._check_first(connection)
        self._forget()
        return key, f"mk_{key.id}_{secret}"

    async def _check_first(self, connection: Connection) -> None:
        """Raise InvalidInputError where a key would be the first and nobody's who makes others."""
        if not self._settings.api_key and not await storage.any_lasting_admin(connection):
            raise InvalidInputError(
                "the first API key must have the scope admin and no expires_at: from then on "
                "keys are wanted, and without it nobody could make another",
                "scopes",
            )

    async def _numbers(self, names: Sequence[str]) -> list[int]:
        return sorted({(await find_collection(self._database, name)).number for name in names})

    async def list_page(self, *, after: int, limit: int) -> list[ApiKey]:
        """Return up to `limit` keys in the order in which they were made, those after `after`."""
        return await storage.list_keys(self._database, after=after, limit=limit)

    async def revoke(self, id_: str) -> None:
        """Delete a key; raise NotFoundError, or ConflictError where nobody could get in then."""
        parts = _ID.fullmatch(id_)
        async with self._database.transaction() as connection:
            await storage.lock_keys(connection)
            if parts is None or not await storage.delete_key(connection, int(parts[1])):
                raise NotFoundError(f"there is no API key {id_!r}", "id")
            if not self._settings.api_key:
                await self._check_way_in(connection)
        self._forget()

    async def _check_way_in(self, connection: Connection) -> None:
        """Raise ConflictError where nobody could make another key."""
        if await storage.any_lasting_admin(connection):
            return
        if await storage.any_key(connection):
            raise ConflictError(
                "this is the last API key with the scope admin that never expires: make another, "
                "or revoke the others before",
                "id",
            )
        if self._settings.must_have_key:
            raise ConflictError(
                "this is the last API key, and without one nobody could use a memoryd that other "
                "machines can reach: make another before",
                "id",
            )

    def _forget(self) -> None:
        self._keys.forget()
        self._any.forget()

    async def close(self) -> None:
        """End what it still asks of the database and writes to it."""
        await asyncio.gather(
            self._keys.close(), self._any.close(), self._writes.cancel(_CLOSE_PATIENCE_S)
        )


def _check(
    scopes: Sequence[Scope], collections: Sequence[str] | None, expires_at: datetime | None
) -> None:
    if collections is not None and "admin" in scopes:
        raise InvalidInputError("a key with the scope admin opens all collections", "collections")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidInputError("expires_at: this time has passed", "expires_at")


def _hash(secret: str) -> bytes:
    # Slow hashes are for secrets that people make up. Nobody guesses 192 random bits, however fast.
    return hashlib.sha256(secret.encode()).digest()
