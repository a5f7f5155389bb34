"""What benchmarks take from the user's settings: where models are, and nothing else.

Another setting would change what is measured, and MEMORYD_DATABASE_URL would let a benchmark write
into the user's own database.
"""

import os

from memoryd.config import ENVIRONMENT_PREFIX, Settings, load_settings

_KEPT = "MEMORYD_MODELS_DIR"


def bench_environment() -> dict[str, str]:
    """Return this process's environment with no setting in it but the models directory."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == _KEPT or not name.startswith(ENVIRONMENT_PREFIX)
    }


def bench_settings() -> Settings:
    """Return the default settings, with the user's models directory."""
    return load_settings(environment=bench_environment())
