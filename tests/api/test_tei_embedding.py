"""POST /embed, /embed_all, /similarity and their kin, as text-embeddings-inference's clients do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from polling import until
from servers import Running, Serve
from toys import (
    CAT_ID,
    DIMENSIONS,
    DOG_ID,
    JUDGE,
    MAX_TOKENS,
    SPELLER,
    ToyLoader,
    ToyShelf,
    toy_vector,
)
from wire import Answer, Client

import memoryd
from memoryd.embeddings.engine import Engine, EngineLimits
from memoryd.embeddings.types import ModelSpec, PreparedModel

LONG = "dog " + "cat " * MAX_TOKENS


class PrefixedLoader(ToyLoader):
    """Give the toy prefixes."""

    async def prepare(self, name: str) -> PreparedModel:
        """Prepare the toy."""
        prepared = await super().prepare(name)
        spec = ModelSpec(
            "toy",
            query_prefix="{instruction} dog ",
            document_prefix="pear ",
            instruction="fish",
            trained_dimensions=(8,),
            min_dimensions=14,
        )
        return PreparedModel(spec, prepared.tuning, prepared.memory_bytes, prepared.open)


@pytest_asyncio.fixture(scope="module")
async def prefixed(serve: Serve, models_dir: Any) -> AsyncIterator[Client]:
    async with Engine(PrefixedLoader(models_dir)) as engine, serve(engine) as running:
        yield running.client


def refused(answer: Answer, status: int, kind: str) -> str:
    """Return the text of an error in TEI's shape."""
    assert answer.status == status, (answer.status, answer.data[:300])
    assert set(answer.json) == {"error", "error_type"}
    assert answer.json["error_type"] == kind
    assert len(answer.json["error"]) > 10
    return str(answer.json["error"])


async def embed(client: Client, inputs: Any = "cat", path: str = "/embed", **fields: Any) -> Answer:
    return await client.post(path, {"inputs": inputs, **fields})


