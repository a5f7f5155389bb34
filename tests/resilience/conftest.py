import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from memoryd_process import MemorydProcess, serving
from model_servers import put_tiny


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Give a data directory that the user of Postgres can reach."""
    with tempfile.TemporaryDirectory(prefix="memoryd-tests-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place / "data"


@pytest_asyncio.fixture(scope="session")
async def server(
    open_place: Path, models_dir: Path, model_file: Path
) -> AsyncIterator[MemorydProcess]:
    """Give one running memoryd, shared by the tests that leave it running."""
    async with serving(open_place / "shared-data", models_dir) as running:
        yield running


@pytest.fixture
def tiny_models(tmp_path: Path) -> Path:
    """Give a models directory with a tiny model in it, called "tiny"."""
    return put_tiny("bert", tmp_path / "models" / "tiny.gguf").parent
