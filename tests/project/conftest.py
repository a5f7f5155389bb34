"""The checkout, and what a server of these tests is told."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the folder of the checkout."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def commands() -> Path:
    """Give the folder of the environment's commands."""
    return Path(sys.executable).parent


@pytest.fixture
def environment(
    open_place: Path, models_dir: Path, model_file: Path, request: pytest.FixtureRequest
) -> dict[str, str]:
    """Give a server's environment: a data directory of the test's own, and the models."""
    return {
        "MEMORYD_DATA_DIR": str(open_place / request.node.name),
        "MEMORYD_MODELS_DIR": str(models_dir),
    }
