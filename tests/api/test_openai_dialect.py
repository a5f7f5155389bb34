"""POST /v1/embeddings, as OpenAI's clients know it."""

import base64
from typing import Any

import numpy as np
import openai
import pytest
from servers import Serve
from toys import DIMENSIONS, MAX_TOKENS, toy_vector
from wire import Answer, Client

LONG = "cat " * MAX_TOKENS


async def embed(client: Client, input_: Any = "cat", **fields: Any) -> Answer:
    return await client.post("/v1/embeddings", {"model": "toy", "input": input_, **fields})


async def test_the_answer_has_openais_fields(shared_client: Client) -> None:
    answer = (await embed(shared_client, ["cat", "dog cat"], model="TOY", user="u")).ok()
    assert set(answer) == {"object", "data", "model", "usage"}
    assert (answer["object"], answer["model"]) == ("list", "TOY")
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    for index, (item, text) in enumerate(zip(answer["data"], ["cat", "dog cat"], strict=True)):
        assert set(item) == {"object", "index", "embedding"}
        assert (item["object"], item["index"]) == ("embedding", index)
        assert np.allclose(item["embedding"], toy_vector(text), atol=1e-6)


@pytest.mark.parametrize("encoding", ["base64", "BASE64", "Base64"])
async def test_base64_equals_float_bit_for_bit(real_client: Client, encoding: str) -> None:
    body = {"model": "all-minilm", "input": ["why is the sky blue?", "x" * 3000, ""]}
    floats = (await real_client.post("/v1/embeddings", body)).ok()["data"]
    coded = await real_client.post("/v1/embeddings", {**body, "encoding_format": encoding})
    for item, plain in zip(coded.ok()["data"], floats, strict=True):
        data = base64.b64decode(item["embedding"], validate=True)
        assert len(data) == 4 * 384
        expected = np.array(plain["embedding"], dtype=np.float32)
        assert np.frombuffer(data, dtype="<f4").tobytes() == expected.tobytes()


@pytest.mark.parametrize("encoding", [None, "float", "FLOAT"])
async def test_floats_are_the_default(shared_client: Client, encoding: str | None) -> None:
    [item] = (await embed(shared_client, encoding_format=encoding)).ok()["data"]
    assert isinstance(item["embedding"], list)


@pytest.mark.parametrize("encoding", ["hex", "int8", "base 64"])
async def test_another_encoding_is_refused(shared_client: Client, encoding: str) -> None:
    error = (await embed(shared_client, encoding_format=encoding)).refused(400, "invalid_value")
    assert error["param"] == "encoding_format"
    assert error["message"] == (
        f"Invalid value for 'encoding_format' = {encoding}. Supported values: ['float', 'base64']."
    )


async def test_dimensions_slice_and_normalize_again(shared_client: Client) -> None:
    whole = toy_vector("cat dog horse lemon")
    [item] = (await embed(shared_client, "cat dog horse lemon", dimensions=4)).ok()["data"]
    assert np.allclose(item["embedding"], whole[:4] / np.linalg.norm(whole[:4]), atol=1e-6)
    [item] = (await embed(shared_client, dimensions=DIMENSIONS)).ok()["data"]
    assert len(item["embedding"]) == DIMENSIONS
    (await embed(shared_client, dimensions=None)).ok()


@pytest.mark.parametrize("dimensions", [0, -1, DIMENSIONS + 1, 2**62, 2.5, "8", True])
async def test_dimensions_out_of_range_are_refused(shared_client: Client, dimensions: Any) -> None:
    error = (await embed(shared_client, dimensions=dimensions)).refused(400, "invalid_value")
    assert error["param"] == "dimensions"
    if isinstance(dimensions, int) and not isinstance(dimensions, bool):
        assert f"1 to {DIMENSIONS}" in error["message"]


@pytest.mark.parametrize("input_", ["", [""], ["a", ""], " "])
async def test_an_empty_text_is_a_vector(shared_client: Client, input_: Any) -> None:
    data = (await embed(shared_client, input_)).ok()["data"]
    assert len(data) == (len(input_) if isinstance(input_, list) else 1)
    assert all(np.isclose(np.linalg.norm(item["embedding"]), 1) for item in data)


@pytest.mark.parametrize("input_", [[], None, 5, True, {}, {"text": "x"}, [["a"]], ["a", None]])
async def test_an_input_that_is_none_is_refused(shared_client: Client, input_: Any) -> None:
    error = (await embed(shared_client, input_)).refused(400)
    assert error["param"].startswith("input")


async def test_a_missing_input_or_model_is_400(shared_client: Client) -> None:
    answer = await shared_client.post("/v1/embeddings", {"model": "toy"})
    assert answer.refused(400, "missing_field")["param"] == "input"
    for model in ({}, {"model": None}, {"model": ""}):
        answer = await shared_client.post("/v1/embeddings", {"input": "cat", **model})
        error = answer.refused(400, "missing_field")
        assert error["message"] == "you must provide a model parameter"
        assert error["param"] == "model"


@pytest.mark.parametrize(
    ("input_", "texts"),
    [
        ([5, 6], ["cat dog"]),
        ([[5], [6, 7]], ["cat", "dog fish"]),
        (["cat", [6]], ["cat", "dog"]),
        ([5, "dog", 7], ["cat dog fish"]),
    ],
)
async def test_token_ids_are_tokens_of_the_model(
    shared_client: Client, input_: Any, texts: list[str]
) -> None:
    answer = (await embed(shared_client, input_)).ok()
    got = [item["embedding"] for item in answer["data"]]
    assert np.allclose(got, [toy_vector(text) for text in texts], atol=1e-6)
    assert answer["usage"]["prompt_tokens"] >= len(texts)


