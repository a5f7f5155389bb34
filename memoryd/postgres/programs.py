"""PostgreSQL's client programs, such as pg_dump, run to their end over open files."""

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from memoryd.errors import PostgresError
from memoryd.postgres.binaries import INSTALLATION, find_site
from memoryd.postgres.commands import last_lines

Stream = IO[bytes] | int


@dataclass(frozen=True)
class Programs:
    """Run the programs of one installation, as one user and in one environment."""

    binaries: Path
    popen_options: Mapping[str, Any]

    async def run(
        self,
        name: str,
        *arguments: str,
        stdin: Stream = asyncio.subprocess.DEVNULL,
        stdout: Stream = asyncio.subprocess.PIPE,
    ) -> bytes:
        """Run a program and return what it printed, unless that goes into a file.

        A file is handed over open, so that the program's user needs no access to its path. Raises
        PostgresError with the last lines of the errors it told if it can't be run or fails.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                self.binaries / name,
                *arguments,
                stdin=stdin,
                stdout=stdout,
                stderr=asyncio.subprocess.PIPE,
                **self.popen_options,
            )
        except OSError as error:
            raise PostgresError(f"cannot run {name}: {error.strerror}") from error
        try:
            printed, told = await process.communicate()
        finally:
            if process.returncode is None:  # cancelled
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            told_last = last_lines(told.decode(errors="replace"))
            raise PostgresError(f"{name} failed: {told_last or process.returncode}")
        return printed or b""


def own_programs(password: str | None = None) -> Programs:
    """Return the package's programs, run as memoryd's own user.

    The password of a database goes into their environment: arguments are seen by all users.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    if password:
        environment["PGPASSWORD"] = password
    options = {"env": environment, "start_new_session": True}
    return Programs(find_site() / INSTALLATION / "bin", options)


def split_password(url: str) -> tuple[str, str | None]:
    """Return the address of a database without its password, and the password if it has one."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    query = parts.query.split("&")
    given = [pair.removeprefix("password=") for pair in query if pair.startswith("password=")]
    kept = "&".join(pair for pair in query if not pair.startswith("password="))
    address = f"{parts.scheme}://{user}{at}{hosts}{parts.path}{kept and '?'}{kept}"
    return address, unquote(password or "".join(given[-1:])) or None
