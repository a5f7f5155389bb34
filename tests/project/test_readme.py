"""The README's snippets, run as they stand there."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import orjson
from serving import serve

from memoryd.postgres.binaries import INSTALLATION, find_site

_BLOCK = re.compile(r"^```sh\n(.*?)^```$(?:\n\n^```json\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
_RUN_ELSEWHERE = {
    "scripts/serve": "test_scripts.py",
    "MEMORYD_DATABASE_URL=": "tests of the storage",
    "printf 'MEMORYD_API_KEY=": "nowhere: there may be no container engine; see test_compose.py",
}


def test_every_snippet_does_what_the_readme_says(
    repository: Path, commands: Path, environment: dict[str, str]
) -> None:
    blocks = _BLOCK.findall((repository / "README.md").read_text(encoding="utf-8"))
    snippets = [block for block in blocks if not block[0].startswith(tuple(_RUN_ELSEWHERE))]
    assert len(blocks) - len(snippets) == len(_RUN_ELSEWHERE)

    serving = serve(commands / "memoryd", "serve", cwd=repository, environment=environment)
    with serving as server:
        for snippet, shown in snippets:
            said = _run(snippet, server.url, repository, commands, environment)
            assert said, snippet
            if shown:
                assert _shape(orjson.loads(said)) == _shape(orjson.loads(shown)), snippet


def test_the_quick_start_is_two_commands_and_three_requests(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    quick_start = text.partition("## Quick start")[2].partition("\n## ")[0]
    first, *requests = [snippet for snippet, _ in _BLOCK.findall(quick_start)]
    assert [line.split()[0] for line in first.splitlines()] == ["scripts/serve", "scripts/test"]
    assert [request.split()[0] for request in requests] == ["curl"] * 3


def test_every_file_that_the_readme_links_is_there(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert links
    assert [link for link in links if not (repository / link).exists()] == []


def _run(
    snippet: str, url: str, repository: Path, commands: Path, environment: dict[str, str]
) -> str:
    programs = find_site() / INSTALLATION / "bin"  # psql
    path = os.pathsep.join(map(str, [commands, programs, os.environ["PATH"]]))
    result = subprocess.run(
        ["bash", "-euc", snippet.replace("localhost:8765", url)],
        cwd=repository,
        env={**os.environ, **environment, "MEMORYD_URL": url, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{snippet}\n{result.stdout}{result.stderr}"
    return result.stdout


def _shape(value: Any) -> Any:
    """Return what the README promises: keys, strings, and kinds of numbers; a list's first item."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value[:1]]
    return type(value) if isinstance(value, int | float) else value
