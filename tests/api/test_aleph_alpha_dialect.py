"""Aleph Alpha's paths, as its own client asks them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from servers import Serve
from toys import DIMENSIONS, ToyLoader, toy_vector
from wire import Answer, Client

from memoryd.config import Settings
from memoryd.embeddings.engine import Engine
from memoryd.memory.models import ModelLoader

LENGTH = 3  # of what the toy gives, before it is normalized
PREFIXES = ["", "/v1"]


@pytest.fixture(params=PREFIXES)
def prefix(request: pytest.FixtureRequest) -> str:
    """Give what the client's host ends in."""
    return str(request.param)


def text(data: str, **fields: Any) -> dict[str, Any]:
    """Return a prompt's part as the client writes it."""
    return {"type": "text", "data": data, "controls": [], **fields}


def ids(*data: int) -> dict[str, Any]:
    """Return token ids as the client writes them."""
    return {"type": "token_ids", "data": list(data), "controls": []}


async def semantic(client: Client, prompt: Any, **fields: Any) -> Answer:
    """Embed one prompt with all that the client sends."""
    body = {
        "prompt": prompt,
        "representation": "symmetric",
        "compress_to_size": None,
        "normalize": False,
        "contextual_control_threshold": None,
        "control_log_additive": True,
        "model": "toy",
        **fields,
    }
    return await client.post("/semantic_embed", body)


async def test_the_version_satisfies_the_client(shared_client: Client, prefix: str) -> None:
    answer = await shared_client.get(f"{prefix}/version")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    major, minor, _ = map(int, answer.data.decode().split("."))
    assert major == 1
    assert minor >= 19


async def test_its_embeddings_take_what_its_client_sends(
    shared_client: Client, prefix: str
) -> None:
    body = {
        "input": ["cat", "dog"],
        "model": "toy",
        "hosting": "aleph-alpha",
        "tags": ["a"],
        "dimensions": 8,
        "encoding_format": "float",
    }
    answer = (await shared_client.post(f"{prefix}/embeddings?nice=true", body)).ok()
    assert (answer["object"], answer["model"]) == ("list", "toy")
    for item, word, index in zip(answer["data"], ["cat", "dog"], [0, 1], strict=True):
        assert (item["object"], item["index"]) == ("embedding", index)
        assert np.allclose(item["embedding"], toy_vector(word)[:8], atol=1e-6)
    assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


@pytest_asyncio.fixture
async def with_models(serve: Serve, models_dir: Path) -> AsyncIterator[Client]:
    """Give a client of a server that has the default model, also under an alias."""
    chosen = Settings(models_dir=models_dir, alias={"Mine": "all-minilm"})
    async with (
        Engine(ModelLoader.of(chosen)) as engine,
        serve(engine, model=chosen.model, alias=chosen.alias) as running,
    ):
        yield running.client


async def test_the_models_that_are_here_are_a_list(
    with_models: Client, model_file: Path, prefix: str
) -> None:
    models = (await with_models.get(f"{prefix}/models_available")).ok()
    assert isinstance(models, list)
    by_name = {model["name"]: model for model in models}
    assert by_name["all-minilm"] == {
        "name": "all-minilm",
        "status": "available",
        "description": "Small and fast sentence embeddings for English",
        "max_context_size": 512,
        "multimodal": False,
        "chat": False,
        "completion_type": "none",
        "embedding_type": "semantic",
        "semantic_embedding": True,
    }
    assert by_name["mine"] == {**by_name["all-minilm"], "name": "mine"}
    assert len(by_name) == len(models)


async def test_a_prompt_is_embedded(shared_client: Client, prefix: str) -> None:
    body = {"model": "TOY", "prompt": [text("cat")], "representation": "symmetric"}
    answer = (await shared_client.post(f"{prefix}/semantic_embed", body)).ok()
    assert set(answer) == {"model_version", "embedding", "num_tokens_prompt_total"}
    assert (answer["model_version"], answer["num_tokens_prompt_total"]) == ("toy", 3)
    assert np.allclose(answer["embedding"], LENGTH * toy_vector("cat"), atol=1e-6)


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("cat dog", "cat dog"),
        ([text("cat "), text("dog")], "cat dog"),
        ([text("cat", controls=None)], "cat"),
        ([{"type": "text", "data": "cat"}], "cat"),
        ("", ""),
    ],
)
async def test_a_prompt_is_text_or_parts_that_are_put_together(
    shared_client: Client, prompt: Any, same: str
) -> None:
    answer = (await semantic(shared_client, prompt, normalize=True)).ok()
    assert np.allclose(answer["embedding"], toy_vector(same), atol=1e-6)


