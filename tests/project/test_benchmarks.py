"""Benchmarks leave the user's own data alone, and measure what they say."""

import asyncio
import gzip
import json
import os
import random
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
    checkout: Path, models_dir: Path, *arguments: str, **places: str
) -> subprocess.CompletedProcess[str]:
    places |= {"PYTHONPATH": str(checkout / "scripts"), "MEMORYD_MODELS_DIR": str(models_dir)}
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
    assert count_judged(sections) >= 7  # four ways over HTTP, a lone query, queries during bulk


def count_judged(sections: list[dict[str, Any]]) -> int:
    """Return how many rows are held to something, each of them judged by its own figures."""
    judged = [row for section in sections for row in section["rows"] if row["targets"]]
    for row in judged:
        for name, verdict in row["targets"].items():
            bound, figure = verdict["target"]["bound"], row["figures"][name]
            is_met = figure >= bound if verdict["target"]["sign"] == ">=" else figure <= bound
            assert verdict["is_met"] == is_met
    return len(judged)


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


WORDS = (
    "cells protein tissue growth factor mice human blood heart brain receptor signal gene loss "
    "risk cancer immune response virus vaccine drug dose trial patients outcome age diet weight "
    "bone muscle liver kidney insulin glucose sleep stress memory learning neurons calcium binding"
)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Give the settings under which benchmarks read invented abstracts, and a cache of its own."""
    folder = tmp_path / "data" / "scifact"
    choice = random.Random(1)  # noqa: S311 - always the same texts
    folder.mkdir(parents=True)
    abstracts = [
        {"id": str(number), "title": choice.choice(WORDS.split()), "text": invent_text(choice)}
        for number in range(90)
    ]
    claims = [
        {"text": abstract["text"].partition(".")[0], "relevant": {abstract["id"]: 1}}
        for abstract in abstracts[::9]
    ]
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(abstract) + "\n" for abstract in abstracts)
    with (folder / "queries.jsonl").open("w") as file:
        file.writelines(json.dumps(claim) + "\n" for claim in claims)
    cache = str(tmp_path / "cache")
    return {"MEMORYD_BENCH_DATA": str(folder.parent), "MEMORYD_BENCH_CACHE": cache}


def invent_text(choice: random.Random) -> str:
    sentences = [" ".join(choice.sample(WORDS.split(), 9)).capitalize() for _ in range(6)]
    return ". ".join(sentences) + "."


def test_search_is_measured_with_filters_of_every_kind_and_without_the_stores_that_are_missing(
    checkout: Path, models_dir: Path, model_file: Path, data: dict[str, str]
) -> None:
    arguments = ("--count", "1000", "--rounds", "1", "--json", "figures.json")
    said = run_benchmark(checkout, models_dir, "search", *arguments, **data)
    assert said.returncode == 0, said.stderr
    assert "langchain-postgres are left out: `scripts/bench peers` installs it" in said.stdout
    figures = json.loads((checkout / "figures.json").read_text())
    load, recall, filters, speed, clients = figures["sections"]
    assert [row["figures"]["seconds"] > 0 for row in load["rows"]] == [True, True]
    assert all(row["figures"]["recall@10"] > 0.9 for row in recall["rows"])
    labels = [row["label"] for row in filters["rows"]]
    assert len(labels) == 15
    assert {"0.1 % nearest to the query", "50 % at random"} < set(labels)
    assert all(row["figures"]["short by"] == 0 for row in filters["rows"])
    assert "lexical, a word of half the rows" in [row["label"] for row in speed["rows"]]
    assert [row["label"] for row in clients["rows"][-2:]] == [
        "hybrid, one client",
        "hybrid, 16 clients",
    ]
    assert count_judged(figures["sections"]) == 2 + 15 + 4 + 3


def test_scifact_is_measured_again_over_what_an_earlier_run_has_stored(
    checkout: Path, models_dir: Path, model_file: Path, data: dict[str, str], open_place: Path
) -> None:
    arguments = ("--reuse", str(open_place / "scifact"), "--json", "figures.json")
    said = run_benchmark(checkout, models_dir, "scifact", *arguments, **data)
    assert said.returncode == 0, said.stderr
    first = json.loads((checkout / "figures.json").read_text())["sections"]
    again = run_benchmark(checkout, models_dir, "scifact", *arguments, **data)
    assert again.returncode == 0, again.stderr
    assert "SciFact is there already" in again.stdout
    second = json.loads((checkout / "figures.json").read_text())["sections"]
    assert count_judged(second) == 4
    found = [
        [(row["label"], row["figures"]["nDCG@10"]) for row in sections["rows"]]
        for sections in (first[1], second[0])
    ]
    assert found[0] == found[1]
    assert [label for label, _ in found[0]] == ["dense", "lexical", "hybrid"]
    assert all(score > 0.8 for _, score in found[0])


def test_the_benchmark_of_scale_runs_with_few_vectors_too(
    checkout: Path, models_dir: Path, model_file: Path
) -> None:
    arguments = ("--count", "1500", "--json", "figures.json")
    said = run_benchmark(checkout, models_dir, "scale", *arguments)
    assert said.returncode == 0, said.stderr
    load, size, search = json.loads((checkout / "figures.json").read_text())["sections"]
    assert len(load["rows"]) == 2
    assert all(row["figures"]["MB"] > 1 for row in size["rows"])
    assert search["rows"][0]["figures"]["recall@10"] > 0.9


RECALL = """
import numpy as np
from benchmarks.window_filters import Truth, make_filters, tags_of_rows
from benchmarks.windows import Windows

