"""POST /tokenize and /detokenize, as llama.cpp's, LocalAI's and Aleph Alpha's clients know them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from model_servers import serve_tiny
from servers import Running, Serve
from toys import BEGIN, CAT_ID, DOG_ID, END
from wire import Answer, Client

SKY, SKY_IDS = "why is the sky blue?", [2339, 2003, 1996, 3712, 2630, 1029]
CLS, SEP = 101, 102


@pytest_asyncio.fixture(scope="module")
async def tiny(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with serve_tiny(
        serve, tmp_path_factory.mktemp("models"), "qwen3", model="bert"
    ) as running:
        yield running


async def tokenize(client: Client, content: Any, path: str = "/tokenize", **fields: Any) -> Answer:
    return await client.post(path, {"content": content, **fields})


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({}, SKY_IDS),
        ({"add_special": False, "with_pieces": False}, SKY_IDS),
        ({"add_special": None, "with_pieces": None, "parse_special": None}, SKY_IDS),
        ({"add_special": True}, [CLS, *SKY_IDS, SEP]),
        ({"model": "all-minilm"}, SKY_IDS),
    ],
)
async def test_a_text_gives_the_ids_of_the_real_tokenizer(
    real_client: Client, path: str, fields: dict[str, Any], ids: list[int]
) -> None:
    assert (await tokenize(real_client, SKY, path, **fields)).ok() == {"tokens": ids}


async def test_special_tokens_are_found_in_texts_unless_they_may_not_be(
    real_client: Client,
) -> None:
    for fields in ({}, {"parse_special": True}):
        answer = await tokenize(real_client, "the [SEP] sky", **fields)
        assert answer.ok()["tokens"] == [1996, SEP, 3712]
    answer = await tokenize(real_client, "the [SEP] sky", parse_special=False)
    assert SEP not in answer.ok()["tokens"]


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (["cat", DOG_ID], [BEGIN, CAT_ID, END, DOG_ID]),
        ([DOG_ID, "cat"], [DOG_ID, CAT_ID]),
        ([CAT_ID, DOG_ID], [CAT_ID, DOG_ID]),
        (["cat", "dog"], [BEGIN, CAT_ID, END, DOG_ID]),
        ([], []),
        ("", [BEGIN, END]),
    ],
)
async def test_texts_and_ids_can_be_mixed(
    shared_client: Client, content: Any, ids: list[int]
) -> None:
    answer = await tokenize(shared_client, content, add_special=True)
    assert answer.ok() == {"tokens": ids}


async def test_pieces_are_told_where_asked_for(real_client: Client) -> None:
    tokens = (await tokenize(real_client, "The sky", add_special=True, with_pieces=True)).ok()
    assert tokens["tokens"] == [
        {"id": CLS, "piece": "[CLS]"},
        {"id": 1996, "piece": " the"},
        {"id": 3712, "piece": " sky"},
        {"id": SEP, "piece": "[SEP]"},
    ]


async def test_a_part_of_a_character_is_told_as_bytes(tiny: Running) -> None:
    answer = await tokenize(tiny.client, "媽 🤗", with_pieces=True, model="qwen3")
    pieces = [token["piece"] for token in answer.ok()["tokens"]]
    assert any(isinstance(piece, list) for piece in pieces)
    data = b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in pieces)
    assert data.decode() == "媽 🤗"


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_tokens_come_back_as_text(real_client: Client, path: str) -> None:
    for fields in ({}, {"model": "all-minilm"}):
        body = {"tokens": [CLS, *SKY_IDS, SEP], **fields}
        content = (await real_client.post(path, body)).ok()["content"]
        assert content == "[CLS] why is the sky blue ?[SEP]"
    assert (await real_client.post(path, {"tokens": []})).ok() == {"content": ""}


async def test_a_text_survives_both_ways_byte_by_byte(tiny: Running) -> None:
    text = "What's the capital of 日本? 🤗"
    tokens = (await tokenize(tiny.client, text, model="qwen3")).ok()["tokens"]
    answer = await tiny.client.post("/detokenize", {"tokens": tokens, "model": "qwen3"})
    assert answer.ok() == {"content": text}
    other = await tiny.client.post("/detokenize", {"tokens": tokens[:3]})
    assert other.ok()["content"] != text


async def test_tokens_are_those_of_the_named_model(tiny: Running) -> None:
    default = (await tokenize(tiny.client, "Berlin")).ok()
    assert default == (await tokenize(tiny.client, "Berlin", model="bert")).ok()
    assert default != (await tokenize(tiny.client, "Berlin", model="qwen3")).ok()
    (await tokenize(tiny.client, "Berlin", model="nobody")).refused(404, "model_not_found")
    for path, body in (("/detokenize", {"tokens": [5]}), ("/detokenize", {"token_ids": [5]})):
        (await tiny.client.post(path, {**body, "model": "nobody"})).refused(404)
    (await tiny.client.post("/tokenize", {"prompt": "x", "model": "nobody"})).refused(404)


@pytest.mark.parametrize("content", [5, True, {}, [["cat"]], ["cat", None], [2.5]])
async def test_content_of_another_shape_is_refused(shared_client: Client, content: Any) -> None:
    assert (await tokenize(shared_client, content)).refused(400)["param"] == "content"


@pytest.mark.parametrize("field", ["add_special", "parse_special", "with_pieces"])
async def test_fields_of_another_type_are_refused(shared_client: Client, field: str) -> None:
    assert (await tokenize(shared_client, "x", **{field: "yes"})).refused(400)["param"] == field


@pytest.mark.parametrize("tokens", ["5", 5, [5, "cat"], [None], [[5]], [2.5], [-1], [10_000]])
async def test_tokens_that_are_none_of_the_models_are_refused(
    shared_client: Client, tokens: Any
) -> None:
    for key in ("tokens", "token_ids"):
        error = (await shared_client.post("/detokenize", {key: tokens})).refused(400)
        assert error["param"].startswith(key)
    if tokens in ([-1], [10_000]):
        (await tokenize(shared_client, tokens, with_pieces=True)).refused(400, "invalid_value")


# Aleph Alpha's shapes


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
@pytest.mark.parametrize(
    ("fields", "tokens", "ids"),
    [
        ({}, [" the", " sky"], [1996, 3712]),
        ({"tokens": True, "token_ids": True}, [" the", " sky"], [1996, 3712]),
        ({"tokens": False}, None, [1996, 3712]),
        ({"token_ids": False}, [" the", " sky"], None),
        ({"model": "all-minilm", "hosting": "aleph-alpha"}, [" the", " sky"], [1996, 3712]),
    ],
)
async def test_a_prompt_is_tokenized_as_aleph_alpha_does(
    real_client: Client, path: str, fields: dict[str, Any], tokens: Any, ids: Any
) -> None:
    answer = await real_client.post(path, {"prompt": "The sky", **fields})
    assert answer.ok() == {"tokens": tokens, "token_ids": ids}


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_token_ids_come_back_as_aleph_alphas_result(real_client: Client, path: str) -> None:
    answer = await real_client.post(path, {"token_ids": SKY_IDS, "model": "all-minilm"})
    assert answer.ok() == {"result": SKY}