PATHS = ["/embed", "/"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("inputs", "texts"),
    [
        ("cat dog", ["cat dog"]),
        (["cat", "dog"], ["cat", "dog"]),
        ([CAT_ID, DOG_ID], ["cat dog"]),
        ([[CAT_ID], [DOG_ID, DOG_ID]], ["cat", "dog"]),
        (["cat", [DOG_ID]], ["cat", "dog"]),
        ("", [""]),
        (["cat", ""], ["cat", ""]),
    ],
)
async def test_every_shape_of_inputs_gives_a_list_of_vectors(
    toys: Client, path: str, inputs: Any, texts: list[str]
) -> None:
    vectors = (await embed(toys, inputs, path)).ok()
    assert np.allclose(vectors, [toy_vector(text) for text in texts], atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
async def test_vectors_are_not_normalized_where_that_is_said(toys: Client, path: str) -> None:
    for normalize in (None, True):
        [vector] = (await embed(toys, "cat dog", path, normalize=normalize)).ok()
        assert np.linalg.norm(vector) == pytest.approx(1)
    [raw] = (await embed(toys, "cat dog", path, normalize=False)).ok()
    assert np.linalg.norm(raw) == pytest.approx(3 * np.sqrt(2))


@pytest.mark.parametrize("path", PATHS)
async def test_dimensions_slice_and_normalize_again(toys: Client, path: str) -> None:
    text = "cat dog horse lemon"
    whole = toy_vector(text)
    [vector] = (await embed(toys, text, path, dimensions=4)).ok()
    assert np.allclose(vector, whole[:4] / np.linalg.norm(whole[:4]), atol=1e-6)
    [raw] = (await embed(toys, text, path, dimensions=4, normalize=False)).ok()
    assert np.allclose(raw, 3 * whole[:4] * np.sqrt(4), atol=1e-5)
    assert len((await embed(toys, text, path, dimensions=DIMENSIONS)).ok()[0]) == DIMENSIONS


@pytest.mark.parametrize("dimensions", [0, -1, DIMENSIONS + 1, 2**62, 2.5, "8"])
async def test_dimensions_out_of_range_are_422(toys: Client, dimensions: Any) -> None:
    refused(await embed(toys, dimensions=dimensions), 422, "Validation")


async def test_vectors_are_padded_where_the_settings_say_so(serve: Serve) -> None:
    async with serve(pad_dimensions=True) as running:
        [vector] = (await embed(running.client, dimensions=DIMENSIONS + 4)).ok()
        assert np.allclose(vector, np.pad(toy_vector("cat"), (0, 4)), atol=1e-6)
        refused(await embed(running.client, dimensions=4097), 422, "Validation")


async def test_a_width_that_the_model_was_not_trained_for_is_told(prefixed: Client) -> None:
    assert "13 dimensions" in (await embed(prefixed, dimensions=13)).headers["Warning"]
    assert "Warning" not in (await embed(prefixed, dimensions=8)).headers


@pytest.mark.parametrize("path", PATHS)
async def test_a_long_input_is_cut_on_the_side_that_is_asked_for(toys: Client, path: str) -> None:
    both, cats = toy_vector("dog " + "cat " * (MAX_TOKENS - 3)), toy_vector("cat")
    for direction, expected in (
        (None, both),
        ("right", both),
        ("Right", both),
        ("left", cats),
        ("Left", cats),
    ):
        answer = await embed(toys, ["cat", LONG], path, truncation_direction=direction)
        assert np.allclose(answer.ok()[1], expected, atol=1e-6)
        assert answer.headers["X-Truncated-Inputs"] == "1"
    refused(await embed(toys, path=path, truncation_direction="up"), 422, "Validation")


@pytest.mark.parametrize("path", [*PATHS, "/embed_all"])
async def test_truncate_false_refuses_a_long_input(toys: Client, path: str) -> None:
    error = refused(await embed(toys, ["cat", LONG], path, truncate=False), 422, "Validation")
    assert f"{MAX_TOKENS + 3} tokens" in error
    for truncate in (None, True):
        assert len((await embed(toys, ["cat", LONG], path, truncate=truncate)).ok()) == 2


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({}, "apple"),
        ({"prompt_name": None}, "apple"),
        ({"prompt_name": "query"}, "fish dog apple"),
        ({"prompt_name": "document"}, "pear apple"),
        ({"instruction": "bird"}, "bird dog apple"),
    ],
)
async def test_prompts_are_put_before_texts(
    prefixed: Client, fields: dict[str, Any], seen: str
) -> None:
    for path in PATHS:
        [vector] = (await embed(prefixed, "apple", path, **fields)).ok()
        assert np.allclose(vector, toy_vector(seen), atol=1e-6)
    [tokens] = (await embed(prefixed, "apple", "/embed_all", **fields)).ok()
    assert len(tokens) == len(seen.split()) + 2


@pytest.mark.parametrize("path", [*PATHS, "/embed_all", "/tokenize"])
async def test_a_wrong_prompt_name_is_422(toys: Client, path: str) -> None:
    error = refused(await embed(toys, path=path, prompt_name="passage"), 422, "Validation")
    assert "prompt_name" in error


async def test_embed_all_gives_a_vector_for_each_token_not_normalized(toys: Client) -> None:
    for model in (None, SPELLER):
        answer = await embed(toys, ["cat cat", "dog"], "/embed_all", model=model)
        first, second = answer.ok()
        assert np.shape(first) == (4, DIMENSIONS)
        assert np.allclose(second[1], toy_vector("dog"))
        assert answer.headers["X-Truncated-Inputs"] == "0"
    left = await embed(toys, LONG, "/embed_all", truncation_direction="left")
    assert not np.allclose(left.ok()[0][1], toy_vector("dog"))
    right = await embed(toys, LONG, "/embed_all")
    assert np.allclose(right.ok()[0][1], toy_vector("dog"))


async def test_embed_all_of_a_real_model_averages_to_its_embedding(real_client: Client) -> None:
    [tokens] = (await embed(real_client, "why is the sky blue?", "/embed_all")).ok()
    assert np.shape(tokens) == (8, 384)
    [vector] = (await embed(real_client, "why is the sky blue?")).ok()
    mean = np.mean(tokens, axis=0)
    assert mean @ np.array(vector) / np.linalg.norm(mean) > 0.9999


