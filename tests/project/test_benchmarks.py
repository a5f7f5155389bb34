"""Benchmarks leave the user's own data alone, and measure what they say."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

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


COMPARED = ("memoryd", "create_embedding", "torch-fp32", "llama-server")


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """Give a copy of the benchmarks beside which there is no data and no peer."""
    shutil.copytree(repository / "scripts" / "benchmarks", tmp_path / "scripts" / "benchmarks")
    shutil.copytree(repository / "docs", tmp_path / "docs")
    return tmp_path


def run_benchmark(
    checkout: Path, models_dir: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    places = {"PYTHONPATH": str(checkout / "scripts"), "MEMORYD_MODELS_DIR": str(models_dir)}
    kept = {name: value for name, value in os.environ.items() if "BENCH" not in name}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        env={**kept, **places},
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_comparison_goes_on_without_what_is_missing_and_judges_by_its_own_figures(
    checkout: Path, models_dir: Path, model_file: Path
) -> None:
    arguments = ["--quick", "--contenders", ",".join(COMPARED), "--json", "figures.json"]
    said = run_benchmark(checkout, models_dir, "embed", *arguments)
    assert said.returncode == 0, said.stderr
    assert "SciFact is not there" in said.stdout
    assert "torch-fp32 is left out: `scripts/bench peers` installs it" in said.stdout
    assert "llama-server is left out: --llama-server" in said.stdout
    sections = json.loads((checkout / "figures.json").read_text())["sections"]
    kinds = [section["title"].split(":")[0] for section in sections[:3]]
    assert kinds == ["short", "mid", "long"]
    for section in sections[:3]:
        assert [row["label"] for row in section["rows"]] == list(COMPARED[:2])
        assert all(row["figures"]["tokens/s"] > 0 for row in section["rows"])
    judged = [row for section in sections for row in section["rows"] if row["targets"]]
    assert len(judged) >= 7  # four ways over HTTP, a lone query, queries during bulk
    for row in judged:
        for name, verdict in row["targets"].items():
            bound, figure = verdict["target"]["bound"], row["figures"][name]
            is_met = figure >= bound if verdict["target"]["sign"] == ">=" else figure <= bound
            assert verdict["is_met"] == is_met


def test_a_contender_that_nobody_knows_is_refused_with_those_that_are_known(
    repository: Path, models_dir: Path
) -> None:
    said = run_benchmark(repository, models_dir, "embed", "--contenders", "memoryd,another")
    assert said.returncode == 2
    assert "another is none of" in said.stderr
    assert "torch-bf16" in said.stderr


@asynccontextmanager
async def run_clients(repository: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.clients"),
        env={**os.environ, "PYTHONPATH": str(repository / "scripts")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,  # of a line
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def call(process: asyncio.subprocess.Process, function: str, **arguments: object) -> Any:
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps([function, arguments]).encode() + b"\n")
    return json.loads(await process.stdout.readline())


async def test_clients_send_every_body_once_and_no_more_at_a_time_than_they_are(
    repository: Path,
) -> None:
    running, most = 0, 0

    async def echo(request: web.Request) -> web.Response:
        nonlocal running, most
        body = await request.text()
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01 * (len(body) % 3))  # answers come in another order
        running -= 1
        return web.Response(text=body)

    app = web.Application()
    app.router.add_post("/echo", echo)
    bodies = [f"{number} ü" * (1 + 3_000 * (number % 2)) for number in range(20)]
    async with TestServer(app) as server, run_clients(repository) as process:
        url = f"http://127.0.0.1:{server.port}"
        answer = await call(process, "send_all", url=url, path="/echo", bodies=bodies, clients=4)
    assert answer["answers"] == bodies
    assert most == 4
    assert 0 < answer["cpu_s"] < answer["seconds"]


async def test_queries_are_sent_at_their_rate_while_bulk_runs_however_slow_the_answers(
    repository: Path,
) -> None:
    async def answer_slowly(request: web.Request) -> web.Response:
        await asyncio.sleep(float(await request.text()))
        return web.Response(text="")

    app = web.Application()
    app.router.add_post("/slow", answer_slowly)
    async with TestServer(app) as server, run_clients(repository) as process:
        answer = await call(
            process,
            "send_all_and_ask",
            url=f"http://127.0.0.1:{server.port}",
            path="/slow",
            bodies=["0.5", "0.5"],
            clients=1,
            query_path="/slow",
            queries=["0.3"],
            per_second=20.0,
        )
    assert 1.0 < answer["seconds"] < 1.4
    assert 17 <= len(answer["query_s"]) <= 23
    assert all(0.3 < seconds < 0.5 for seconds in answer["query_s"])


async def test_an_answer_that_is_an_error_ends_the_clients_and_is_told(repository: Path) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=503, text="too many")

    app = web.Application()
    app.router.add_post("/", refuse)
    async with TestServer(app) as server, run_clients(repository) as process:
        url = f"http://127.0.0.1:{server.port}"
        job = {"url": url, "path": "/", "bodies": ["{}"], "clients": 1}
        _, errors = await process.communicate(json.dumps(["send_all", job]).encode() + b"\n")
    assert b"status 503: too many" in errors


def test_peers_do_not_inherit_how_memoryd_lets_threads_wait(repository: Path) -> None:
    program = (
        "import os, memoryd.embeddings; from benchmarks.child import child_environment as given; "
        "print('GOMP_SPINCOUNT' in os.environ, 'GOMP_SPINCOUNT' in given())"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository / "scripts")}
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout == "True False\n"
