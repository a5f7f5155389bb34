import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from memoryd_process import MemorydProcess, command, environment, serving
from wire import Answer, Client

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
DOCUMENTS = "/v1/collections/default/documents"

# Becomes another user only after its imports, for that user may not reach this Python.
LOOK_AROUND = """
import os, pwd, socket, sys
from pathlib import Path

user = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
data_dir = Path(sys.argv[1])
for folder, _, names in os.walk(data_dir):
    for name in names:
        path = os.path.join(folder, name)
        if os.access(path, os.R_OK | os.W_OK) or os.access(path, os.R_OK):
            print("can read", path)
for path in (data_dir / "postgres", data_dir / "run"):
    if os.access(path, os.R_OK) or os.access(path, os.X_OK):
        print("can enter", path)
try:
    socket.socket(socket.AF_UNIX).connect(str(data_dir / "run" / ".s.PGSQL.5432"))
    print("can connect")
except PermissionError:
    pass
"""


async def stop(running: MemorydProcess, number: int = signal.SIGINT) -> float:
    """Send the signal and return how many seconds it takes memoryd to end."""
    started = time.monotonic()
    running.process.send_signal(number)
    await asyncio.wait_for(running.process.wait(), 10)
    return time.monotonic() - started


async def test_ctrl_c_answers_with_what_was_stored_and_the_rest_goes_on_after_the_next_start(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    batch = [{"id": f"d{number}", "text": f"{number} {words}"} for number in range(1000)]
    async with serving(data_dir, models_dir) as running, Client(running.url) as client:
        posting: asyncio.Task[Answer] = asyncio.create_task(
            client.post(DOCUMENTS, {"documents": batch})
        )
        # Polled, since nothing tells a client that the first documents are stored.
        while not (await client.get("/v1/collections/default")).ok()["chunks"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert await stop(running) < 2
        assert running.process.returncode == 0
        answer = (await posting).ok(202)
        outcomes = answer["documents"]
    assert [outcome["id"] for outcome in outcomes] == [item["id"] for item in batch]
    stored = {outcome["id"] for outcome in outcomes if outcome["status"] == "stored"}
    queued = {outcome["id"] for outcome in outcomes if outcome["status"] == "queued"}
    assert stored
    assert queued
    assert len(stored) + len(queued) == len(batch)
    async with serving(data_dir, models_dir) as running, Client(running.url) as client:
        page: dict[str, Any] = (await client.get(f"{DOCUMENTS}?limit=1000")).ok()
        assert {document["id"] for document in page["documents"]} == stored | queued
        job = f"/v1/jobs/{answer['job']['id']}"
        while (told := (await client.get(job)).ok())["finished_at"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert (told["status"], told["counts"]["total"]) == ("completed", len(batch))
        assert (await client.get("/v1/collections/default")).ok()["chunks"] == len(batch)
        assert await stop(running, signal.SIGTERM) < 2


async def test_an_idle_server_is_small_and_starts_fast(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    async with serving(data_dir, models_dir):
        pass
    async with serving(data_dir, models_dir) as running, Client(running.url) as client:
        assert running.started_in_s < 3
        await client.store(id="a", text="hello")
        assert await client.found("hello") == ["a"]
        used_mb = psutil.Process(running.process.pid).memory_info().rss / 1e6
        assert used_mb < 400
        assert await stop(running) < 2


async def test_a_second_memoryd_on_the_same_data_is_told_who_has_it(
    server: MemorydProcess, models_dir: Path
) -> None:
    second = await asyncio.create_subprocess_exec(
        *command(server.data_dir, models_dir),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    _, said = await asyncio.wait_for(second.communicate(), 20)
    assert second.returncode == 1
    assert f"in use by memoryd (process {server.process.pid}, {server.url})" in said.decode()
    assert b"Traceback" not in said


async def test_a_port_that_is_taken_is_named(
    server: MemorydProcess, data_dir: Path, models_dir: Path
) -> None:
    port = server.url.rpartition(":")[2]
    given = [port if word == "0" else word for word in command(data_dir, models_dir)]
    second = await asyncio.create_subprocess_exec(
        *given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment()
    )
    _, said = await asyncio.wait_for(second.communicate(), 20)
    assert second.returncode == 1
    assert f"port {port}" in said.decode()
    assert b"--port" in said
    assert b"Traceback" not in said


@as_root
async def test_another_user_can_neither_read_the_data_nor_connect(
    server: MemorydProcess,
) -> None:
    look = [sys.executable, "-c", LOOK_AROUND, str(server.data_dir)]
    said = await asyncio.to_thread(
        subprocess.run, look, capture_output=True, text=True, check=True, timeout=20
    )
    assert said.stdout == ""
    assert psutil.Process(server.postmaster_pid).username() != "root"
