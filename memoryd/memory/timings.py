"""How long the parts of something take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Add up the milliseconds of each part, in the order in which they began."""

    def __init__(self) -> None:
        """Start the clock of the whole."""
        self._started = time.perf_counter()
        self.parts_ms: dict[str, float] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the block's time as of `part`."""
        self.parts_ms.setdefault(part, 0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts_ms[part] += (time.perf_counter() - started) * 1000

    def total_ms(self) -> float:
        """Return the time since the start."""
        return (time.perf_counter() - self._started) * 1000