@pytest.mark.parametrize("input_", [[101, 2, 10_000], [[-1]], [[2**40]]])
async def test_ids_of_another_vocabulary_are_refused_with_what_to_do(
    shared_client: Client, input_: Any
) -> None:
    error = (await embed(shared_client, input_)).refused(400, "invalid_value")
    assert error["param"] == "input[0]"
    assert "check_embedding_ctx_length=False" in error["message"]


@pytest.mark.parametrize("input_", [[[]], [[5], []], [[True]], [[5, None]], [1, [2]]])
async def test_lists_that_are_no_tokens_are_refused(shared_client: Client, input_: Any) -> None:
    assert (await embed(shared_client, input_)).refused(400)["param"].startswith("input")


async def test_vectors_are_padded_where_the_settings_say_so(serve: Serve) -> None:
    async with serve(pad_dimensions=True) as running:
        [item] = (await embed(running.client, dimensions=DIMENSIONS + 4)).ok()["data"]
        padded = np.concatenate((toy_vector("cat"), np.zeros(4)))
        assert np.allclose(item["embedding"], padded, atol=1e-6)
        error = (await embed(running.client, dimensions=4097)).refused(400, "invalid_value")
        assert "1 to 4096" in error["message"]


async def test_an_unknown_model_is_404(shared_client: Client) -> None:
    error = (await embed(shared_client, model="gpt-4")).refused(404, "model_not_found")
    assert (error["param"], error["type"]) == ("model", "not_found_error")
    assert "gpt-4" in error["message"]


async def test_2048_inputs_are_served_and_one_more_is_too_large(shared_client: Client) -> None:
    answer = (await embed(shared_client, ["cat"] * 2048)).ok()
    assert [item["index"] for item in answer["data"]] == list(range(2048))
    error = (await embed(shared_client, ["cat"] * 2049)).refused(413, "too_large")
    assert error["param"] == "input"
    assert "2048" in error["message"]


async def test_a_long_input_is_cut_and_counted_after_the_cut(shared_client: Client) -> None:
    answer = await embed(shared_client, [LONG, "cat", LONG])
    assert answer.ok()["usage"]["prompt_tokens"] == 2 * MAX_TOKENS + 3
    assert answer.headers["X-Truncated-Inputs"] == "2"
    assert (await embed(shared_client)).headers["X-Truncated-Inputs"] == "0"


async def test_truncate_false_refuses_a_long_input(shared_client: Client) -> None:
    error = (await embed(shared_client, [LONG], truncate=False)).refused(400, "invalid_value")
    assert (error["param"] or "").startswith("input")
    (await embed(shared_client, truncate=False)).ok()


@pytest.mark.parametrize("data", [b"", b"nonsense", b"{", b"[" * 100_000, b"[]", b'"x"', b"5"])
async def test_what_is_no_json_object_is_400(shared_client: Client, data: bytes) -> None:
    (await shared_client.ask("POST", "/v1/embeddings", data=data)).refused(400)


@pytest.mark.parametrize(
    "raw", [rb'"\ud800"', b'"\xff"', rb'"\u0000"', b'["\xed\xa0\x80", "\\udc00"]']
)
async def test_broken_unicode_becomes_a_vector(shared_client: Client, raw: bytes) -> None:
    body = b'{"model": "toy", "input": ' + raw + b"}"
    answer = await shared_client.ask("POST", "/v1/embeddings", data=body)
    assert np.isfinite([item["embedding"] for item in answer.ok()["data"]]).all()


async def test_unknown_fields_and_any_content_type_are_taken(shared_client: Client) -> None:
    body = b'{"model": "toy", "input": "cat", "user": "u", "x": {"y": 1}}'
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await shared_client.ask("POST", "/v1/embeddings", data=body, headers=headers)
    assert len(answer.ok()["data"]) == 1


async def test_a_nan_is_the_clients_error_naming_the_input(shared_client: Client) -> None:
    error = (await embed(shared_client, ["cat", "dog", "nan"])).refused(400)
    assert "2" in error["message"]


async def test_usage_is_that_of_the_real_tokenizer(real_client: Client) -> None:
    texts = {"why is the sky blue?": 8, "I believe the meaning of life is": 9, "This is a test": 6}
    for text, count in texts.items():
        body = {"model": "all-minilm", "input": text}
        usage = (await real_client.post("/v1/embeddings", body)).ok()["usage"]
        assert usage == {"prompt_tokens": count, "total_tokens": count}


@pytest.mark.parametrize("query", ["", "?api-version=2024-10-21"])
async def test_azures_path_names_the_model(shared_client: Client, query: str) -> None:
    body = {"input": "cat", "model": "gpt-4"}
    answer = await shared_client.post(f"/openai/deployments/TOY/embeddings{query}", body)
    assert answer.ok() == (await embed(shared_client, model="TOY")).ok()
    path = f"/openai/deployments/no%2Fsuch/embeddings{query}"
    error = (await shared_client.post(path, body)).refused(404, "model_not_found")
    assert "no/such" in error["message"]


async def test_azures_client_embeds(shared_client: Client) -> None:
    azure = openai.AsyncAzureOpenAI(
        azure_endpoint=shared_client.url, api_key="any", api_version="2024-10-21", max_retries=0
    )
    async with azure:
        answer = await azure.embeddings.create(model="toy", input=["cat", "dog"])
    assert np.allclose(answer.data[1].embedding, toy_vector("dog"), atol=1e-6)


async def test_who_asks_is_logged_as_a_hash(
    shared_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "memoryd.access"):
        for user in ("kim@example.com", "lee@example.com", "kim@example.com", None):
            (await embed(shared_client, user=user)).ok()
    kim, lee, again, nobody = (record.fields["user"] for record in caplog.records)
    assert kim == again != lee
    assert nobody == ""
    assert "example.com" not in caplog.text
