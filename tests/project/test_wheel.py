"""The wheel, installed away from the checkout."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import orjson
import pytest
from serving import serve

import memoryd


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([sys.executable, "-m", "pip", *build, folder, repository], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an environment with the wheel in it, which sees the dependencies that are at hand."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    # Not --system-site-packages: what lies there comes last, and without the checkout's own .pth.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    install = ["install", "--quiet", "--no-deps", "--ignore-installed", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    return folder


def test_the_wheel_carries_all_that_memoryd_reads(wheel: Path, repository: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    revisions = {path.name for path in (repository / "migrations" / "versions").glob("*.py")}

    assert {f"memoryd/migrations/versions/{name}" for name in revisions} <= names
    assert {"memoryd/models/gallery.toml", "memoryd/py.typed"} <= names
    assert f"memoryd-{memoryd.__version__}.dist-info/licenses/LICENSE" in names
    assert not any(name.startswith(("tests/", "scripts/", "migrations/")) for name in names)
    assert not any("__pycache__" in name for name in names)


def test_the_installed_command_says_what_it_can_do(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "bin" / "memoryd"), "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "serve" in result.stdout


def test_the_installed_memoryd_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "bin" / "python"), "-c", "import memoryd; print(memoryd.__file__)"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(result.stdout).is_relative_to(installed)


def test_the_installed_memoryd_serves_and_stops_in_less_than_two_seconds(
    installed: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    command = installed / "bin" / "memoryd"
    with serve(command, "serve", cwd=tmp_path, environment=environment) as serving:
        collection = f"{serving.url}/v1/collections/default"
        _post(f"{collection}/documents", {"id": "leaves", "text": "Leaves are green."})
        found = _post(f"{collection}/search", {"query": "the color of plants"})
        assert [result["document"]["id"] for result in found["results"]] == ["leaves"]

        assert serving.stop() < 2
        assert serving.process.returncode == 0


def _post(url: str, body: dict[str, Any]) -> Any:
    request = Request(url, orjson.dumps(body))  # noqa: S310 - the test's own server
    with urlopen(request, timeout=10) as response:  # noqa: S310 - loopback, http alone
        return orjson.loads(response.read())
