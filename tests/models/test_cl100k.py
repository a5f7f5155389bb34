"""The table of cl100k: where it comes from, where it is found, and what its ids say."""

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import pytest
from local_hub import FileServer

from memoryd.cli.model_reports import print_brought
from memoryd.errors import InvalidInputError, ModelFileError
from memoryd.memory.model_changes import pull_model
from memoryd.memory.models import ModelLoader
from memoryd.models.cl100k import (
    CACHE_NAME,
    SHA256,
    SIZE_BYTES,
    Table,
    decode,
    fetch_table,
    load_table,
    table_path,
)
from memoryd.models.downloads import tell_nobody

NOWHERE = "http://127.0.0.1:9/cl100k_base.tiktoken"
PACKAGE = "litellm-1.60.0"


@pytest.fixture(scope="session")
def content(cl100k_table: Path) -> bytes:
    """Give the real table."""
    return cl100k_table.read_bytes()


@pytest.fixture
def package_with_table(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find a package that has the table, and no network."""
    files = {
        f"litellm/litellm_core_utils/tokenizers/{CACHE_NAME}": content,
        f"{PACKAGE}.dist-info/METADATA": "Metadata-Version: 2.1\nName: litellm\nVersion: 1.60.0\n",
        f"{PACKAGE}.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{PACKAGE}.dist-info/RECORD": "",
    }
    with ZipFile(tmp_path / f"{PACKAGE}-py3-none-any.whl", "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


@pytest.fixture(scope="module")
def other_content(content: bytes) -> bytes:
    """Give another table of the same length."""
    return content.replace(b"IQ== 0", b"Ig== 0", 1)


@pytest.fixture
def table(cl100k_table: Path) -> Table:
    found = load_table(cl100k_table.parent.parent)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def no_tiktoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiktoken have fetched nothing on this machine."""
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def own_models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def put(content: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("package_with_table")
async def test_where_its_server_cannot_be_reached_a_package_has_the_table(own_models: Path) -> None:
    path = await fetch_table(own_models, address=NOWHERE)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    assert [path.name for path in path.parent.iterdir()] == [CACHE_NAME]


@pytest.mark.usefixtures("no_package")
async def test_the_table_is_fetched_from_its_own_server_and_once(
    file_server: FileServer, content: bytes, own_models: Path
) -> None:
    file_server.content = content
    steps: list[tuple[str, int, int | None]] = []
    for _ in range(2):
        address = f"{file_server.url}/cl100k_base.tiktoken"
        path = await fetch_table(own_models, lambda *step: steps.append(step), address=address)
        assert path == table_path(own_models)
        assert path.read_bytes() == file_server.content
    assert [request.path for request in file_server.requests] == ["/cl100k_base.tiktoken"]
    assert steps[-1] == ("fetching the table of cl100k", SIZE_BYTES, SIZE_BYTES)


@pytest.mark.usefixtures("no_package")
async def test_other_bytes_are_refused_with_what_to_do(
    file_server: FileServer, other_content: bytes, own_models: Path
) -> None:
    file_server.content = other_content
    with pytest.raises(ModelFileError, match="not the file that memoryd knows") as raised:
        await fetch_table(own_models, address=file_server.url)
    assert "the package could not be fetched" in raised.value.message
    assert f"copy {CACHE_NAME} from where tiktoken keeps it" in raised.value.message
    assert load_table(own_models) is None


async def test_a_broken_table_is_fetched_again(
    file_server: FileServer, content: bytes, other_content: bytes, own_models: Path
) -> None:
    path = put(other_content, table_path(own_models))
    assert load_table(own_models) is None
    file_server.content = content
    await fetch_table(own_models, tell_nobody, address=file_server.url)
    assert path.read_bytes() == file_server.content
    assert load_table(own_models) is not None


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    no_directory = put(b"a file", tmp_path / "models")
    with pytest.raises(ModelFileError, match=str(no_directory)):
        await fetch_table(no_directory, address=NOWHERE)


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", None])
def test_the_table_is_found_where_tiktoken_keeps_it(
    content: bytes,
    own_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
) -> None:
    folder = tmp_path / "temporary" / "data-gym-cache"
    if variable:
        folder = tmp_path / "kept"
        monkeypatch.setenv(variable, str(folder))
    assert load_table(own_models) is None
    put(content, folder / CACHE_NAME)
    assert load_table(own_models) is not None


@pytest.mark.parametrize("value", ["", "elsewhere"])
def test_tiktokens_own_variable_comes_before_the_others(
    content: bytes,
    own_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
) -> None:
    put(content, tmp_path / "kept" / CACHE_NAME)
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path / "kept"))
    assert load_table(own_models) is not None
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", value)
    assert load_table(own_models) is None


