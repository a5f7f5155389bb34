"""docker-compose.yml and Dockerfile, as far as they can be checked without a container engine."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from memoryd.config import ENVIRONMENT_PREFIX, Settings


@pytest.fixture(scope="module")
def services(repository: Path) -> dict[str, Any]:
    """Give the services by name."""
    services: dict[str, Any] = YAML(typ="safe").load(repository / "docker-compose.yml")["services"]
    return services


def test_the_compose_file_keeps_to_the_specification(repository: Path, commands: Path) -> None:
    check = [str(commands / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*check, repository / "docker-compose.yml"], check=True)


def test_only_this_machine_reaches_what_is_published(services: dict[str, Any]) -> None:
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert published["postgres"] == []
    assert all(port.startswith("127.0.0.1:") for port in published["memoryd"])


def test_it_does_not_start_without_key_and_password(services: dict[str, Any]) -> None:
    memoryd = services["memoryd"]["environment"]
    assert memoryd["MEMORYD_API_KEY"].startswith("${MEMORYD_API_KEY:?")
    assert "${POSTGRES_PASSWORD:?" in memoryd["MEMORYD_DATABASE_URL"]
    password = services["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert password.startswith("${POSTGRES_PASSWORD:?")


def test_memoryd_waits_until_postgres_serves(services: dict[str, Any]) -> None:
    assert services["memoryd"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert all("healthcheck" in service for service in services.values())


def test_data_and_models_lie_on_named_volumes(services: dict[str, Any], repository: Path) -> None:
    volumes = YAML(typ="safe").load(repository / "docker-compose.yml")["volumes"]
    mounts = {mount for service in services.values() for mount in service["volumes"]}
    assert mounts == {"models:/var/lib/memoryd", "postgres:/var/lib/postgresql"}
    assert {mount.partition(":")[0] for mount in mounts} == set(volumes)


def test_the_variables_are_settings_that_memoryd_has(
    services: dict[str, Any], repository: Path
) -> None:
    given = set(services["memoryd"]["environment"])
    given |= set(re.findall(r"\bMEMORYD_[A-Z_]+(?==)", (repository / "Dockerfile").read_text()))
    assert {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields} >= given


def test_the_image_runs_memoryd_as_an_ordinary_user(repository: Path) -> None:
    final_stage = (repository / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", final_stage, re.MULTILINE) == ["memoryd"]


def test_all_that_the_image_copies_is_let_through(repository: Path) -> None:
    ignored = (repository / ".dockerignore").read_text()
    dockerfile = (repository / "Dockerfile").read_text()
    let_through = set(re.findall(r"^!(.+)$", ignored, re.MULTILINE))
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE)
    sources = {source for sources in copied for source in sources.split()}
    assert sources == let_through
    assert all((repository / source).exists() for source in sources)