async def test_a_prompt_may_have_token_ids(real_client: Client) -> None:
    async def embed(prompt: Any) -> Any:
        answer = await semantic(real_client, prompt, model="all-minilm", normalize=True)
        return answer.ok()["embedding"]

    black, cat = ids(101, 2304), ids(4937, 102)  # [CLS] black; cat [SEP]
    assert np.allclose(await embed([black, cat]), await embed("black cat"), atol=1e-5)
    body = {"model": "all-minilm", "input": [["black ", 4937]]}
    [mixed] = (await real_client.post("/v1/embeddings", body)).ok()["data"]
    assert np.allclose(await embed([text("black "), ids(4937)]), mixed["embedding"], atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "param", "told"),
    [
        ([{"type": "image", "data": "aGk="}], "prompt[0]", "this model embeds text only"),
        ([text("a"), {"type": "image"}], "prompt[1]", "this model embeds text only"),
        ([text("a", controls=[{"start": 0}])], "prompt[0].controls", "leave controls empty"),
        ([{"type": "token_ids", "data": ["a"]}], "prompt[0].data[0]", "integer"),
        ([{"type": "text"}], "prompt[0].data", "required"),
        ([{"type": "sound", "data": "x"}], "prompt[0].type", "'text'"),
        (["cat"], "prompt[0]", ""),
        ([], "prompt", ""),
        (5, "prompt", "string"),
        (None, "prompt", "string"),
    ],
)
async def test_a_prompt_that_cannot_be_read_is_400(
    shared_client: Client, prompt: Any, param: str, told: str
) -> None:
    error = (await semantic(shared_client, prompt)).refused(400)
    assert error["param"] == param
    assert told in error["message"]


async def test_a_vector_is_normalized_where_that_is_asked_for(shared_client: Client) -> None:
    for given, length in ((True, 1), (False, LENGTH), (None, LENGTH)):
        answer = (await semantic(shared_client, "cat", normalize=given)).ok()
        assert np.isclose(np.linalg.norm(answer["embedding"]), length, atol=1e-5)


async def test_a_vector_is_compressed_to_a_size(real_client: Client) -> None:
    whole = (await semantic(real_client, "x", model="all-minilm", normalize=True)).ok()
    answer = await semantic(
        real_client, "x", model="all-minilm", normalize=True, compress_to_size=128
    )
    vector = np.array(whole["embedding"][:128])
    assert np.allclose(answer.ok()["embedding"], vector / np.linalg.norm(vector), atol=1e-5)
    assert "128" in answer.headers["Warning"]
    raw = (await semantic(real_client, "x", model="all-minilm", compress_to_size=128)).ok()
    assert len(raw["embedding"]) == 128


@pytest.mark.parametrize("size", [0, -1, DIMENSIONS + 1, "8", True])
async def test_a_size_that_the_model_lacks_is_400(shared_client: Client, size: Any) -> None:
    error = (await semantic(shared_client, "cat", compress_to_size=size)).refused(400)
    assert error["param"] == "compress_to_size"


@pytest.mark.parametrize("representation", [None, "asymmetric", 1])
async def test_an_unknown_representation_is_400(shared_client: Client, representation: Any) -> None:
    error = (await semantic(shared_client, "cat", representation=representation)).refused(400)
    assert error["param"] == "representation"
    assert "symmetric" in error["message"]


@pytest_asyncio.fixture
async def prompted(serve: Serve, models_dir: Path) -> AsyncIterator[Client]:
    """Give a client of a server whose toy wants prefixes and takes an instruction."""
    async with Engine(PromptedToyLoader(models_dir)) as engine, serve(engine) as running:
        yield running.client


class PromptedToyLoader(ToyLoader):
    """Load the toy with the prefixes of a model that has some."""

    async def prepare(self, name: str) -> Any:
        """Prepare the model of that name."""
        prepared = await super().prepare(name)
        spec = replace(
            prepared.spec,
            query_prefix="red {instruction} ",
            document_prefix="blue ",
            instruction="pear",
        )
        return replace(prepared, spec=spec)


@pytest.mark.parametrize(
    ("representation", "seen"),
    [("symmetric", "cat"), ("query", "red pear cat"), ("document", "blue cat")],
)
async def test_a_representation_is_the_models_own_prefix(
    prompted: Client, representation: str, seen: str
) -> None:
    fields = {"representation": representation, "normalize": True}
    [one] = [(await semantic(prompted, "cat", **fields)).ok()["embedding"]]
    assert np.allclose(one, toy_vector(seen), atol=1e-6)
    body = {"model": "toy", "prompts": ["cat"], **fields}
    [one] = (await prompted.post("/batch_semantic_embed", body)).ok()["embeddings"]
    assert np.allclose(one, toy_vector(seen), atol=1e-6)