@pytest.mark.parametrize(
    ("path", "inputs"),
    [("/embed", "cat"), ("/", "cat"), ("/embed_all", "cat")],
)
async def test_the_model_can_be_named(toys: Client, path: str, inputs: Any) -> None:
    assert (await embed(toys, inputs, path, model="TOY")).ok()
    refused(await embed(toys, inputs, path, model="nobody"), 404, "Validation")
    refused(await embed(toys, inputs, path, model=JUDGE), 424, "Backend")


async def test_sparse_vectors_are_refused_as_by_a_model_that_has_none(toys: Client) -> None:
    refused(await embed(toys, path="/embed_sparse"), 424, "Backend")
    refused(await embed(toys, path="/embed_sparse", model="nobody"), 404, "Validation")


# /similarity


async def compare(client: Client, path: str = "/similarity", **fields: Any) -> Answer:
    inputs = {"source_sentence": "cat", "sentences": ["cat", "dog", "cat dog"]}
    return await client.post(path, {"inputs": inputs, **fields})


@pytest.mark.parametrize("path", ["/similarity", "/"])
async def test_similarity_is_the_cosine(toys: Client, path: str) -> None:
    for parameters in (None, {}, {"truncate": True, "truncation_direction": "right"}):
        cosines = (await compare(toys, path, parameters=parameters)).ok()
        assert np.allclose(cosines, [1, 0, np.sqrt(0.5)], atol=1e-6)


@pytest.mark.parametrize("path", ["/similarity", "/"])
async def test_similarity_reads_all_of_its_parameters(
    toys: Client, prefixed: Client, path: str
) -> None:
    inputs = {"source_sentence": "dog", "sentences": [LONG]}
    answer = await compare(toys, path, inputs=inputs)
    assert answer.ok()[0] > 0
    assert answer.headers["X-Truncated-Inputs"] == "1"
    left = await compare(toys, path, inputs=inputs, parameters={"truncation_direction": "left"})
    assert left.ok() == [0]
    refused(
        await compare(toys, path, inputs=inputs, parameters={"truncate": False}), 422, "Validation"
    )
    asked = await compare(prefixed, path, parameters={"prompt_name": "query"})
    expected = toy_vector("fish dog cat") @ toy_vector("fish dog dog")
    assert asked.ok()[1] == pytest.approx(expected)
    asked = await compare(prefixed, path, parameters={"instruction": "bird"})
    assert asked.ok()[1] == pytest.approx(toy_vector("bird dog cat") @ toy_vector("bird dog dog"))
    wrong = await compare(toys, path, parameters={"prompt_name": "passage"})
    refused(wrong, 422, "Validation")
    refused(await compare(toys, path, model="nobody"), 404, "Validation")
    refused(await compare(toys, path, model=JUDGE), 424, "Backend")


@pytest.mark.parametrize("path", ["/similarity", "/"])
@pytest.mark.parametrize(
    ("inputs", "status", "kind"),
    [
        ({"source_sentence": "cat", "sentences": []}, 400, "Empty"),
        ({"source_sentence": "cat"}, 422, "Validation"),
        ({"sentences": ["cat"]}, 422, "Validation"),
        ({"source_sentence": 5, "sentences": ["cat"]}, 422, "Validation"),
        ({"source_sentence": "cat", "sentences": "cat"}, 422, "Validation"),
        ({"source_sentence": "cat", "sentences": ["cat"] * 2048}, 413, "Validation"),
        ({"image": "x"}, 400, "Validation"),
        ({"source_sentence": "cat", "sentences": ["cat"], "image": "x"}, 400, "Validation"),
    ],
)
async def test_sentences_of_another_shape_are_refused(
    toys: Client, path: str, inputs: Any, status: int, kind: str
) -> None:
    refused(await compare(toys, path, inputs=inputs), status, kind)


async def test_2047_sentences_are_compared(toys: Client) -> None:
    inputs = {"source_sentence": "cat", "sentences": ["cat"] * 2047}
    assert len((await compare(toys, inputs=inputs)).ok()) == 2047


# Errors


