"""scripts/clients, in a copy of the checkout with spaces in its path; programs note their calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PYTHON = """#!/bin/bash
case "$*" in
  -VV) echo "Python ${PYTHON_VERSION-3.11.0}" ;;
  "-m venv"*) ;;
  *) echo "${*: -1}" >> "$CALLS"; [ ! -e "$BROKEN" ] ;;
esac
"""
NPM = """#!/bin/bash
echo npm >> "$CALLS"
"""
NODE = """#!/bin/bash
echo "${NODE_VERSION-v22.0.0}"
"""
ALL = ["litellm.lock", "newest.lock", "npm", "openai-1.lock"]


class Checkout:
    """Run scripts/clients in a copy that has no environments yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._calls = folder / "calls"
        self._programs = folder / "programs"
        repository = Path(__file__).parents[2]
        for name in ("scripts", "requirements"):
            shutil.copytree(repository / name, folder / name)
        shutil.copy(repository / "pyproject.toml", folder)
        self._write(folder / ".venv" / "bin" / "python", PYTHON)
        self._write(self._programs / "npm", NPM)
        self._write(self._programs / "node", NODE)
        record = 'source "$0"; _inputs test > "$venv/.installed-test"'
        subprocess.run(["bash", "-c", record, folder / "scripts" / "setup"], check=True)

    def installs(self, status: int = 0, **variables: str) -> list[str]:
        """Return what a run installs, in order of names; it must end with that status."""
        self._calls.write_text("")
        path = os.pathsep.join([str(self._programs), os.environ["PATH"]])
        names = {"CALLS": str(self._calls), "BROKEN": str(self.folder / "broken"), **variables}
        command = [self.folder / "scripts" / "clients"]
        result = subprocess.run(command, env={"PATH": path, **names}, capture_output=True)
        assert result.returncode == status, result.stderr
        return sorted(Path(call).name for call in self._calls.read_text().splitlines())

    @staticmethod
    def _write(program: Path, text: str) -> None:
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    return Checkout(folder)


def test_the_clients_are_installed_once(checkout: Checkout) -> None:
    assert checkout.installs() == ALL
    assert checkout.installs() == []


def test_a_lock_that_changes_installs_its_clients_anew(checkout: Checkout) -> None:
    checkout.installs()
    wanted = checkout.folder / "requirements" / "clients"
    with (wanted / "openai-1.lock").open("a") as lock:
        lock.write("# newer\n")
    assert checkout.installs() == ["openai-1.lock"]
    shutil.rmtree(checkout.folder / ".clients" / "node")
    assert checkout.installs() == ["npm"]


def test_each_language_installs_its_clients_anew_where_it_is_a_newer_one(
    checkout: Checkout,
) -> None:
    checkout.installs()
    assert checkout.installs(NODE_VERSION="v24.0.0") == ["npm"]
    newer = {"NODE_VERSION": "v24.0.0", "PYTHON_VERSION": "3.12.0"}
    assert checkout.installs(**newer) == [name for name in ALL if name != "npm"]


def test_what_is_asked_of_npm_installs_its_clients_anew(checkout: Checkout) -> None:
    checkout.installs()
    with (checkout.folder / "requirements" / "clients" / "package.json").open("a") as package:
        package.write("\n")
    assert checkout.installs() == ["npm"]


def test_what_was_not_installed_to_its_end_does_not_count(checkout: Checkout) -> None:
    (checkout.folder / "broken").touch()
    assert checkout.installs(status=1) == ["litellm.lock"]
    (checkout.folder / "broken").unlink()
    assert checkout.installs() == ALL


@pytest.mark.parametrize("lock", ["litellm.lock", "newest.lock", "openai-1.lock"])
def test_every_package_is_pinned_by_its_hash(lock: str) -> None:
    text = (Path(__file__).parents[2] / "requirements" / "clients" / lock).read_text()
    packages = [line for line in text.splitlines() if line[:1].isalnum()]
    assert packages
    assert all("==" in line for line in packages)
    assert text.count("--hash=sha256:") >= len(packages)
