"""Pages of docs whose commands are run in their order."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from serving import serve

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STRICT = 'curl() { command curl --fail-with-body "$@" && echo; }\n'


_SHOWN = {
    "documents.md": (
        '"status":"stored"',
        '"status":"queued"',
        '"type":"ingest"',
        '"headings":["Keys"]',
        '"year":2027',
        '{"deleted":1}',
    ),
    "search.md": (
        '"score_type":"rrf"',
        '"score_type":"bm25"',
        '"score_type":"cosine"',
        '"highlights":[{',
        '"before":[',
        '"timings_ms":{',
        '"collection":"news"',
        '{"count":2}',
        '{"value":"en","count":2}',
        '"id":"orbit"',
        '"year":"number"',
    ),
}


@pytest.mark.parametrize("name", _SHOWN)
def test_every_command_of_the_page_works(
    name: str, repository: Path, commands: Path, environment: dict[str, str]
) -> None:
    page = (repository / "docs" / name).read_text(encoding="utf-8")
    script = _STRICT + "\n".join(_BLOCK.findall(page))
    with serve(commands / "memoryd", "serve", cwd=repository, environment=environment) as server:
        address = server.url.removeprefix("http://")
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("localhost:8765", address)],
            cwd=repository,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    for shown in _SHOWN[name]:
        assert shown in result.stdout, shown
