"""docs/operating.md: its commands, run in their order, and the metrics that it lists."""

import os
import re
import subprocess
from pathlib import Path

from serving import serve

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ALL_METRICS = 'curl -s localhost:8765/metrics -H "X-Api-Key: $MEMORYD_API_KEY"'


def test_the_commands_and_metrics_of_the_page_are_memoryds(
    repository: Path, commands: Path, environment: dict[str, str]
) -> None:
    page = (repository / "docs" / "operating.md").read_text(encoding="utf-8")
    script = "\n".join([*_BLOCK.findall(page), _ALL_METRICS])
    with serve(commands / "memoryd", "serve", cwd=repository, environment=environment) as server:
        path = f"{commands}{os.pathsep}{os.environ['PATH']}"
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("localhost:8765", server.url)],
            cwd=repository,
            env={**os.environ, **environment, "MEMORYD_URL": server.url, "PATH": path},
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    for shown in ("mk_k2_", "website", '"name":"default"', "memoryd_loaded_models 1"):
        assert shown in result.stdout, shown
    counted = set(re.findall(r"^# TYPE (memoryd_\w+) ", result.stdout, re.MULTILINE))
    assert counted == set(re.findall(r"`(memoryd_[a-z_]+)`", page))
