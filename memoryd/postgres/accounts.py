"""The OS user who runs Postgres: whoever runs memoryd, or for root an unprivileged system user."""

import os
import pwd
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memoryd.errors import PostgresError

SYSTEM_USER = "memoryd"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INHERITED_VARIABLES = ("LD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True)
class Account:
    """Name an OS user that Postgres runs as."""

    name: str
    uid: int
    gid: int

    @property
    def popen_options(self) -> dict[str, Any]:
        """Return the arguments with which Popen runs a command as this user.

        The command gets a session of its own, so that Ctrl-C in a terminal reaches memoryd alone,
        and an environment without memoryd's secrets and without PG… variables.
        """
        inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        environment = {"PATH": SYSTEM_PATH, "LC_ALL": "C", **inherited}
        options = {"cwd": "/", "env": environment, "start_new_session": True}
        if os.geteuid() == self.uid:
            return options
        return options | {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take(self, path: Path) -> None:
        """Make this user the owner of a path that memoryd has just made."""
        if os.geteuid() != self.uid:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def find_account() -> Account:
    """Return the caller's account, or for root the system user's, which is created if missing.

    Raises PostgresError if there is none that PostgreSQL accepts.
    """
    if os.geteuid() != 0:
        return _account_of_caller()
    try:
        return _account_of_system_user()
    except KeyError:
        _create_system_user()
        return _account_of_system_user()


def _account_of_caller() -> Account:
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        raise PostgresError(
            f"user id {uid} has no entry in /etc/passwd, and PostgreSQL needs one; "
            "run memoryd as a user that has an entry, or as root"
        ) from error
    return Account(entry.pw_name, uid, os.getegid())


def _account_of_system_user() -> Account:
    entry = pwd.getpwnam(SYSTEM_USER)
    if entry.pw_uid == 0:
        raise PostgresError(
            f"the user {SYSTEM_USER} has user id 0, and PostgreSQL refuses to run as root; "
            "give that user another id"
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create_system_user() -> None:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    advice = f"create it yourself: {shlex.join(command)}"
    useradd = shutil.which("useradd", path=SYSTEM_PATH)
    if useradd is None:
        raise PostgresError(
            f"PostgreSQL can't run as root, and there is no user {SYSTEM_USER} "
            f"and no useradd to create it with; {advice}"
        )
    done = subprocess.run([useradd, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PostgresError(
            f"cannot create the user {SYSTEM_USER} to run PostgreSQL as: "
            f"{done.stderr.strip()}; {advice}"
        )