@pytest.mark.parametrize("is_truncated", [True, False])
def test_a_broken_table_is_passed_over(
    content: bytes,
    other_content: bytes,
    own_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_truncated: bool,
) -> None:
    put(content[:-1] if is_truncated else other_content, table_path(own_models))
    assert load_table(own_models) is None
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "kept"))
    put(content, tmp_path / "kept" / CACHE_NAME)
    assert load_table(own_models) is not None


def test_threads_that_need_it_at_once_share_one_table(content: bytes, own_models: Path) -> None:
    put(content, table_path(own_models))
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(load_table, [own_models] * 8))
    assert tables[0] is not None
    assert all(table is tables[0] for table in tables)


def test_a_table_that_is_taken_away_is_no_longer_used(content: bytes, own_models: Path) -> None:
    path = put(content, table_path(own_models))
    assert load_table(own_models) is not None
    path.unlink()
    assert load_table(own_models) is None


@pytest.mark.parametrize(
    ("ids", "text"),
    [  # as tiktoken 0.14 encodes the texts
        ([], ""),
        ([15339, 1917], "hello world"),
        ([35734, 374, 279, 13180, 6437, 30], "why is the sky blue?"),
        ([3458, 38672, 588, 53050, 2001, 61696, 109, 47653], "naïve café — 東京"),
        ([9468, 19044], "🙂"),
        ([31213, 27907], "today\n \n"),
        ([15339, 100257], "hello<|endoftext|>"),
        ([100258, 100259, 100260], "<|fim_prefix|><|fim_middle|><|fim_suffix|>"),
        ([100276], "<|endofprompt|>"),
    ],
)
def test_ids_are_the_text_that_tiktoken_made_them_of(
    table: Table, ids: list[int], text: str
) -> None:
    assert decode(table, ids, "input") == text


def test_an_input_that_ends_within_a_character_is_decoded_all_the_same(table: Table) -> None:
    assert decode(table, [15339, 9468], "input") == "hello\N{REPLACEMENT CHARACTER}"


def test_texts_between_ids_stay(table: Table) -> None:
    assert decode(table, [15339, " große", 1917], "input") == "hello große world"


@pytest.mark.parametrize("token", [-1, 100256, 100261, 100275, 100277, 2**40])
def test_an_id_that_means_nothing_is_refused(table: Table, token: int) -> None:
    with pytest.raises(InvalidInputError, match=f"{token} is no token of cl100k") as raised:
        decode(table, [15339, token], "input[3]")
    assert raised.value.param == "input[3]"


@pytest.mark.usefixtures("package_with_table")
async def test_the_table_is_pulled_like_a_model(
    own_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", NOWHERE)
    for name, said in (("cl100k", "here now"), (" CL100K:latest", "here already")):
        brought = await pull_model(ModelLoader(own_models), name)
        assert (brought.name, brought.is_here, brought.kind) == ("cl100k", True, None)
        assert (brought.path, brought.size_bytes) == (table_path(own_models), SIZE_BYTES)
        assert brought.was_here == (said == "here already")
        print_brought(brought)
        printed = capsys.readouterr().out
        assert printed == f"cl100k is {said}: {table_path(own_models)} (1.7 MB)\n"
