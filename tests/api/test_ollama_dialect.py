"""POST /api/embed, as Ollama's clients know it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Running, Serve
from toys import DIMENSIONS, MAX_TOKENS, ToyLoader, toy_vector
from wire import Answer, Client

from memoryd.embeddings.engine import Engine


async def embed(client: Client, input_: Any = "cat", **fields: Any) -> Answer:
    return await client.post("/api/embed", {"model": "toy", "input": input_, **fields})


async def vectors(client: Client, input_: Any, **fields: Any) -> Any:
    return np.array((await embed(client, input_, **fields)).ok()["embeddings"])


def told(answer: Answer, status: int) -> str:
    """Return the text of an error in Ollama's shape."""
    assert answer.status == status, answer.data
    assert set(answer.json) == {"error"}
    text: str = answer.json["error"]
    assert isinstance(text, str)
    return text


async def test_the_answer_has_ollamas_fields(shared_client: Client) -> None:
    answer = (await embed(shared_client, ["cat", "dog cat"], model="Toy")).ok()
    assert set(answer) == {
        *("model", "embeddings", "total_duration", "load_duration", "prompt_eval_count")
    }
    assert answer["model"] == "Toy"
    assert answer["prompt_eval_count"] == 3 + 4
    assert 0 < answer["load_duration"] < answer["total_duration"] < 10**10
    expected = [toy_vector("cat"), toy_vector("dog cat")]
    assert np.allclose(answer["embeddings"], expected, atol=1e-6)


async def test_a_string_is_a_list_of_one(shared_client: Client) -> None:
    assert (await vectors(shared_client, "cat")).shape == (1, DIMENSIONS)


async def test_many_inputs_come_back_in_order(shared_client: Client) -> None:
    words = ["cat", "dog", "fish dog", "cat cat cat"] * 800
    got = await vectors(shared_client, words)
    assert np.allclose(got, [toy_vector(word) for word in words[:4]] * 800, atol=1e-6)


@pytest.mark.parametrize("data", [b"", b"   "])
async def test_no_body(shared_client: Client, data: bytes) -> None:
    answer = await shared_client.ask("POST", "/api/embed", data=data)
    assert told(answer, 400) == "missing request body"


@pytest.mark.parametrize("data", [b"nonsense", b"{", b"[" * 100_000, b'{"model": NaN}'])
async def test_what_is_not_json_is_400(shared_client: Client, data: bytes) -> None:
    told(await shared_client.ask("POST", "/api/embed", data=data), 400)


@pytest.mark.parametrize("data", [b"[]", b"5", b'"toy"', b"true"])
async def test_a_body_that_is_no_object_is_400(shared_client: Client, data: bytes) -> None:
    told(await shared_client.ask("POST", "/api/embed", data=data), 400)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": 5},
        {"truncate": "yes"},
        {"dimensions": 2.5},
        {"dimensions": "x"},
        {"options": []},
        {"options": "x"},
    ],
)
async def test_a_field_of_the_wrong_type_is_400(
    shared_client: Client, fields: dict[str, Any]
) -> None:
    told(await embed(shared_client, **fields), 400)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "x"])
async def test_the_content_type_does_not_matter(shared_client: Client, content_type: str) -> None:
    body = b'{"model": "toy", "input": "cat"}'
    headers = {"Content-Type": content_type}
    answer = await shared_client.ask("POST", "/api/embed", data=body, headers=headers)
    assert len(answer.ok()["embeddings"]) == 1


@pytest.mark.parametrize("rest", [b"garbage", b'{"model": "other"}', b"\n\n}", b"\x00\xff"])
async def test_bytes_after_the_value_are_ignored(shared_client: Client, rest: bytes) -> None:
    body = b' {"model": "toy", "input": "cat"}' + rest
    answer = await shared_client.ask("POST", "/api/embed", data=body)
    assert len(answer.ok()["embeddings"]) == 1


