"""Benchmarks leave the user's own data alone."""

import os
import subprocess
import sys
from pathlib import Path

RUN = """
import asyncio
from benchmarks.server import data_directory, run_server
from benchmarks.settings import bench_settings

async def main():
    with data_directory() as directory:
        async with run_server(directory) as server:
            document = {"id": "a", "text": "hello"}
            await server.request("POST", "/v1/collections/default/documents", document)
            assert (directory / "postgres").is_dir()
    settings = bench_settings()
    assert settings.database_url is None and settings.model == "all-minilm"
    print(settings.models_dir)

asyncio.run(main())
"""

# Each of them would stop a server, or lead it to other data.
USERS_OWN = {
    "MEMORYD_DATABASE_URL": "postgresql://user@127.0.0.1:1/precious",
    "MEMORYD_DATA_DIR": "/dev/null/data",
    "MEMORYD_API_KEY": "secret",
    "MEMORYD_MODEL": "another",
    "MEMORYD_CONFIG": "/nowhere/memoryd.toml",
}


def test_a_benchmark_takes_the_models_from_the_users_settings_and_nothing_else(
    repository: Path, models_dir: Path, model_file: Path
) -> None:
    places = {"PYTHONPATH": str(repository / "scripts"), "MEMORYD_MODELS_DIR": str(models_dir)}
    said = subprocess.run(
        [sys.executable, "-c", RUN],
        env={**os.environ, **USERS_OWN, **places},
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"{models_dir}\n"