@pytest.mark.parametrize("path", ["/embed", "/", "/embed_all"])
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": []}, 400, "Empty"),
        ({}, 422, "Validation"),
        ({"inputs": None}, 422, "Validation"),
        ({"inputs": 5}, 422, "Validation"),
        ({"inputs": [["a"]]}, 422, "Validation"),
        ({"inputs": ["a", 5]}, 422, "Validation"),
        ({"inputs": [[]]}, 422, "Validation"),
        ({"inputs": [-1]}, 422, "Validation"),
        ({"inputs": [10_000]}, 422, "Validation"),
        ({"inputs": "cat", "truncate": "yes"}, 422, "Validation"),
        ({"inputs": ["cat"] * 2049}, 413, "Validation"),
        ({"inputs": [{"type": "image_url"}]}, 400, "Validation"),
        ({"inputs": ["cat", "nan"]}, 424, "Backend"),
    ],
)
async def test_errors_have_teis_statuses_and_types(
    toys: Client, path: str, body: Any, status: int, kind: str
) -> None:
    refused(await toys.post(path, body), status, kind)


@pytest.mark.parametrize("path", ["/embed", "/", "/similarity", "/decode", "/embed_sparse"])
@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b'"x"', b"[" * 100_000])
async def test_what_is_no_json_object_is_refused_in_teis_shape(
    toys: Client, path: str, data: bytes
) -> None:
    refused(await toys.ask("POST", path, data=data), 422, "Validation")


async def test_an_unknown_method_is_refused_in_json(toys: Client) -> None:
    answer = await toys.get("/embed")
    assert answer.status == 405
    assert "error" in answer.json


async def test_unknown_fields_and_any_content_type_are_taken(toys: Client) -> None:
    headers = {"Content-Type": "text/plain"}
    data = b'{"inputs": "cat", "encoding_format": "float"}'
    assert (await toys.ask("POST", "/embed", data=data, headers=headers)).ok()


async def test_overload_is_429_and_a_server_that_stops_503(serve: Serve) -> None:
    shelf = ToyShelf("toy")
    async with Engine(shelf, EngineLimits(1)) as engine, serve(engine) as running:
        [toy] = shelf.open_backends("toy")
        toy.gate.clear()
        waiting = asyncio.create_task(embed(running.client))
        await until(lambda: toy.encoded > 0)
        answer = await embed(running.client)
        refused(answer, 429, "Overloaded")
        assert answer.headers["Retry-After"] == "1"
        toy.gate.set()
        (await waiting).ok()
        engine.refuse()
        refused(await embed(running.client), 503, "Unhealthy")


async def test_a_key_is_wanted_in_teis_shape(serve: Serve) -> None:
    async with serve(api_key="s3cret") as running:
        for path in ("/embed", "/embed_all", "/", "/similarity", "/decode"):
            answer = await embed(running.client, path=path)
            assert answer.status == 401
            assert set(answer.json) == {"error", "error_type"}
        headers = {"Authorization": "Bearer s3cret"}
        body = {"inputs": "cat"}
        assert (await running.client.post("/embed", body, headers=headers)).ok()
        assert (await running.client.get("/info")).status == 401
        for path in ("/health", "/ping", "/"):
            assert (await running.client.get(path)).status == 200


# /info


async def test_info_tells_what_is_true(real_running: Running) -> None:
    info = (await real_running.client.get("/info")).ok()
    settings = real_running.memory.settings
    model = await real_running.memory.engine.model("all-minilm")
    assert info.pop("model_dtype") in ("float32", "bfloat16", "float16")
    sha = info.pop("model_sha")
    assert sha is None or len(sha) == 40  # of a commit, where the hub told of one
    assert info == {
        "model_id": "sentence-transformers/all-MiniLM-L6-v2",
        "served_model_name": "all-minilm",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": settings.max_waiting_requests,
        "max_input_length": model.max_tokens,
        "max_batch_tokens": model.tuning.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_inputs,
        "auto_truncate": True,
        "tokenization_workers": 2,
        "version": memoryd.__version__,
        "sha": None,
        "docker_label": None,
        "dimensions": 384,
        "trained_dimensions": [],
        "min_dimensions": None,
    }