async def test_unknown_fields_are_ignored_and_null_is_absent(shared_client: Client) -> None:
    options = {"mirostat": None, "num_ctx": None, "num_thread": 4, "temperature": 0.5}
    nulls = {"truncate": None, "dimensions": None, "keep_alive": None, "options": None}
    for fields in (nulls, {"options": options, "keep_alive": "5m", "prompt": 5, "images": []}):
        assert (await vectors(shared_client, "cat", **fields)).shape == (1, DIMENSIONS)


async def test_keys_match_whatever_their_case(shared_client: Client) -> None:
    body = {"MODEL": "toy", "Input": ["cat"], "Options": {}}
    assert len((await shared_client.post("/api/embed", body)).ok()["embeddings"]) == 1


@pytest.mark.parametrize("model", [None, ""])
async def test_a_missing_model_is_404(shared_client: Client, model: str | None) -> None:
    assert told(await embed(shared_client, model=model), 404) == "model '' not found"


async def test_an_unknown_model_is_404_in_ollamas_words(shared_client: Client) -> None:
    answer = await embed(shared_client, model="xyz")
    assert told(answer, 404) == 'model "xyz" not found, try pulling it first'
    answer = await embed(shared_client, [], model="xyz")
    assert told(answer, 404) == 'model "xyz" not found, try pulling it first'


@pytest.mark.parametrize("model", ["a b", "..", "a:b:c", "/a", "a/", "-a", "a\nb", "x" * 200])
async def test_a_name_that_can_be_no_models_is_400(shared_client: Client, model: str) -> None:
    assert told(await embed(shared_client, model=model), 400) == "invalid model name"


@pytest.mark.parametrize("model", [None, "", "a b"])
async def test_names_are_looked_at_before_inputs(shared_client: Client, model: str | None) -> None:
    answer = await embed(shared_client, 5, model=model)
    assert told(answer, 400 if model else 404) != "invalid input type"


async def test_a_model_is_known_by_latest_and_in_any_case(real_client: Client) -> None:
    for name in ("all-minilm:latest", "ALL-MINILM", " all-minilm ", "all-minilm:22m"):
        answer = await real_client.post("/api/embed", {"model": name, "input": "x"})
        assert answer.ok()["model"] == name


@pytest.mark.parametrize("input_", [None, "", []])
async def test_no_input_loads_the_model_only(shared_client: Client, input_: Any) -> None:
    answer = await embed(shared_client, input_)
    assert answer.ok() == {"model": "toy", "embeddings": []}
    assert answer.headers["X-Truncated-Inputs"] == "0"


async def test_an_absent_input_loads_the_model_only(shared_client: Client) -> None:
    answer = (await shared_client.post("/api/embed", {"model": "toy"})).ok()
    assert answer["embeddings"] == []


async def test_an_empty_text_in_a_list_is_a_vector(shared_client: Client) -> None:
    assert (await vectors(shared_client, [""])).shape == (1, DIMENSIONS)
    assert (await vectors(shared_client, ["cat", "", " "])).shape == (3, DIMENSIONS)


async def test_an_empty_text_is_nothing_to_a_model_without_special_tokens(
    serve: Serve, models_dir: Path
) -> None:
    loader = ToyLoader(models_dir)
    loader.backend.before = loader.backend.after = np.empty(0, dtype=np.int32)
    async with Engine(loader) as engine, serve(engine) as running:
        text = "input exceeds maximum context length and cannot be truncated further"
        assert told(await embed(running.client, [""]), 400) == text
        assert told(await embed(running.client, ["cat", ""]), 400) == text
        assert (await embed(running.client, ["cat"])).ok()["prompt_eval_count"] == 1


@pytest.mark.parametrize("input_", [5, True, {}, [1, 2], ["a", 1], [["a"]], [None], 1.5])
async def test_an_input_of_another_type_is_refused_before_the_model_is_looked_for(
    shared_client: Client, input_: Any
) -> None:
    for model in ("toy", "xyz"):
        assert told(await embed(shared_client, input_, model=model), 400) == "invalid input type"


LONG = "cat " * MAX_TOKENS