angles = np.linspace(0, 3, 200, dtype=np.float32)
vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
windows = Windows([""] * 200, vectors, ["first", "last"], vectors[[0, -1]])
truth = Truth(windows)
kept = np.arange(50, 150)
assert truth.recall(0, [50, 51, 52, 53], 4, kept) == 1
assert truth.recall(0, [0, 1, 2, 50], 4, kept) == 0.25  # nearer ones that aren't kept
assert truth.recall(1, [149, 148], 4, kept) == 0.5
assert truth.recall(0, [50, 51], 4, kept[:2]) == 1

filters = {each.tag: each for each in make_filters(windows)}
assert set(filters["near-0-1"].kept) == {0, 1} and set(filters["far-0-1"].kept) == {199, 198}
assert len(filters["any-10"].kept) == 20 and len(filters["near-1-0.01"].kept) == 1
tags = tags_of_rows(make_filters(windows), 200)
for tag, each in filters.items():
    assert [row for row in range(200) if tag in tags[row]] == sorted(each.kept)
"""


def test_recall_beneath_a_filter_counts_no_row_that_it_does_not_keep(repository: Path) -> None:
    run_program(repository, RECALL)


CACHE = """
import asyncio
import numpy as np
from benchmarks.vector_cache import _parts, _path, embed_chunks

chunks = [("", f"text {number}") for number in range(2_003)]
before = _parts(_path("texts", chunks)) / "0000.npy"
before.parent.mkdir(parents=True)
np.save(before, np.full((2_000, 384), 7, np.float32))  # as if embedded before a break-off
vectors = asyncio.run(embed_chunks("texts", chunks))
assert vectors.shape == (2_003, 384) and not before.exists()
assert (vectors[:2_000] == 7).all() and np.allclose(np.linalg.norm(vectors[2_000:], axis=1), 1)
assert (asyncio.run(embed_chunks("texts", chunks)) == vectors).all()
"""


def test_what_was_embedded_before_a_break_off_is_not_embedded_again(
    repository: Path, models_dir: Path, model_file: Path, tmp_path: Path
) -> None:
    run_program(
        repository,
        CACHE,
        MEMORYD_BENCH_CACHE=str(tmp_path),
        MEMORYD_MODELS_DIR=str(models_dir),
    )


def run_program(repository: Path, program: str, **environment: str) -> None:
    places = {"PYTHONPATH": str(repository / "scripts"), **environment}
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr


async def test_each_search_is_timed_by_itself_in_the_order_of_the_bodies(repository: Path) -> None:
    async def answer_slowly(request: web.Request) -> web.Response:
        await asyncio.sleep(float(await request.text()))
        return web.Response(text="")

    app = web.Application()
    app.router.add_post("/slow", answer_slowly)
    bodies = ["0.2", "0.01", "0.1", "0.3"]
    async with TestServer(app) as server, run_clients(repository) as process:
        url = f"http://127.0.0.1:{server.port}"
        answer = await call(process, "time_each", url=url, path="/slow", bodies=bodies, clients=2)
    assert 0.4 < answer["seconds"] < 0.6  # 0.2, 0.3 beside 0.01, 0.1: not one after the other
    for seconds, body in zip(answer["each_s"], bodies, strict=True):
        assert 0 < seconds - float(body) < 0.1
