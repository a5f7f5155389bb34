"""What tests of the HTTP layer share."""

from collections.abc import Callable, Iterator

import pytest

from memoryd.api.route import Route
from memoryd.api.routes import ROUTES


@pytest.fixture
def also_serve() -> Iterator[Callable[[Route], None]]:
    """Give what adds a route to the servers of a test."""
    before = list(ROUTES)
    yield ROUTES.append
    ROUTES[:] = before
