"""The commands as a shell runs them: what they print, and their exit status."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import BodyPartReader, web
from servers import Databases, Running, Serve
from shell import end, run, start

from memoryd.cli.client import default_url
from memoryd.config import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NO_IPV6 = not Path("/proc/net/if_inet6").exists()


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """Answer every request by `handler`, and yield the URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)


async def names_in(request: web.Request) -> list[str]:
    """Return the names of the files of a form."""
    names = []
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        assert isinstance(part, BodyPartReader)
        names.append(part.filename or "")
        await part.read()
    return names


def stored(ids: list[str]) -> list[Any]:
    return [{"id": id_, "status": "stored", "chunks": 1, "error": None} for id_ in ids]


def overloaded(id_: str) -> Any:
    error = {"code": "overloaded", "message": "memoryd has no room now"}
    return {"id": id_, "status": "failed", "chunks": 0, "error": error}


async def test_files_are_stored_once_and_found(running: Running, tmp_path: Path) -> None:
    write(tmp_path, pets="cat dog", fruit="apple pear")
    url = ("--url", running.client.url)
    first = await run("ingest", ".", *url, "--json", cwd=tmp_path)
    assert first.status == 0
    assert first.json == {
        "files": 2,
        "counts": {"stored": 2},
        "chunks": 2,
        "deleted": [],
        "jobs": [],
        "failures": [],
    }
    again = await run("ingest", ".", *url, cwd=tmp_path)
    assert (again.status, again.out) == (0, "2 files: 2 unchanged\n")
    found = await run("search", "dog", *url, "--json")
    assert found.json["results"][0]["document"]["id"] == "pets.txt"


async def test_only_the_file_that_is_too_large_for_the_server_fails(
    serve: Serve, tmp_path: Path
) -> None:
    write(tmp_path, a="cat", b="dog " * 500_000, c="apple", d="plum " * 4_000, e="pear")
    async with serve(max_body_bytes=10_000) as running:
        said = await run("ingest", ".", "--url", running.client.url, "--json", cwd=tmp_path)
        assert await running.client.found("pear", limit=1) == ["e.txt"]
    assert said.status == 1
    assert said.json["counts"] == {"stored": 3, "failed": 2}
    failures = {failure["id"]: failure["error"] for failure in said.json["failures"]}
    assert set(failures) == {"b.txt", "d.txt"}
    assert all("max_body_bytes = 10000" in message for message in failures.values())


