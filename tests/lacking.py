"""What a test needs and a machine may lack."""

import os
from typing import NoReturn

import pytest


def skip_without(program: str) -> NoReturn:
    """Skip the test for lack of `program`; in CI, which installs it, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"there is no {program} in CI")
    pytest.skip(f"there is no {program}")
