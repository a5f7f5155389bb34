"""docs/compatibility.md: its table of routes, and the recipe that has a server of its own.

The snippets for clients are run in tests/clients.
"""

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from serving import serve

from memoryd.api.routes import ROUTES

_ROUTE = re.compile(r"`([A-Z]+) (/[^`]*)`")
_OWN = {("GET", path) for path in ("/health/ready", "/metrics", "/openapi.json", "/docs")}
_OLLAMAS_PORT = "11434"


@pytest.fixture
def page(repository: Path) -> str:
    """Give the page."""
    return (repository / "docs" / "compatibility.md").read_text(encoding="utf-8")


def test_the_table_has_every_route_of_the_peers_and_no_other(page: str) -> None:
    # Of the peers' routes, and of some of memoryd's own, the query string is not checked.
    served = {
        (route.method, re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path))
        for route in ROUTES
        if route.query is None
    }
    assert set(_ROUTE.findall(_section(page, "Routes"))) == served - _OWN


async def test_the_recipe_of_mindx_does_what_the_page_says(
    page: str, commands: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    variables = {**environment, "PATH": str(commands)}
    section = _section(page, "mindX: Ollama's API and pgvector")
    port = str(_free_port())
    command, recipe = (
        _block(section, language).replace(_OLLAMAS_PORT, port) for language in ("sh", "python")
    )
    name, *arguments = shlex.split(command)
    with serve(commands / name, *arguments, cwd=tmp_path, environment=environment) as server:
        assert server.url.endswith(f":{port}")
        assert _run(variables, sys.executable, "-c", recipe) == _block(section, "text")
        address = _run(variables, commands / name, "db", "url").strip()
        connection = await asyncpg.connect(address)
        try:
            await _refuse_memoryds_own(connection)
        finally:
            await connection.close()


def _run(variables: dict[str, str], *command: str | Path) -> str:
    result = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


async def _refuse_memoryds_own(connection: asyncpg.Connection) -> None:
    """Check that the role can use nothing that is memoryd's, nor make schemas of its own."""
    schemas = {
        row["nspname"]: row["is_usable"]
        for row in await connection.fetch(
            "SELECT nspname, has_schema_privilege(oid, 'USAGE') AS is_usable FROM pg_namespace"
            " WHERE nspname = 'memoryd' OR nspname ~ '^c_[0-9]+$'"
        )
    }
    assert set(schemas) >= {"memoryd", "c_1"}
    assert not any(schemas.values())
    for statement in (
        "SELECT * FROM memoryd.collections",
        "SELECT * FROM c_1.documents",
        "DROP SCHEMA memoryd CASCADE",
        "CREATE SCHEMA mine",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


def _section(page: str, title: str) -> str:
    _, heading, rest = page.partition(f"\n## {title}\n")
    assert heading, title
    return rest.partition("\n## ")[0]


def _block(section: str, language: str) -> str:
    _, fence, rest = section.partition(f"\n```{language}\n")
    assert fence, language
    return rest.partition("```")[0]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