async def test_a_long_input_is_cut_and_counted_after_the_cut(shared_client: Client) -> None:
    for fields in ({}, {"truncate": True}):
        answer = await embed(shared_client, [LONG, "cat"], **fields)
        assert answer.ok()["prompt_eval_count"] == MAX_TOKENS + 3
        assert answer.headers["X-Truncated-Inputs"] == "1"
    assert (await embed(shared_client, "cat")).headers["X-Truncated-Inputs"] == "0"


async def test_a_long_input_is_refused_where_cutting_is_not_wanted(shared_client: Client) -> None:
    answer = await embed(shared_client, ["cat", LONG], truncate=False)
    assert told(answer, 400) == "the input length exceeds the context length"
    exact = "cat " * (MAX_TOKENS - 2)
    (await embed(shared_client, exact, truncate=False)).ok()


async def test_num_ctx_is_a_bound_on_what_is_kept(shared_client: Client) -> None:
    for num_ctx, count in ((3, 3), (10, 10), (10_000, MAX_TOKENS), (0, MAX_TOKENS)):
        answer = await embed(shared_client, LONG, options={"num_ctx": num_ctx})
        assert answer.ok()["prompt_eval_count"] == count
    refused = await embed(shared_client, LONG, truncate=False, options={"num_ctx": 10})
    assert told(refused, 400) == "the input length exceeds the context length"
    answer = await embed(shared_client, ["dog cat cat"], options={"num_ctx": 3})
    assert np.allclose(answer.ok()["embeddings"], [toy_vector("dog")])


@pytest.mark.parametrize("num_ctx", [1, 2])
async def test_a_num_ctx_that_leaves_no_token_is_400(shared_client: Client, num_ctx: int) -> None:
    answer = await embed(shared_client, options={"num_ctx": num_ctx})
    assert told(answer, 400) == "input after truncation exceeds maximum context length"


@pytest.mark.parametrize("num_ctx", ["a", 2.5, True, [], {}])
async def test_a_num_ctx_of_another_type_is_the_clients_error(
    shared_client: Client, num_ctx: Any
) -> None:
    answer = await embed(shared_client, options={"num_ctx": num_ctx})
    assert told(answer, 400) == 'option "num_ctx" must be of type integer'


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"num_batch": "a"}, "integer"),
        ({"num_gpu": 1.5}, "integer"),
        ({"main_gpu": True}, "integer"),
        ({"num_thread": []}, "integer"),
        ({"use_mmap": 1}, "boolean"),
    ],
)
async def test_an_option_of_another_type_is_the_clients_error(
    shared_client: Client, options: dict[str, Any], kind: str
) -> None:
    [name] = options
    answer = await embed(shared_client, options=options)
    assert told(answer, 400) == f'option "{name}" must be of type {kind}'


async def test_numbers_without_a_fraction_are_integers(shared_client: Client) -> None:
    answer = await embed(shared_client, LONG, options={"num_ctx": 10.0})
    assert answer.ok()["prompt_eval_count"] == 10


async def test_no_option_loads_the_model_again(running: Running) -> None:
    model = await running.memory.engine.model("toy")
    for options in ({"num_ctx": 8}, {"num_ctx": 4096, "num_gpu": 7, "use_mmap": False}, {}):
        (await embed(running.client, options=options)).ok()
    assert await running.memory.engine.model("toy") is model


@pytest.mark.parametrize("fields", [{"images": ["aGk="]}, {"input": [{"image_url": "x"}]}])
async def test_images_are_refused(shared_client: Client, fields: dict[str, Any]) -> None:
    body = {"model": "toy", "input": "cat", **fields}
    answer = await shared_client.post("/api/embed", body)
    assert told(answer, 400) == "this model embeds text only"


async def test_dimensions_slice_and_normalize_again(shared_client: Client) -> None:
    whole = toy_vector("cat dog horse lemon")
    got = await vectors(shared_client, "cat dog horse lemon", dimensions=4)
    assert got.shape == (1, 4)
    assert np.allclose(got[0], whole[:4] / np.linalg.norm(whole[:4]), atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, -1, DIMENSIONS, DIMENSIONS + 1, 10**6, 2**62])
