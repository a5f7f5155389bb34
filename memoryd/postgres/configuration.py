"""The files of configuration that memoryd writes before each start of Postgres."""

import os
from collections.abc import Mapping
from pathlib import Path

from memoryd.postgres.accounts import Account
from memoryd.postgres.directories import PORT, Layout
from memoryd.postgres.tuning import this_machine, tune

ROLES = ("postgres", "memoryd", "app")

HEADER = (
    "# memoryd writes this file before each start: what you change here is lost.\n"
    "# ALTER SYSTEM SET, as the role postgres, changes a setting for good.\n"
)

FIXED = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "cluster_name": "memoryd",
    # The user's own application can never take the connections that memoryd lives on.
    "max_connections": "60",
    "reserved_connections": "40",
    # pg_dump locks every table at once, and each collection is a schema of several.
    "max_locks_per_transaction": "1024",
    "huge_pages": "try",
    "jit": "off",
    "random_page_cost": "1.1",
    "autovacuum_work_mem": "64MB",
    # Bulk loading: few checkpoints. Pages are not compressed in the log: vectors don't shrink,
    # and these binaries know pglz alone, which is slow.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_checkpoints": "off",
    # A statement holds the texts of users; a log is no place for them.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

HBA = """\
local all         all      peer map=memoryd
local replication postgres peer map=memoryd
"""


def write_configuration(layout: Layout, socket_dir: Path, account: Account) -> None:
    """Write postgresql.conf, pg_hba.conf and pg_ident.conf for this machine and this account.

    Raises OSError if the files can't be written.
    """
    settings = {
        **FIXED,
        # The setting is a list, whose items may have spaces only in double quotes.
        "unix_socket_directories": '"{}"'.format(str(socket_dir).replace('"', '""')),
        **tune(this_machine()),
    }
    _replace(layout.pgdata / "postgresql.conf", HEADER + render_settings(settings), account)
    _replace(layout.pgdata / "pg_hba.conf", HEADER + HBA, account)
    _replace(layout.pgdata / "pg_ident.conf", HEADER + _ident(account), account)


def render_settings(settings: Mapping[str, str]) -> str:
    """Return `settings` as lines of postgresql.conf."""
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return "".join(f"{name} = '{value}'\n" for name, value in quoted.items())


def _ident(account: Account) -> str:
    users = [account.name] if os.geteuid() == account.uid else [account.name, "root"]
    return "".join(f'memoryd "{user}" {role}\n' for user in users for role in ROLES)


def _replace(path: Path, content: str, account: Account) -> None:
    # The directory belongs to the user of Postgres, and root may be writing: a new file that is
    # renamed follows no symlink that someone laid there.
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(content)
    account.take(new)
    new.rename(path)
