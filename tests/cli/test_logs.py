"""How a server's log looks, in text and in JSON."""

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from shell import start
from wire import Client

PROGRAM = r"""
import logging, sys, warnings
from memoryd.cli.logs import configure_logging
from memoryd.config import Settings

configure_logging(Settings(log_format=sys.argv[1], log_level=sys.argv[2]))
logger = logging.getLogger("memoryd.trial")
logger.debug("detail")
logger.info("%s of %d\nforged", "one", 2, extra={"fields": {"status": 200, "path": "/a"}})
logger.warning("half a character: \udcff, an escape: \x1b[2J")
warnings.warn("old", DeprecationWarning, stacklevel=1)
try:
    raise ValueError("zebra")
except ValueError:
    logging.getLogger().exception("it failed")
logging.getLogger("alembic.runtime").info("chatter")
logger.info("here", stack_info=True)
"""


def logged(log_format: str, level: str = "info") -> list[str]:
    command = [sys.executable, "-W", "always", "-c", PROGRAM, log_format, level]
    ran = subprocess.run(command, capture_output=True, check=True)
    assert ran.stdout == b""
    return ran.stderr.decode("utf-8").splitlines()


def test_in_json_every_record_is_one_line() -> None:
    entries = list(map(orjson.loads, logged("json")))
    one, half, old, failed, here = entries
    for entry in entries:
        age = datetime.now(UTC) - datetime.fromisoformat(entry["time"])
        assert timedelta(0) <= age < timedelta(minutes=1)
        assert entry["time"].endswith("Z")
    assert (one["level"], one["logger"]) == ("info", "memoryd.trial")
    assert (one["message"], one["status"], one["path"]) == ("one of 2\nforged", 200, "/a")
    assert half["level"] == "warning"
    assert half["message"].startswith("half a character: ")
    assert old["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in old["message"]
    assert failed["level"] == "error"
    assert failed["message"] == "it failed"
    assert failed["exception"].startswith("Traceback (most recent call last)")
    assert failed["exception"].endswith("ValueError: zebra")
    assert here["stack"].startswith("Stack (most recent call last)")
    assert "exception" not in one


def test_in_json_nothing_moves_a_terminals_cursor() -> None:
    assert all(re.fullmatch(r"[\x20-\x7e]+", line) for line in logged("json"))


def test_in_text_a_record_is_a_line_for_people() -> None:
    lines = logged("text")
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(rf"{stamp} INFO one of 2", lines[0])
    assert any(re.match(rf"{stamp} WARNING .*DeprecationWarning: old", line) for line in lines)
    assert "ValueError: zebra" in lines
    assert not any("chatter" in line for line in lines)


def test_the_level_of_the_settings_holds_in_both_formats() -> None:
    for log_format in ("text", "json"):
        assert not any("one of 2" in line for line in logged(log_format, "warning"))
        assert any("detail" in line for line in logged(log_format, "debug"))


async def line_of(stream: asyncio.StreamReader | None, text: bytes) -> bytes:
    assert stream is not None
    async for line in stream:
        if text in line:
            return line
    raise AssertionError(f"no {text!r} was written")


async def test_a_server_logs_its_requests_in_json(
    open_place: Path, models_dir: Path, model_file: Path
) -> None:
    places = ("--data-dir", str(open_place / "json-log"), "--models-dir", str(models_dir))
    process = await start("serve", "--port", "0", "--log-format", "json", *places)
    try:
        async with asyncio.timeout(60):
            announced = await line_of(process.stdout, b"listens on ")
            url = announced.split()[3].decode()
            async with Client(url) as client:
                body = {"model": "all-minilm", "input": "secretword", "user": "anne"}
                headers = {"X-Request-Id": "find-me"}
                usage = (await client.post("/v1/embeddings", body, headers=headers)).ok()["usage"]
            entry: dict[str, Any] = orjson.loads(await line_of(process.stderr, b"find-me"))
    finally:
        process.terminate()
        _, rest = await process.communicate()
    assert entry["logger"] == "memoryd.access"
    assert entry["request_id"] == "find-me"
    assert entry["method"] == "POST"
    assert entry["route"] == entry["path"] == "/v1/embeddings"
    assert entry["status"] == 200
    assert entry["milliseconds"] > 0
    assert entry["tokens"] == usage["total_tokens"]
    assert entry["truncated"] == 0
    assert re.fullmatch("[0-9a-f]{16}", entry["user"])
    assert "secretword" not in str(entry)
    assert all(orjson.loads(line) for line in rest.splitlines())