async def test_a_batch_of_more_files_than_the_server_takes_is_sent_in_parts(
    serve: Serve, tmp_path: Path
) -> None:
    write(tmp_path, **{f"n{number}": f"cat {number}" for number in range(20)})
    async with serve(max_documents=3) as running:
        said = await run("ingest", ".", "--url", running.client.url, cwd=tmp_path)
    assert (said.status, said.out) == (0, "20 files: 20 stored\n")


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "overloaded")])
async def test_a_server_without_room_is_asked_again(tmp_path: Path, status: int, code: str) -> None:
    requests = 0

    async def refuse_twice(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        if requests <= 2:
            error = {"error": {"message": "busy", "code": code}}
            return web.json_response(error, status=status, headers={"Retry-After": "0"})
        return web.json_response({"documents": stored(await names_in(request)), "job": None})

    write(tmp_path, a="cat")
    async with answering(refuse_twice) as url:
        said = await run("ingest", ".", "--url", url, cwd=tmp_path)
    assert (said.status, said.out, requests) == (0, "1 files: 1 stored\n", 3)


async def test_documents_that_found_no_room_are_sent_again(tmp_path: Path) -> None:
    sent = []

    async def take_the_first(request: web.Request) -> web.Response:
        first, *others = await names_in(request)
        sent.append(1 + len(others))
        documents = [*stored([first]), *map(overloaded, others)]
        return web.json_response({"documents": documents, "job": None})

    write(tmp_path, a="cat", b="dog", c="fish")
    async with answering(take_the_first) as url:
        said = await run("ingest", ".", "--url", url, cwd=tmp_path)
    assert (said.status, said.out, sent) == (0, "3 files: 3 stored\n", [3, 2, 1])


async def test_a_server_that_never_has_room_is_given_up(tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.Response:
        error = {"error": {"message": "come back later"}}
        return web.json_response(error, status=503, headers={"Retry-After": "0"})

    write(tmp_path, a="cat", b="dog")
    async with answering(refuse) as url:
        said = await run("ingest", ".", "--url", url, cwd=tmp_path)
    assert (said.status, said.out) == (1, "2 files: 2 failed\n")
    assert said.err == "a.txt: come back later\nb.txt: come back later\n"


async def test_without_a_collection_no_file_is_tried(running: Running, tmp_path: Path) -> None:
    write(tmp_path, a="cat")
    said = await run("ingest", ".", "-c", "none", "--url", running.client.url, cwd=tmp_path)
    assert (said.status, said.out) == (1, "")
    assert said.err == "memoryd: there is no collection 'none'\n"


@pytest.mark.parametrize("command", [("ingest", "."), ("search", "cat"), ("status",)])
async def test_without_a_server_the_way_to_start_one_is_told(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, **{f"n{number}": "cat " * 50_000 for number in range(10)})
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = str(closed_soon.getsockname()[1])
    said = await run(*command, "--port", port, cwd=tmp_path)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith(f"memoryd: no memoryd answers at http://127.0.0.1:{port} (")
    assert "memoryd serve" in said.err
    assert said.err.count("\n") == 1


async def test_a_file_whose_name_is_not_utf8_fails_alone(running: Running, tmp_path: Path) -> None:
    write(tmp_path, a="cat")
    write(tmp_path, **{"b\udcff": "dog"})  # how Python spells the byte FF
    said = await run("ingest", ".", "--url", running.client.url, "--json", cwd=tmp_path)
    assert (said.status, said.json["counts"]) == (1, {"stored": 1, "failed": 1})
    [failure] = said.json["failures"]
    assert failure == {"id": "b\ufffd.txt", "error": "its name is not UTF-8: rename it"}


async def test_an_argument_that_is_not_utf8_is_told(running: Running) -> None:
    said = await run("search", b"\xff", "--url", running.client.url)
    assert (said.status, said.err) == (1, "memoryd: an argument is not UTF-8\n")


async def test_what_another_server_says_of_an_error_is_shown() -> None:
    async def answer_as_ollama(request: web.Request) -> web.Response:
        return web.json_response({"error": "model 'x' not found"}, status=404)

    async with answering(answer_as_ollama) as url:
        said = await run("search", "cat", "--url", url)
    assert (said.status, said.err) == (1, "memoryd: model 'x' not found\n")


async def test_a_server_that_speaks_no_json_is_not_memoryd() -> None:
    async def answer_as_a_website(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    async with answering(answer_as_a_website) as url:
        said = await run("status", "--url", url)
    assert (said.status, said.err) == (1, "memoryd: the server is not memoryd: it answered 200\n")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8765"),
        ("0.0.0.0", "http://127.0.0.1:8765"),  # noqa: S104 - nothing listens
        ("", "http://127.0.0.1:8765"),
        ("example.com", "http://example.com:8765"),
        ("::", "http://[::1]:8765"),
        ("::1", "http://[::1]:8765"),
        ("fe80::2", "http://[fe80::2]:8765"),
    ],
)
def test_memoryd_is_asked_where_it_listens(host: str, url: str) -> None:
    assert default_url(Settings(host=host)) == url
    assert default_url(Settings(host=host, port=(8765, 1))) == url


@pytest.mark.skipif(NO_IPV6, reason="this machine has no IPv6")
async def test_commands_reach_a_server_by_ipv6(serve: Serve) -> None:
    async with serve(host="::1") as running:
        port = running.client.url.rpartition(":")[2]
        said = await run("status", "--host", "::1", "--port", port)
    assert said.status == 0
    assert "database ok, model ok" in said.out


async def test_status_says_what_is_not_ready(serve: Serve, databases: Databases) -> None:
    async with serve() as running:
        url = ("--url", running.client.url)
        assert "default" in (await run("status", *url)).out
        name = running.dsn.rpartition("@/")[2].partition("?")[0]
        await databases.run(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        await databases.run(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - own name
        )
        said = await run("status", *url)
        as_json = await run("status", *url, "--json")
    assert (said.status, as_json.status) == (1, 1)
    assert " is not ready: database " in said.out
    assert as_json.json["ready"]["status"] == "unavailable"
    assert as_json.json["collections"] is None


@pytest.mark.parametrize("command", [("ingest", "."), ("search", "cat"), ("status",)])
async def test_ctrl_c_ends_a_command_without_a_word(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def never_answer(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    write(tmp_path, **{f"n{number}": "cat " * 50_000 for number in range(10)})
    async with answering(never_answer) as url:
        process = await start(*command, "--url", url, cwd=tmp_path)
        await asyncio.wait_for(asked.wait(), 30)
        process.send_signal(signal.SIGINT)
        said = await end(process)
    assert (said.status, said.out, said.err) == (130, "", "")
