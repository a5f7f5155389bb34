"""Commands that are run to their end as the user of Postgres."""

import asyncio
import os
import signal
from pathlib import Path

from memoryd.errors import PostgresError
from memoryd.postgres.accounts import Account


async def run_as(account: Account, *command: Path | str, stdin: str = "") -> str:
    """Run a command as `account` and return what it printed.

    Raises PostgresError with the last lines of its output if it can't be run or fails.
    """
    name = Path(command[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            **account.popen_options,
        )
    except OSError as error:
        raise PostgresError(
            f"cannot run {command[0]} as the user {account.name}: {error.strerror}"
        ) from error
    try:
        output, _ = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:  # cancelled; the command may have children of its own
            os.killpg(process.pid, signal.SIGKILL)
    printed = output.decode(errors="replace")
    if process.returncode != 0:
        raise PostgresError(f"{name} failed: {last_lines(printed) or process.returncode}")
    return printed


def last_lines(text: str, count: int = 5) -> str:
    """Return the last `count` lines of `text` that aren't blank."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
