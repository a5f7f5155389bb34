"""mindX's recipe: an agent's memories, embedded by Ollama's API and kept in the same Postgres."""

import socket
import subprocess
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from serving import serve

ALIAS = "mxbai-embed-large=all-minilm"
MEMORIES = [
    "The deployment of the blue cluster failed at noon.",
    "Ada prefers tea to coffee.",
    "The cat sleeps on the warm radiator.",
]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def embed(url: str, texts: list[str]) -> list[str]:
    """Embed as mindX does; return the vectors as pgvector reads them."""
    timeout = aiohttp.ClientTimeout(total=60)
    body = {"model": "mxbai-embed-large", "input": texts}
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{url}/api/embed", json=body) as response,
    ):
        data = await response.json()
    return [str(embedding) for embedding in data["embeddings"]]


async def test_memories_are_kept_beside_memoryd_and_found_by_meaning(
    repository: Path, commands: Path, environment: dict[str, str]
) -> None:
    port = free_port()
    command = (commands / "memoryd", "serve", "--port", str(port), "--alias", ALIAS)
    with serve(*command, cwd=repository, environment=environment) as server:
        assert server.url == f"http://127.0.0.1:{port}"
        vectors = await embed(server.url, MEMORIES)
        [question] = await embed(server.url, ["What does Ada like to drink?"])
        connection = await asyncpg.connect(database_url(commands, environment))
        try:
            await connection.execute("CREATE TABLE memories (content text, embedding vector(384))")
            await connection.executemany(
                "INSERT INTO memories (content, embedding) VALUES ($1, $2)",
                list(zip(MEMORIES, vectors, strict=True)),
            )
            found = await connection.fetch(
                "SELECT content FROM memories ORDER BY embedding <=> $1 LIMIT 2", question
            )
            assert found[0]["content"] == MEMORIES[1]
            await refuse_memoryds_own(connection)
        finally:
            await connection.close()


def database_url(commands: Path, environment: dict[str, str]) -> str:
    command = [str(commands / "memoryd"), "db", "url"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return said.stdout.strip()


async def refuse_memoryds_own(connection: asyncpg.Connection) -> None:
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
