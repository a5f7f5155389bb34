"""The models that are loaded: each at first use, once however many ask, and no longer than needed.

A model that a collection works with stays. Any other leaves some time after its last use, or before
when another needs its memory; never while it is used.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self

from memoryd.embeddings.lanes import Lanes, open_lanes
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.threads import run_to_end
from memoryd.embeddings.types import Backend, PreparedModel
from memoryd.errors import OutOfMemoryError, StoppingError, UnavailableError
from memoryd.metrics import Metrics

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 300.0
LONG_INPUT_BYTES = 8 << 30
# How long a load waits for models that are in use to be idle, and a request for a load.
_ROOM_PATIENCE_S, _LOADING_PATIENCE_S = 30.0, 60.0


class Loader(Protocol):
    """Know the names of models and where their files are."""

    def resolve(self, name: str) -> str:
        """Return the one name of the model that clients call `name`, or ModelNotFoundError."""
        ...

    async def prepare(self, name: str) -> PreparedModel:
        """Bring the model of that resolved name to this machine, ready to be loaded."""
        ...


@dataclass(frozen=True)
class EngineLimits:
    """Bound what the models may take."""

    max_waiting_requests: int = 512
    """Of each model."""
    memory_bytes: int | None = None
    """Of all models together; None: no bound."""
    long_input_bytes: int = LONG_INPUT_BYTES
    """Of the lane that is made for one long input, beside all models; there is one at a time."""
    keep_alive_s: float = KEEP_ALIVE_S
    """How long a model stays after its last use, where the request doesn't say."""


@dataclass(frozen=True)
class LoadedModel:
    """Tell of a model that is loaded."""

    model: EmbeddingModel
    memory_bytes: int
    expires_in_s: float
    """By its keep_alive, infinite for ever; one that is pinned stays all the same."""
    is_pinned: bool


@dataclass(eq=False)
class _Slot:
    """Hold a model from when it is first asked for until it has left."""

    name: str
    loading: asyncio.Task[EmbeddingModel]
    users: int = 0
    is_pinned: bool = False
    keep_alive_s: float = KEEP_ALIVE_S
    used_at: float = 0.0
    timer: asyncio.TimerHandle | None = None

    @property
    def model(self) -> EmbeddingModel | None:
        """The model, if it is loaded."""
        task = self.loading
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        return None

    @property
    def is_idle(self) -> bool:
        """Whether it is loaded and may leave."""
        return self.model is not None and not self.users and not self.is_pinned

    def stop_timer(self) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer = None

    @property
    def memory_bytes(self) -> int:
        return self.model.memory_bytes if self.model else 0

    @property
    def expires_in_s(self) -> float:
        if self.keep_alive_s < 0:
            return math.inf
        idle_s = 0.0 if self.users else time.monotonic() - self.used_at
        return max(0.0, self.keep_alive_s - idle_s)


