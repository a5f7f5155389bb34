"""docs/documents.md: its commands, run in their order."""

import os
import re
import subprocess
from pathlib import Path

from serving import serve

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STRICT = 'curl() { command curl --fail-with-body "$@" && echo; }\n'


def test_every_command_of_the_page_works(
    repository: Path, commands: Path, environment: dict[str, str]
) -> None:
    page = (repository / "docs" / "documents.md").read_text(encoding="utf-8")
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
    for shown in (
        '"status":"stored"',
        '"status":"queued"',
        '"type":"ingest"',
        '"headings":["Keys"]',
        '"year":2027',
        '{"deleted":1}',
    ):
        assert shown in result.stdout, shown