@pytest.mark.parametrize(("instruction", "seen"), [("plum", "red plum cat"), ("", "cat")])
async def test_an_instruction_is_put_before_the_input(
    prompted: Client, prefix: str, instruction: str, seen: str
) -> None:
    body = {"model": "toy", "input": [text("cat")], "instruction": instruction, "normalize": True}
    answer = (await prompted.post(f"{prefix}/instructable_embed", body)).ok()
    assert set(answer) == {"model_version", "embedding", "num_tokens_prompt_total"}
    assert answer["num_tokens_prompt_total"] == 2 + len(seen.split())
    assert np.allclose(answer["embedding"], toy_vector(seen), atol=1e-6)
    raw = (await prompted.post("/instructable_embed", {**body, "normalize": False})).ok()
    assert np.linalg.norm(raw["embedding"]) > 2


async def test_what_instructable_embed_takes_is_checked(shared_client: Client) -> None:
    body = {"model": "toy", "input": "cat", "instruction": ""}
    for field, wrong in (("input", 5), ("instruction", None), ("normalize", "x"), ("model", 5)):
        answer = await shared_client.post("/instructable_embed", {**body, field: wrong})
        assert answer.refused(400)["param"] == field
    error = await shared_client.post("/instructable_embed", {**body, "instruction": "find"})
    assert error.refused(400)["param"] == "instruction"
    image = [{"type": "image", "data": "aGk="}]
    answer = await shared_client.post("/instructable_embed", {**body, "input": image})
    assert answer.refused(400)["param"] == "input[0]"


async def test_a_batch_keeps_its_order(shared_client: Client, prefix: str) -> None:
    body = {
        "prompts": [[text("cat")], "dog", [text("fish "), text("bird")]],
        "representation": "symmetric",
        "normalize": True,
        "compress_to_size": DIMENSIONS,
        "model": "toy",
    }
    answer = (await shared_client.post(f"{prefix}/batch_semantic_embed", body)).ok()
    assert set(answer) == {"model_version", "embeddings", "num_tokens_prompt_total"}
    assert (answer["model_version"], answer["num_tokens_prompt_total"]) == ("toy", 10)
    expected = [toy_vector(each) for each in ("cat", "dog", "fish bird")]
    assert np.allclose(answer["embeddings"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": "cat"}, "prompts"),
        ({"prompts": ["cat", [{"type": "image"}]]}, "prompts[1][0]"),
        ({"prompts": ["cat", 5]}, "prompts[1]"),
        ({"representation": "x"}, "representation"),
        ({"normalize": "x"}, "normalize"),
        ({"compress_to_size": 0}, "compress_to_size"),
        ({"model": 5}, "model"),
    ],
)
async def test_what_a_batch_takes_is_checked(
    shared_client: Client, fields: Any, param: str
) -> None:
    body = {"model": "toy", "prompts": ["cat"], "representation": "query", **fields}
    answer = await shared_client.post("/batch_semantic_embed", body)
    assert answer.refused(400)["param"] == param


async def test_a_batch_has_the_limit_of_embeddings(shared_client: Client) -> None:
    body = {"model": "toy", "prompts": ["cat"] * 2049, "representation": "query"}
    error = (await shared_client.post("/batch_semantic_embed", body)).refused(413, "too_large")
    assert error["param"] == "prompts"
    assert "2048" in error["message"]


@pytest.mark.parametrize("path", ["/semantic_embed", "/batch_semantic_embed"])
async def test_without_a_model_that_of_new_collections_embeds(
    shared_client: Client, path: str
) -> None:
    body = {"prompt": "cat", "prompts": ["cat"], "representation": "symmetric"}
    assert (await shared_client.post(path, body)).ok()["model_version"] == "toy"
    (await shared_client.post(path, {**body, "model": "nope"})).refused(404, "model_not_found")


async def test_the_clients_retries_are_not_provoked(shared_client: Client, prefix: str) -> None:
    retried = {408, 429, 500, 502, 503, 504}
    wrong: list[tuple[str, Any]] = [
        ("/embeddings", {"input": "cat", "model": "nope"}),
        ("/embeddings", {"input": [], "model": "toy"}),
        ("/embeddings", {"input": "cat", "model": "toy", "dimensions": 0}),
        ("/embeddings", {"input": "nan", "model": "toy"}),
        ("/semantic_embed", {"model": "toy"}),
        ("/semantic_embed", {"model": "toy", "prompt": "nan", "representation": "query"}),
        ("/instructable_embed", []),
        ("/complete", {"model": "toy", "prompt": []}),
        ("/chat/completions", {"model": "toy", "messages": []}),
    ]
    for path, body in wrong:
        answer = await shared_client.post(prefix + path, body)
        assert answer.status >= 400
        assert answer.status not in retried, (path, body, answer.data)


async def test_what_was_cut_is_told(shared_client: Client) -> None:
    answer = await semantic(shared_client, "cat " * 100)
    assert answer.headers["X-Truncated-Inputs"] == "1"
    assert answer.ok()["num_tokens_prompt_total"] == 64
