"""The vendors' own packages, each in its environment, unchanged, against a running memoryd.

Each is used by the script of its name, which prints what the client made of the answers.
"""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import pytest_asyncio
from servers import Running
from vendors import Runner, link_node_modules

from memoryd.memory.embed import embed
from memoryd.vectors.types import Vectors

TEXTS = ["why is the sky blue?", "This is a test", "Leaves are green. " * 12]
DIMENSIONS = 64
_SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class VendorClient:
    """Name a client by its script, and the error that it raises."""

    script: str
    environment: str
    error: str
    status: int | None
    says: str

    def __str__(self) -> str:
        return f"{self.script} in {self.environment}"


_UNKNOWN = "nope"
_OLLAMA = ("ollama.ResponseError", 404, 'model "nope" not found, try pulling it first')
_OPENAI = ("openai.NotFoundError", 404, _UNKNOWN)
_LITELLM = ("litellm.NotFoundError", 404, _UNKNOWN)

OLLAMA = VendorClient("ollama_client.py", "newest", *_OLLAMA)
OPENAI = VendorClient("openai_client.py", "newest", *_OPENAI)
OPENAI_1 = VendorClient("openai_client.py", "openai-1", *_OPENAI)
ALEPH_ALPHA = VendorClient("alephalpha_client.py", "newest", "builtins.ValueError", None, "400")
LANGCHAIN_OLLAMA = VendorClient("langchain_ollama_client.py", "newest", *_OLLAMA)
LANGCHAIN_OPENAI = VendorClient("langchain_openai_client.py", "newest", *_OPENAI)
LANGCHAIN_OPENAI_DEFAULT = VendorClient(
    "langchain_openai_default_client.py",
    "newest",
    "openai.BadRequestError",
    400,
    "check_embedding_ctx_length=False",
)
LLAMA_INDEX_OLLAMA = VendorClient("llama_index_ollama_client.py", "newest", *_OLLAMA)
LLAMA_INDEX_OPENAI = VendorClient("llama_index_openai_client.py", "newest", *_OPENAI)
LLAMA_INDEX_TEI = VendorClient("llama_index_tei_client.py", "newest", "builtins.KeyError", None, "")
LITELLM_OLLAMA = VendorClient("litellm_ollama_client.py", "litellm", *_LITELLM)
LITELLM_OPENAI = VendorClient("litellm_openai_client.py", "litellm", *_LITELLM)
HUGGING_FACE = VendorClient(
    "huggingface_client.py", "newest", "huggingface_hub.HfHubHTTPError", 422, "512"
)
NODE_OLLAMA = VendorClient(
    "ollama_client.mjs", "node", "ResponseError", 404, 'model "nope" not found'
)
NODE_OPENAI = VendorClient("openai_client.mjs", "node", "NotFoundError", 404, _UNKNOWN)

CLIENTS = [
    OLLAMA,
    OPENAI,
    OPENAI_1,
    ALEPH_ALPHA,
    LANGCHAIN_OLLAMA,
    LANGCHAIN_OPENAI,
    LANGCHAIN_OPENAI_DEFAULT,
    LLAMA_INDEX_OLLAMA,
    LLAMA_INDEX_OPENAI,
    LLAMA_INDEX_TEI,
    LITELLM_OLLAMA,
    LITELLM_OPENAI,
    HUGGING_FACE,
    NODE_OLLAMA,
    NODE_OPENAI,
]
WITHOUT_DIMENSIONS = [LLAMA_INDEX_OLLAMA, LLAMA_INDEX_TEI]
WITH_BASE64 = [OPENAI, OPENAI_1, ALEPH_ALPHA, LITELLM_OPENAI, NODE_OPENAI]

Heard = dict[VendorClient, asyncio.Task[bytes]]


@pytest_asyncio.fixture(scope="session")
async def heard(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """Give what each client has printed, once it has ended."""
    folder = tmp_path_factory.mktemp("clients") / "scripts"
    shutil.copytree(_SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    link_node_modules(folder)
    return {each: runner.start(folder / each.script, each.environment) for each in CLIENTS}


async def hear(heard: Heard, client: VendorClient) -> Any:
    """Return what a client has printed."""
    return orjson.loads(await heard[client])


@pytest_asyncio.fixture(scope="session")
async def vectors(real_running: Running) -> Vectors:
    """Give the vectors of the texts as memoryd makes them, without HTTP."""
    memory = real_running.memory
    async with memory.engine.using("all-minilm") as model:
        return (await embed(memory, model, TEXTS)).vectors


@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_one_text_becomes_its_vector(
    heard: Heard, vectors: Vectors, client: VendorClient
) -> None:
    answers = await hear(heard, client)
    assert _cosines(answers["one"], vectors[0]) > 0.99999


@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_a_batch_becomes_vectors_in_its_order(
    heard: Heard, vectors: Vectors, client: VendorClient
) -> None:
    answers = await hear(heard, client)
    assert (_cosines(answers["batch"], vectors) > 0.99999).all()


@pytest.mark.parametrize(
    "client", [client for client in CLIENTS if client not in WITHOUT_DIMENSIONS], ids=str
)
async def test_dimensions_shorten_the_vector(
    heard: Heard, vectors: Vectors, client: VendorClient
) -> None:
    short = (await hear(heard, client))["short"]
    assert len(short) == DIMENSIONS
    assert _cosines(short, vectors[0, :DIMENSIONS]) > 0.99999
    assert np.linalg.norm(short) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("client", WITH_BASE64, ids=str)
async def test_base64_is_the_same_vectors(heard: Heard, client: VendorClient) -> None:
    answers = await hear(heard, client)
    assert np.array_equal(np.float32(answers["base64"]), np.float32(answers["batch"]))


@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_an_error_is_raised_as_the_client_raises_its_own(
    heard: Heard, client: VendorClient
) -> None:
    error = (await hear(heard, client))["error"]
    assert (error["type"], error["status"]) == (client.error, client.status), error
    assert client.says in error["text"]


async def test_two_major_versions_of_openai_are_at_hand(heard: Heard) -> None:
    older, newer = [(await hear(heard, each))["version"] for each in (OPENAI_1, OPENAI)]
    assert int(older.split(".")[0]) == 1
    assert int(newer.split(".")[0]) > 1


async def test_hugging_face_compares_sentences(heard: Heard, vectors: Vectors) -> None:
    similarity = (await hear(heard, HUGGING_FACE))["similarity"]
    assert similarity == pytest.approx(_cosines(vectors, vectors[0]), abs=1e-3)


def _cosines(some: Any, others: Vectors) -> Any:
    """Return the cosines of rows with rows."""
    some = np.float32(some)
    lengths = np.linalg.norm(some, axis=-1) * np.linalg.norm(others, axis=-1)
    return (some * others).sum(axis=-1) / lengths
