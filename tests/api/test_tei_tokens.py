# the letters of other scripts are meant
"""POST /tokenize with `inputs`, and /decode, as text-embeddings-inference's clients know them."""

from typing import Any

import pytest
from toys import BEGIN, CAT_ID, END
from wire import Answer, Client

CLS, SEP = 101, 102


def special(token: int, text: str) -> dict[str, Any]:
    return {"id": token, "text": text, "special": True, "start": None, "stop": None}


def part(token: int, text: str, start: int | None, stop: int | None) -> dict[str, Any]:
    return {"id": token, "text": text, "special": False, "start": start, "stop": stop}


async def tokenize(client: Client, inputs: Any, **fields: Any) -> Answer:
    return await client.post("/tokenize", {"inputs": inputs, **fields})


async def decode(client: Client, ids: Any, **fields: Any) -> Answer:
    return await client.post("/decode", {"ids": ids, **fields})


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_each_token_is_told_with_its_place(real_client: Client, path: str) -> None:
    answer = await real_client.post(path, {"inputs": ["The  Sky's", "naïve ☃ x"]})
    assert answer.ok() == [
        [
            special(CLS, "[CLS]"),
            part(1996, "The", 0, 3),
            part(3712, "Sky", 5, 8),
            part(1005, "'", 8, 9),
            part(1055, "s", 9, 10),
            special(SEP, "[SEP]"),
        ],
        [
            special(CLS, "[CLS]"),
            part(15743, "naïve", 0, 5),
            part(100, "☃", 6, 7),
            part(1060, "x", 8, 9),
            special(SEP, "[SEP]"),
        ],
    ]


async def test_one_text_gives_a_list_of_one(shared_client: Client) -> None:
    expected = [[special(BEGIN, "<begin>"), part(CAT_ID, "cat", 0, 3), special(END, "<end>")]]
    for fields in ({}, {"add_special_tokens": True}, {"add_special_tokens": None}):
        assert (await tokenize(shared_client, "cat", **fields)).ok() == expected
    assert (await tokenize(shared_client, "")).ok() == [[expected[0][0], expected[0][2]]]


async def test_special_tokens_are_left_out_where_that_is_said(shared_client: Client) -> None:
    answer = await tokenize(shared_client, "cat", add_special_tokens=False)
    assert answer.ok() == [[part(CAT_ID, "cat", 0, 3)]]


async def test_special_tokens_in_a_text_are_text(real_client: Client) -> None:
    [tokens] = (await tokenize(real_client, "[SEP]", add_special_tokens=False)).ok()
    assert SEP not in [token["id"] for token in tokens]
    assert "".join(token["text"] for token in tokens) == "[SEP]"


async def test_tokens_that_nothing_spells_have_no_place(shared_client: Client) -> None:
    [tokens] = (await tokenize(shared_client, "cat zebra zebra dog")).ok()
    assert [(token["start"], token["stop"]) for token in tokens[1:-1]] == [
        (0, 3),
        (None, None),
        (None, None),
        (16, 19),
    ]
    assert tokens[2]["text"] == "<unknown>"


async def test_the_model_can_be_named(shared_client: Client) -> None:
    default = (await tokenize(shared_client, "cat")).ok()
    assert (await tokenize(shared_client, "cat", model="all-minilm")).ok() != default
    for answer in (
        await tokenize(shared_client, "cat", model="nobody"),
        await decode(shared_client, [5], model="nobody"),
    ):
        assert (answer.status, answer.json["error_type"]) == (404, "Validation")
    assert (await decode(shared_client, [1996], model="all-minilm")).ok() == ["the"]


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        ([CLS, 1996, 3712, SEP], ["the sky"]),
        ([[CLS, 1996, SEP], [3712]], ["the", "sky"]),
        ([2339, 1029], ["why?"]),
    ],
)
async def test_ids_are_decoded(real_client: Client, ids: Any, texts: list[str]) -> None:
    for fields in ({}, {"skip_special_tokens": True}, {"skip_special_tokens": None}):
        assert (await decode(real_client, ids, **fields)).ok() == texts


async def test_special_tokens_are_decoded_where_that_is_said(real_client: Client) -> None:
    [text] = (await decode(real_client, [CLS, 1996, SEP], skip_special_tokens=False)).ok()
    assert text.replace(" ", "") == "[CLS]the[SEP]"


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/tokenize", {"inputs": []}, 400, "Empty"),
        ("/tokenize", {"inputs": 5}, 422, "Validation"),
        ("/tokenize", {"inputs": [5]}, 422, "Validation"),
        ("/tokenize", {"inputs": ["cat", None]}, 422, "Validation"),
        ("/tokenize", {"inputs": "cat", "add_special_tokens": "no"}, 422, "Validation"),
        ("/tokenize", {"inputs": "cat", "prompt_name": "passage"}, 422, "Validation"),
        ("/tokenize", {"inputs": ["cat"] * 2049}, 413, "Validation"),
        ("/decode", {"ids": []}, 400, "Empty"),
        ("/decode", {}, 422, "Validation"),
        ("/decode", {"ids": None}, 422, "Validation"),
        ("/decode", {"ids": "cat"}, 422, "Validation"),
        ("/decode", {"ids": [[]]}, 422, "Validation"),
        ("/decode", {"ids": [5, [5]]}, 422, "Validation"),
        ("/decode", {"ids": [True]}, 422, "Validation"),
        ("/decode", {"ids": [-1]}, 422, "Validation"),
        ("/decode", {"ids": [10_000]}, 422, "Validation"),
        ("/decode", {"ids": [5], "skip_special_tokens": 1}, 422, "Validation"),
        ("/decode", {"ids": [[5]] * 2049}, 413, "Validation"),
    ],
)
async def test_errors_have_teis_shape(
    shared_client: Client, path: str, body: Any, status: int, kind: str
) -> None:
    answer = await shared_client.post(path, body)
    assert answer.status == status
    assert set(answer.json) == {"error", "error_type"}
    assert answer.json["error_type"] == kind
