"""What a test needs and a machine may lack."""

import os
from typing import NoReturn

import pytest


def skip_without(program: str) -> NoReturn:
    """Skip the test for lack of `program`; in CI fail, unless it couldn't be installed there."""
    if os.environ.get("CI") and program not in os.environ.get("TESTS_MAY_LACK", "").split():
        pytest.fail(f"there is no {program} in CI")
    pytest.skip(f"there is no {program}")
