"""The scripts, in a copy of the checkout whose path has spaces."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import serve

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """Give a copy of what the scripts read, with nothing installed."""
    copy = tmp_path / "a folder with spaces"
    for folder in ("scripts", "requirements"):
        shutil.copytree(repository / folder, copy / folder)
    shutil.copy(repository / "pyproject.toml", copy)
    return copy


@pytest.fixture
def installed(checkout: Path, commands: Path) -> Path:
    """Give the copy with an environment of which the scripts say that it is complete."""
    folder = checkout / ".venv"
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "memoryd"):
        (folder / "bin" / name).symlink_to(commands / name)
    record = 'source "$0"; _inputs serve > "$venv/.installed-serve"'
    subprocess.run(["bash", "-c", record, checkout / "scripts" / "setup"], check=True)
    return checkout


@pytest.fixture
def run_with(checkout: Path, tmp_path: Path) -> Run:
    """Give what runs scripts/serve where there are basic programs and those that are named."""

    def run(**programs: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "programs"
        folder.mkdir()
        for name in ("bash", "cat", "cmp", "dirname", "flock", "id", "readlink", "apt-get"):
            (folder / name).symlink_to(shutil.which(name) or "/bin/true")
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)
        environment = {"PATH": str(folder)}
        command = [checkout / "scripts" / "serve"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def test_the_second_start_installs_nothing_and_listens_within_three_seconds(
    installed: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    script = installed / "scripts" / "serve"
    starts_s = []
    for _ in range(3):  # the first makes the database; of the others one may meet a busy machine
        with serve(script, cwd=tmp_path, environment=environment) as serving:
            starts_s.append(serving.start_s)
            assert serving.stop() < 2
    assert min(starts_s[1:]) < 3


def test_a_link_to_the_script_does_as_the_script(installed: Path, tmp_path: Path) -> None:
    link = tmp_path / "start-memoryd"
    link.symlink_to(installed / "scripts" / "serve")
    result = subprocess.run([link, "--help"], cwd="/", capture_output=True, text=True, check=True)
    assert "--data-dir" in result.stdout


@pytest.mark.parametrize("change", ["interrupted", "other requirements", "moved", "no Python"])
def test_what_was_installed_does_not_count_any_more(installed: Path, change: str) -> None:
    if change == "interrupted":
        (installed / ".venv" / ".incomplete").touch()
    elif change == "other requirements":
        (installed / "requirements" / "serve.lock").write_text("aiohttp==3.14.6\n")
    elif change == "moved":
        installed = installed.rename(installed.parent / "elsewhere")
    else:
        (installed / ".venv" / "bin" / "python").unlink()
    check = 'source "$0"; _is_installed serve'
    result = subprocess.run(["bash", "-c", check, installed / "scripts" / "setup"])
    assert result.returncode == 1


def test_a_missing_compiler_is_told_before_anything_is_done(run_with: Run, checkout: Path) -> None:
    result = run_with(python3="exit 1")
    assert result.returncode == 1
    assert "no C++ compiler" in result.stderr
    assert "apt-get install g++" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("python", "message", "package"),
    [
        ("[ $1 = --version ] && echo Python 3.9.2 || echo 3.9", "python3 is Python 3.9.2", "3.11"),
        ("[[ $2 != *ensurepip* ]] && echo 3.12", "3.12 is here without venv", "python3.12-venv"),
        ("exit 127", "needs Python 3.11", "python3.11"),
    ],
)
def test_a_python_that_will_not_do_is_told_before_anything_is_done(
    run_with: Run, checkout: Path, python: str, message: str, package: str
) -> None:
    result = run_with(**{"g++": "exit 0", "python3": python})
    assert result.returncode == 1
    assert message in result.stderr
    assert package in result.stderr
    assert not (checkout / ".venv").exists()


def test_a_machine_without_python_is_told_so(run_with: Run) -> None:
    result = run_with(**{"g++": "exit 0"})
    assert result.returncode == 1
    assert "there is no Python" in result.stderr


def test_the_scripts_can_be_run(repository: Path) -> None:
    scripts = [repository / ".ci" / "run"]
    scripts += [path for path in (repository / "scripts").iterdir() if path.is_file()]
    scripts = [path for path in scripts if path.suffix != ".py" and path.name != "setup"]
    assert all(os.access(path, os.X_OK) for path in scripts)