class Engine:
    """Keep the loaded models."""

    def __init__(self, loader: Loader, limits: EngineLimits | None = None) -> None:
        """Start with nothing loaded, in the event loop that it will serve."""
        self.metrics = Metrics()
        self._loader = loader
        self._limits = limits or EngineLimits()
        self._slots: dict[str, _Slot] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()
        self._dedicated_turn = asyncio.Lock()
        self._idle = asyncio.Event()
        self._refusal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def resolve(self, name: str) -> str:
        """Return the one name of a model, from any of its names, or raise ModelNotFoundError."""
        return self._loader.resolve(name)

    async def model(self, name: str) -> EmbeddingModel:
        """Return the model that clients call `name`, which stays loaded until it is released.

        Who may be around when it is released uses `pinning`. Raises what `using` raises.
        """
        async with self.pinning(self.resolve(name)) as model:
            return model

    @asynccontextmanager
    async def pinning(self, name: str) -> AsyncIterator[EmbeddingModel]:
        """Give the model whose own name is `name`; it stays loaded after, until it is released.

        That is the name which collections keep: no alias leads them to another model. Raises what
        `using` raises.
        """
        async with self._used(name) as slot:
            slot.is_pinned = True
            yield await self._ready(slot)

    def release(self, name: str) -> None:
        """Let a model leave some time after its last use: nothing works with it any more."""
        if slot := self._slots.get(name):
            slot.is_pinned = False
            self._arm(slot)

    def expire(self, name: str) -> None:
        """Let the model whose own name is `name` leave once it is idle.

        One that a collection works with stays.
        """
        if slot := self._slots.get(name):
            slot.keep_alive_s = 0.0
            self._arm(slot)

    @asynccontextmanager
    async def using(
        self, name: str, keep_alive_s: float | None = None
    ) -> AsyncIterator[EmbeddingModel]:
        """Give the model that clients call `name` during the block, loading it if it isn't.

        It leaves `keep_alive_s` after its last use: never where that is negative, at once where it
        is 0. Raises ModelNotFoundError, ModelFileError where its file can't be had or loaded,
        OutOfMemoryError where models in use leave it no room, UnavailableError where it is still
        being loaded after a minute, and StoppingError; a load that failed is tried again at the
        next call.
        """
        async with self._used(self.resolve(name)) as slot:
            slot.keep_alive_s = self._limits.keep_alive_s if keep_alive_s is None else keep_alive_s
            try:
                async with asyncio.timeout(_LOADING_PATIENCE_S):
                    model = await self._ready(slot)
            except TimeoutError as error:
                message = f"{slot.name} is being fetched or loaded: try again in a while"
                raise UnavailableError(message, retry_after_s=10) from error
            yield model

    @asynccontextmanager
    async def _used(self, own_name: str) -> AsyncIterator[_Slot]:
        if self._refusal.done():
            raise StoppingError()
        slot = self._slot(own_name)
        slot.users += 1
        slot.stop_timer()
        try:
            yield slot
        finally:
            slot.users -= 1
            slot.used_at = time.monotonic()
            self._arm(slot)

    def _slot(self, name: str) -> _Slot:
        slot = self._slots.get(name)
        if slot is None or (slot.loading.done() and slot.model is None):
            loading = asyncio.create_task(self._load(name))
            slot = _Slot(name, loading, keep_alive_s=self._limits.keep_alive_s)
            loading.add_done_callback(lambda _loading: self._arm(slot))
            self._slots[name] = slot
        return slot

    async def _ready(self, slot: _Slot) -> EmbeddingModel:
        """Wait for a load; who leaves doesn't stop it for the others."""
        either: set[asyncio.Future[Any]] = {slot.loading, self._refusal}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._refusal.done() or slot.loading.cancelled():
            raise StoppingError()
        return slot.loading.result()

    def _arm(self, slot: _Slot) -> None:
        """Let an idle model leave when its time is over."""
        slot.stop_timer()
        if not slot.is_idle:
            return
        self._idle.set()
        if math.isfinite(slot.expires_in_s):
            loop = asyncio.get_running_loop()
            slot.timer = loop.call_later(slot.expires_in_s, self._expire, slot)

    def _expire(self, slot: _Slot) -> None:
        if slot.is_idle and self._slots.get(slot.name) is slot:
            leaving = asyncio.create_task(self._unload(slot))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _unload(self, slot: _Slot) -> Coroutine[Any, Any, None]:
        """Let go of a model, at once: nobody finds it any more. The rest of it is awaited."""
        self._slots.pop(slot.name, None)
        slot.stop_timer()
        return self._close(slot)

    async def _close(self, slot: _Slot) -> None:
        if slot.model:
            logger.info("unloading %s", slot.name)
            await slot.model.close()

    async def _load(self, name: str) -> EmbeddingModel:
        prepared = await self._loader.prepare(name)
        async with self._loading:  # one after the other, so that each sees what the others took
            if self._leaving:
                await asyncio.wait(self._leaving)
            await self._make_room(name, prepared.memory_bytes)
            backend, lanes = await run_to_end(partial(_open, prepared), discard=_free)
            model = EmbeddingModel(
                prepared.spec,
                backend,
                lanes,
                max_waiting_requests=self._limits.max_waiting_requests,
                long_input_bytes=self._limits.long_input_bytes,
                dedicated_turn=self._dedicated_turn,
                metrics=self.metrics.of_model(prepared.spec.name),
            )
        logger.info(
            "loaded %s: %d MB, inputs of up to %d tokens",
            name,
            model.memory_bytes >> 20,
            model.max_tokens,
        )
        return model

    async def _make_room(self, name: str, needed_bytes: int) -> None:
        """Unload idle models, the least recently used first, until `needed_bytes` are free."""
        limit = self._limits.memory_bytes
        if limit is None:
            return
        pinned_bytes = sum(slot.memory_bytes for slot in self._others(name) if slot.is_pinned)
        if pinned_bytes + needed_bytes > limit:
            raise self._no_room(name, needed_bytes, limit)
        try:
            async with asyncio.timeout(_ROOM_PATIENCE_S):
                while self._taken_bytes() + needed_bytes > limit:
                    if idle := self._least_recently_used():
                        await self._unload(idle)
                    elif any(not slot.is_pinned for slot in self._others(name)):
                        self._idle.clear()
                        await self._idle.wait()
                    else:
                        raise self._no_room(name, needed_bytes, limit)
        except TimeoutError as error:
            raise self._no_room(name, needed_bytes, limit) from error

    def _taken_bytes(self) -> int:
        return sum(slot.memory_bytes for slot in self._slots.values())

    def _others(self, name: str) -> list[_Slot]:
        return [slot for slot in self._slots.values() if slot.name != name and slot.model]

    def _least_recently_used(self) -> _Slot | None:
        idle = [slot for slot in self._slots.values() if slot.is_idle]
        return min(idle, key=lambda slot: slot.used_at, default=None)

    def _no_room(self, name: str, needed_bytes: int, limit: int) -> OutOfMemoryError:
        loaded = ", ".join(
            f"{slot.name} ({slot.memory_bytes >> 20} MB)" for slot in self._others(name)
        )
        return OutOfMemoryError(
            f"{name} needs about {needed_bytes >> 20} MB, memory_budget_bytes is {limit >> 20} MB, "
            f"and in use are: {loaded or 'no others'}. Raise MEMORYD_MEMORY_BUDGET_BYTES, or try "
            "again later",
            retry_after_s=5,
        )

    def loaded(self) -> list[LoadedModel]:
        """Return the models that are loaded, the one that stays longest first."""
        loaded = [
            LoadedModel(slot.model, slot.memory_bytes, slot.expires_in_s, slot.is_pinned)
            for slot in self._slots.values()
            if slot.model
        ]
        return sorted(loaded, key=lambda each: -each.expires_in_s)

    def is_loaded(self, name: str) -> bool:
        """Say whether the model of that resolved name is ready."""
        slot = self._slots.get(name)
        return slot is not None and slot.model is not None

    def refuse(self) -> None:
        """Answer all that waits, and all that comes, for whatever model, with StoppingError."""
        if not self._refusal.done():
            self._refusal.set_result(None)
        for each in self.loaded():
            each.model.refuse()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.refuse()
        slots = list(self._slots.values())
        for slot in slots:
            slot.stop_timer()
            slot.loading.cancel()  # no effect on one that is done
        if slots:
            await asyncio.wait([slot.loading for slot in slots])
        for slot in slots:
            await self._unload(slot)
        if self._leaving:
            await asyncio.wait(self._leaving)


def _open(prepared: PreparedModel) -> tuple[Backend, Lanes]:
    backend = prepared.open()
    try:
        return backend, open_lanes(backend, prepared.tuning)
    except BaseException:
        backend.close()
        raise


def _free(opened: tuple[Backend, Lanes]) -> None:
    backend, lanes = opened
    lanes.close()
    backend.close()