async def test_dimensions_that_do_not_shorten_are_ignored(
    shared_client: Client, dimensions: int
) -> None:
    answer = await embed(shared_client, dimensions=dimensions)
    assert np.shape(answer.ok()["embeddings"]) == (1, DIMENSIONS)
    assert "Warning" not in answer.headers


async def test_more_dimensions_are_zeros_where_that_is_set(serve: Serve) -> None:
    async with serve(pad_dimensions=True) as running:
        answer = await embed(running.client, dimensions=DIMENSIONS + 4)
        [got] = answer.ok()["embeddings"]
        assert np.allclose(got, [*toy_vector("cat"), 0, 0, 0, 0])
        assert "Warning" in answer.headers


async def test_a_vector_cut_to_nothing_stays_zero(shared_client: Client) -> None:
    got = await vectors(shared_client, "black", dimensions=3)
    assert got.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    "raw",
    [
        rb'"\ud800"',
        rb'"a \udc00\ud800 b"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"a\xc3"',
        rb'"\u0000"',
        rb'["\ud83d", "\u0000\u0001\u007f", "\uffff\ufffe"]',
    ],
)
async def test_broken_unicode_becomes_a_vector(real_client: Client, raw: bytes) -> None:
    body = b'{"model": "all-minilm", "input": ' + raw + b"}"
    answer = await real_client.ask("POST", "/api/embed", data=body)
    got = np.array(answer.ok()["embeddings"])
    assert np.isfinite(got).all()
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


async def test_both_halves_of_a_pair_are_one_character(real_client: Client) -> None:
    texts = [b'["\\ud83d\\ude00 \\ud800"]', '["😀 \ufffd"]'.encode()]
    got = [
        (
            await real_client.ask(
                "POST", "/api/embed", data=b'{"model": "all-minilm", "input": ' + text + b"}"
            )
        ).ok()["embeddings"]
        for text in texts
    ]
    assert np.allclose(got[0], got[1], atol=1e-6)


async def test_a_nan_is_told_and_fails_nobody_else(shared_client: Client) -> None:
    bad, good = await asyncio.gather(
        embed(shared_client, ["cat", "nan"]), embed(shared_client, ["cat", "dog"])
    )
    assert "1" in told(bad, 400)
    assert np.isfinite(good.ok()["embeddings"]).all()


async def test_overload_is_503_in_ollamas_words_and_says_when_to_return(serve: Serve) -> None:
    async with serve(max_waiting_requests=1) as running:
        gate = await close_gate(running)
        waiting = [asyncio.create_task(embed(running.client, ["cat"] * 600)) for _ in range(20)]
        done, _ = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        answer = done.pop().result()
        expected = "server busy, please try again.  maximum pending requests exceeded"
        assert told(answer, 503) == expected
        assert int(answer.headers["Retry-After"]) >= 1
        openai = {"model": "toy", "input": ["cat"]}
        refused = await running.client.post("/v1/embeddings", openai)
        refused.refused(429)
        assert int(refused.headers["Retry-After"]) >= 1
        gate.set()
        statuses = {(await task).status for task in waiting}
        assert statuses == {200, 503}


async def close_gate(running: Running) -> Any:
    model = await running.memory.engine.model("toy")
    gate = model._backend.gate  # type: ignore[attr-defined] # the toy's
    gate.clear()
    return gate


async def test_curls_own_request_works(real_client: Client) -> None:
    body = json.dumps({"model": "all-minilm", "input": ["why is the sky blue?"]})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await real_client.ask("POST", "/api/embed", data=body, headers=headers)
    assert answer.ok()["prompt_eval_count"] == 8
    start = answer.json["embeddings"][0][:4]
    assert start == pytest.approx([0.010071, -0.001759, 0.050072, 0.046930], abs=1.5e-3)
