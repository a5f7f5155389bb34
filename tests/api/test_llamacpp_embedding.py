"""POST /embedding, as llama.cpp's clients know it, and what else tells of a server of its kind."""

from typing import Any

import numpy as np
import pytest
from servers import Running, Serve
from toys import (
    BEGIN,
    CAT_ID,
    DIMENSIONS,
    DOG_ID,
    END,
    JUDGE,
    MAX_TOKENS,
    SPELLER,
    TOY,
    WORDS,
    toy_vector,
)
from wire import Answer, Client

import memoryd

LONG = "cat " * MAX_TOKENS


async def embed(client: Client, content: Any = "cat", **fields: Any) -> Answer:
    return await client.post("/embedding", {"content": content, **fields})


async def vectors_of(client: Client, content: Any, **fields: Any) -> list[Any]:
    """Return the vectors of pooled inputs, whose items must be whole."""
    items = (await embed(client, content, **fields)).ok()
    assert [set(item) for item in items] == [{"index", "embedding"}] * len(items)
    assert [item["index"] for item in items] == list(range(len(items)))
    return [vector for item in items for [vector] in [item["embedding"]]]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("cat dog", ["cat dog"]),
        (["cat", "dog"], ["cat", "dog"]),
        ([CAT_ID, DOG_ID], ["cat dog"]),
        ([[CAT_ID], [DOG_ID, DOG_ID]], ["cat", "dog"]),
        ([CAT_ID, "dog"], ["cat dog"]),
        (["fish", [CAT_ID, "dog"]], ["fish", "cat dog"]),
        ({"prompt_string": "dog"}, ["dog"]),
        ([{"prompt_string": "dog"}, "cat"], ["dog", "cat"]),
        ({"prompt_string": [CAT_ID, "dog"]}, ["cat dog"]),
        ({"content": "dog"}, ["dog"]),
        (
            [{"content": [{"type": "text", "text": "dog "}, {"type": "text", "text": "cat"}]}],
            ["dog cat"],
        ),
        ("", [""]),
        (["cat", ""], ["cat", ""]),
    ],
)
async def test_every_shape_of_content_is_embedded(
    toys: Client, content: Any, texts: list[str]
) -> None:
    expected = [toy_vector(text) for text in texts]
    assert np.allclose(await vectors_of(toys, content), expected, atol=1e-6)


async def test_input_is_taken_too_and_comes_before_content(toys: Client) -> None:
    for body in ({"input": "dog"}, {"input": "dog", "content": "cat"}):
        [item] = (await toys.post("/embedding", body)).ok()
        assert np.allclose(item["embedding"], [toy_vector("dog")], atol=1e-6)


@pytest.mark.parametrize(
    ("norm", "lengths"),
    [
        (None, lambda vector: np.linalg.norm(vector)),
        (2, lambda vector: np.linalg.norm(vector)),
        (1, lambda vector: np.abs(vector).sum()),
        (0, lambda vector: np.abs(vector).max() / 32760),
        (3, lambda vector: np.linalg.norm(vector, 3)),
        (6, lambda vector: np.linalg.norm(vector, 6)),
    ],
)
async def test_embd_normalize_says_by_which_norm(toys: Client, norm: Any, lengths: Any) -> None:
    [raw] = await vectors_of(toys, "cat cat dog", embd_normalize=-1)
    assert np.linalg.norm(raw) > 2
    [vector] = await vectors_of(toys, "cat cat dog", embd_normalize=norm)
    assert lengths(np.array(vector)) == pytest.approx(1)
    assert np.allclose(np.array(vector) * lengths(np.array(raw)), raw, rtol=1e-5)


@pytest.mark.parametrize("norm", [-2, 101, 2.5, "2", True, 2**62])
async def test_another_embd_normalize_is_refused(toys: Client, norm: Any) -> None:
    error = (await embed(toys, embd_normalize=norm)).refused(400, "invalid_value")
    assert error["param"] == "embd_normalize"


@pytest.mark.parametrize("norm", [None, 2, 1])
async def test_a_model_that_pools_nothing_gives_a_vector_for_each_token(
    toys: Client, norm: Any
) -> None:
    answer = await embed(toys, ["cat", "cat dog"], model=SPELLER, embd_normalize=norm)
    first, second = (item["embedding"] for item in answer.ok())
    assert np.shape(first) == (3, DIMENSIONS)
    assert np.shape(second) == (4, DIMENSIONS)
    assert np.allclose(second[1:3], [toy_vector("cat"), toy_vector("dog")])
    assert answer.headers["X-Truncated-Inputs"] == "0"


async def test_a_long_input_is_cut_unless_it_may_not_be(toys: Client) -> None:
    for model in (TOY, SPELLER):
        answer = await embed(toys, ["cat", LONG], model=model)
        assert answer.headers["X-Truncated-Inputs"] == "1"
        error = (await embed(toys, ["cat", LONG], model=model, truncate=False)).refused(400)
        assert f"{MAX_TOKENS + 2} tokens" in error["message"]
    tokens = (await embed(toys, LONG, model=SPELLER)).ok()[0]["embedding"]
    assert len(tokens) == MAX_TOKENS


async def test_the_model_can_be_named(toys: Client) -> None:
    assert (await embed(toys, model="TOY")).ok() == (await embed(toys, model=None)).ok()
    assert (await embed(toys, model=SPELLER)).ok() != (await embed(toys)).ok()
    error = (await embed(toys, model="nobody")).refused(404, "model_not_found")
    assert error["param"] == "model"


async def test_a_reranker_is_asked_in_vain_and_not_again(toys: Client) -> None:
    answer = await embed(toys, model=JUDGE)
    answer.refused(501, "wrong_model")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "content",
    [
        {"prompt_string": "x", "multimodal_data": ["aGk="]},
        [{"prompt_string": "x", "multimodal_data": ["aGk="]}],
        [{"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
        {"type": "input_audio", "input_audio": {"data": ""}},
    ],
)
async def test_images_and_sounds_are_refused(toys: Client, content: Any) -> None:
    error = (await embed(toys, content)).refused(400, "invalid_value")
    assert "this model embeds text only" in error["message"]
    assert error["param"].startswith("content")


@pytest.mark.parametrize(
    "content",
    [[], 5, True, {}, {"text": "x"}, [["a"]], [[]], ["a", None], {"content": [{"type": "x"}]}],
)
async def test_content_of_another_shape_is_refused(toys: Client, content: Any) -> None:
    assert (await embed(toys, content)).refused(400)["param"].startswith("content")


@pytest.mark.parametrize("body", [{}, {"content": None}, {"content": None, "input": None}])
async def test_content_is_required(toys: Client, body: Any) -> None:
    (await toys.post("/embedding", body)).refused(400, "missing_field")


@pytest.mark.parametrize("ids", [[-1], [5 + len(WORDS)], [2**31], ["cat", 2**62]])
async def test_ids_that_the_model_does_not_have_are_refused(toys: Client, ids: Any) -> None:
    (await embed(toys, [[BEGIN, CAT_ID, END], ids])).refused(400, "invalid_value")


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b'"x"'])
async def test_what_is_no_json_object_is_400(toys: Client, data: bytes) -> None:
    (await toys.ask("POST", "/embedding", data=data)).refused(400)


async def test_unknown_fields_and_any_content_type_are_taken(toys: Client) -> None:
    headers = {"Content-Type": "text/plain"}
    data = b'{"content": "cat", "image_data": [], "slot_id": -1}'
    assert (await toys.ask("POST", "/embedding", data=data, headers=headers)).ok()


async def test_health_is_public_and_all_else_wants_the_key_in_one_of_two_headers(
    serve: Serve,
) -> None:
    async with serve(api_key="s3cret") as running:
        client = running.client
        for path in ("/health", "/v1/health"):
            assert (await client.get(path)).ok()["status"] == "ok"
        for path in ("/embedding", "/embeddings", "/tokenize", "/detokenize", "/rerank"):
            body = {"content": "cat", "tokens": [5]}
            error = (await client.post(path, body)).refused(401, "unauthorized")
            assert error["type"] == "authentication_error"
            for headers in ({"Authorization": "Bearer s3cret"}, {"X-Api-Key": "s3cret"}):
                assert (await client.post(path, body, headers=headers)).status in (200, 400)
        (await client.get("/props")).refused(401)


async def test_props_tell_what_is_true(real_running: Running) -> None:
    props = (await real_running.client.get("/props")).ok()
    model = await real_running.memory.engine.model("all-minilm")
    assert props["default_generation_settings"] == {"n_ctx": model.max_tokens}
    assert props["model_alias"] == "all-minilm"
    assert props["model_path"].startswith(str(real_running.memory.settings.models_dir))
    assert props["model_path"].endswith(".gguf")
    assert props["model_ftype"] in props["model_path"]
    assert props["total_slots"] == model.tuning.lanes
    assert props["modalities"] == {"vision": False, "audio": False, "video": False}
    assert props["build_info"] == f"memoryd-{memoryd.__version__}"
    assert props["is_sleeping"] is False
